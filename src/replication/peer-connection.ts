// One connection to the peer: frames in, frames out, and the certainty that it ends when the peer is gone.
//
// Frames are handed over one at a time and in order. What is sent in one turn leaves together. Nothing is read while the receiver holds
// back, and what waits to be sent is bounded. A connection ends once, with one reason; after that nothing is handed over.
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { SendNow } from '../../nbd/bytes/send-now.js'
import type { Clock, Timer } from '../core/clock.js'
import { errnoNameOf } from '../core/errors.js'
import type { Sequence } from '../core/units.js'
import { encodeFrame } from './frame-encoder.js'
import { FrameReader, type PieceKeeper } from './frame-reader.js'
import { FrameWriter } from './frame-writer.js'
import type { AnswerFrame, Frame, ReceivedFrame, Side } from './frames.js'
import { Heartbeat } from './heartbeat.js'
import { linkLimits } from './limits.js'

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
    /** The peer took nothing for `stallTimeoutMs`, or too little of what it must be told. */
    | 'stalled'
  /** One clause, for people. */
  readonly message: string
}

const wasCut: CloseReason = { kind: 'lost', message: 'the connection was cut' }

/** Reads streams into memory that is used again. */
export interface ReadMemory extends PieceKeeper {
  /** From now on each piece goes to `onPiece`, held for it. Undefined when this stream cannot be read so: then it emits 'data' as others do. */
  read(stream: Duplex, onPiece: (piece: Buffer) => void): { close(): void } | undefined
}

export type PeerConnectionOptions = {
  /** Owned from now on: destroyed at the end. */
  readonly stream: Duplex
  /** Bytes that came behind the handshake and were read with it. */
  readonly before?: readonly Buffer[]
  readonly clock: Clock
  /** Which side we are: frames that only our own side may send are refused. */
  readonly side: Side
  /**
   * Gets each frame, never before the turn after the connection was made. A promise holds back everything behind it until it settles. What it throws or rejects
   * as ProtocolError ends the connection; any other error is the program's: it ends the connection too, and goes on its way. Buffers in the frame are the receiver's;
   * with `memory`, the parts of a write are held for it, and it releases them.
   */
  readonly receive: (frame: ReceivedFrame) => Promise<void> | undefined
  readonly memory?: ReadMemory
  /** So many frames came in one piece and were handed over. */
  readonly onDelivered?: (frameCount: number) => void
  readonly sendNow?: SendNow | undefined
  readonly silenceTimeoutMs?: number
  readonly stallTimeoutMs?: number
  /** Switchable bug: payload is believed without its checksum. */
  readonly skipsCrc?: boolean
}

export class PeerConnection {
  readonly #stream: Duplex
  readonly #clock: Clock
  readonly #receive: PeerConnectionOptions['receive']
  readonly #memory: ReadMemory | undefined
  readonly #onDelivered: PeerConnectionOptions['onDelivered']
  #source: { close(): void } | undefined
  readonly #reader: FrameReader
  readonly #writer: FrameWriter
  readonly #heartbeat: Heartbeat
  #receivedBytes = 0
  #isHeld = false
  #hasEnded = false
  /** Why we said bye. */
  #leaving: string | undefined
  #reason: CloseReason | undefined
  #owedAnswer: AnswerFrame | undefined
  #owedPong: number | undefined
  #pingSent: { readonly token: number; readonly atMs: number } | undefined
  #pingCount = 0
  #roundTripMs: number | undefined
  #farewell: Timer | undefined
  #drained: Promise<void> | undefined
  #resolveDrained: () => void = () => {}
  #resolveClosed: (reason: CloseReason) => void = () => {}

  /** Resolves once, never rejects. */
  readonly closed: Promise<CloseReason>

