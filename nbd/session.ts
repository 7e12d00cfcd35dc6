// The transmission phase of one connection: bytes in, requests out to the performer, until somebody ends it.
//
// All requests that have arrived are handled in one synchronous loop without awaits or allocations of its own; their replies leave in
// one write at its end. More of them than all connections together may have handled in one turn of the event loop wait for the next: a
// client that never stops sending would keep everybody else waiting. The loop stops, and the socket is paused, while the connection has too much in flight or unread, or the
// server's memory is used up; whatever frees something starts it again. Only this file reads from the socket, only reply-writer writes.
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { ProtocolError } from './bytes/protocol-error.js'
import type { SendNow } from './bytes/send-now.js'
import type { Export } from './export.js'
import {
  type Counters,
  type EndReason,
  type FailedRequest,
  isAssertion,
  type SessionEnd,
} from './hooks.js'
import { Intake, type IntakeStep } from './intake.js'
import type { Limits } from './limits.js'
import type { SharedMemory } from './memory.js'
import { Performer } from './performer.js'
import type { Poller } from './poller.js'
import { ReplyEncoder, type ReplyStyle } from './replies.js'
import { ReplyWriter } from './reply-writer.js'
import { SlabReader } from './slab-reader.js'
import type { MetaContext } from './status.js'
import type { Timers } from './timers.js'
import type { LongTurns } from './turns.js'
import { Watchdog } from './watchdog.js'

/** A request of this much keeps both sides busy for longer than a wake-up takes. */
const largeBytes = 32 * 1024
/** Steps of the intake, a request each or a part of its payload, that are taken before anybody asks whether the turn is used up. */
const stepsAtOnce = 64
/** With this much in flight the event loop does not turn while it waits. */
const heavyBytes = 256 * 1024

export type SessionOptions = {
  readonly stream: Duplex
  /** Bytes that the handshake has read too far. */
  readonly received: readonly Buffer[]
  readonly target: Export
  readonly style: ReplyStyle
  readonly contexts: readonly MetaContext[]
  readonly memory: SharedMemory
  readonly limits: Limits
  readonly timers: Timers
  readonly poller: Poller
  readonly turns: LongTurns
  readonly sendNow?: SendNow | undefined
  readonly counters: Counters
  readonly onFailed: (failure: FailedRequest) => void
  readonly onFatal: (error: unknown) => void
  /** Nothing is in flight and nothing will be; the client is told by the end of the stream right after. Not called when the connection breaks. */
  readonly onDrained: () => void
}

export class Session {
  readonly #o: SessionOptions
  readonly #stream: Duplex
  readonly #writer: ReplyWriter
  readonly #performer: Performer
  readonly #intake: Intake
  #reader: SlabReader | undefined
  readonly #unread: Watchdog
  readonly #done: (end: SessionEnd) => void
  /** Settles when the connection is closed and nothing of it is in flight any more. Never rejects. */
  readonly ended: Promise<SessionEnd>

  /** The client will send nothing more. */
  #hasEnded = false
  #isPaused = false
  /** For a turn of the event loop that has room for more requests. */
  #isInLine = false
  #isRunning = false
  #isFlushScheduled = false
  /** Set when no further request is accepted. */
  #end: SessionEnd | undefined
  #isFinished = false
  #isClosed = false
  #linger: { cancel(): void } | undefined

