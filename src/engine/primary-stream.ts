// The primary's side of the stream, without a link: every entry that is ordered takes its slot in the outbox in the same step, and when it leaves there, the
// tracking hears how. Knows when a client's change is complete (by mode), and that the first change without the peer begins a new generation.
//
// Invariants: a write touches neither the medium nor the wire before its extents are durably active, and keeps them until it has left the outbox and is done
// here; a change that the peer will not have is acknowledged only when the generation that says so is durable (decision 7).
import assert from 'node:assert/strict'
import type { Clock } from '../core/clock.js'
import type { Entry, EntryOutcome, OperationEntry } from '../core/entry.js'
import { unreachable } from '../core/errors.js'
import { byteOffset, type Sequence } from '../core/units.js'
import { Outbox, type Outcome, type Slot } from '../replication/outbox.js'
import { PeerProgress } from '../replication/progress.js'
import type { Pool } from '../storage/pool.js'
import type { Tracking } from '../storage/tracking.js'
import type { Mode } from './api.js'
import { checkRange } from './refusals.js'
import { ResentEntries } from './resent-entries.js'
import type { DataEntry, Ordered } from './sequencer.js'

type Left = (had: boolean) => void

export type PrimaryStreamOptions = {
  readonly pool: Pool
  readonly clock: Clock
  readonly lastSequence: Sequence
  readonly mode: Mode
  readonly congestion: 'fold' | 'stall'
  readonly outboxBytesMax?: number
  /** Entries of a folded outbox that leave in one turn; for tests. */
  readonly foldEntriesMax?: number
  /** Applies a data entry to the pool. */
  readonly apply: (entry: DataEntry) => Promise<void> | undefined
  /** Performs `new-generation` at its place in the order; resolves when it is durable. */
  readonly beginGeneration: () => Promise<void>
  readonly onOverflow: () => void
  /** Writers begin to wait for room in the outbox, or there is a good deal of room again. */
  readonly onStall: (isStalled: boolean) => void
  readonly mutants: ReadonlySet<string>
}

export class PrimaryStream implements Ordered {
  readonly #options: PrimaryStreamOptions
  readonly #pool: Pool
  readonly outbox: Outbox
  readonly progress = new PeerProgress()
  readonly #resent: ResentEntries
  /** Entries that failed here and have not left: they will make blocks dirty. */
  #failedCount = 0
  /** Clients' requests that wait for something. */
  clientsUnderWay = 0
  #operationLeft: (() => void) | undefined
  #onSendable: (() => void) | undefined
  #onDirty: (() => void) | undefined
  readonly #onLeft = new Map<number, Left>()
  #detaching: Promise<void> | undefined
  #attachCount = 0
  /** The newest attachment that was given up. */
  #detachingFrom = -1
  #isActiveFull = false
  /** Since when the peer lacks something that is in no outbox any more, as far as is known since the start. */
  #lackingSinceMs: number | undefined
  /** Since the outbox was full, until a quarter of it is free: not each time that one writer waits. */
  #isStalled = false
  /** The peer may take the changes so far for the newest of this generation: the next one without it needs another. */
  needsGeneration: boolean
  mode: Mode

  constructor(options: PrimaryStreamOptions & { readonly needsGeneration: boolean }) {
    this.#options = options
    this.#pool = options.pool
    this.mode = options.mode
    this.needsGeneration = options.needsGeneration
    this.outbox = new Outbox({
      clock: options.clock,
      lastSequence: options.lastSequence,
      ...(options.outboxBytesMax === undefined ? {} : { bytesMax: options.outboxBytesMax }),
      ...(options.foldEntriesMax === undefined ? {} : { lackedPerTurnMax: options.foldEntriesMax }),
      events: {
        had: (entry, outcome) => this.#left(entry, outcome, true),
        lacked: (entry, outcome) => this.#left(entry, outcome, false),
        sendable: () => this.#onSendable?.(),
        overflow: () => this.#overflow(),
      },
    })
    this.#resent = new ResentEntries(options.pool, this.outbox)
    if (this.#isPeerLacking) this.#lackingSinceMs = options.clock.nowMs()
  }

  /** When the oldest change was made that the peer has not durably acknowledged; undefined when it has all of them. */
  get behindSinceMs(): number | undefined {
    const kept = this.outbox.oldestAtMs
    const lacking = this.#isPeerLacking ? this.#lackingSinceMs : undefined
    return kept !== undefined && lacking !== undefined ? Math.min(kept, lacking) : (lacking ?? kept)
  }

  /** The peer has everything but what is in the outbox. */
  caughtUp(): void {
    this.#lackingSinceMs = undefined
  }

  get #isPeerLacking(): boolean {
    const totals = this.tracking?.totals
    return totals !== undefined && totals.dirtyBytes + totals.opLogEntries > 0
  }

