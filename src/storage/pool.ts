// The pool: one group's stores on one data file. Puts the parts together and owns their life: create, open with recovery, checkpoints, close.
//
// The engine calls read, write, zero and perform in the order of the group; the pool makes each of them atomic against crashes, and `commit` durable.
import assert, { AssertionError } from 'node:assert/strict'
import type { Clock, Random } from '../core/clock.js'
import type { Disk, DiskFile } from '../core/disk.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import type { Log } from '../core/log.js'
import { type Sighting, withRun } from '../core/node-runs.js'
import type { Operation } from '../core/operation.js'
import type { Generation, Sequence, StoreId } from '../core/units.js'
import { ActiveSet } from './active-set.js'
import {
  applyLocal,
  applyOperation,
  type LocalOperation,
  type OperationEvent,
  sharedChunks,
} from './apply-operation.js'
import {
  checkpointName,
  checkpointTemporaryName,
  describeState,
  writeCheckpoint,
} from './checkpoint.js'
import { ChunkAllocator } from './chunk-allocator.js'
import { Committer } from './committer.js'
import { DataPath } from './data-path.js'
import {
  type GroupState,
  presentGeneration,
  type Store,
  storeOf,
  withGeneration,
} from './group-state.js'
import { checkPoolInvariants } from './invariants.js'
import type { Journal } from './journal.js'
import { PoolKeeper } from './page-keeper.js'
import { PoolTracking } from './pool-tracking.js'
import { Reclaimer } from './reclaimer.js'
import {
  countReferences,
  type OpenEvent,
  type Recovered,
  recover,
  type StateEvent,
} from './recovery.js'
import { Tracking } from './tracking.js'
import { type TrackingState, thawTracking } from './tracking-sections.js'

export type PoolOptions = {
  readonly disk: Disk
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Switchable bugs, for the proofs only. */
  readonly mutants?: ReadonlySet<string>
  /** The newest sequence with every entry up to it applied; undefined before the engine gives any out. */
  readonly appliedSequence: () => number | undefined
  readonly onEvent: (event: {
    readonly kind: 'checkpoint' | 'failure' | 'no-space'
    readonly message: string
  }) => void
  /** Writers wait, and only entries that leave the outbox make room for what they write: every extent that may be active is. */
  readonly onActiveFull?: () => void
  /** Other bounds of the active set than those of limits.ts: for tests. */
  readonly activeLimits?: { readonly itemsMax: number; readonly itemsPerEviction: number }
}

/** The record of a start, with a generation in it. */
const openEventBytesMax = 1024
/** The record of what a primary has shown. */
const sightingBytesMax = 256

/** Chunks that an operation needs besides the maps' sharing: prepared before its sequence, installed with it. */
export type Prepared = readonly { readonly install: () => void; readonly drop: () => void }[]

export class Pool {
  readonly #disk: Disk
  readonly #data: DiskFile
  readonly #clock: Clock
  readonly #log: Log
  readonly #onEvent: PoolOptions['onEvent']
  readonly #keeper: PoolKeeper
  readonly #journal: Journal
  readonly #allocator: ChunkAllocator
  readonly #reclaimer: Reclaimer
  readonly #committer: Committer
  readonly #io: DataPath
  readonly #capacity: number
  readonly #appliedSequence: () => number
  #checkpointing: Promise<void> | undefined
  /** After a checkpoint failed: not tried again before this batch or this time. */
  #checkpointAfterBatch = 0
  #checkpointAfterMs = 0
  #isCheckpointForced = false
  /** `close` writes the last checkpoint by itself. */
  #isClosing = false
  readonly #onActiveFull: () => void
  readonly #activeLimits: PoolOptions['activeLimits']
  readonly #mutants: ReadonlySet<string>
  #peer: PoolTracking | undefined
  /** Told by the primary, and not in the journal yet. */
  #sighting: Sighting | undefined
  readonly state: GroupState

