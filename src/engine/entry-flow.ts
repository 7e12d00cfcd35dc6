// The stream on one connection: what leaves of the outbox, and when, and what the peer's answers say of it.
//
// Invariants: an entry leaves behind the news of the journal's batch that it relies on. What the peer may say that it has is what was sent to it. What was answered before
// the system has taken it stays as it is in memory. A peer that takes entries and applies none of them does not keep clients waiting for ever.
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { Timer } from '../core/clock.js'
import type { Sequence } from '../core/units.js'
import type { AnswerFrame, ComparedFrame } from '../replication/frames.js'
import type { Hello } from '../replication/hello.js'
import { linkLimits } from '../replication/limits.js'
import type { PeerConnection } from '../replication/peer-connection.js'
import type { CatchUp } from './catch-up.js'
import { Gathering } from './gathering.js'
import type { LinkHost } from './link-host.js'
import type { PrimaryStream } from './primary-stream.js'

/** Handed to the socket at once. */
const sendBytesMax = 256 * 1024

export class EntryFlow {
  readonly #host: LinkHost
  readonly #connection: PeerConnection
  readonly #catchUp: CatchUp
  readonly #gathering: Gathering
  #isOpen = false
  #isPumping = false
  #progressTimer: Timer | undefined
  /** What the peer had when the stream was opened. */
  #position = 0
  /** Its answers have reached that. */
  #isPeerInStream = false
  #toldBatch = -1
  /** Of activations: the peer was told to keep that it has seen this one. The first time on a connection it is told in any case. */
  #barrierBatch = -1
  /** The system has taken the bytes of all entries up to here. */
  #takenSequence = 0
  /** What was sent behind that, and with which byte of the connection each piece of it ends. */
  readonly #untaken: { readonly lastSequence: Sequence; readonly end: number }[] = []
  /** Of the peer's last answer, and since when something was sent that is not durable there, and nothing has become so. */
  #durable = 0
  #waitingSinceMs: number | undefined
  /** The newest operation that was sent before the stream. */
  replayedSequence = 0

