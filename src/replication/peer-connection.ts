// One connection to the peer: frames in, frames out, and the certainty that it ends when the peer is gone. (Bodies follow.)
//
// Frames are handed over one at a time and in order. What is sent in one turn leaves together. Nothing is read while the receiver holds
// back, and what waits to be sent is bounded. A connection ends once, with one reason; after that nothing is handed over.
import type { Duplex } from 'node:stream'
import type { Clock } from '../core/clock.js'
import type { Sequence } from '../core/units.js'
import type { Frame, ReceivedFrame, Side } from './frames.js'

export type CloseReason = {
  readonly kind: /** This side ended it. */
    | 'local'
    /** The peer said why. */
    | 'bye'
    /** The stream ended or failed without a word. */
    | 'lost'
    /** The peer broke the protocol. */
    | 'protocol'
    /** Nothing came for `silenceTimeoutMs`. */
    | 'silent'
    /** The peer took nothing for `stallTimeoutMs`. */
    | 'stalled'
  /** One clause, for people. */
  readonly message: string
}

export declare class PeerConnection {
  constructor(options: {
    /** Owned from now on: destroyed at the end. */
    readonly stream: Duplex
    /** Bytes that came behind the handshake and were read with it. */
    readonly before?: readonly Buffer[]
    readonly clock: Clock
    /** Which side we are: frames that only our own side may send are refused. */
    readonly side: Side
    /**
     * Gets each frame. A promise holds back everything behind it until it settles. What it throws or rejects as ProtocolError ends the connection; any other
     * error is the program's and goes on its way. Buffers in the frame are the receiver's.
     */
    readonly receive: (frame: ReceivedFrame) => Promise<void> | undefined
    readonly silenceTimeoutMs?: number
    readonly stallTimeoutMs?: number
  })

  readonly sentBytes: number
  readonly receivedBytes: number
  /** Sent and not taken by the system. */
  readonly unsentBytes: number
  readonly isClosed: boolean
  /** Of the last ping that was answered. */
  readonly roundTripMs: number | undefined
  /** Resolves once, never rejects. */
  readonly closed: Promise<CloseReason>

  /** Queues a frame; what is queued in one turn leaves together. Does nothing when closed. The memory of its parts stays as it is until it was taken. */
  send(frame: Frame): void
  /** The same for frames that are bytes already: a batch of the outbox. */
  sendBytes(parts: readonly Buffer[], lengthBytes: number): void
  /** Sends the newest answer once in this turn, or when the peer takes bytes again: never more than one waits. */
  answer(received: Sequence, applied: Sequence, durable: Sequence): void
  /** Whether more may be sent without exceeding `unsentBytesHigh`. Whoever has much to send asks first; a queue above `unsentBytesMax` ends the connection. */
  readonly canSend: boolean
  /** Resolves when `canSend`, or when closed. */
  drained(): Promise<void>
  /** Says bye and why, waits a moment for it to leave, and ends. */
  bye(reason: string): void
  /** Ends at once. */
  close(reason: string): void
}
