// The frames of the link: what one node says to the other, as values. An entry of the stream is a frame of its own kind.
// Their bytes are made by frame-encoder.ts and read by frame-reader.ts.
import type { Entry } from '../core/entry.js'
import type { Operation } from '../core/operation.js'
import type { Sequence } from '../core/units.js'
import type { Side } from './frame-head.js'
import type { JsonObject } from './json-reader.js'

export type { JsonObject, Side }

/** What a node says of itself, first of all. The shape of the body is the greeting's affair. */
export type HelloFrame = { readonly kind: 'hello'; readonly body: JsonObject }
/** What the primary decided from both hellos. */
export type DecisionFrame = { readonly kind: 'decision'; readonly body: JsonObject }
/** The secondary has done what the decision asks of it first. */
export type ReadyFrame = { readonly kind: 'ready'; readonly body: JsonObject }
/** No, and why: the connection ends behind it. */
export type RefuseFrame = {
  readonly kind: 'refuse'
  readonly code: string
  readonly message: string
  readonly action: string
}
/** An operation that the secondary missed, with the sequence it had: gaps between these are legal, so each names the one before. */
export type ReplayFrame = {
  readonly kind: 'replay'
  readonly sequence: Sequence
  readonly after: ReplayPosition
  readonly at: string
  readonly operation: Operation
}
/** The next entry has this sequence; from here on there are no gaps. */
export type StreamFromFrame = {
  readonly kind: 'stream-from'
  readonly sequence: Sequence
  readonly after: ReplayPosition
}
/** The sequence of the operation that was replayed last on this connection; of the first, the position in the secondary's hello, or 0 when everything is to come. */
export type ReplayPosition = Sequence | 0
/** The primary's journal has batches up to this one, durably: told before the entries that rely on them. */
export type JournaledFrame = {
  readonly kind: 'journaled'
  readonly batchNumber: number
  /** Extents became active in them: the secondary has to have this in its journal before it applies what follows. */
  readonly isBarrier: boolean
}
/** Cumulative: durable <= applied <= received. */
export type AnswerFrame = {
  readonly kind: 'answer'
  readonly received: Sequence
  readonly applied: Sequence
  readonly durable: Sequence
}
/** Outcome of a compare entry, sent before the answer that covers it. Bit n (from the lowest of the first byte) is set when piece n differs. */
export type ComparedFrame = {
  readonly kind: 'compared'
  readonly sequence: Sequence
  /** Of the entry. */
  readonly lengthBytes: number
  readonly differing: Uint8Array
}
/** Outcome of a mark. */
export type ResultFrame = {
  readonly kind: 'result'
  readonly sequence: Sequence
  readonly body: JsonObject
}
/** For verify: digests of a frozen store. */
export type DigestRequestFrame = {
  readonly kind: 'digest-request'
  readonly requestId: number
  readonly frozenId: number
  readonly offset: number
  readonly lengthBytes: number
}
/** 32 bytes for each piece of `comparePieceBytes`; none when there is no such frozen store. */
export type DigestAnswerFrame = {
  readonly kind: 'digest-answer'
  readonly requestId: number
  readonly digests: Buffer
}
/** For a repair from the peer: bytes of a frozen store. */
export type ReadRequestFrame = {
  readonly kind: 'read-request'
  readonly requestId: number
  readonly frozenId: number
  readonly offset: number
  readonly lengthBytes: number
}
/** As many bytes as were asked for; none when there is no such frozen store. */
export type ReadAnswerFrame = {
  readonly kind: 'read-answer'
  readonly requestId: number
  readonly bytes: Buffer
}
/** The connection sends and answers these itself. */
export type PingFrame = { readonly kind: 'ping'; readonly token: number }
export type PongFrame = { readonly kind: 'pong'; readonly token: number }
/** The connection ends on purpose. */
export type ByeFrame = { readonly kind: 'bye'; readonly reason: string }

export type Frame =
  | Entry
  | HelloFrame
  | DecisionFrame
  | ReadyFrame
  | RefuseFrame
  | ReplayFrame
  | StreamFromFrame
  | JournaledFrame
  | AnswerFrame
  | ComparedFrame
  | ResultFrame
  | DigestRequestFrame
  | DigestAnswerFrame
  | ReadRequestFrame
  | ReadAnswerFrame
  | PingFrame
  | PongFrame
  | ByeFrame

/** What a user of a connection receives: pings, pongs and bye stay inside. */
export type ReceivedFrame = Exclude<Frame, PingFrame | PongFrame | ByeFrame>
