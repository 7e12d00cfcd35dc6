// The pool: one group's stores on one data file. Puts the parts together and owns their life: create, open with recovery, checkpoints, close.
//
// The engine calls read, write, zero and perform in the order of the group; the pool makes each of them atomic against crashes, and `commit` durable.
import assert from 'node:assert/strict'
import type { Clock, Random } from '../core/clock.js'
import type { Disk, DiskFile } from '../core/disk.js'
import { LockstepError } from '../core/errors.js'
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
} from './apply-operation.js'
import { Checkpointer } from './checkpointer.js'
import { ChunkAllocator } from './chunk-allocator.js'
import { Committer } from './committer.js'
import { DataPath } from './data-path.js'
import { type GroupState, presentGeneration, type Store, withGeneration } from './group-state.js'
import { checkPoolInvariants } from './invariants.js'
import type { Journal } from './journal.js'
import { PoolKeeper } from './page-keeper.js'
import { type ActiveLimits, PoolTracking } from './pool-tracking.js'
import { type Prepared, prepareOperation } from './prepare-operation.js'
import type { ReadPath } from './read-path.js'
import { Reclaimer } from './reclaimer.js'
import {
  countReferences,
  type OpenEvent,
  type Recovered,
  recover,
  type StateEvent,
} from './recovery.js'
import { Sightings } from './sightings.js'
import { Tracking } from './tracking.js'
import type { TrackingState } from './tracking-sections.js'
import type { WritePath } from './write-path.js'
import type { ZeroPath } from './zero-path.js'

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
  readonly activeLimits?: ActiveLimits
}

/** The record of a start, with a generation in it. */
const openEventBytesMax = 1024

export class Pool {
  readonly #data: DiskFile
  readonly #clock: Clock
  readonly #keeper: PoolKeeper
  readonly #journal: Journal
  readonly #allocator: ChunkAllocator
  readonly #reclaimer: Reclaimer
  readonly #committer: Committer
  readonly #io: DataPath
  readonly #reads: ReadPath
  readonly #writes: WritePath
  readonly #zeroes: ZeroPath
  readonly #capacity: number
  readonly #checkpointer: Checkpointer
  readonly #sightings: Sightings
  readonly #onActiveFull: () => void
  readonly #activeLimits: PoolOptions['activeLimits']
  readonly #mutants: ReadonlySet<string>
  #peer: PoolTracking | undefined
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
    this.#data = data
    this.#clock = clock
    this.#keeper = keeper
    this.#journal = journal
    this.#capacity = capacity
    const appliedSequence = (): number => options.appliedSequence() ?? state.sequence
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
    this.#checkpointer = new Checkpointer({
      disk: options.disk,
      clock,
      log,
      state,
      keeper,
      journal,
      appliedSequence,
      peer: () => this.#peer,
      onEvent: options.onEvent,
    })
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
      appliedSequence,
      positionStep: () => (state.role === 'secondary' ? 1 : limits.positionStep),
      beforeTaken: () => {
        this.#peer?.beforeTaken()
        this.#sightings.beforeTaken()
      },
      reservedBytes: () => this.#peer?.reservedBytes ?? 0,
      onTaken: (batchNumber) => this.#checkpointer.at(batchNumber),
      onFailure: (error) => {
        options.onEvent({ kind: 'failure', message: error.message })
        this.#peer?.extents.failed(error)
      },
      durableSequence: state.sequence,
    })
    this.#sightings = new Sightings({
      state,
      committer: this.#committer,
      makeRoom: () => this.forceCheckpoint().then(() => this.commit()),
    })
    this.#io = new DataPath({
      file: data,
      chunkBytes: state.chunkBytes,
      allocator: this.#allocator,
      reclaimer: this.#reclaimer,
      committer: this.#committer,
      clock,
      checkpointDone: () => this.#checkpointer.done,
      mutants,
    })
    this.#reads = this.#io.reads
    this.#writes = this.#io.writes
    this.#zeroes = this.#io.zeroes
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

  /** Since when a commit has waited for the disk; undefined when none does. */
  get diskBusySinceMs(): number | undefined {
    return this.#committer.busySinceMs
  }

  /** What the peer may not have; undefined as long as there is none. */
  get tracking(): Tracking | undefined {
    return this.#peer?.tracking
  }

  /** The number that the next store outside the stream gets. */
  get nextLocalId(): number {
    return this.state.nextLocalId
  }

  /** What a flush asks first: true when no commit is needed. */
  isDurable(): boolean {
    return this.#committer.isDurable()
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
    return this.#reads.read(store, offset, target)
  }

  write(
    store: Store,
    offset: number,
    lengthBytes: number,
    parts: readonly Buffer[],
  ): Promise<void> | undefined {
    return this.#writes.write(store, offset, lengthBytes, parts)
  }

  zero(
    store: Store,
    offset: number,
    lengthBytes: number,
    mayUnmap: boolean,
  ): Promise<void> | undefined {
    return this.#zeroes.zero(store, offset, lengthBytes, mayUnmap)
  }

  /** Resolves when everything done before the call is on stable storage. Rejects with FAILED_STOP. */
  commit(): Promise<void> {
    return this.#committer.commit()
  }

  /** What an operation needs before its step. No write to its stores may be under way until `perform` or `drop`. Rejects with NO_SPACE or IO_ERROR and nothing changed. */
  prepare(operation: Operation): Promise<Prepared> {
    const parts = { state: this.state, committer: this.#committer, io: this.#io }
    return prepareOperation(parts, operation)
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
    this.#checkpointer.close()
    this.#peer?.extents.stop()
    try {
      await this.#committer.commit()
      await this.#checkpointer.done
      await this.#reclaimer.close()
      this.state.sequence = options.sequence
      await this.#committer.commit()
      await this.#checkpointer.writeLast(this.#journal.lastNumber)
    } finally {
      this.#committer.close()
      await this.#reclaimer.close()
      await this.#checkpointer.done
      await this.#journal.close()
      await this.#data.close()
    }
  }

  /** Writes a checkpoint soon, whatever the journal's fill. */
  forceCheckpoint(): Promise<void> {
    this.#checkpointer.force()
    return this.#committer.commit().then(() => this.#checkpointer.done)
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
    const needBytes = openEventBytesMax + (this.#peer?.recoveryBytesMax ?? 0)
    if (this.#committer.hasRoom(needBytes, limits.journalReserveBytes)) return
    await this.#checkpointer.tryNow(this.#journal.lastNumber)
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

  /** The newest of those in which an extent became active; 0 before the first of this run. */
  get activatedBatch(): number {
    return this.#committer.activatedBatch
  }

  /** On a secondary: what its primary has shown to have; durable no later than the position of an entry behind it. */
  sawPrimary(sighting: Sighting): void {
    this.#sightings.saw(sighting)
  }

  /** Resolves when what the primary was seen to have is durable. Costs no sync of the data. */
  keepSighting(): Promise<void> {
    return this.#sightings.keep()
  }

  get primarySeen(): Sighting | undefined {
    return this.#sightings.latest
  }

  #note(event: StateEvent): void {
    this.#committer.records.event(event)
    this.#committer.changed()
  }

  #track(state: TrackingState): PoolTracking {
    return new PoolTracking(state, {
      clock: this.#clock,
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
}
