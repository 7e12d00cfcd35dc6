// What two nodes do that meet: one pure function of what both say of themselves and of what the primary knows. (Bodies follow.)
import type { Position, Sequence } from '../core/units.js'
import type { Decision, Hello } from './hello.js'

/** What the primary knows of the node that it replicates to, in the step in which it decides. */
export type LocalKnowledge = {
  /** The node that is tracked; absent when none is. */
  readonly peerNodeId?: string
  /** The newest position that the peer said is durable there. */
  readonly acknowledged?: Position
  /** The oldest entry that the outbox keeps, or the next one to be ordered when it keeps none; absent: what the peer lacks was folded. */
  readonly outboxFirst?: Sequence
  /** Bytes in the outbox. */
  readonly outboxBytes?: number
  /** The difference is unknown: it was never tracked, or the op log overflowed. */
  readonly isTrackingLost: boolean
  readonly dirtyBytes: number
  readonly opLogEntries: number
  /** What a blank node would get: chunks in use, each once. */
  readonly allocatedBytes: number
}

/**
 * Total: every pair of hellos has an answer. `local` is absent on a secondary, which sees the same refusals, and otherwise only which way data would go.
 * A primary acts on the answer in the step in which it got it: `resume` holds as long as the outbox keeps what it kept.
 */
export declare function decide(mine: Hello, theirs: Hello, local?: LocalKnowledge): Decision

/** On a secondary: why it does not do what the primary decided, or undefined. The answer is a decision of kind `refuse`. */
export declare function objection(told: Decision, mine: Hello, theirs: Hello): Decision | undefined

/** The version that both speak: the newest. Undefined when there is none. */
export declare function agreedVersion(mine: Hello, theirs: Hello): number | undefined

/** For people, a line each; as JSON the decision speaks for itself. */
export declare function explain(decision: Decision): string
