// How far the peer is: the three cumulative positions of its answers, and who waits for them. (Bodies follow.)
import type { Sequence } from '../core/units.js'
import type { AnswerFrame } from './frames.js'

export declare class PeerProgress {
  readonly received: Sequence
  readonly applied: Sequence
  readonly durable: Sequence
  /** False from `releaseAll` to the next `begin`: nobody waits. */
  readonly isWaiting: boolean

  /** A peer whose position is `durable` is there: from now on writes wait for it. */
  begin(durable: Sequence): void
  /** Resolves waiters up to the answered positions. Throws ProtocolError when one goes back, or is beyond what was sent. */
  answer(answer: AnswerFrame, sentSequence: Sequence): void
  /** Undefined when that is so already, or when nobody waits. Resolves by an answer or by `releaseAll`. */
  whenReceived(sequence: Sequence): Promise<void> | undefined
  whenApplied(sequence: Sequence): Promise<void> | undefined
  whenDurable(sequence: Sequence): Promise<void> | undefined
  /** The peer is not waited for any more: all waiters go on. */
  releaseAll(): void
}
