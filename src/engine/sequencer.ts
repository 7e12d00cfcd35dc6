// The one order of the group (law 1). Every write, zeroing, flush and operation takes its sequence here, in one synchronous step, and takes effect in that order
// where it matters: overlapping writes in arrival order, operations after everything before them and before everything after them.
//
// Who waits for whom: a write waits for writes before it that touch the same chunks, and for operations before it. An operation waits for everything before it. A flush
// waits for nothing: it covers what was replied before it arrived. Reads take no part. While an operation waits or is performed, what arrives queues behind it, in order.
// A write that the pool does at once (the usual case) holds no lease: nothing can come between.

import assert from 'node:assert/strict'
import type { PartKeeper } from '../../nbd/bytes/part-keeper.js'
import { type ErrnoBeyondEnd, RequestError } from '../../nbd/errors.js'
import { limits } from '../core/limits.js'
import type { Sequence } from '../core/units.js'
import type { Slot } from '../replication/slot.js'
import type { Store } from '../storage/group-state.js'
import type { Lease } from '../storage/range-lock.js'

/** A change of one store's bytes, or a look at them at a place in the order, as an entry of the stream. The receiver may keep `parts` until it settles. */
export type DataEntry = {
  /** `resend` and `compare` read what is there at their place in the order, for the peer. */
  readonly kind: 'write' | 'zero' | 'resend' | 'compare'
  readonly store: Store
  readonly offset: number
  readonly lengthBytes: number
  /** The bytes of a write; empty for a zeroing. */
  readonly parts: readonly Buffer[]
  readonly keeper?: PartKeeper | undefined
  /** A zeroing that may give space back. */
  readonly mayUnmap: boolean
  /** When the store has become too small for it by then; ENOSPC unless said. */
  readonly errnoBeyondEnd?: ErrnoBeyondEnd | undefined
  /** Durable before it is acknowledged. */
  readonly fua?: boolean
  /** At its place in the order, before anything is changed: throws a RequestError when it is not to be. */
  readonly check?: () => void
  /** Its place in the order, 0 until it has one. Whoever made the entry reads it when it is applied. */
  sequence?: number
  /** With a peer: its place in the outbox, and what it has to wait for before it takes effect. Of the stream, from the step that gives the sequence on. */
  slot?: Slot
  held?: Promise<void> | undefined
  /** Called when it has left the outbox. Of a resync: the entry changes nothing here. */
  left?: (had: boolean) => void
}

/** Changes the store; undefined when that is done already. */
export type Apply = (entry: DataEntry) => Promise<void> | undefined

/** Told of every entry in the step that gives it its sequence, in the order of the sequences. */
export type Ordered = {
  data(sequence: Sequence, entry: DataEntry): void
  flush(sequence: Sequence): void
}

type Queued = {
  readonly isOperation: boolean
  readonly run: () => void
  readonly refuse: (error: RequestError) => void
}

export class Sequencer {
  readonly #chunkBytes: number
  readonly #apply: Apply
  /** Sequences of entries that have theirs and are not applied, in order. */
  readonly #underWay = new Set<number>()
  readonly #queue: Queued[] = []
  readonly #openWaiters: (() => void)[] = []
  #isGateClosed = false
  #isClosed = false
  #last: number
  #lastFlush = -1
  readonly #missesInFlight: boolean
  /** Sequences of entries that failed while `stopsAtFailure`: they stay under way. */
  readonly #failed = new Set<number>()
  /** On a replica an entry that failed is not applied: nothing behind it takes effect as an operation, and no position covers it, until `rewind`. */
  stopsAtFailure = false
  /** The stream to a peer, when there is one. */
  ordered: Ordered | undefined

  constructor(options: {
    readonly chunkBytes: number
    readonly lastSequence: number
    readonly apply: Apply
    /** Switchable bug: an operation does not wait for what is in flight. */
    readonly missesInFlight: boolean
  }) {
    this.#chunkBytes = options.chunkBytes
    this.#apply = options.apply
    this.#last = options.lastSequence
    this.#missesInFlight = options.missesInFlight
  }

