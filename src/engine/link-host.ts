// The two that a connection of the primary works for: its node, which every part of the link asks, and the link, which hears how the connection fares.
//
// Invariant: nothing of the link knows the node by anything else; what is here stays the same from one connection to the next.
import type { SendNow } from '../../nbd/bytes/send-now.js'
import type { Clock, Random } from '../core/clock.js'
import type { Log } from '../core/log.js'
import type { Sequence } from '../core/units.js'
import type { LocalKnowledge } from '../replication/greeting.js'
import type { Decision, Hello } from '../replication/hello.js'
import type { LinkState } from '../replication/link-state.js'
import type { Connect } from './api.js'
import type { FollowingPeer } from './mark-results.js'
import type { PrimaryStream } from './primary-stream.js'

/** A peer to which the stream is open. */
export type FollowingState = {
  /** False: it is made whole by the end of a resync. */
  readonly isPeerWhole: boolean
  /** It is sent all that is behind this. */
  readonly position: Sequence
}

/** What the link needs of the node. */
export type LinkHost = {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly connect: Connect
  readonly deadlineMs?: number
  readonly sendNow?: SendNow | undefined
  /** Absent until a peer is tracked. */
  readonly stream: () => PrimaryStream | undefined
  readonly hello: () => Hello
  /** A node is tracked, and it is not this one. */
  readonly isStranger: (nodeId: string) => boolean
  readonly knowledge: () => LocalKnowledge
  /** The newest batch that is durable in the journal. */
  readonly durableBatch: () => number
  /** The newest of those in which an extent became active. */
  readonly activatedBatch: () => number
  /** Begins to track this node: performs `reset`. */
  readonly beginTracking: (peer: Hello) => Promise<void>
  /** Copies what is dirty until nothing is; resolves at the end, or when the link is lost. */
  readonly resync: (peer: FollowingState) => {
    readonly done: Promise<'done' | 'stopped'>
    readonly stop: () => void
  }
  readonly acknowledged: (durable: Sequence, peer: Hello) => void
  /** Switchable bug: what the peer has applied counts as durable there. */
  readonly clearsAtApplied: boolean
  /** The peer answered: it is further than before. */
  readonly onAnswer: () => void
  readonly onResult: (sequence: Sequence, body: object) => void
  /** The peer is about to go on behind a sequence. */
  readonly onFollows: (peer: FollowingPeer) => void
  readonly onChange: (link: LinkState, reason: string) => void
}

/** What a connection tells its link. */
export type SessionObserver = {
  readonly go: (state: LinkState, reason: string) => void
  /** Whether to do what was decided. */
  readonly decided: (decision: Decision) => boolean
  readonly refused: (action: string) => void
  readonly reached: () => void
}