  private constructor(
    recovered: Recovered,
    keeper: PoolKeeper,
    capacity: number,
    options: PoolOptions,
  ) {
    const { state, journal, data } = recovered
    const { clock, log } = options
    const mutants = options.mutants ?? new Set<string>()
    this.state = state
    this.#mutants = mutants
    this.#activeLimits = options.activeLimits
    this.#onActiveFull = options.onActiveFull ?? (() => {})
    this.#disk = options.disk
    this.#data = data
    this.#clock = clock
    this.#log = log
    this.#onEvent = options.onEvent
    this.#keeper = keeper
    this.#journal = journal
    this.#capacity = capacity
    this.#appliedSequence = () => options.appliedSequence() ?? state.sequence
    this.#allocator = new ChunkAllocator(capacity)
    this.#reclaimer = new Reclaimer({
      allocator: this.#allocator,
      file: data,
      chunkBytes: state.chunkBytes,
      clock,
      log,
    })
    this.#reclaimer.ignoresReaders = mutants.has('release-ignores-readers')
    journal.skipsSync = mutants.has('skip-journal-sync')
    this.#committer = new Committer({
      data,
      journal,
      reclaimer: this.#reclaimer,
      clock,
      log,
      mutants: {
        skipDataSync: mutants.has('skip-data-sync'),
        retryFailedSync: mutants.has('retry-failed-sync'),
        releaseEarly: mutants.has('reuse-before-journal'),
      },
      appliedSequence: this.#appliedSequence,
      positionStep: () => (state.role === 'secondary' ? 1 : limits.positionStep),
      beforeTaken: () => {
        this.#peer?.beforeTaken()
        this.#noteSighting()
      },
      reservedBytes: () => this.#peer?.reservedBytes ?? 0,
      onTaken: (batchNumber) => this.#checkpointAt(batchNumber),
      onFailure: (error) => this.#onEvent({ kind: 'failure', message: error.message }),
      durableSequence: state.sequence,
    })
    this.#io = new DataPath({
      file: data,
      chunkBytes: state.chunkBytes,
      allocator: this.#allocator,
      reclaimer: this.#reclaimer,
      committer: this.#committer,
      clock,
      checkpointDone: () => this.#checkpointing ?? Promise.resolve(),
      mutants,
    })
    if (recovered.tracking !== undefined) this.#peer = this.#track(recovered.tracking)
  }

  /** Opens a pool: recovers it, and marks it as running before anything changes. Rejects with a LockstepError that says what to do. */
  static async open(options: PoolOptions): Promise<Pool> {
    const keeper = new PoolKeeper()
    const recovered = await recover(options.disk, keeper, options.mutants)
    const { state, data, wasClean } = recovered
    const dataBytes = await data.sizeBytes()
    const capacity = data.isFixedSize
      ? Math.floor(dataBytes / state.chunkBytes)
      : limits.chunkPlaceMax
    const pool = new Pool(recovered, keeper, capacity, options)
    const placeEnd = Math.ceil(dataBytes / state.chunkBytes)
    countReferences(state, pool.#allocator, Math.min(placeEnd, capacity))
    pool.#allocator.raiseHighWater(placeEnd)
    keeper.goLive({ allocator: pool.#allocator, reclaimer: pool.#reclaimer })
    // What a killed process wrote is visible, and perhaps not durable: the checkpoint's name must be before the journal behind it is used
    // again, and the data with the first commit, so that a flush never answers for less than its clients see.
    await options.disk.syncDirectory()
    pool.#committer.dataWritten()
    await pool.#makeRoomToOpen()
    pool.#peer?.recover()
    pool.#noteOpen(wasClean, options.random)
    await pool.#committer.commit()
    pool.#reclaimer.sweep()
    options.log.info(
      {
        group: state.group,
        generation: presentGeneration(state),
        sequence: state.sequence,
        wasClean,
      },
      'pool open',
    )
    return pool
  }

  get failure(): LockstepError | undefined {
    return this.#committer.failure
  }

  get durableSequence(): number {
    return this.#committer.durableSequence
  }

  /** What the peer may not have; undefined as long as there is none. */
  get tracking(): Tracking | undefined {
    return this.#peer?.tracking
  }

  /** The number that the next store outside the stream gets. */
  get nextLocalId(): number {
    return this.state.nextLocalId
  }

  /** True when a flush would have nothing to do. */
  get isClean(): boolean {
    return this.#committer.isClean
  }

  get usage(): {
    readonly sizeBytes?: number
    readonly usedBytes: number
    readonly journalBytes: number
    readonly journalUsedBytes: number
  } {
    const { chunkBytes } = this.state
    return {
      ...(this.#data.isFixedSize ? { sizeBytes: this.#capacity * chunkBytes } : {}),
      usedBytes: (this.#allocator.usedCount - this.#reclaimer.freeingCount) * chunkBytes,
      journalBytes: this.#journal.sizeBytes,
      journalUsedBytes: this.#journal.sizeBytes - this.#journal.freeBytes,
    }
  }

  /** Bytes that the stores would need beyond those used if they shared nothing. */
  sharedBytes(): number {
    let referredCount = 0
    for (const store of this.state.stores.values()) referredCount += store.map.allocatedCount
    return Math.max(0, referredCount * this.state.chunkBytes - this.usage.usedBytes)
  }

  read(store: Store, offset: number, target: Buffer): Promise<void> | undefined {
    return this.#io.read(store, offset, target)
  }

  write(
    store: Store,
    offset: number,
    lengthBytes: number,
    parts: readonly Buffer[],
  ): Promise<void> | undefined {
    return this.#io.write(store, offset, lengthBytes, parts)
  }

  zero(
    store: Store,
    offset: number,
    lengthBytes: number,
    mayUnmap: boolean,
  ): Promise<void> | undefined {
    return this.#io.zero(store, offset, lengthBytes, mayUnmap)
  }

  /** Resolves when everything done before the call is on stable storage. Rejects with FAILED_STOP. */
  commit(): Promise<void> {
    return this.#committer.commit()
  }

  /** Writes the chunks that the operation shares only in part. No write to its stores may be under way until `perform` or `drop`. Rejects with NO_SPACE and nothing changed. */
  async prepare(operation: Operation): Promise<Prepared> {
    const prepared: { readonly install: () => void; readonly drop: () => void }[] = []
    const isDelete = operation.kind === 'delete'
    const needBytes = JSON.stringify(operation).length + 256
    try {
      if (!this.#committer.hasRoom(needBytes, isDelete ? 0 : limits.journalReserveBytes))
        await this.#io.reclaim()
      if (!this.#committer.hasRoom(needBytes, isDelete ? 0 : limits.journalReserveBytes / 2))
        throw journalFull()
      for (const one of operation.kind === 'batch' ? operation.operations : [operation]) {
        for (const edge of this.#edges(one)) prepared.push(await this.#io.prepareChunk(edge))
      }
      return prepared
    } catch (error) {
      for (const one of prepared) one.drop()
      throw refusalOf(error)
    }
  }

  /** Performs an operation in one synchronous step. It is durable after the next commit. */
  perform(event: OperationEvent, prepared: Prepared): void {
    applyOperation(this.state, this.#keeper, event)
    this.#committer.records.event(event)
    this.#peer?.performed(event, this.state)
    for (const one of prepared) one.install()
    this.#committer.changed()
  }

  /**
   * A change of this node's own stores (ids from `nextLocalId` on, full names), which takes no sequence and is no business of the peer's. One synchronous step;
   * durable after the next commit.
   */
  performLocal(operation: LocalOperation, prepared: Prepared = []): void {
    const at = this.#clock.wallTime().toISOString()
    applyLocal(this.state, this.#keeper, { kind: 'local', at, operation })
    this.#note({ kind: 'local', at, operation })
    for (const one of prepared) one.install()
  }

  /** A resync begins: the stores are no state that the primary ever had until `resync-end`. Durable after the next commit. */
  markNotWhole(): void {
    this.state.isWhole = false
    this.#note({ kind: 'not-whole' })
  }

  /** From here on differences to this node are noted. They are unknown (`tracking.isLost`) until a `reset` is performed. Durable after the next commit. */
  beginTracking(peerNodeId: string): Tracking {
    assert.equal(this.#peer, undefined)
    const peer = { nodeId: peerNodeId, acknowledged: undefined }
    this.state.peer = peer
    this.#peer = this.#track({ tracking: new Tracking(peer), active: new ActiveSet() })
    this.#note({ kind: 'peer', nodeId: peerNodeId })
    return this.#peer.tracking
  }

  /** Forgets the peer. Durable after the next commit. */
  endTracking(): void {
    this.#peer?.extents.close()
    this.#peer = undefined
    this.state.peer = undefined
    this.#note({ kind: 'peer' })
  }

  /**
   * Takes a reference on each extent of a range that is about to change; undefined when all of them are durably active (or there is no peer). Before it
   * resolves, the change may reach neither the medium nor the wire. Rejects with FAILED_STOP or NO_SPACE and takes nothing then.
   */
  hold(storeId: StoreId, offset: number, lengthBytes: number): Promise<void> | undefined {
    return this.#peer?.extents.hold(storeId, offset, lengthBytes)
  }

  /** Gives back what `hold` took: the change has left the outbox, and is done here. What was held before tracking began was not taken. */
  drop(storeId: StoreId, offset: number, lengthBytes: number): void {
    this.#peer?.extents.drop(storeId, offset, lengthBytes)
  }

  /** Resolves when the space of everything deleted before the call is free. */
  reclaim(): Promise<void> {
    return this.#io.reclaim()
  }

  /** Makes everything durable, writes a clean checkpoint, closes. Rejects when that failed; everything flushed before is safe all the same. */
  async close(options: { readonly sequence: number }): Promise<void> {
    this.#isClosing = true
    try {
      await this.#committer.commit()
      await this.#checkpointing
      await this.#reclaimer.close()
      this.state.sequence = options.sequence
      await this.#committer.commit()
      await this.#writeCheckpointNow(this.#journal.lastNumber, true)
    } finally {
      this.#committer.close()
      await this.#reclaimer.close()
      await this.#checkpointing
      await this.#journal.close()
      await this.#data.close()
    }
  }

  /** Writes a checkpoint soon, whatever the journal's fill. */
  forceCheckpoint(): Promise<void> {
    this.#isCheckpointForced = true
    return this.#committer.commit().then(() => this.#checkpointing)
  }

  checkInvariants(): void {
    checkPoolInvariants({
      state: this.state,
      allocator: this.#allocator,
      pending: this.#reclaimer.pendingReleases(),
      underWayCount: this.#io.heldCount + this.#reclaimer.freeingCount,
    })
  }

  /** Each start adds a batch. When a full file system has kept checkpoints away and starts have used up the journal's reserve, a checkpoint comes first. */
  async #makeRoomToOpen(): Promise<void> {
    const { lastNumber } = this.#journal
    const needBytes = openEventBytesMax + (this.#peer?.recoveryBytesMax ?? 0)
    if (this.#committer.hasRoom(needBytes, limits.journalReserveBytes)) return
    await this.#writeCheckpointNow(lastNumber, false)
      .catch((error: unknown) => this.#checkpointFailed(error, lastNumber))
      .finally(() => this.#keeper.thaw())
    if (
      this.#committer.hasRoom(
        needBytes,
        this.#peer === undefined ? 0 : limits.journalReserveBytes / 2,
      )
    )
      return
    throw new LockstepError(
      'NO_SPACE',
      'the journal is full, and there is no room for the checkpoint that would empty it',
      'make room in the file system of the data directory, then start again: nothing is lost',
    )
  }

  /**
   * A start. Behind an unclean stop a primary goes on in a new generation; with a peer that is an operation like any other, far enough behind what may have
   * been used already. A secondary has no history of its own.
   */
  #noteOpen(wasClean: boolean, random: Random): void {
    const { state } = this
    const isNewHistory =
      !wasClean && state.role === 'primary' && !this.#mutants.has('reuse-sequence')
    const generation = isNewHistory ? this.#newGeneration(random) : undefined
    const run = { runId: random.hex(8), startBatch: this.#journal.lastNumber }
    state.runs = withRun(state.runs, run)
    const peer = this.#peer
    const isOperation = generation !== undefined && peer?.tracking.isLost === false
    const isEvent = generation !== undefined && !isOperation
    this.#note({ kind: 'open', run, ...(isEvent ? { generation } : {}) })
    if (isEvent) state.generations = withGeneration(state.generations, generation)
    if (generation === undefined || peer === undefined) return
    const sequence = (state.sequence + limits.uncleanSequenceJump) as Sequence
    if (isOperation) {
      const at = this.#clock.wallTime().toISOString()
      const operation = { kind: 'new-generation', record: generation } as const
      this.perform({ kind: 'operation', sequence, at, operation }, [])
    }
    // With an op log that is lost the peer is told by `reset`, which must not have a sequence that it has seen either. The batch of the event has this one.
    state.sequence = sequence
    peer.begin(sequence)
  }

  /** The newest batch that is durable. */
  get durableBatch(): number {
    return this.#journal.lastNumber
  }

  /** On a secondary: what its primary has shown to have; durable no later than the position of an entry behind it. */
  sawPrimary(sighting: Sighting): void {
    this.#sighting = sighting
  }

  get primarySeen(): Sighting | undefined {
    return this.#sighting ?? this.state.primarySeen
  }

  #noteSighting(): void {
    const sighting = this.#sighting
    // In a full journal the older one stays: the position behind it stays as well.
    if (sighting === undefined || !this.#committer.hasRoomInFlight(sightingBytesMax, 0)) return
    this.#sighting = undefined
    this.state.primarySeen = sighting
    this.#committer.records.event({ kind: 'seen', sighting })
  }

  #note(event: StateEvent): void {
    this.#committer.records.event(event)
    this.#committer.changed()
  }

  #track(state: TrackingState): PoolTracking {
    return new PoolTracking(state, {
      committer: this.#committer,
      reclaim: () => this.#io.reclaim(),
      onActiveFull: this.#onActiveFull,
      activeLimits: this.#activeLimits,
      mutants: this.#mutants,
      leftSequence: this.state.sequence,
    })
  }

  #newGeneration(random: Random): NonNullable<OpenEvent['generation']> {
    return {
      generation: random.hex(16) as Generation,
      parent: presentGeneration(this.state),
      forkSequence: this.state.sequence,
      isUnclean: true,
    }
  }

  /** Chunks of which an operation changes a part only. */
  #edges(operation: Operation): readonly Parameters<DataPath['prepareChunk']>[0][] {
    const { chunkBytes } = this.state
    if (operation.kind === 'resize') {
      const base = storeOf(this.state, operation.storeId)
      const from = operation.sizeBytes % chunkBytes
      const chunk = Math.floor(operation.sizeBytes / chunkBytes)
      if (operation.sizeBytes >= base.sizeBytes || from === 0 || base.map.get(chunk) === 0)
        return []
      return [{ base, chunk, from, end: chunkBytes }]
    }
    if (operation.kind !== 'copy' || operation.range === undefined) return []
    const source = storeOf(this.state, operation.sourceId)
    const base = storeOf(this.state, operation.targetId)
    const { offset, lengthBytes } = operation.range
    const end = offset + lengthBytes
    const shared = sharedChunks(operation.range, {
      sourceBytes: source.sizeBytes,
      targetBytes: base.sizeBytes,
      chunkBytes,
    })
    const chunks = new Set<number>()
    if (offset < Math.min(end, shared.first * chunkBytes))
      chunks.add(Math.floor(offset / chunkBytes))
    if (end > Math.max(offset, shared.end * chunkBytes))
      chunks.add(Math.floor((end - 1) / chunkBytes))
    return [...chunks]
      .filter((chunk) => base.map.get(chunk) !== source.map.get(chunk))
      .map((chunk) => {
        const start = chunk * chunkBytes
        return {
          base,
          chunk,
          source,
          from: Math.max(0, offset - start),
          end: Math.min(chunkBytes, end - start),
        }
      })
  }

  /** In the committer's synchronous step: freezes the state if a checkpoint is due. The answer writes it, or gives it up when the batch is not durable. */
  #checkpointAt(batchNumber: number): ((isDurable: boolean) => void) | undefined {
    // By time as well: when the journal is full there are no further batches to count.
    const isHeldBack =
      batchNumber < this.#checkpointAfterBatch && this.#clock.nowMs() < this.#checkpointAfterMs
    const isDue = this.#isCheckpointForced || (this.#journal.wantsCheckpoint && !isHeldBack)
    if (!isDue || this.#isClosing || this.#checkpointing !== undefined) return undefined
    this.#isCheckpointForced = false
    const frozen = this.#freeze(batchNumber, false)
    let settle: (isDurable: boolean) => void = () => {}
    const isDurable = new Promise<boolean>((resolve) => {
      settle = resolve
    })
    this.#checkpointing = isDurable
      .then((canWrite) => (canWrite ? this.#saveCheckpoint(frozen, batchNumber) : undefined))
      .catch((error: unknown) => this.#checkpointFailed(error, batchNumber))
      .finally(() => {
        this.#keeper.thaw()
        if (frozen.tracking !== undefined) thawTracking(frozen.tracking)
        this.#checkpointing = undefined
      })
    return settle
  }

  #freeze(batchNumber: number, isClean: boolean): Parameters<typeof writeCheckpoint>[1] {
    const maps = [...this.state.stores.values()].map((store) => ({
      storeId: store.id,
      pages: [...store.map.pages],
    }))
    // The state's own number is that of the last operation: what the journal says of the writes behind it goes with the journal.
    const sequence = Math.max(this.state.sequence, this.#appliedSequence())
    return {
      state: describeState({ ...this.state, sequence }, { batchNumber, isClean }),
      maps,
      entriesOf: this.#keeper.freeze(),
      ...(this.#peer === undefined ? {} : { tracking: this.#peer.freeze(isClean) }),
    }
  }

  async #writeCheckpointNow(batchNumber: number, isClean: boolean): Promise<void> {
    assert.equal(this.#checkpointing, undefined)
    await this.#saveCheckpoint(this.#freeze(batchNumber, isClean), batchNumber)
  }

  async #saveCheckpoint(
    frozen: Parameters<typeof writeCheckpoint>[1],
    batchNumber: number,
  ): Promise<void> {
    await saveCheckpoint(this.#disk, frozen)
    this.#journal.cover(batchNumber)
    if (frozen.tracking !== undefined) this.#peer?.checkpointed(frozen.tracking)
    this.#onEvent({
      kind: 'checkpoint',
      message: `checkpoint of journal batch ${batchNumber} written`,
    })
  }

  #checkpointFailed(error: unknown, batchNumber: number): void {
    if (error instanceof AssertionError) throw error
    this.#log.warn({ err: error, batchNumber }, 'checkpoint failed; the journal goes on')
    this.#checkpointAfterBatch = batchNumber + limits.checkpointRetryBatchCount
    this.#checkpointAfterMs = this.#clock.nowMs() + limits.checkpointRetryMs
    this.#onEvent({
      kind: 'no-space',
      message: `a checkpoint could not be written (${errnoNameOf(error)}); it is tried again`,
    })
  }
}

/** Writes a checkpoint under its temporary name and puts it in the place of the old one. */
export async function saveCheckpoint(
  disk: Disk,
  frozen: Parameters<typeof writeCheckpoint>[1],
): Promise<void> {
  const file = await disk.open(checkpointTemporaryName, { create: true })
  try {
    await file.truncate(0)
    await writeCheckpoint(file, frozen)
  } catch (error) {
    // The unfinished file would keep space that somebody else may need more.
    await file.truncate(0).catch(() => {})
    throw error
  } finally {
    await file.close()
  }
  await disk.rename(checkpointTemporaryName, checkpointName)
  await disk.syncDirectory()
}

/** Why an operation could not be prepared, for people. */
function refusalOf(error: unknown): unknown {
  if (error instanceof LockstepError || error instanceof AssertionError) return error
  const errno = errnoNameOf(error)
  if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EFBIG') return journalFull()
  return new LockstepError(
    'IO_ERROR',
    `the data file failed (${errno}); nothing was changed`,
    'check the medium and the kernel log, then try again',
  )
}

function journalFull(): LockstepError {
  return new LockstepError(
    'NO_SPACE',
    'there is no room for this operation',
    'delete a snapshot, or give the pool more space',
  )
}