  get lastSequence(): Sequence {
    return this.#last as Sequence
  }

  /** The newest sequence such that every entry up to it is applied. */
  get appliedSequence(): Sequence {
    for (const sequence of this.#underWay) return (sequence - 1) as Sequence
    return this.#last as Sequence
  }

  /** A barrier takes a sequence too: it is an entry of the stream. */
  takeFlush(): Sequence {
    // Nothing was ordered since the last one: it is that one again. So sequences go up with changes only.
    if (this.#lastFlush === this.#last) return this.#last as Sequence
    const sequence = ++this.#last as Sequence
    this.#lastFlush = sequence
    this.ordered?.flush(sequence)
    return sequence
  }

  /** Orders and applies an entry. Returns undefined when it is applied already; throws or rejects as the pool does. */
  submit(entry: DataEntry): Promise<void> | undefined {
    if (this.#isClosed) throw new RequestError('ESHUTDOWN', 'the server is stopping')
    if (this.#failed.size > 0) throw behindFailure()
    if (this.#isGateClosed || this.#queue.length > 0) return this.#enqueue(entry)
    return this.#start(entry)
  }

  /** An operation waits or is performed: what is submitted now is ordered behind it. */
  get isHolding(): boolean {
    return this.#isGateClosed || this.#queue.length > 0
  }

  /** Resolves as soon as nothing holds entries back any more. */
  whenOpen(): Promise<void> {
    if (!this.isHolding) return Promise.resolve()
    return new Promise((resolve) => this.#openWaiters.push(resolve))
  }

  /**
   * Runs an operation at its place in the order. `prepare` runs when everything before is applied and nothing after has begun; it may refuse.
   * `perform` is one synchronous step with the operation's sequence; behind it the gate opens, or, with `settle`, when that has resolved.
   */
  operate<Plan>(steps: {
    readonly prepare: () => Promise<Plan>
    readonly perform: (sequence: Sequence, plan: Plan) => void
    readonly settle?: () => Promise<void>
    /** A replica performs operations with the sequences they have. */
    readonly sequence?: Sequence
  }): Promise<{ readonly sequence: Sequence; readonly plan: Plan }> {
    if (this.#failed.size > 0) return Promise.reject(behindFailure())
    return new Promise((resolve, reject) => {
      this.#queue.push({
        isOperation: true,
        run: () => void this.#operate(steps).then(resolve, reject),
        refuse: reject,
      })
      this.#pump()
    })
  }

  /** Goes back to before the first entry that failed: it and what follows comes again. Nothing else may be under way. */
  rewind(): void {
    assert.equal(this.#underWay.size, this.#failed.size)
    if (this.#failed.size === 0) return
    this.#last = this.appliedSequence
    this.#underWay.clear()
    this.#failed.clear()
  }

  /** Takes no more entries, and resolves when everything submitted before is applied or refused. */
  close(): Promise<void> {
    this.#isClosed = true
    return new Promise((resolve) => {
      const last: Queued = {
        isOperation: true,
        run: () => {
          if (this.#failed.size > 0) this.rewind()
          this.#openGate()
          resolve()
        },
        refuse: () => this.#queue.push(last),
      }
      this.#queue.push(last)
      this.#pump()
    })
  }

  async #operate<Plan>(steps: {
    readonly prepare: () => Promise<Plan>
    readonly perform: (sequence: Sequence, plan: Plan) => void
    readonly settle?: () => Promise<void>
    readonly sequence?: Sequence
  }): Promise<{ readonly sequence: Sequence; readonly plan: Plan }> {
    try {
      const plan = await steps.prepare()
      // No await from here: the sequence, the change of the maps and the opening of the gate are one step.
      const sequence = steps.sequence ?? ((this.#last + 1) as Sequence)
      assert(sequence > this.#last)
      this.#last = sequence
      steps.perform(sequence, plan)
      await steps.settle?.()
      return { sequence, plan }
    } finally {
      this.#openGate()
    }
  }

  #openGate(): void {
    this.#isGateClosed = false
    this.#pump()
  }

  /** Starts what the head of the queue allows. */
  #pump(): void {
    for (
      let head = this.#queue[0];
      head !== undefined && !this.#isGateClosed;
      head = this.#queue[0]
    ) {
      const isBusy = this.#underWay.size > this.#failed.size
      if (head.isOperation && isBusy && !this.#missesInFlight) return
      this.#queue.shift()
      if (head.isOperation) this.#isGateClosed = true
      head.run()
    }
    if (this.#openWaiters.length > 0 && !this.isHolding)
      for (const resolve of this.#openWaiters.splice(0)) resolve()
  }

  #start(entry: DataEntry): Promise<void> | undefined {
    // No await in here: arrival order becomes the order of the group.
    const { lock } = entry.store
    const sequence = ++this.#last
    entry.sequence = sequence
    this.ordered?.data(sequence as Sequence, entry)
    if (lock.isIdle) {
      const applied = this.#applyNow(sequence, entry)
      if (applied === undefined) return undefined
      return this.#finish(sequence, entry, lock.take(this.#from(entry), this.#end(entry)), applied)
    }
    const from = this.#from(entry)
    const end = this.#end(entry)
    if (lock.isFree(from, end)) {
      const applied = this.#applyNow(sequence, entry)
      return applied === undefined
        ? undefined
        : this.#finish(sequence, entry, lock.take(from, end), applied)
    }
    this.#underWay.add(sequence)
    return new Promise<void>((resolve, reject) => {
      lock.wait(from, end, (lease) => {
        this.#finish(sequence, entry, lease, this.#applyAsync(entry)).then(resolve, reject)
      })
    })
  }

  #applyNow(sequence: number, entry: DataEntry): Promise<void> | undefined {
    try {
      return this.#apply(entry)
    } catch (error) {
      this.#stopAt(sequence)
      throw error
    }
  }

  /** What is queued behind a failure on a replica would take effect without it. */
  #stopAt(sequence: number): void {
    if (!this.stopsAtFailure) return
    this.#underWay.add(sequence)
    this.#failed.add(sequence)
    for (const { refuse } of this.#queue.splice(0)) refuse(behindFailure())
  }

  async #applyAsync(entry: DataEntry): Promise<void> {
    await this.#apply(entry)
  }

  async #finish(
    sequence: number,
    entry: DataEntry,
    lease: Lease,
    applied: Promise<void>,
  ): Promise<void> {
    this.#underWay.add(sequence)
    try {
      await applied
    } catch (error) {
      this.#stopAt(sequence)
      throw error
    } finally {
      if (!this.#failed.has(sequence)) this.#underWay.delete(sequence)
      entry.store.lock.release(lease)
      this.#pump()
    }
  }

  #enqueue(entry: DataEntry): Promise<void> {
    if (this.#queue.length >= limits.queuedEntriesMax)
      throw new RequestError('EIO', 'too many requests wait for an operation')
    return new Promise<void>((resolve, reject) => {
      const run = (): void => {
        try {
          const applied = this.#start(entry)
          if (applied === undefined) resolve()
          else applied.then(resolve, reject)
        } catch (error) {
          reject(error)
        }
      }
      this.#queue.push({ isOperation: false, run, refuse: reject })
    })
  }

  // Two writes that touch one chunk may both need it copied: leases are whole chunks.
  #from(entry: DataEntry): number {
    return Math.floor(entry.offset / this.#chunkBytes) * this.#chunkBytes
  }

  #end(entry: DataEntry): number {
    return Math.ceil((entry.offset + entry.lengthBytes) / this.#chunkBytes) * this.#chunkBytes
  }
}

function behindFailure(): RequestError {
  return new RequestError('EIO', 'an entry before this one could not be applied')
}
