// How far the peer is: the three cumulative positions of its answers, and who waits for them. A waiter costs one promise and a place in
// a queue; an answer resolves all that it covers.
//
// Invariant: durable <= applied <= received; none of them goes back while the connection lasts.
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { Sequence } from '../core/units.js'
import type { AnswerFrame } from './frames.js'

export class PeerProgress {
  readonly #received = new Milestone()
  readonly #applied = new Milestone()
  readonly #durable = new Milestone()
  #isWaiting = false

  get received(): Sequence {
    return this.#received.reached as Sequence
  }

  get applied(): Sequence {
    return this.#applied.reached as Sequence
  }

  get durable(): Sequence {
    return this.#durable.reached as Sequence
  }

  /** False from `releaseAll` to the next `begin`, and before the first: nobody waits. */
  get isWaiting(): boolean {
    return this.#isWaiting
  }

  /** A peer that has everything up to `durable` is there: from now on writes wait for it. Waiters of the connection before go on waiting. */
  begin(durable: Sequence): void {
    this.#isWaiting = true
    for (const milestone of this.#all()) milestone.reset(durable)
  }

  /** Resolves waiters up to the answered positions. Throws ProtocolError when one goes back, or is beyond what was sent. */
  answer(answer: AnswerFrame, sentSequence: Sequence): void {
    const { received, applied, durable } = answer
    if (received > sentSequence)
      throw new ProtocolError(
        `the peer has received ${received}, but ${sentSequence} was sent last`,
      )
    if (durable > applied || applied > received)
      throw new ProtocolError('an answer has its positions in the wrong order')
    if (received < this.received || applied < this.applied || durable < this.durable)
      throw new ProtocolError('the position of the peer went back')
    this.#received.reach(received)
    this.#applied.reach(applied)
    this.#durable.reach(durable)
  }

  /** Undefined when that is so already, or when nobody waits. Resolves by an answer or by `releaseAll`. */
  whenReceived(sequence: Sequence): Promise<void> | undefined {
    return this.#isWaiting ? this.#received.when(sequence) : undefined
  }

  whenApplied(sequence: Sequence): Promise<void> | undefined {
    return this.#isWaiting ? this.#applied.when(sequence) : undefined
  }

  whenDurable(sequence: Sequence): Promise<void> | undefined {
    return this.#isWaiting ? this.#durable.when(sequence) : undefined
  }

  /** The peer is not waited for any more: all waiters go on. */
  releaseAll(): void {
    this.#isWaiting = false
    for (const milestone of this.#all()) milestone.releaseAll()
  }

  #all(): readonly Milestone[] {
    return [this.#received, this.#applied, this.#durable]
  }
}

type Waiter = { readonly sequence: number; readonly resolve: () => void }

/** Used-up places at the front of a queue after which the rest is moved. */
const headMax = 1024

/** One position, and its waiters in the order of their sequences. */
class Milestone {
  reached = 0
  #waiters: Waiter[] = []
  #head = 0

  /** What was reached on the connection before may not be there any more. */
  reset(sequence: number): void {
    this.reached = 0
    this.reach(sequence)
  }

  when(sequence: number): Promise<void> | undefined {
    if (sequence <= this.reached) return undefined
    return new Promise((resolve) => this.#insert({ sequence, resolve }))
  }

  reach(sequence: number): void {
    this.reached = sequence
    for (
      let first = this.#waiters[this.#head];
      first !== undefined && first.sequence <= sequence;
      first = this.#waiters[this.#head]
    ) {
      this.#head++
      first.resolve()
    }
    if (this.#head === this.#waiters.length) this.#waiters = []
    else if (this.#head >= headMax) this.#waiters = this.#waiters.slice(this.#head)
    else return
    this.#head = 0
  }

  releaseAll(): void {
    const waiters = this.#waiters.slice(this.#head)
    this.#waiters = []
    this.#head = 0
    for (const waiter of waiters) waiter.resolve()
  }

  /** Waiters come nearly in order: the place is near the end. */
  #insert(waiter: Waiter): void {
    const waiters = this.#waiters
    let at = waiters.length
    while (at > this.#head && (waiters[at - 1]?.sequence ?? 0) > waiter.sequence) at--
    if (at === waiters.length) waiters.push(waiter)
    else waiters.splice(at, 0, waiter)
  }
}