  constructor(options: SessionOptions) {
    const { contexts, counters, limits, memory, sendNow, stream, style, target, timers, turns } =
      options
    this.#o = options
    this.#stream = stream
    // Named one by one: of objects that are made by spreading another each has a shape of its own after a few, and all code that was optimised for the connections
    // before is thrown away at the first request of the next.
    const writer = new ReplyWriter({
      stream,
      memory,
      limits,
      sendNow,
      onProgress: () => this.#onProgress(),
    })
    this.#writer = writer
    const performer = new Performer({
      target,
      contexts,
      memory,
      limits,
      turns,
      counters,
      onFailed: options.onFailed,
      encoder: new ReplyEncoder(style, limits.messageBytesMax),
      writer,
      onSettled: () => this.#onSettled(),
      onFatal: (error) => this.#onError(error),
    })
    this.#performer = performer
    this.#unread = new Watchdog(timers, limits.unreadTimeoutMs, () =>
      this.#abort('timeout', 'the client took no replies for too long'),
    )
    const payloadWatchdog = new Watchdog(timers, limits.payloadTimeoutMs, () =>
      this.#abort('timeout', 'a payload took too long'),
    )
    this.#intake = new Intake({
      target,
      style,
      contexts,
      memory,
      limits,
      counters,
      performer,
      writer,
      payloadWatchdog,
      onDisconnect: () => this.#drain({ reason: 'disconnect', message: 'the client disconnected' }),
      onMemory: () => this.#resume(),
      onError: (error) => this.#onError(error),
    })
    let done: (end: SessionEnd) => void = () => {}
    this.ended = new Promise((resolve) => {
      done = resolve
    })
    this.#done = done
  }

  /** Begins to read. */
  start(): void {
    const stream = this.#stream
    for (const piece of this.#o.received) this.#intake.push(piece)
    this.#read()
    stream.on('end', () => this.#onEnd())
    stream.on('error', (error: Error) => this.#onSocketError(error))
    stream.on('close', () => this.#onClose())
    if (stream.destroyed) {
      this.#onClose()
      return
    }
    this.#run()
    if (!this.#isPaused) stream.resume()
  }

  #read(): void {
    const stream = this.#stream
    const onPiece = (piece: Buffer) => this.#onData(piece)
    this.#reader = SlabReader.over(stream, this.#o.memory.slabs, onPiece)
    if (!this.#reader) {
      stream.on('data', onPiece)
      return
    }
    // What came after the handshake's last read lies in the stream.
    for (let piece = stream.read(); piece !== null; piece = stream.read()) this.#intake.push(piece)
  }

  /** Accepts nothing more; ends when what is in flight was answered and taken. */
  stop(): void {
    this.#drain({ reason: 'stopped', message: 'the server is stopping' })
  }

  /** Ends now. What is in flight finishes unanswered. */
  destroy(end: SessionEnd): void {
    this.#end ??= end
    this.#stream.destroy()
  }

  #onData(piece: Buffer): void {
    this.#intake.push(piece)
    if (this.#end) return // Draining: nothing more is accepted.
    if (!this.#isPaused && !this.#isRunning) this.#run()
  }

  #onEnd(): void {
    this.#hasEnded = true
    if (!this.#isPaused && !this.#isRunning) this.#run()
  }

  #onSocketError(error: Error): void {
    this.#end ??= { reason: 'socket-error', message: error.message, error }
  }

  /** Handles what has arrived, as far as limits allow. */
  #run(): void {
    assert(!this.#isRunning)
    if (this.#end) return
    this.#isRunning = true
    const { inFlightCount, inFlightBytes } = this.#performer
    const { requests, readBytes, writtenBytes } = this.#o.counters
    try {
      const step = this.#handle()
      if (step === 'went-on') this.#waitInLine()
      else if (step === 'blocked') this.#pause()
      else if (this.#hasEnded) this.#drain(this.#endOfInput())
      this.#writer.flush()
    } catch (error) {
      // What came before the offence has its answers; after a failed assertion there is not one more.
      if (error instanceof ProtocolError) this.#writer.flush()
      this.#onError(error)
    } finally {
      this.#isRunning = false
    }
    this.#intake.tidy()
    this.#watchReplies()
    if (this.#end) this.#finishIfDrained()
    const { counters } = this.#o
    const dataBytes = counters.readBytes - readBytes + counters.writtenBytes - writtenBytes
    this.#worked(counters.requests - requests + inFlightCount, dataBytes + inFlightBytes)
  }

  /** 'went-on': there is more, but not in this turn of the event loop. */
  #handle(): IntakeStep {
    const { turns, limits } = this.#o
    for (;;) {
      let left = stepsAtOnce
      let step = this.#intake.step()
      while (step === 'went-on' && --left > 0) step = this.#intake.step()
      if (step !== 'went-on') return step
      turns.spend(stepsAtOnce * limits.requestSteps)
      if (turns.isUsedUp) return step
    }
  }

  #waitInLine(): void {
    this.#pause()
    this.#isInLine = true
    this.#o.turns.wait(this, () => {
      this.#isInLine = false
      this.#resume()
    })
  }

  /** Tells the poller of a step in which so many requests were under way. */
  #worked(requestCount: number, dataBytes: number): void {
    const isCrowd = requestCount > 1 && dataBytes < requestCount * largeBytes
    const { inFlightCount, inFlightBytes } = this.#performer
    // Whoever moves that much for the export needs the processor.
    const isHeavy = inFlightBytes >= heavyBytes
    this.#o.poller.worked({ isCrowd: isCrowd || isHeavy, isInFlight: inFlightCount > 0 })
  }

  #endOfInput(): SessionEnd {
    const message = this.#intake.isBetweenRequests
      ? 'the client closed the connection'
      : 'the client closed the connection in the middle of a request'
    return { reason: 'end-of-stream', message }
  }

  #pause(): void {
    if (this.#isPaused) return
    this.#isPaused = true
    this.#stream.pause()
  }

  #resume(): void {
    if (!this.#isPaused || this.#isRunning || this.#isClosed || this.#end) return
    if (this.#isInLine || !this.#intake.canGoOn) return
    this.#isPaused = false
    this.#run()
    if (!this.#isPaused && !this.#end) this.#stream.resume()
  }

  /** A request that was in flight was answered: replies of one turn of the event loop leave together. */
  #onSettled(): void {
    if (this.#isClosed) {
      this.#resolveIfOver()
      return
    }
    if (this.#isRunning || this.#isFlushScheduled) return
    if (this.#performer.inFlightCount === 0) {
      this.#afterSettled()
      return
    }
    this.#isFlushScheduled = true
    setImmediate(() => {
      this.#isFlushScheduled = false
      if (!this.#isClosed) this.#afterSettled()
    })
  }

  #afterSettled(): void {
    this.#writer.flush()
    this.#worked(this.#performer.inFlightCount, this.#performer.inFlightBytes)
    this.#onProgress()
  }

  /** Something was finished: there may be room for more. */
  #onProgress(): void {
    this.#watchReplies()
    if (this.#end) this.#finishIfDrained()
    else this.#resume()
  }

  #watchReplies(): void {
    if (this.#writer.unsentBytes > this.#o.limits.unreadBytesMax) {
      this.#abort('unread', 'the client does not take its replies')
    } else if (this.#writer.isBlocked) this.#unread.start(this.#writer.progressCount)
    else this.#unread.stop()
  }

  #drain(end: SessionEnd): void {
    if (this.#end) return
    this.#end = end
    this.#intake.close()
    if (!this.#isRunning) this.#finishIfDrained()
  }

  #finishIfDrained(): void {
    if (this.#isFinished || this.#isClosed) return
    if (this.#performer.inFlightCount > 0) return
    this.#writer.flush()
    if (this.#writer.unsentBytes > 0) return
    this.#isFinished = true
    this.#o.onDrained()
    // Closing a socket with bytes in it that nobody read resets the connection, and could take replies with it: read on for a while.
    this.#stream.end()
    if (this.#isClosed) return
    this.#stream.resume()
    this.#linger = this.#o.timers.setTimer(this.#o.limits.lingerTimeoutMs, () =>
      this.#stream.destroy(),
    )
  }

  #abort(reason: EndReason, message: string): void {
    this.destroy({ reason, message })
  }

  #onError(error: unknown): void {
    if (error instanceof ProtocolError) this.#abort('protocol-error', error.message)
    else this.destroy({ reason: 'failed', message: 'the session failed', error })
    if (isAssertion(error)) this.#o.onFatal(error)
  }

  #onClose(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#end ??= { reason: 'end-of-stream', message: 'the connection was closed' }
    this.#intake.close()
    this.#reader?.close()
    this.#linger?.cancel()
    this.#unread.close()
    this.#performer.close()
    this.#writer.close()
    this.#resolveIfOver()
  }

  #resolveIfOver(): void {
    if (this.#performer.inFlightCount > 0) return
    assert(this.#end !== undefined)
    this.#done(this.#end)
  }
}
