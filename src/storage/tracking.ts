// What the peer may not have: dirty maps, op log and suspects, as a state machine over the entries that leave the outbox. And what verify found to differ.
//
// Invariant (law 2): a store here and its copy on the peer, once the peer has performed the op log, are equal outside its dirty map, as of the newest
// entry that has left. Entries leave in strict sequence order, as had or lacked; what an operation does to the maps happens when it leaves. The journal
// tells the same in the same order, and where it cannot (no room), everything is lost at once: a later record without an earlier one would be wrong.
import assert from 'node:assert/strict'
import { comparePieceBytes, type Entry, type EntryOutcome } from '../core/entry.js'
import { LockstepError, unreachable } from '../core/errors.js'
import { limits } from '../core/limits.js'
import {
  type ByteRange,
  blockBytes,
  byteOffset,
  extentBytes,
  type Position,
  type StoreId,
} from '../core/units.js'
import type { OperationEvent } from './apply-operation.js'
import type { BlockRun } from './dirty-map.js'
import type { PeerState, Store } from './group-state.js'
import { dirtyBytesOf, nextDirtyIn, type TrackedStore, TrackedStores } from './tracked-stores.js'

export type TrackingTotals = {
  readonly dirtyBytes: number
  readonly suspectBytes: number
  readonly opLogEntries: number
  /** Operations performed here that have not left the outbox. */
  readonly pendingOperations: number
}

/** Where tracking writes what a restart must find, and whom it tells. */
export interface TrackingRecorder {
  /** What follows finds room: a record, or those of a run. */
  hasRoom(run?: BlockRun): boolean
  dirty(storeId: StoreId, run: BlockRun): void
  clean(storeId: StoreId, run: BlockRun): void
  differs(storeId: StoreId, run: BlockRun): void
  same(storeId: StoreId, run: BlockRun): void
  left(sequence: number, isHad: boolean): void
  /** The difference is unknown from here on. False when the journal has no room to say so now. */
  lost(): boolean
  operationLeft(sequence: number): void
}

/** A replay writes nothing. */
const silentRecorder: TrackingRecorder = {
  hasRoom: () => true,
  dirty: () => {},
  clean: () => {},
  differs: () => {},
  same: () => {},
  left: () => {},
  lost: () => true,
  operationLeft: () => {},
}

export class Tracking {
  readonly peer: PeerState
  /** Switchable bugs, for the proofs only. */
  mutants: ReadonlySet<string> = new Set()
  readonly #stores = new TrackedStores()
  #recorder = silentRecorder
  /** Performed and not left, in order. */
  #pending: OperationEvent[] = []
  #opLog: OperationEvent[] = []
  #opLogBytes = 0
  #isLost = true
  #isLossRecorded = true
  #leftSequence = 0

  /** Begins lost: the first `reset` makes the difference known. */
  constructor(peer: PeerState) {
    this.peer = peer
  }

  /** True when the difference is unknown (before the first `reset`, or the op log overflowed): the peer needs everything again, beginning with `reset`. `had` and `lacked` only count then. */
  get isLost(): boolean {
    return this.#isLost
  }

  /** False when the journal does not know yet that the difference is unknown: no extent may become inactive. */
  get isLossRecorded(): boolean {
    return this.#isLossRecorded
  }

  /** The newest sequence that has left the outbox. */
  get leftSequence(): number {
    return this.#leftSequence
  }

  /** The peer's durable position as last told by `acknowledged`; undefined before. */
  get acknowledgedPosition(): Position | undefined {
    return this.peer.acknowledged
  }

