// How far a secondary is on one connection: what it received, applied, and has in its journal. Commits by itself what is applied, so that the primary's outbox empties, and answers.
//
// Invariant: a position is answered as durable only when this node's journal has it.
import type { Timer } from '../core/clock.js'
import { LockstepError } from '../core/errors.js'
import { MiB, type Sequence } from '../core/units.js'
import type { ReplicaHost } from './replica-host.js'

/** Applied and not durable: beyond this, or this long after, a commit begins. */
const undurableBytesMax = 32 * MiB
const undurableMs = 1000

export class ReplicaPosition {
  readonly #host: ReplicaHost
  readonly #send: (received: Sequence, applied: Sequence, durable: Sequence) => void
  readonly #fail: (error: unknown) => void
  #undurableBytes = 0
  #commitTimer: Timer | undefined
  #committedSequence = 0 as Sequence
  #isStopped = false
  #received: Sequence
  /** What was durable when it was looked at last. */
  #seenDurable: number
  /** Since when something that was received is not durable, and nothing has become so. */
  #waitingSinceMs: number | undefined

  constructor(
    host: ReplicaHost,
    options: {
      readonly send: (received: Sequence, applied: Sequence, durable: Sequence) => void
      readonly fail: (error: unknown) => void
    },
  ) {
    this.#host = host
    this.#send = options.send
    this.#fail = options.fail
    this.#received = host.sequencer.lastSequence
    this.#seenDurable = host.pool.durableSequence
  }

  get received(): Sequence {
    return this.#received
  }

  set received(sequence: Sequence) {
    this.#received = sequence
    this.#waitingSinceMs ??= this.#host.clock.nowMs()
  }

  /** Since when this node's disk has made nothing durable although there is something; undefined when there is nothing. */
  get waitingSinceMs(): number | undefined {
    this.#look(this.#host.pool.durableSequence)
    return this.#waitingSinceMs
  }

  get isStopped(): boolean {
    return this.#isStopped
  }

  /** Nothing is answered, and nothing new is committed, from here on. */
  stop(): void {
    this.#isStopped = true
    this.#commitTimer?.cancel()
  }

  /** Bytes that will be applied and then have to become durable. */
  add(lengthBytes: number): void {
    this.#undurableBytes += lengthBytes
  }

  /** An entry was applied; one that is forced must become durable now. */
  applied(isForced: boolean): void {
    if (isForced || this.#undurableBytes > undurableBytesMax) this.commit()
    else this.#commitLater()
    this.answer()
  }

  answer(): void {
    if (this.#isStopped) return
    const { sequencer, pool, mutants } = this.#host
    const applied = sequencer.appliedSequence
    this.#look(pool.durableSequence)
    const durable = mutants.has('durable-at-applied') ? applied : (pool.durableSequence as Sequence)
    this.#send(this.received, applied, durable)
  }

  #look(durable: number): void {
    if (durable === this.#seenDurable && durable < this.#received) return
    this.#seenDurable = durable
    this.#waitingSinceMs = durable < this.#received ? this.#host.clock.nowMs() : undefined
  }

  /** Begins a commit of what is applied now; what comes of it is answered. */
  commit(): void {
    this.#undurableBytes = 0
    this.#committedSequence = this.#host.sequencer.appliedSequence
    this.#host.pool.commit().then(
      () => {
        this.answer()
        // The journal had no room for the position: a checkpoint makes some.
        if (this.#host.pool.durableSequence < this.#committedSequence) this.#commitLater()
      },
      (error: unknown) => this.#fail(error),
    )
  }

  /** Everything that was received is applied: resolves when this node's journal knows that. Rejects with NO_SPACE when it has no room even for that. */
  async makeDurable(): Promise<void> {
    const { pool, sequencer } = this.#host
    await pool.commit()
    if (pool.durableSequence >= sequencer.appliedSequence) return
    await pool.forceCheckpoint()
    await pool.commit()
    if (pool.durableSequence >= sequencer.appliedSequence) return
    throw new LockstepError(
      'NO_SPACE',
      'the journal of the secondary has no room for its position',
      'make room in the file system of its data directory; it connects again by itself',
    )
  }

  #commitLater(): void {
    if (this.#isStopped) return
    this.#commitTimer ??= this.#host.clock.setTimer(undurableMs, () => {
      this.#commitTimer = undefined
      this.commit()
    })
  }
}
