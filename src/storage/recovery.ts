// From what is on the disk to a running state: checkpoint, journal, counts. Reads only; running it again gives the same state.
import { isDeepStrictEqual } from 'node:util'
import type { Disk, DiskFile } from '../core/disk.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { type RunRecord, type Sighting, withRun } from '../core/node-runs.js'
import type { GenerationRecord } from '../core/operation.js'
import type { Position, StoreId } from '../core/units.js'
import { ActiveSet } from './active-set.js'
import {
  applyLocal,
  applyOperation,
  type LocalEvent,
  type OperationEvent,
} from './apply-operation.js'
import {
  type CheckpointState,
  checkpointName,
  type LoadedCheckpoint,
  readCheckpoint,
} from './checkpoint.js'
import type { ChunkAllocator } from './chunk-allocator.js'
import type { ChunkMap, ChunkPage } from './chunk-map.js'
import { damaged, offeringPeer } from './corrupt.js'
import { readFully, writeFully } from './disk-io.js'
import { type GroupState, withGeneration } from './group-state.js'
import { Journal, journalNames } from './journal.js'
import type { PoolKeeper } from './page-keeper.js'
import { type RecordVisitor, visitRecords } from './records.js'
import { Tracking } from './tracking.js'
import type { TrackingState } from './tracking-sections.js'

/** In the journal at each start: what follows belongs to this generation. */
export type OpenEvent = {
  readonly kind: 'open'
  readonly run?: RunRecord
  readonly generation?: GenerationRecord
}

/** Changes of the state that are no operations. */
export type StateEvent =
  | OpenEvent
  | LocalEvent
  /** The first step of a resync on a secondary. */
  | { readonly kind: 'not-whole' }
  /** Tracking begins for this node, or ends. */
  | { readonly kind: 'peer'; readonly nodeId?: string }
  | { readonly kind: 'acknowledged'; readonly position: Position }
  | { readonly kind: 'tracking-lost' }
  /** On a secondary: what its primary has told of its journal. */
  | { readonly kind: 'seen'; readonly sighting: Sighting }

export type Recovered = {
  readonly state: GroupState
  readonly described: CheckpointState
  readonly journal: Journal
  readonly data: DiskFile
  /** There when the state has a peer. As of the newest entry that the journal says has left. */
  readonly tracking: TrackingState | undefined
  /** False when the node did not stop in order. */
  readonly wasClean: boolean
}

/** The first bytes of the data file, so that another pool's file is never taken for this one's. */
export type DataLabel = {
  readonly magic: 'LOCKSTEP DATA'
  readonly version: 1
  readonly node: string
  readonly chunkBytes: number
}

const labelBytes = 512

export async function writeLabel(file: DiskFile, label: DataLabel): Promise<void> {
  const bytes = Buffer.alloc(labelBytes)
  bytes.write(JSON.stringify(label))
  await writeFully(file, [bytes], 0)
}

/** The label of a data file, or undefined when there is none. */
export async function readLabel(file: DiskFile): Promise<unknown> {
  const bytes = Buffer.alloc(labelBytes)
  await readFully(file, bytes, 0)
  try {
    return JSON.parse(bytes.toString('utf8').replace(/\0+$/, ''))
  } catch {
    return undefined
  }
}

/** Throws NOT_INITIALISED, CORRUPT, WRONG_VERSION, or the disk's errors. */
export async function recover(
  disk: Disk,
  keeper: PoolKeeper,
  mutants: ReadonlySet<string> = new Set(),
): Promise<Recovered> {
  let state: GroupState | undefined
  try {
    const loaded = await loadCheckpoint(disk, keeper)
    state = loaded.state
    return await recoverFrom(loaded, { disk, keeper, mutants })
  } catch (error) {
    throw offeringPeer(error, state)
  }
}

async function recoverFrom(
  loaded: LoadedCheckpoint,
  options: {
    readonly disk: Disk
    readonly keeper: PoolKeeper
    readonly mutants: ReadonlySet<string>
  },
): Promise<Recovered> {
  const { disk, keeper, mutants } = options
  const { described, state } = loaded
  const data = await openOrExplain(disk, described.dataName, { alone: true })
  const label: DataLabel = {
    magic: 'LOCKSTEP DATA',
    version: 1,
    node: state.nodeId,
    chunkBytes: state.chunkBytes,
  }
  if (!isDeepStrictEqual(await readLabel(data), label))
    throw await strangeData(data, described.dataName)
  const files: DiskFile[] = []
  for (const name of journalNames) files.push(await openOrExplain(disk, name))
  const salt = Buffer.from(described.journalSalt, 'hex')
  const replay = new Replay(state, keeper, { tracking: loaded.tracking, mutants })
  const journal = await Journal.open(
    files,
    { salt, coveredNumber: described.batchNumber },
    (payload, sequence) => {
      visitRecords(payload, replay)
      state.sequence = Math.max(state.sequence, sequence)
    },
  )
  const wasClean = described.isClean && journal.lastNumber === described.batchNumber
  return { state, described, journal, data, tracking: replay.tracking, wasClean }
}

async function strangeData(data: DiskFile, name: string): Promise<LockstepError> {
  const sizeBytes = await data.sizeBytes()
  if (sizeBytes < labelBytes)
    return damaged(`the data file "${name}" was emptied: it has ${sizeBytes} bytes`)
  return new LockstepError(
    'CORRUPT',
    `the data file "${name}" does not belong to this data directory`,
    'nothing was changed; check the mount or the device name, and put the right file back',
  )
}

