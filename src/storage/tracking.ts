// What the peer may not have: dirty maps, op log and suspects, as a state machine over the entries that leave the outbox.
//
// Invariant (law 2): a store here and its copy on the peer, once the peer has performed the op log, are equal outside its dirty map, as of the newest
// entry that has left. Entries leave in strict sequence order, as had or lacked; what an operation does to the maps happens when it leaves.
import type { Entry, EntryOutcome } from '../core/entry.js'
import type { ByteRange, Position, StoreId } from '../core/units.js'
import type { OperationEvent } from './apply-operation.js'

export type TrackingTotals = {
  readonly dirtyBytes: number
  readonly suspectBytes: number
  readonly opLogEntries: number
  /** Operations performed here that have not left the outbox. */
  readonly pendingOperations: number
}

export class Tracking {
  /** True when the difference is unknown (before the first `reset`, or the op log overflowed): the peer needs everything again, beginning with `reset`. `had` and `lacked` do nothing then. */
  get isLost(): boolean {
    throw new Error('follows')
  }

  /** The newest sequence that has left the outbox. */
  get leftSequence(): number {
    throw new Error('follows')
  }

  /** The peer's durable position as last told by `acknowledged`; undefined before. */
  get acknowledgedPosition(): Position | undefined {
    throw new Error('follows')
  }

  /** Operations that left as lacked and that the peer has not durably performed, in order, with the sequences they had. */
  get opLog(): readonly OperationEvent[] {
    throw new Error('follows')
  }

  get totals(): TrackingTotals {
    throw new Error('follows')
  }

  /** The entry leaves the outbox: the peer has it on stable storage, and its change is done (or failed) here. Every sequence leaves, flushes and nothings too. */
  had(_entry: Entry, _outcome?: EntryOutcome): void {
    throw new Error('follows')
  }

  /** The entry leaves the outbox, or never enters it: the peer does not have it, or nobody knows. */
  lacked(_entry: Entry): void {
    throw new Error('follows')
  }

  /** The peer's durable position. Operations of the op log up to it are gone from it. Call it before the `had` of what it covers. */
  acknowledged(_position: Position): void {
    throw new Error('follows')
  }

  /** From here on the range may differ: a difference that verify found. Durable with the next commit. */
  mark(_storeId: StoreId, _range: ByteRange): void {
    throw new Error('follows')
  }

  /** The range is known to be equal on both nodes, durably. */
  clean(_storeId: StoreId, _range: ByteRange): void {
    throw new Error('follows')
  }

  /** True when nothing of the store is dirty. Costs nothing. */
  isEmptyFor(_storeId: StoreId): boolean {
    throw new Error('follows')
  }

  dirtyBytes(_storeId: StoreId): number {
    throw new Error('follows')
  }

  /** True when a block of the range is dirty. */
  isDirty(_storeId: StoreId, _offset: number, _lengthBytes: number): boolean {
    throw new Error('follows')
  }

  /** The next run of dirty bytes that ends behind `fromOffset`, from `fromOffset` at the earliest, in whole blocks (the last one is cut at the store's end); at most `lengthBytesMax`. */
  nextDirty(
    _storeId: StoreId,
    _fromOffset: number,
    _lengthBytesMax?: number,
  ): { readonly offset: number; readonly lengthBytes: number } | undefined {
    throw new Error('follows')
  }

  /** True when the block at `offset` is dirty only because a crash came while it was active: comparing digests may save sending it. */
  isSuspect(_storeId: StoreId, _offset: number): boolean {
    throw new Error('follows')
  }

  /** The dirty part, 0 to 1, of each of `cellCount` equal slices of the store. */
  picture(_storeId: StoreId, _cellCount: number): readonly number[] {
    throw new Error('follows')
  }
}