  /** What is in the outbox leaves it, lacked: in several turns when it is much. */
  fold(): void {
    this.#lackingSinceMs ??= this.outbox.oldestAtMs
    this.outbox.fold()
  }

  get tracking(): Tracking | undefined {
    return this.#pool.tracking
  }

  /** Called when the outbox has something to send after it had nothing. */
  whenSendable(callback: (() => void) | undefined): void {
    this.#onSendable = callback
  }

  /** Called when a change has left that the peer does not have, or that failed here: its blocks are dirty. */
  whenDirty(callback: (() => void) | undefined): void {
    this.#onDirty = callback
  }

  // --- Ordered: in the step that gives the sequence; no await before the slot is taken. ---

  data(sequence: Sequence, entry: DataEntry): void {
    const { store, offset, lengthBytes, left } = entry
    if (left !== undefined) this.#onLeft.set(sequence, left)
    entry.slot = this.outbox.reserve(entryOf(sequence, entry), entry.keeper)
    entry.held = undefined
    if (entry.kind === 'compare') return
    // Of a resync: here nothing changes.
    if (entry.kind === 'resend' || left !== undefined) this.#resent.ordered(sequence)
    else entry.held = this.#pool.hold(store.id, offset, lengthBytes)
    // It may be refused before the entry's turn comes, and nobody listens until then.
    entry.held?.catch(() => {})
  }

  flush(sequence: Sequence): void {
    this.outbox.ready(this.outbox.reserve({ kind: 'flush', sequence }))
  }

  /** An operation took its sequence in this step. The answer is called when its record is durable. */
  operation(entry: OperationEntry): () => void {
    const slot = this.outbox.reserve(entry)
    return () => this.outbox.ready(slot)
  }

  // --- The change itself. ---

  /** Applies an entry at its place in the order, once its extents are active. */
  apply(entry: DataEntry): Promise<void> | undefined {
    const { slot, held } = entry
    assert(slot)
    if (entry.kind === 'resend' || entry.kind === 'compare') return this.#resent.look(entry, slot)
    if (entry.left !== undefined) return this.#resent.confirmHole(entry, slot)
    if (held === undefined) return this.#change(entry, slot)
    return held.then(
      () => this.#change(entry, slot),
      (error: unknown) => {
        this.outbox.cancel(slot)
        throw error
      },
    )
  }

