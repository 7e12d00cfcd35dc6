// Tracking and active extents as a part of a pool: their records in its journal, their share of its checkpoints, their start after a crash.
//
// Invariants: a checkpoint has the tracking of the same instant as the maps; the peer's durable position is in the same batch as what was let go of because of it.
import type { Clock } from '../core/clock.js'
import { limits } from '../core/limits.js'
import type { Sequence, StoreId } from '../core/units.js'
import { ActiveExtents } from './active-extents.js'
import { type ActiveItem, type ActiveSet, blocksOf } from './active-set.js'
import type { OperationEvent } from './apply-operation.js'
import type { Committer } from './committer.js'
import type { GroupState } from './group-state.js'
import { recordBytes, runRecordBytes } from './records.js'
import type { Tracking, TrackingRecorder } from './tracking.js'
import { type FrozenTracking, freezeTracking, type TrackingState } from './tracking-sections.js'

/** Room for the last records of tracking: less than what deletes have, so that a full pool can be emptied with a peer as well. */
const reserveBytes = limits.journalReserveBytes / 4

/** Other than usual: for tests. */
export type ActiveLimits = {
  readonly itemsMax?: number
  readonly itemsPerEviction?: number
  readonly idleMs?: number
}

export class PoolTracking {
  readonly tracking: Tracking
  readonly extents: ActiveExtents
  readonly #active: ActiveSet
  readonly #committer: Committer
  #recordedSequence: number | undefined

  constructor(
    recovered: TrackingState,
    options: {
      readonly committer: Committer
      readonly clock: Clock
      readonly reclaim: () => Promise<void>
      readonly onActiveFull: () => void
      readonly activeLimits: ActiveLimits | undefined
      readonly mutants: ReadonlySet<string>
      readonly leftSequence: number
    },
  ) {
    const { committer } = options
    this.tracking = recovered.tracking
    this.tracking.mutants = options.mutants
    recovered.active.forgetsSnapshots = options.mutants.has('snapshot-forgets-active')
    this.#active = recovered.active
    this.#committer = committer
    this.#recordedSequence = recovered.tracking.peer.acknowledged?.sequence
    this.extents = new ActiveExtents({
      set: recovered.active,
      journal: {
        active: ({ storeId, first, end }) => committer.activations.active(storeId, first, end),
        activate: () => committer.activate(),
        inactive: ({ storeId, first, end }) => {
          committer.records.inactive(storeId, first, end)
          committer.changed()
        },
        commit: () => committer.commit(),
        hasRoom: (lengthBytes) => committer.hasRoom(lengthBytes, limits.journalReserveBytes / 2),
        reclaim: options.reclaim,
        mayEnd: () => this.tracking.isLossRecorded,
        isSuspect: (item) => this.#isSuspect(item),
      },
      clock: options.clock,
      onFull: options.onActiveFull,
      ...options.activeLimits,
      skipsActivation: options.mutants.has('skip-activate-sync'),
      ignoresReferences: options.mutants.has('inactive-before-peer-durable'),
    })
    this.tracking.goLive(this.#recorder(), options.leftSequence)
  }

  /** Bytes of records that entries in flight may need yet. */
  get reservedBytes(): number {
    return this.extents.heldRecordBytes + this.tracking.pending.length * recordBytes
  }

  /** What `recover` will write, at most. */
  get recoveryBytesMax(): number {
    let lengthBytes = (this.tracking.pending.length + 1) * recordBytes
    for (const item of this.#active.items()) lengthBytes += runRecordBytes(blocksOf(item))
    return lengthBytes
  }

  /** After a start: what was in the outbox is gone. */
  recover(): void {
    const isForgotten = this.tracking.mutants.has('forget-active-at-recovery')
    if (!this.tracking.isLost) this.tracking.recover(isForgotten ? [] : this.#active.items())
    this.extents.recovered()
  }

  performed(event: OperationEvent, state: GroupState): void {
    if (event.operation.kind === 'reset')
      this.tracking.reset(event, state.stores.values(), state.chunkBytes)
    else {
      this.tracking.performed(event)
      this.extents.performed(event.sequence, event.operation)
    }
  }

  /** The first operation of a life is performed: nothing before it is in the outbox, and it is not either. */
  begin(sequence: Sequence): void {
    this.tracking.begin(sequence)
  }

  /** Before a batch's records are taken. */
  beforeTaken(): void {
    this.tracking.recordLoss()
    const { acknowledged } = this.tracking.peer
    const { records } = this.#committer
    if (acknowledged === undefined) this.#recordedSequence = undefined
    else if (records.lengthBytes > 0 && acknowledged.sequence !== this.#recordedSequence) {
      records.event({ kind: 'acknowledged', position: acknowledged })
      this.#recordedSequence = acknowledged.sequence
    }
  }

  freeze(isClean: boolean): FrozenTracking {
    return freezeTracking(this.tracking, this.extents.describe({ isClean }))
  }

  /** A checkpoint was written. */
  checkpointed(frozen: FrozenTracking): void {
    if (frozen.isLost && this.tracking.isLost) this.tracking.lossRecorded()
    this.extents.resume()
  }

  #isSuspect(item: ActiveItem): boolean {
    const { first, end } = blocksOf(item)
    return this.tracking.stores.get(item.storeId)?.suspects.nextRun(first, end, 1) !== undefined
  }

  #recorder(): TrackingRecorder {
    const committer = this.#committer
    const { records } = committer
    const changed = (): void => {
      committer.changed()
      // A burst may be larger than the journal's room: what is here goes first, and a checkpoint is begun.
      if (!committer.hasRoomInFlight(0, limits.journalReserveBytes)) committer.commitSoon()
    }
    return {
      hasRoom: (run) =>
        committer.hasRoomInFlight(
          run === undefined ? recordBytes : runRecordBytes(run),
          reserveBytes,
        ),
      dirty: (storeId: StoreId, run) => {
        records.dirty(storeId, run.first, run.end)
        changed()
      },
      clean: (storeId, run) => {
        records.clean(storeId, run.first, run.end)
        changed()
      },
      differs: (storeId, run) => {
        records.differs(storeId, run.first, run.end)
        changed()
      },
      same: (storeId, run) => {
        records.same(storeId, run.first, run.end)
        changed()
      },
      left: (sequence, isHad) => {
        records.left(sequence, isHad)
        changed()
      },
      lost: () => {
        if (!committer.hasRoomInFlight(4 * recordBytes, reserveBytes / 2)) return false
        records.event({ kind: 'tracking-lost' })
        changed()
        return true
      },
      operationLeft: (sequence) => this.extents.operationLeft(sequence),
    }
  }
}
