// From what is on the disk to a running state: checkpoint, journal, counts. Reads only; running it again gives the same state.
import { isDeepStrictEqual } from 'node:util'
import type { Disk, DiskFile } from '../core/disk.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import type { GenerationRecord } from '../core/operation.js'
import type { StoreId } from '../core/units.js'
import { applyOperation, type OperationEvent } from './apply-operation.js'
import { type CheckpointState, checkpointName, readCheckpoint } from './checkpoint.js'
import type { ChunkAllocator } from './chunk-allocator.js'
import type { ChunkMap, ChunkPage } from './chunk-map.js'
import { readFully, writeFully } from './disk-io.js'
import type { GroupState } from './group-state.js'
import { Journal, journalNames } from './journal.js'
import type { PoolKeeper } from './page-keeper.js'
import { visitRecords } from './records.js'

/** In the journal at each start: what follows belongs to this generation. */
export type OpenEvent = { readonly kind: 'open'; readonly generation?: GenerationRecord }

export type Recovered = {
  readonly state: GroupState
  readonly described: CheckpointState
  readonly journal: Journal
  readonly data: DiskFile
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
export async function recover(disk: Disk, keeper: PoolKeeper): Promise<Recovered> {
  const { described, state } = await loadCheckpoint(disk, keeper)
  const data = await openOrExplain(disk, described.dataName)
  const label: DataLabel = {
    magic: 'LOCKSTEP DATA',
    version: 1,
    node: state.nodeId,
    chunkBytes: state.chunkBytes,
  }
  if (!isDeepStrictEqual(await readLabel(data), label)) {
    throw new LockstepError(
      'CORRUPT',
      `the data file "${described.dataName}" does not belong to this data directory`,
      'nothing was changed; check the mount or the device name, and put the right file back',
    )
  }
  const files: DiskFile[] = []
  for (const name of journalNames) files.push(await openOrExplain(disk, name))
  const salt = Buffer.from(described.journalSalt, 'hex')
  const journal = await Journal.open(
    files,
    { salt, coveredNumber: described.batchNumber },
    (payload, sequence) => {
      replayBatch(state, keeper, payload)
      state.sequence = Math.max(state.sequence, sequence)
    },
  )
  const wasClean = described.isClean && journal.lastNumber === described.batchNumber
  return { state, described, journal, data, wasClean }
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
        if (place >= placeEnd)
          throw corrupt(`the data file "${state.dataName}" is shorter than the chunks in it`)
        allocator.countReference(place)
      }
    }
  }
}

async function loadCheckpoint(
  disk: Disk,
  keeper: PoolKeeper,
): Promise<{ readonly described: CheckpointState; readonly state: GroupState }> {
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

async function openOrExplain(disk: Disk, name: string): Promise<DiskFile> {
  try {
    return await disk.open(name)
  } catch (error) {
    if (errnoNameOf(error) === 'ENOENT') throw corrupt(`the file "${name}" is missing`)
    throw error
  }
}

function replayBatch(state: GroupState, keeper: PoolKeeper, payload: Buffer): void {
  const mapOf = (id: number): ChunkMap => {
    const store = state.stores.get(id as StoreId)
    if (store === undefined) throw corrupt(`the journal changes store ${id}, which does not exist`)
    return store.map
  }
  visitRecords(payload, {
    set: (storeId, chunk, place) => mapOf(storeId).set(chunk, place),
    unmap: (storeId, first, end) => mapOf(storeId).unmap(first, end),
    event: (event) => replayEvent(state, keeper, event as OperationEvent | OpenEvent),
  })
}

function replayEvent(
  state: GroupState,
  keeper: PoolKeeper,
  event: OperationEvent | OpenEvent,
): void {
  if (event.kind === 'operation') applyOperation(state, keeper, event)
  else if (event.kind === 'open') {
    if (event.generation !== undefined) state.generations = [...state.generations, event.generation]
  } else throw corrupt('the journal has an event of an unknown kind')
}

function corrupt(what: string): LockstepError {
  return new LockstepError(
    'CORRUPT',
    `the data directory is damaged: ${what}`,
    'nothing was changed; restore the directory from a backup, or make this node a new secondary of its peer',
  )
}