  #change(entry: DataEntry, slot: Slot): Promise<void> | undefined {
    try {
      checkRange(entry.store, entry, entry.errnoBeyondEnd ?? 'ENOSPC')
      entry.check?.()
    } catch (error) {
      this.#pool.drop(entry.store.id, entry.offset, entry.lengthBytes)
      this.outbox.cancel(slot)
      throw error
    }
    this.outbox.ready(slot)
    const settle = (isFailed: boolean): void => {
      if (isFailed) this.#failedCount++
      this.outbox.settle(slot, { isFailed })
    }
    let applied: Promise<void> | undefined
    try {
      applied = this.#options.apply(entry)
    } catch (error) {
      settle(true)
      throw error
    }
    if (applied === undefined) {
      settle(false)
      return undefined
    }
    return applied.then(
      () => settle(false),
      (error: unknown) => {
        settle(true)
        throw error
      },
    )
  }

  /** True when an entry under way makes blocks dirty when it leaves: it failed here, or came before the stream that the peer follows and will not be sent. */
  get willBeDirty(): boolean {
    return this.#failedCount > 0 || this.outbox.holdsLacked
  }

  /** True when nothing in the outbox could make blocks dirty when it leaves. */
  get isCalm(): boolean {
    return !this.willBeDirty && (this.tracking?.totals.pendingOperations ?? 0) === 0
  }

  /** Resolves when everything that is in the outbox now has left. */
  async drained(lastSequence: Sequence): Promise<void> {
    if (this.outbox.entryCount === 0) return
    await new Promise<void>((resolve) => {
      const before = this.#onLeft.get(lastSequence)
      this.#onLeft.set(lastSequence, (had) => {
        before?.(had)
        resolve()
      })
    })
  }

  // --- Completion, as clients see it. ---

  /** Before a change is ordered: undefined, or what it has to wait for. */
  admit(): Promise<void> | undefined {
    if (this.tracking === undefined) return undefined
    if (this.needsGeneration && !this.progress.isWaiting) return this.detach()
    return this.whenRoom()
  }

  /** With congestion "stall": undefined, or what a request has to wait for while the outbox is full. */
  whenRoom(): Promise<void> | undefined {
    return this.#isStalling && this.outbox.isFull ? this.outbox.whenRoom() : undefined
  }

  /** After a change is applied here: what a client's reply has to wait for. */
  replicated(sequence: Sequence, isDurable: boolean): Promise<void> | undefined {
    const isAlone = this.mode === 'async' || !this.progress.isWaiting
    if (this.#detaching !== undefined && isAlone) return this.#detaching
    // It was admitted while the peer followed, and ordered when it was gone.
    if (this.needsGeneration && !this.progress.isWaiting) return this.detach()
    if (this.mode === 'async') return undefined
    if (this.mode === 'semi-sync') return this.progress.whenReceived(sequence)
    if (this.#options.mutants.has('flush-at-applied')) return this.progress.whenApplied(sequence)
    return isDurable ? this.progress.whenDurable(sequence) : this.progress.whenApplied(sequence)
  }

  /** The peer follows from here on: whoever changes something waits for it. */
  attached(durable: Sequence): void {
    this.progress.begin(durable)
    this.#attachCount++
    this.needsGeneration = true
  }

  /** The link is lost. Whoever waits for the peer goes on as soon as the new generation is durable. */
  lost(): void {
    if (!this.progress.isWaiting) return
    // Nobody can be waiting for what is answered already: then the first change that comes begins the generation.
    if (this.progress.applied >= this.outbox.sentSequence && this.outbox.entryCount === 0) {
      this.progress.releaseAll()
      return
    }
    const before = this.#detaching
    const given = this.#attachCount
    if (before === undefined || this.#detachingFrom === given) {
      this.detach().catch(() => {})
      return
    }
    // The one under way gives up the connection before this one, and leaves those who wait for this one waiting.
    this.#detachingFrom = given
    if (this.#isActiveFull) this.#foldAway()
    const again = (): void => {
      if (given === this.#attachCount) this.lost()
    }
    before.then(again, again)
  }

  /** Goes on without the peer: a new generation, durable, then everybody who waits. */
  detach(): Promise<void> {
    this.#detaching ??= this.#detach().finally(() => {
      this.#detaching = undefined
    })
    return this.#detaching
  }

  async #detach(): Promise<void> {
    const attachCount = this.#attachCount
    this.#detachingFrom = attachCount
    // The generation is ordered behind writes that wait for extents, and without the peer only folding sets those free.
    if (this.#isActiveFull) this.#foldAway()
    try {
      if (this.needsGeneration) await this.#options.beginGeneration()
    } finally {
      // The peer may be back meanwhile: then everybody waits for it again, and the new generation is an entry like others.
      if (attachCount === this.#attachCount) {
        this.needsGeneration = false
        this.progress.releaseAll()
        // Nobody will make room: writers would wait for a peer that is away.
        if (this.outbox.isFull || this.#isActiveFull) this.#foldAway()
      }
    }
  }

  /** Writers wait for room as long as there is a peer that makes some. */
  get #isStalling(): boolean {
    return this.#options.congestion === 'stall' && this.progress.isWaiting
  }

  // --- Leaving. ---

  /** Resolves when an operation has left the outbox, or something else woke the waiter. */
  operationLeft(): Promise<void> {
    return new Promise((resolve) => {
      const before = this.#operationLeft
      this.#operationLeft = () => {
        before?.()
        resolve()
      }
    })
  }

  wake(): void {
    const waiting = this.#operationLeft
    this.#operationLeft = undefined
    waiting?.()
  }

  #left(entry: Entry, outcome: Outcome, had: boolean): void {
    const { tracking } = this
    assert(tracking)
    // What is unknown begins anew with `reset`, in the step that performs it.
    const isReset = entry.kind === 'operation' && entry.operation.kind === 'reset'
    if (isReset) assert.equal(tracking.leftSequence, entry.sequence)
    else if (had) tracking.had(entry, this.#trackedOutcome(outcome))
    else if (this.#options.mutants.has('forget-fold-order')) this.#lackLate(entry, tracking)
    else tracking.lacked(entry)
    if (entry.kind === 'write' || entry.kind === 'zero') {
      if (!this.#resent.left(entry.sequence))
        this.#pool.drop(entry.storeId, entry.offset, entry.lengthBytes)
    }
    if (this.#isStalled && !this.outbox.isFilling) this.#stall(false)
    if (outcome.isFailed) this.#failedCount--
    if (outcome.isFailed || !had) this.#lackingSinceMs ??= this.#options.clock.nowMs()
    // Not in this step: it belongs to the outbox.
    if (this.#onDirty !== undefined && (outcome.isFailed || !had))
      queueMicrotask(() => this.#onDirty?.())
    if (this.#onLeft.size > 0) {
      const callback = this.#onLeft.get(entry.sequence)
      this.#onLeft.delete(entry.sequence)
      callback?.(had)
    }
    if (entry.kind === 'operation' || this.outbox.entryCount <= 1) this.wake()
  }

  /** Switchable bug: operations that leave in this step leave before the write. */
  #lackLate(entry: Entry, tracking: Tracking): void {
    const { kind, sequence } = entry
    if (kind !== 'write' && kind !== 'zero') {
      tracking.lacked(entry)
      return
    }
    tracking.lacked({ kind: 'nothing', sequence })
    const { storeId } = entry
    const range = { offset: byteOffset(entry.offset), lengthBytes: entry.lengthBytes }
    queueMicrotask(() => {
      if (tracking.stores.has(storeId)) tracking.mark(storeId, range)
    })
  }

  /** Every extent of the active set is held by entries in the outbox: writers wait until some have left. Without a peer they leave by folding only. */
  activeFull(): void {
    this.#isActiveFull = true
    if (this.#isAlone) queueMicrotask(() => this.#foldAway())
  }

  /** No peer takes anything: there is none, or the generation without it is being made. */
  get #isAlone(): boolean {
    return !this.progress.isWaiting || this.#detachingFrom === this.#attachCount
  }

  /** Writers wait for the peer, or did a moment ago. */
  get isStalled(): boolean {
    return this.#isStalled
  }

  #stall(isStalled: boolean): void {
    if (this.#isStalled === isStalled) return
    this.#isStalled = isStalled
    // Not in this step: it may belong to the outbox.
    queueMicrotask(() => this.#options.onStall(isStalled))
  }

  /** Nobody will make room in the outbox. */
  #foldAway(): void {
    if (!this.#isAlone) return
    this.#isActiveFull = false
    this.fold()
  }

  #overflow(): void {
    if (this.#isStalling) {
      this.#stall(true)
      return
    }
    this.fold()
    this.#options.onOverflow()
  }

  #trackedOutcome({ isFailed, differing }: Outcome): EntryOutcome {
    if (isFailed && !this.#options.mutants.has('failed-write-clean')) return { kind: 'failed' }
    return differing === undefined ? { kind: 'done' } : { kind: 'compared', differing }
  }
}

/** As the stream knows it. A resync's bytes and digests are read at its place in the order. */
function entryOf(sequence: Sequence, data: DataEntry): Entry {
  const { kind, offset, lengthBytes, parts, mayUnmap } = data
  const storeId = data.store.id
  const fua = data.fua ?? false
  switch (kind) {
    case 'write':
      return { kind: 'write', sequence, storeId, offset, lengthBytes, fua, parts }
    case 'resend':
      return { kind: 'write', sequence, storeId, offset, lengthBytes, fua, parts: none }
    case 'zero':
      return { kind: 'zero', sequence, storeId, offset, lengthBytes, fua, mayUnmap }
    case 'compare':
      return { kind: 'compare', sequence, storeId, offset, lengthBytes, digests: nothing }
    default:
      return unreachable(kind)
  }
}

const none: readonly Buffer[] = []
const nothing = Buffer.alloc(0)