  constructor(options: PeerConnectionOptions) {
    const { stream, clock, side } = options
    this.#stream = stream
    this.#clock = clock
    this.#receive = options.receive
    this.#memory = options.memory
    this.#onDelivered = options.onDelivered
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    this.#reader = new FrameReader(side === 'primary' ? 'secondary' : 'primary', {
      skipsCrc: options.skipsCrc ?? false,
      ...(options.memory === undefined ? {} : { keeper: options.memory }),
    })
    this.#heartbeat = new Heartbeat({
      clock,
      pingAfterMs: linkLimits.pingAfterMs,
      silenceTimeoutMs: options.silenceTimeoutMs ?? linkLimits.silenceTimeoutMs,
      stallTimeoutMs: options.stallTimeoutMs ?? linkLimits.stallTimeoutMs,
      takenBytes: () => this.#writer.takenBytes,
      ping: () => this.#ping(),
      expired: (kind, message) => this.#end({ kind, message }),
    })
    this.#writer = new FrameWriter({
      stream,
      onTurnEnd: () => this.#sendOwed(),
      onProgress: () => this.#onProgress(),
      sendNow: options.sendNow,
    })
    this.#listen(options.before ?? [])
  }

  /** Bytes that the system has taken. */
  get sentBytes(): number {
    return this.#writer.sentBytes
  }

  get receivedBytes(): number {
    return this.#receivedBytes
  }

  /** Sent and not taken by the system. */
  get unsentBytes(): number {
    return this.#writer.unsentBytes
  }

  get isClosed(): boolean {
    return this.#reason !== undefined
  }

  /** From `bye` or `close` on nothing is sent any more. */
  get isLeaving(): boolean {
    return !this.#isOpen
  }

  /** Of the last ping that was answered. */
  get roundTripMs(): number | undefined {
    return this.#roundTripMs
  }

  /** Whether more may be sent without exceeding `unsentBytesHigh`. Whoever has much to send asks first; a queue above `unsentBytesMax` ends the connection. */
  get canSend(): boolean {
    return this.#isOpen && this.#writer.unsentBytes < linkLimits.unsentBytesHigh
  }

  /** Queues a frame; what is queued in one turn leaves together. Does nothing when closed. The memory of its parts stays as it is until it was taken. */
  send(frame: Frame): void {
    if (!this.#isOpen) return
    const { head, parts } = encodeFrame(frame)
    this.#writer.queue(head)
    for (const part of parts) this.#writer.queue(part)
    this.#afterQueueing()
  }

  /** The same for frames that are bytes already: a batch of the outbox. */
  sendBytes(parts: readonly Buffer[], lengthBytes: number): void {
    if (!this.#isOpen) return
    const unsentBytes = this.#writer.unsentBytes
    for (const part of parts) this.#writer.queue(part)
    assert.equal(this.#writer.unsentBytes - unsentBytes, lengthBytes)
    this.#afterQueueing()
  }

  /** What was queued leaves now, not at the end of the turn. */
  flush(): void {
    if (!this.#isOpen) return
    this.#sendOwed()
  }

  /** Sends the newest answer once in this turn, or when the peer takes bytes again: never more than one waits. */
  answer(received: Sequence, applied: Sequence, durable: Sequence): void {
    assert(durable <= applied)
    assert(applied <= received)
    if (!this.#isOpen) return
    this.#owedAnswer = { kind: 'answer', received, applied, durable }
    this.#writer.schedule()
  }

  /** Resolves when `canSend`, or when closed. */
  drained(): Promise<void> {
    if (this.canSend || !this.#isOpen) return Promise.resolve()
    this.#drained ??= new Promise((resolve) => {
      this.#resolveDrained = resolve
    })
    return this.#drained
  }

  /** Says bye and why, waits a moment for it to leave, and ends. Nothing is handed over any more. */
  bye(reason: string): void {
    if (!this.#isOpen) return
    this.send({ kind: 'bye', reason })
    if (!this.#isOpen) return
    this.#leaving = reason
    this.#releaseDrained()
    this.#farewell = this.#clock.setTimer(linkLimits.farewellTimeoutMs, () => this.close(reason))
    this.#writer.schedule()
    if (!this.#isHeld) this.#stream.resume()
  }

  /** Ends at once. */
  close(reason: string): void {
    this.#end({ kind: 'local', message: reason })
  }

  get #isOpen(): boolean {
    return this.#reason === undefined && this.#leaving === undefined
  }

  #listen(before: readonly Buffer[]): void {
    const stream = this.#stream
    stream.on('error', (error) =>
      this.#end({ kind: 'lost', message: `the connection failed (${errnoNameOf(error)})` }),
    )
    stream.on('close', () => {
      // After a clean end the receiver still gets what came before it.
      if (!this.#hasEnded || !this.#isHeld) this.#end(wasCut)
    })
    stream.on('end', () => this.#onEnd())
    // Whoever makes a connection has it in hand before the first frame comes.
    queueMicrotask(() => {
      if (this.#reason !== undefined) return
      if (stream.destroyed) {
        // The reason may still be on its way, and 'close' may have come before we listened.
        this.#clock.defer(() => this.#end(wasCut))
        return
      }
      this.#heartbeat.start()
      for (const piece of before) this.#onData(piece)
      if (this.#reason !== undefined) return
      this.#read()
      if (this.#reason !== undefined) return
      if (this.#isHeld) stream.pause()
      // Paused by whoever read the handshake.
      else stream.resume()
    })
  }

  #read(): void {
    const stream = this.#stream
    const onPiece = (piece: Buffer): void => this.#onData(piece)
    this.#source = this.#memory?.read(stream, onPiece)
    if (this.#source === undefined) {
      stream.on('data', onPiece)
      return
    }
    // What came behind the handshake lies in the stream.
    for (let piece = stream.read(); piece !== null; piece = stream.read()) this.#onData(piece)
  }

  #onData(piece: Buffer): void {
    this.#receivedBytes += piece.length
    if (this.#reason === undefined) this.#heartbeat.received()
    if (!this.#isOpen) {
      this.#memory?.release(piece)
      return
    }
    this.#reader.push(piece)
    this.#deliver()
  }

  #onEnd(): void {
    this.#hasEnded = true
    if (this.#isHeld && this.#leaving === undefined) return
    const where = this.#reader.isInsideFrame ? ' within a frame' : ''
    this.#end({ kind: 'lost', message: `the peer closed the connection${where}` })
  }

  /** Hands over frames until there are no more, or the receiver holds back. */
  #deliver(): void {
    let frameCount = 0
    try {
      while (!this.#isHeld && this.#isOpen) {
        const frame = this.#reader.next()
        if (frame === undefined) break
        frameCount++
        const held = this.#dispatch(frame)
        if (held !== undefined) this.#hold(held)
      }
    } catch (error) {
      this.#fail(error)
    }
    if (frameCount > 0) this.#onDelivered?.(frameCount)
  }

  #dispatch(frame: Frame): Promise<void> | undefined {
    switch (frame.kind) {
      case 'ping':
        this.#owedPong = frame.token
        this.#writer.schedule()
        return undefined
      case 'pong':
        if (frame.token !== this.#pingSent?.token) return undefined
        this.#roundTripMs = this.#clock.nowMs() - this.#pingSent.atMs
        this.#pingSent = undefined
        return undefined
      case 'bye':
        this.#end({ kind: 'bye', message: frame.reason })
        return undefined
      default:
        return this.#receive(frame)
    }
  }

  #hold(held: Promise<void>): void {
    this.#isHeld = true
    this.#heartbeat.hold()
    this.#stream.pause()
    held.then(
      () => this.#unhold(),
      (error) => this.#fail(error),
    )
  }

  #unhold(): void {
    if (this.#reason !== undefined) return
    this.#isHeld = false
    this.#heartbeat.unhold()
    this.#deliver()
    if (this.#reason !== undefined || this.#isHeld) return
    if (this.#hasEnded) this.#onEnd()
    else this.#stream.resume()
  }

  /** Ends the connection. What is no fault of the peer goes on its way. */
  #fail(error: unknown): void {
    const isPeers = error instanceof ProtocolError
    this.#end({
      kind: isPeers ? 'protocol' : 'local',
      message: isPeers ? error.message : 'this node failed',
    })
    // A declared refusal of a receiver whose connection has ended meanwhile is no news.
    if (!isPeers) throw error
  }

  #afterQueueing(): void {
    if (this.#writer.unsentBytes <= linkLimits.unsentBytesMax) return
    this.#end({ kind: 'stalled', message: 'the peer does not take what it is sent' })
  }

  /** Answers that wait for the end of the turn, or for room. */
  #sendOwed(): void {
    if (this.canSend) {
      const answer = this.#owedAnswer
      const token = this.#owedPong
      this.#owedAnswer = undefined
      this.#owedPong = undefined
      if (answer) this.#writer.queue(encodeFrame(answer).head)
      if (token !== undefined) this.#writer.queue(encodeFrame({ kind: 'pong', token }).head)
    }
    this.#writer.flush()
    if (this.#reason === undefined) this.#heartbeat.sent(this.#writer.isBlocked)
    this.#endStream()
  }

  #onProgress(): void {
    this.#heartbeat.taken(this.#writer.unsentBytes > 0)
    const isOwing = this.#owedAnswer !== undefined || this.#owedPong !== undefined
    // Behind a bye nothing is owed any more: to try again would go on for ever.
    if (isOwing && this.canSend) this.#writer.schedule()
    if (this.canSend) this.#releaseDrained()
    this.#endStream()
  }

  /** Our last frame was taken: no more bytes from this side. */
  #endStream(): void {
    if (this.#leaving === undefined || this.#reason !== undefined) return
    if (this.#writer.unsentBytes === 0 && !this.#stream.writableEnded) this.#stream.end()
  }

  #ping(): void {
    // While bytes wait to be taken, they are sign enough when they come.
    if (this.#writer.isBlocked || !this.#isOpen) return
    this.#pingSent ??= { token: ++this.#pingCount, atMs: this.#clock.nowMs() }
    this.send({ kind: 'ping', token: this.#pingSent.token })
  }

  #releaseDrained(): void {
    const resolve = this.#resolveDrained
    this.#drained = undefined
    this.#resolveDrained = () => {}
    resolve()
  }

  #end(reason: CloseReason): void {
    if (this.#reason !== undefined) return
    this.#reason = this.#leaving === undefined ? reason : { kind: 'local', message: this.#leaving }
    this.#heartbeat.close()
    this.#farewell?.cancel()
    this.#writer.close()
    this.#reader.close()
    this.#source?.close()
    this.#stream.destroy()
    this.#releaseDrained()
    this.#resolveClosed(this.#reason)
  }
}