  /** The oldest operation of the op log behind a sequence. */
  nextInLog(sequence: number): OperationEvent | undefined {
    let low = 0
    let high = this.#opLog.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const event = this.#opLog[middle]
      assert(event)
      if (event.sequence <= sequence) low = middle + 1
      else high = middle
    }
    return this.#opLog[low]
  }

  /** Operations that left as lacked and that the peer has not durably performed, in order, with the sequences they had. */
  get opLog(): readonly OperationEvent[] {
    return this.#opLog
  }

  /** Operations performed here that have not left the outbox, in order. */
  get pending(): readonly OperationEvent[] {
    return this.#pending
  }

  get stores(): ReadonlyMap<StoreId, TrackedStore> {
    return this.#stores.stores
  }

  /** The maps as they are now, for who wants to know what they would be; `TrackedStores.share`. */
  share(storeIds?: Iterable<StoreId>): TrackedStores {
    return this.#stores.share(storeIds)
  }

  get totals(): TrackingTotals {
    let dirtyBytes = 0
    let suspectBytes = 0
    for (const store of this.#stores.stores.values()) {
      dirtyBytes += dirtyBytesOf(store)
      suspectBytes += store.suspects.dirtyBlockCount * blockBytes
    }
    return {
      dirtyBytes,
      suspectBytes,
      opLogEntries: this.#opLog.length,
      pendingOperations: this.#pending.length,
    }
  }

  /** The entry leaves the outbox: the peer has it on stable storage, and its change is done (or failed) here. Every sequence leaves, flushes and nothings too. */
  had(entry: Entry, outcome: EntryOutcome = { kind: 'done' }): void {
    this.#leave(entry.sequence)
    if (this.#isLost) return
    switch (entry.kind) {
      case 'write':
      case 'zero':
        if (outcome.kind === 'failed') this.#mark(entry.storeId, rangeOf(entry))
        else this.#clean(entry.storeId, rangeOf(entry))
        return
      case 'compare':
        if (outcome.kind === 'compared') this.#compared(entry, outcome.differing)
        return
      case 'operation':
        this.#operationLeft(entry.sequence, true)
        return
      case 'flush':
      case 'nothing':
        return
      default:
        unreachable(entry)
    }
  }

  /** The entry leaves the outbox, or never enters it: the peer does not have it, or nobody knows. */
  lacked(entry: Entry): void {
    this.#leave(entry.sequence)
    if (this.#isLost) return
    if (entry.kind === 'write' || entry.kind === 'zero') this.#mark(entry.storeId, rangeOf(entry))
    else if (entry.kind === 'operation') this.#operationLeft(entry.sequence, false)
  }

  /** The peer's durable position. Operations of the op log up to it are gone from it. Call it before the `had` of what it covers. */
  acknowledged(position: Position): void {
    if (position.sequence < (this.peer.acknowledged?.sequence ?? 0)) return
    this.peer.acknowledged = position
    const keptFrom = this.#opLog.findIndex((event) => event.sequence > position.sequence)
    const gone = this.#opLog.splice(0, keptFrom < 0 ? this.#opLog.length : keptFrom)
    for (const event of gone) this.#opLogBytes -= bytesOf(event)
  }

  /** From here on the range may differ: a difference that verify found. Durable with the next commit. Throws NO_SPACE. */
  mark(storeId: StoreId, range: ByteRange): void {
    if (this.#isLost) return
    if (!this.#recorder.hasRoom()) throw noRoom()
    this.#mark(storeId, range)
  }

  /** The range differs, as verify found, and nobody repairs it; what is dirty of it is sent anyhow. Durable with the next commit. Throws NO_SPACE. */
  differs(storeId: StoreId, range: ByteRange): void {
    if (this.#isLost || this.#stores.get(storeId) === undefined) return
    for (const run of this.#stores.differ(storeId, range)) {
      // It is known all the same, until a start.
      if (!this.#recorder.hasRoom(run)) throw noRoom()
      this.#recorder.differs(storeId, run)
    }
  }

  /** The range was equal on both nodes at the position `sequence`, as verify found. Without effect when something was copied into the store since: that may differ. */
  same(storeId: StoreId, range: ByteRange, sequence: number): void {
    const store = this.#stores.get(storeId)
    if (store === undefined || store.differing.dirtyBlockCount === 0) return
    if (store.copiedSequence > sequence) return
    const changed = this.#stores.same(storeId, range)
    // Without room a restart finds a difference that is none any more.
    if (changed !== undefined && this.#recorder.hasRoom(changed))
      this.#recorder.same(storeId, changed)
  }

  /** What verify found to differ, and nobody has repaired: bytes in whole blocks. */
  differingBytes(storeId: StoreId): number {
    const store = this.#stores.get(storeId)
    return store === undefined ? 0 : dirtyBytesOf(store, store.differing)
  }

  /** The range is known to be equal on both nodes, durably. */
  clean(storeId: StoreId, range: ByteRange): void {
    if (!this.#isLost) this.#clean(storeId, range)
  }

  /** True when nothing of the store is dirty. Costs nothing. */
  isEmptyFor(storeId: StoreId): boolean {
    return (this.#stores.get(storeId)?.dirty.dirtyBlockCount ?? 0) === 0
  }

  dirtyBytes(storeId: StoreId): number {
    const store = this.#stores.get(storeId)
    return store === undefined ? 0 : dirtyBytesOf(store)
  }

  /** True when a block of the range is dirty. */
  isDirty(storeId: StoreId, offset: number, lengthBytes: number): boolean {
    const end = Math.ceil((offset + lengthBytes) / blockBytes)
    const map = this.#stores.get(storeId)?.dirty
    return map?.nextRun(Math.floor(offset / blockBytes), end, 1) !== undefined
  }

  /** True when verify found a block of the range to differ, and nobody repairs it. */
  isDiffering(storeId: StoreId, offset: number, lengthBytes: number): boolean {
    const end = Math.ceil((offset + lengthBytes) / blockBytes)
    const map = this.#stores.get(storeId)?.differing
    return map?.nextRun(Math.floor(offset / blockBytes), end, 1) !== undefined
  }

  /** As `nextDirtyIn`. */
  nextDirty(
    storeId: StoreId,
    fromOffset: number,
    lengthBytesMax = Number.MAX_SAFE_INTEGER,
  ): { readonly offset: number; readonly lengthBytes: number } | undefined {
    const store = this.#stores.get(storeId)
    return store === undefined ? undefined : nextDirtyIn(store, fromOffset, lengthBytesMax)
  }

  /** True when the block at `offset` is dirty only because a crash came while it was active: comparing digests may save sending it. */
  isSuspect(storeId: StoreId, offset: number): boolean {
    const block = Math.floor(offset / blockBytes)
    const store = this.#stores.get(storeId)
    return store?.suspects.isDirty(block) === true && store.dirty.isDirty(block)
  }

  // --- For the pool: what is performed, how tracking begins, what a restart finds. ---

  /** An operation of the stream was performed; its effect on the maps waits until it leaves. */
  performed(event: OperationEvent): void {
    if (this.#isLost) return
    assert(event.sequence > (this.#pending.at(-1)?.sequence ?? this.#leftSequence))
    this.#pending.push(event)
    if (this.mutants.has('algebra-at-perform')) this.#move(event)
  }

  /** The peer becomes blank: everything that is allocated is dirty, and the op log begins with this operation. Nothing is in the outbox. */
  reset(event: OperationEvent, stores: Iterable<Store>, chunkBytes: number): void {
    assert.equal(event.operation.kind, 'reset')
    assert.equal(this.#pending.length, 0)
    this.#stores.reset(stores, chunkBytes)
    this.#opLog = []
    this.#opLogBytes = 0
    this.peer.acknowledged = undefined
    this.#leftSequence = event.sequence
    this.#isLost = false
    this.#isLossRecorded = true
    this.#log(event)
  }

  /** From here on everything is recorded. `leftSequence`: nothing up to it is in the outbox. */
  goLive(recorder: TrackingRecorder, leftSequence: number): void {
    this.#recorder = recorder
    this.#leftSequence = leftSequence
  }

  /** A start begins with an operation of its own: everything pending leaves as lacked, and sequences go on behind it. */
  begin(sequence: number): void {
    assert(sequence > this.#leftSequence)
    this.#leftSequence = sequence
    for (const event of [...this.#pending]) this.#operationLeft(event.sequence, false)
  }

  /** Tries again to say that the difference is unknown. */
  recordLoss(): void {
    if (!this.#isLossRecorded) this.#isLossRecorded = this.#recorder.lost()
  }

  /** A checkpoint that says so is durable. */
  lossRecorded(): void {
    this.#isLossRecorded = true
  }

  /** A start: what was in the outbox is gone, so operations leave as lacked, and the active extents may differ. */
  recover(
    active: Iterable<{ readonly storeId: StoreId; readonly first: number; readonly end: number }>,
  ): void {
    for (const { sequence } of [...this.#pending]) this.#operationLeft(sequence, false)
    for (const { storeId, first, end } of active) {
      const store = this.#stores.get(storeId)
      if (store === undefined) continue
      const offset = first * extentBytes
      const lengthBytes = Math.min(end * extentBytes, store.sizeBytes) - offset
      if (lengthBytes <= 0) continue
      store.suspects.markBytes(offset, lengthBytes)
      this.#mark(storeId, { offset: byteOffset(offset), lengthBytes })
    }
  }

  // --- For the replay of the journal and the checkpoint; throws AssertionError for what cannot be. ---

  replayDirty(storeId: StoreId, run: BlockRun): void {
    const store = this.#stores.get(storeId)
    store?.dirty.markBlocks(run.first, run.end)
    store?.differing.cleanBlocks(run.first, run.end)
  }

  replayClean(storeId: StoreId, run: BlockRun): void {
    const store = this.#stores.get(storeId)
    store?.dirty.cleanBlocks(run.first, run.end)
    store?.suspects.cleanBlocks(run.first, run.end)
    store?.differing.cleanBlocks(run.first, run.end)
  }

  replayDiffers(storeId: StoreId, run: BlockRun): void {
    this.#stores.get(storeId)?.differing.markBlocks(run.first, run.end)
  }

  replaySame(storeId: StoreId, run: BlockRun): void {
    this.#stores.get(storeId)?.differing.cleanBlocks(run.first, run.end)
  }

  replayLeft(sequence: number, isHad: boolean): void {
    if (!this.#isLost) this.#operationLeft(sequence, isHad)
  }

  replayLost(): void {
    this.#forget()
  }

  restoreStore(storeId: StoreId, sizeBytes: number): TrackedStore {
    return this.#stores.add(storeId, sizeBytes)
  }

  restoreOperation(event: OperationEvent, isPending: boolean): void {
    if (isPending) this.#pending.push(event)
    else this.#log(event)
  }

  restored(): void {
    this.#isLost = false
  }

  // --- The parts. ---

  #leave(sequence: number): void {
    if (!this.#isLost) assert.equal(sequence, this.#leftSequence + 1, 'entries leave in order')
    this.#leftSequence = sequence
    this.#recorder.operationLeft(sequence)
  }

  #operationLeft(sequence: number, isHad: boolean): void {
    const event = this.#pending.shift()
    assert.equal(event?.sequence, sequence, 'operations leave in order')
    if (!this.mutants.has('algebra-at-perform')) this.#move(event)
    if (!isHad) this.#log(event)
    if (this.#isLost) return
    if (this.#recorder.hasRoom()) this.#recorder.left(sequence, isHad)
    else this.#lose()
  }

  #move({ operation, sequence }: OperationEvent): void {
    if (operation.kind === 'copy' && this.mutants.has('copy-forgets-dirty')) return
    this.#stores.leave(operation, sequence)
  }

  #mark(storeId: StoreId, range: ByteRange): void {
    const changed = this.#stores.mark(storeId, range)
    if (changed === undefined) return
    if (this.#recorder.hasRoom(changed)) this.#recorder.dirty(storeId, changed)
    else this.#lose()
  }

  #clean(storeId: StoreId, range: ByteRange): void {
    if (this.#isEqual(storeId)) return
    const changed = this.#stores.clean(storeId, range)
    // Without room a restart finds more dirty than there is.
    if (changed !== undefined && this.#recorder.hasRoom(changed))
      this.#recorder.clean(storeId, changed)
  }

  /** As far as anybody knows. */
  #isEqual(storeId: StoreId): boolean {
    const store = this.#stores.get(storeId)
    return (
      store === undefined || store.dirty.dirtyBlockCount + store.differing.dirtyBlockCount === 0
    )
  }

  #compared(
    entry: { readonly storeId: StoreId; readonly offset: number; readonly lengthBytes: number },
    differing: Uint8Array,
  ): void {
    const end = entry.offset + entry.lengthBytes
    let equalFrom = entry.offset
    for (let piece = 0, at = entry.offset; at < end; piece++, at += comparePieceBytes) {
      const isDifferent = (((differing[piece >>> 3] ?? 0xff) >>> (piece & 7)) & 1) === 1
      if (!isDifferent) continue
      this.#cleanBetween(entry.storeId, equalFrom, at)
      equalFrom = Math.min(end, at + comparePieceBytes)
      this.#known(entry.storeId, at, equalFrom)
    }
    this.#cleanBetween(entry.storeId, equalFrom, end)
  }

  #cleanBetween(storeId: StoreId, offset: number, end: number): void {
    if (offset < end)
      this.#clean(storeId, { offset: byteOffset(offset), lengthBytes: end - offset })
  }

  /** These bytes do differ: they are sent without another look. */
  #known(storeId: StoreId, offset: number, end: number): void {
    const suspects = this.#stores.get(storeId)?.suspects
    suspects?.cleanBlocks(Math.floor(offset / blockBytes), Math.ceil(end / blockBytes))
  }

  #log(event: OperationEvent): void {
    this.#opLog.push(event)
    this.#opLogBytes += bytesOf(event)
    if (this.#opLog.length > limits.opLogEntriesMax || this.#opLogBytes > limits.opLogBytesMax)
      this.#lose()
  }

  #lose(): void {
    this.#forget()
    this.#isLossRecorded = this.#recorder.lost()
  }

  #forget(): void {
    this.#isLost = true
    this.#stores.clear()
    this.#pending = []
    this.#opLog = []
    this.#opLogBytes = 0
  }
}

function noRoom(): LockstepError {
  return new LockstepError(
    'NO_SPACE',
    'the journal has no room to note the difference',
    'make room in the file system of the data directory, then try again',
  )
}

function rangeOf(entry: { readonly offset: number; readonly lengthBytes: number }): ByteRange {
  return { offset: byteOffset(entry.offset), lengthBytes: entry.lengthBytes }
}

function bytesOf(event: OperationEvent): number {
  return JSON.stringify(event).length
}