/** Counts every page's references once. Throws CORRUPT for a place from `placeEnd` on: a chunk is in the file before a map names it, so the file was cut. */
export function countReferences(
  state: GroupState,
  allocator: ChunkAllocator,
  placeEnd: number,
): void {
  const seen = new Set<ChunkPage>()
  for (const store of state.stores.values()) {
    for (const page of store.map.pages.values()) {
      if (seen.has(page)) continue
      seen.add(page)
      for (const place of page.entries) {
        if (place === 0) continue
        if (place >= placeEnd) throw offeringPeer(cutData(state, place), state)
        allocator.countReference(place)
      }
    }
  }
}

function cutData(state: GroupState, place: number): LockstepError {
  const offset = place * state.chunkBytes
  return damaged(
    `the data file "${state.dataName}" was cut: a chunk in it is at byte ${offset}, behind its end`,
  )
}

async function loadCheckpoint(disk: Disk, keeper: PoolKeeper): Promise<LoadedCheckpoint> {
  const names = await disk.list()
  if (!names.includes(checkpointName)) {
    if (names.includes(journalNames[0])) throw corrupt(`the file "${checkpointName}" is missing`)
    throw new LockstepError(
      'NOT_INITIALISED',
      'there is no pool in this directory',
      'create one: lockstep init DIR',
    )
  }
  const file = await disk.open(checkpointName)
  try {
    return await readCheckpoint(file, keeper)
  } finally {
    await file.close()
  }
}

async function openOrExplain(
  disk: Disk,
  name: string,
  options: { readonly alone?: boolean } = {},
): Promise<DiskFile> {
  try {
    return await disk.open(name, options)
  } catch (error) {
    if (errnoNameOf(error) === 'ENOENT') throw corrupt(`the file "${name}" is missing`)
    throw error
  }
}

/** Does again what the journal says, in its order. */
class Replay implements RecordVisitor {
  readonly #state: GroupState
  readonly #keeper: PoolKeeper
  readonly #mutants: ReadonlySet<string>
  #early = new ActiveSet()
  tracking: TrackingState | undefined

  constructor(
    state: GroupState,
    keeper: PoolKeeper,
    options: {
      readonly tracking: TrackingState | undefined
      readonly mutants: ReadonlySet<string>
    },
  ) {
    this.#state = state
    this.#keeper = keeper
    this.#mutants = options.mutants
    this.#begin(options.tracking)
  }

  set(storeId: number, chunk: number, place: number): void {
    this.#mapOf(storeId).set(chunk, place)
  }

  unmap(storeId: number, first: number, end: number): void {
    this.#mapOf(storeId).unmap(first, end)
  }

  dirty(storeId: number, first: number, end: number): void {
    this.tracking?.tracking.replayDirty(storeId as StoreId, { first, end })
  }

  clean(storeId: number, first: number, end: number): void {
    this.tracking?.tracking.replayClean(storeId as StoreId, { first, end })
  }

  active(storeId: number, first: number, end: number): void {
    const active = this.tracking?.active ?? this.#early
    active.add(storeId as StoreId, { first, end }, 'active')
  }

  inactive(storeId: number, first: number, end: number): void {
    this.tracking?.active.removeRun(storeId as StoreId, { first, end })
  }

  left(sequence: number, isHad: boolean): void {
    this.tracking?.tracking.replayLeft(sequence, isHad)
  }

  differs(storeId: number, first: number, end: number): void {
    this.tracking?.tracking.replayDiffers(storeId as StoreId, { first, end })
  }

  same(storeId: number, first: number, end: number): void {
    this.tracking?.tracking.replaySame(storeId as StoreId, { first, end })
  }

  event(found: unknown): void {
    const event = found as OperationEvent | StateEvent
    const state = this.#state
    switch (event.kind) {
      case 'operation':
        this.#operation(event)
        return
      case 'local':
        applyLocal(state, this.#keeper, event)
        return
      case 'open':
        this.#open(event)
        return
      case 'seen':
        state.primarySeen = event.sighting
        return
      case 'not-whole':
        state.isWhole = false
        return
      case 'peer':
        this.#peer(event.nodeId)
        return
      case 'acknowledged':
        this.tracking?.tracking.acknowledged(event.position)
        return
      case 'tracking-lost':
        this.tracking?.tracking.replayLost()
        return
      default:
        throw corrupt('the journal has an event of an unknown kind')
    }
  }

  #open(event: OpenEvent): void {
    const state = this.#state
    if (event.run !== undefined) state.runs = withRun(state.runs, event.run)
    if (event.generation !== undefined)
      state.generations = withGeneration(state.generations, event.generation)
  }

  #operation(event: OperationEvent): void {
    const state = this.#state
    applyOperation(state, this.#keeper, event)
    if (this.tracking === undefined) return
    const { tracking, active } = this.tracking
    if (event.operation.kind === 'reset')
      tracking.reset(event, state.stores.values(), state.chunkBytes)
    else {
      tracking.performed(event)
      active.perform(event.operation)
    }
  }

  #peer(nodeId: string | undefined): void {
    const peer = nodeId === undefined ? undefined : { nodeId, acknowledged: undefined }
    this.#state.peer = peer
    // A write behind the step that began the tracking may be active before the record of that step is there.
    this.#begin(peer && { tracking: new Tracking(peer), active: this.#early })
    this.#early = new ActiveSet()
  }

  #begin(tracking: TrackingState | undefined): void {
    this.tracking = tracking
    if (tracking === undefined) return
    tracking.tracking.mutants = this.#mutants
    tracking.active.forgetsSnapshots = this.#mutants.has('snapshot-forgets-active')
  }

  #mapOf(id: number): ChunkMap {
    const store = this.#state.stores.get(id as StoreId)
    if (store === undefined) throw corrupt(`the journal changes store ${id}, which does not exist`)
    return store.map
  }
}

function corrupt(what: string): LockstepError {
  return damaged(`the data directory is damaged: ${what}`)
}