  constructor(host: LinkHost, connection: PeerConnection, catchUp: CatchUp) {
    this.#host = host
    this.#connection = connection
    this.#catchUp = catchUp
    this.#gathering = new Gathering({
      clock: host.clock,
      due: () => {
        const stream = host.stream()
        if (stream !== undefined) this.#schedulePump(stream)
      },
    })
  }

  /** Since when the peer has made nothing durable of what it was sent; undefined when there is nothing. */
  get waitingSinceMs(): number | undefined {
    return this.#waitingSinceMs
  }

  /** From `open` to `close`: what the outbox has goes to the peer. */
  get isOpen(): boolean {
    return this.#isOpen
  }

  /** The peer follows: it has everything up to `position`, and is sent what is behind that. */
  open(stream: PrimaryStream, position: Sequence): void {
    this.#isOpen = true
    this.#position = position
    this.#takenSequence = position
    stream.attached(position)
    stream.whenSendable(() => this.#sendable(stream))
    this.#schedulePump(stream)
    this.#watchProgress(stream, stream.progress.applied)
  }

  /** The connection has ended. Whoever waits for the peer goes on without it. */
  close(): void {
    const stream = this.#host.stream()
    stream?.whenSendable(undefined)
    this.#progressTimer?.cancel()
    this.#gathering.close()
    if (this.#isOpen) stream?.lost()
    this.#isOpen = false
  }

  /** A peer that lives and takes entries but applies none of them, because its disk hangs, would keep clients waiting: the link ends. */
  #watchProgress(stream: PrimaryStream, appliedBefore: Sequence): void {
    const sentBefore = stream.outbox.sentSequence
    this.#progressTimer = this.#host.clock.setTimer(linkLimits.stallTimeoutMs, () => {
      if (this.#connection.isClosed || !this.#isOpen) return
      const { applied } = stream.progress
      if (applied === appliedBefore && applied < sentBefore) {
        this.#connection.close('the peer takes entries and applies none of them: its disk hangs')
        return
      }
      this.#watchProgress(stream, applied)
    })
  }

  // --- What leaves. ---

  /** A peer with nothing to do gets the first entry before it is applied here: both nodes work at once. What follows in the turn goes together. */
  #sendable(stream: PrimaryStream): void {
    if (this.#mayGather(stream)) {
      this.#gathering.begin(() => ({
        added: stream.outbox.lastSequence,
        isPressing: !this.#mayGather(stream),
      }))
      return
    }
    const isPeerIdle = stream.progress.applied >= stream.outbox.sentSequence
    if (!isPeerIdle || this.#isPumping || !this.#connection.canSend) {
      this.#schedulePump(stream)
      return
    }
    this.#pump(stream)
    this.#connection.flush()
  }

  /** Nobody waits for what is to be sent, and there is room for more. */
  #mayGather({ mode, outbox }: PrimaryStream): boolean {
    return mode === 'async' && !this.#catchUp.isUnderWay && !outbox.isFilling
  }

  #schedulePump(stream: PrimaryStream): void {
    if (this.#isPumping) return
    this.#isPumping = true
    queueMicrotask(() => {
      this.#isPumping = false
      this.#pump(stream)
    })
  }

  #pump(stream: PrimaryStream): void {
    const connection = this.#connection
    // Not `isClosed`: between its bye and its end a connection takes nothing, and says at once that it has drained.
    while (this.#isOpen && !connection.isLeaving) {
      if (!connection.canSend) {
        this.#isPumping = true
        void connection.drained().then(() => {
          this.#isPumping = false
          this.#pump(stream)
        })
        return
      }
      const batch = stream.outbox.take(sendBytesMax)
      if (batch === undefined) return
      // What these rely on, their extents and operations, is in the journal by now.
      this.tellBatch()
      connection.sendBytes(batch.parts, batch.lengthBytes)
      this.#waitingSinceMs ??= this.#host.clock.nowMs()
      const end = connection.sentBytes + connection.unsentBytes
      this.#untaken.push({ lastSequence: batch.lastSequence, end })
    }
  }

  /**
   * A primary that begins again on an old copy of its disk cannot show this batch. Nor would it know what is active since: the peer must not have written there before it
   * knows, durably, what the primary has to show.
   */
  tellBatch(): void {
    const batchNumber = this.#host.durableBatch()
    const activatedBatch = this.#host.activatedBatch()
    const isBarrier = activatedBatch > this.#barrierBatch
    if (batchNumber === this.#toldBatch && !isBarrier) return
    this.#toldBatch = batchNumber
    this.#barrierBatch = activatedBatch
    this.#connection.send({ kind: 'journaled', batchNumber, isBarrier })
  }

  // --- What the peer says of it. ---

  /** Throws ProtocolError for what was never sent. */
  answered(frame: AnswerFrame, peer: Hello): void {
    const stream = this.#host.stream()
    // Answers from before the peer knew that the stream begins are still on their way.
    const isInStream = this.#isOpen && (this.#isPeerInStream || frame.received >= this.#position)
    this.#isPeerInStream = isInStream
    if (isInStream) stream?.progress.answer(frame, stream.outbox.sentSequence)
    else if (frame.durable > Math.max(peer.sequence, this.replayedSequence))
      throw new ProtocolError('an answer to what was never sent')
    if (isInStream && stream !== undefined && frame.durable !== this.#durable) {
      this.#durable = frame.durable
      const isMore = frame.durable < stream.outbox.sentSequence
      this.#waitingSinceMs = isMore ? this.#host.clock.nowMs() : undefined
    }
    this.#host.acknowledged(frame.durable, peer)
    if (isInStream && stream !== undefined) this.#sealUntaken(stream, frame.durable)
    if (isInStream)
      stream?.outbox.acknowledge(this.#host.clearsAtApplied ? frame.applied : frame.durable)
    this.#host.onAnswer()
  }

  /** An answer to entries that the system has not taken, for all that is known: what is to be sent of them stays as it is. */
  #sealUntaken(stream: PrimaryStream, durable: Sequence): void {
    const { sentBytes } = this.#connection
    const untaken = this.#untaken
    let count = 0
    for (const { lastSequence, end } of untaken) {
      if (end > sentBytes) break
      this.#takenSequence = lastSequence
      count++
    }
    if (count > 0) untaken.splice(0, count)
    if (durable > this.#takenSequence) stream.outbox.seal()
  }

  /** The peer's outcome of a compare. Throws ProtocolError when there is none such. */
  compared({ sequence, lengthBytes, differing }: ComparedFrame): void {
    const stream = this.#host.stream()
    if (!this.#isOpen || stream === undefined) throw new ProtocolError('an answer to nothing')
    stream.outbox.compared(sequence, lengthBytes, differing)
  }
}
