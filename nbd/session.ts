// The transmission phase of one connection: bytes in, requests out to the performer, until somebody ends it.
//
// All requests that have arrived are handled in one synchronous loop without awaits or allocations of its own; their replies leave in
// one write at its end. The loop stops, and the socket is paused, while the connection has too much in flight or unread, or the
// server's memory is used up; whatever frees something starts it again. Only this file reads from the socket, only reply-writer writes.
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { ProtocolError } from './bytes/protocol-error.js'
import { Command, CommandFlag } from './constants.js'
import { RequestError } from './errors.js'
import type { Export } from './export.js'
import { type Counters, type EndReason, type FailedRequest, isAssertion } from './hooks.js'
import { Input } from './input.js'
import type { Limits } from './limits.js'
import type { SharedMemory } from './memory.js'
import { ExtendedRequestHeader, RequestHeader } from './messages.js'
import { Performer } from './performer.js'
import { ReplyEncoder, type ReplyStyle } from './replies.js'
import { ReplyWriter } from './reply-writer.js'
import {
  allowedFlags,
  payloadBytesOf,
  Request,
  type RequestRules,
  readRequest,
  refusalOf,
  statusRangeRefusal,
} from './request.js'
import { type MetaContext, parseStatusFilter, statusFilterBytesMax } from './status.js'
import type { Timers } from './timers.js'
import { Watchdog } from './watchdog.js'

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
  readonly counters: Counters
  readonly onFailed: (failure: FailedRequest) => void
  readonly onFatal: (error: unknown) => void
}

export type SessionOutcome = {
  readonly reason: EndReason
  readonly message: string
  readonly error?: unknown
}

/** What the next bytes are. */
type Expect = 'header' | 'memory' | 'payload' | 'skipped'

export class Session {
  readonly #o: SessionOptions
  readonly #stream: Duplex
  readonly #limits: Limits
  readonly #isExtended: boolean
  readonly #headerBytes: number
  readonly #rules: RequestRules
  readonly #allowed: readonly number[]
  readonly #writer: ReplyWriter
  readonly #performer: Performer
  readonly #unread: Watchdog
  readonly #stall: Watchdog
  readonly #done: (outcome: SessionOutcome) => void
  /** Settles when the connection is closed and nothing of it is in flight any more. Never rejects. */
  readonly ended: Promise<SessionOutcome>

  readonly #input = new Input(ExtendedRequestHeader.lengthBytes)
  #hasEnded = false
  #isPaused = false
  #isRunning = false
  #expect: Expect = 'header'
  readonly #request = new Request()
  #refusal: RequestError | undefined
  #payloadLeftBytes = 0
  #parts: Buffer[] = []
  /** Of the shared budget, for the request being received. */
  #grantedBytes = 0
  #payloadDeadline: { cancel(): void } | undefined
  #cancelWait: (() => void) | undefined

  #isFlushScheduled = false
  /** Set when no further request is accepted. */
  #outcome: SessionOutcome | undefined
  #isFinished = false
  #isClosed = false
  #linger: { cancel(): void } | undefined

  constructor(options: SessionOptions) {
    const { stream, limits, memory, timers, contexts, target, style } = options
    this.#o = options
    this.#stream = stream
    this.#limits = limits
    this.#isExtended = style === 'extended'
    this.#headerBytes = (this.#isExtended ? ExtendedRequestHeader : RequestHeader).lengthBytes
    this.#rules = {
      isExtended: this.#isExtended,
      hasStructuredReplies: style !== 'simple',
      hasStatusPayload: this.#isExtended && contexts.length > 0,
      contextCount: contexts.length,
      payloadBytesMax: Math.min(limits.payloadBytesMax, target.blockSizes.maximum),
      minimumBlockBytes: target.blockSizes.minimum,
    }
    this.#allowed = allowedFlags(this.#rules)
    const encoder = new ReplyEncoder(style, limits.messageBytesMax)
    this.#writer = new ReplyWriter({ stream, memory, limits, onProgress: () => this.#onProgress() })
    this.#performer = new Performer({
      target,
      contexts,
      encoder,
      writer: this.#writer,
      memory,
      limits,
      counters: options.counters,
      onFailed: options.onFailed,
      onSettled: () => this.#onSettled(),
      onFatal: (error) => this.#onError(error),
    })
    this.#unread = new Watchdog(timers, limits.unreadTimeoutMs, () =>
      this.#abort('timeout', 'the client took no replies for too long'),
    )
    this.#stall = new Watchdog(timers, limits.payloadStallTimeoutMs, () =>
      this.#abort('timeout', 'a payload stopped in the middle'),
    )
    let done: (outcome: SessionOutcome) => void = () => {}
    this.ended = new Promise((resolve) => {
      done = resolve
    })
    this.#done = done
  }

  /** Begins to read. */
  start(): void {
    const stream = this.#stream
    stream.on('data', (piece: Buffer) => this.#onData(piece))
    stream.on('end', () => this.#onEnd())
    stream.on('error', (error: Error) => this.#onSocketError(error))
    stream.on('close', () => this.#onClose())
    for (const piece of this.#o.received) this.#input.push(piece)
    if (stream.destroyed) {
      this.#onClose()
      return
    }
    this.#run()
    if (!this.#isPaused) stream.resume()
  }

  /** Accepts nothing more; ends when what is in flight was answered and taken. */
  stop(): void {
    this.#drain({ reason: 'stopped', message: 'the server is stopping' })
  }

  /** Ends now. What is in flight finishes unanswered. */
  destroy(outcome: SessionOutcome): void {
    this.#outcome ??= outcome
    this.#stream.destroy()
  }

  #onData(piece: Buffer): void {
    if (this.#outcome) return // Draining: nothing more is accepted.
    this.#input.push(piece)
    if (!this.#isPaused && !this.#isRunning) this.#run()
  }

  #onEnd(): void {
    this.#hasEnded = true
    if (!this.#isPaused && !this.#isRunning) this.#run()
  }

  #onSocketError(error: Error): void {
    this.#outcome ??= { reason: 'socket-error', message: error.message, error }
  }

  /** Handles what has arrived, as far as limits allow. */
  #run(): void {
    assert(!this.#isRunning)
    if (this.#outcome) return
    this.#isRunning = true
    try {
      while (this.#step()) {}
      this.#writer.flush()
    } catch (error) {
      this.#onError(error)
    } finally {
      this.#isRunning = false
    }
    this.#input.tidy()
    this.#watchReplies()
    if (this.#outcome) this.#finishIfDrained()
  }

  /** One step of the input; false when there is nothing to do now. */
  #step(): boolean {
    switch (this.#expect) {
      case 'header':
        if (this.#outcome) return false
        if (!this.#mayAccept()) return this.#pause()
        if (!this.#input.takeHeader(this.#headerBytes)) {
          return this.#atEndOfInput(!this.#input.isInsideHeader)
        }
        this.#accept()
        return true
      case 'memory':
        return false
      case 'payload':
        if (!this.#takePayload()) return this.#atEndOfInput(false)
        return true
      case 'skipped':
        if (!this.#skipPayload()) return this.#atEndOfInput(false)
        return true
    }
  }

  /** No bytes are left. Always false. */
  #atEndOfInput(isBetweenRequests: boolean): false {
    if (!this.#hasEnded) return false
    const message = isBetweenRequests
      ? 'the client closed the connection'
      : 'the client closed the connection in the middle of a request'
    this.#drain({ reason: 'end-of-stream', message })
    return false
  }

  #mayAccept(): boolean {
    const { requestCountMax, inFlightBytesMax, unreadBytesHigh } = this.#limits
    if (this.#performer.inFlightCount >= requestCountMax) return false
    if (this.#performer.inFlightBytes >= inFlightBytesMax) return false
    if (this.#writer.unsentBytes < unreadBytesHigh) return this.#hasMemory()
    this.#writer.flush()
    return this.#writer.unsentBytes < unreadBytesHigh && this.#hasMemory()
  }

  /** With the budget used up, a connection waits in line before it takes on anything new. */
  #hasMemory(): boolean {
    const { budget } = this.#o.memory
    if (budget.usedBytes < budget.bytesMax) return true
    // Its own finished replies may be what holds it.
    this.#writer.flush()
    if (budget.usedBytes < budget.bytesMax) return true
    if (this.#cancelWait) return false
    this.#cancelWait = budget.wait(1, () => {
      this.#cancelWait = undefined
      budget.giveBack(1)
      this.#resume()
    })
    return false
  }

  /** Always false. */
  #pause(): false {
    if (!this.#isPaused) {
      this.#isPaused = true
      this.#stream.pause()
    }
    return false
  }

  #resume(): void {
    if (!this.#isPaused || this.#isClosed || this.#outcome) return
    if (this.#expect === 'header' && !this.#mayAccept()) return
    this.#isPaused = false
    if (!this.#isRunning) this.#run()
    if (!this.#isPaused && !this.#outcome) this.#stream.resume()
  }

  #accept(): void {
    const request = this.#request
    readRequest(this.#input.headerPiece, this.#input.headerAt, request, this.#isExtended)
    this.#o.counters.requests++
    const payloadBytes = payloadBytesOf(request, this.#isExtended)
    // proto.md: a payload above the advertised limit SHOULD end the connection when extended headers say it so explicitly.
    if (this.#isExtended && payloadBytes > this.#rules.payloadBytesMax) {
      throw new ProtocolError(`a payload of ${payloadBytes} bytes`)
    }
    const refusal = refusalOf(request, this.#o.target, this.#rules, this.#allowed)
    if (refusal) {
      this.#refuse(refusal, payloadBytes)
      return
    }
    if (request.type === Command.DISC) {
      this.#drain({ reason: 'disconnect', message: 'the client disconnected' })
      return
    }
    if (payloadBytes > 0) {
      this.#acceptPayload(payloadBytes)
      return
    }
    if (request.type === Command.WRITE) {
      this.#performer.write(request, [], 0)
      return
    }
    const neededBytes = this.#performer.neededBytes(request)
    if (neededBytes === 0) {
      this.#performer.perform(request, 0)
      return
    }
    this.#withMemory(neededBytes)
  }

  #acceptPayload(payloadBytes: number): void {
    if (this.#request.type === Command.BLOCK_STATUS) {
      if (payloadBytes > statusFilterBytesMax(this.#o.contexts.length)) {
        const refusal = new RequestError('EINVAL', 'a block status payload with too many contexts')
        this.#refuse(refusal, payloadBytes)
        return
      }
    }
    this.#payloadLeftBytes = payloadBytes
    if (this.#input.hasInOnePiece(payloadBytes)) {
      this.#takePayload()
      return
    }
    this.#withMemory(payloadBytes)
  }

  /** A refused request's payload is thrown away as it comes; then the answer is sent. */
  #refuse(refusal: RequestError, payloadBytes: number): void {
    if (payloadBytes === 0) {
      this.#performer.fail(this.#request, refusal)
      return
    }
    this.#refusal = refusal
    this.#payloadLeftBytes = payloadBytes
    this.#expect = 'skipped'
  }

  /** Goes on with the request when the budget has granted its bytes, now or later. */
  #withMemory(lengthBytes: number): void {
    const { budget } = this.#o.memory
    if (budget.tryTake(lengthBytes)) {
      this.#granted(lengthBytes)
      return
    }
    this.#writer.flush()
    this.#expect = 'memory'
    this.#pause()
    this.#cancelWait = budget.wait(lengthBytes, () => {
      this.#cancelWait = undefined
      if (this.#isClosed || this.#outcome) return budget.giveBack(lengthBytes)
      this.#expect = 'header'
      try {
        this.#granted(lengthBytes)
      } catch (error) {
        return this.#onError(error)
      }
      this.#resume()
    })
  }

  #granted(lengthBytes: number): void {
    if (this.#payloadLeftBytes === 0) {
      this.#performer.perform(this.#request, lengthBytes)
      return
    }
    this.#grantedBytes = lengthBytes
    this.#expect = 'payload'
    this.#payloadDeadline = this.#o.timers.setTimer(this.#limits.payloadTimeoutMs, () =>
      this.#abort('timeout', 'a payload took too long'),
    )
    this.#stall.start()
  }

  /** Takes what is there of the payload, as views; true when the request was whole and was performed. */
  #takePayload(): boolean {
    this.#payloadLeftBytes -= this.#input.takeParts(this.#payloadLeftBytes, this.#parts)
    if (this.#payloadLeftBytes > 0) {
      this.#stall.start()
      return false
    }
    const parts = this.#parts
    const grantedBytes = this.#grantedBytes
    this.#parts = []
    this.#grantedBytes = 0
    this.#expect = 'header'
    if (grantedBytes > 0) this.#endPayloadWait()
    if (this.#request.type === Command.WRITE) {
      this.#performer.write(this.#request, parts, grantedBytes)
    } else {
      if (grantedBytes > 0) this.#o.memory.budget.giveBack(grantedBytes)
      this.#filteredStatus(parts)
    }
    return true
  }

  #filteredStatus(parts: readonly Buffer[]): void {
    const request = this.#request
    assert(request.type === Command.BLOCK_STATUS)
    assert(request.flags & CommandFlag.PAYLOAD_LEN)
    try {
      const filter = parseStatusFilter(Buffer.concat(parts), this.#o.contexts)
      const { offset } = request
      const refusal = statusRangeRefusal(offset, filter.lengthBytes, this.#o.target, this.#rules)
      if (refusal) throw refusal
      this.#performer.status(request, filter.contexts, filter.lengthBytes)
    } catch (error) {
      if (!(error instanceof RequestError)) throw error
      this.#performer.fail(request, error)
    }
  }

  #skipPayload(): boolean {
    this.#payloadLeftBytes -= this.#input.skip(this.#payloadLeftBytes)
    if (this.#payloadLeftBytes > 0) return false
    assert(this.#refusal !== undefined)
    this.#performer.fail(this.#request, this.#refusal)
    this.#refusal = undefined
    this.#expect = 'header'
    return true
  }

  #endPayloadWait(): void {
    this.#payloadDeadline?.cancel()
    this.#payloadDeadline = undefined
    this.#stall.stop()
  }

  /** A request that was in flight was answered: replies of one turn of the event loop leave together. */
  #onSettled(): void {
    if (this.#isClosed) {
      this.#resolveIfOver()
      return
    }
    if (this.#isRunning) return // The loop flushes at its end.
    if (this.#performer.inFlightCount === 0) {
      this.#afterSettled()
      return
    }
    if (this.#isFlushScheduled) return
    this.#isFlushScheduled = true
    setImmediate(() => {
      this.#isFlushScheduled = false
      if (!this.#isClosed) this.#afterSettled()
    })
  }

  #afterSettled(): void {
    this.#writer.flush()
    this.#watchReplies()
    if (this.#outcome) {
      this.#finishIfDrained()
      return
    }
    this.#resume()
  }

  /** The socket took replies. */
  #onProgress(): void {
    this.#watchReplies()
    if (this.#outcome) {
      this.#finishIfDrained()
      return
    }
    this.#resume()
  }

  #watchReplies(): void {
    if (this.#writer.unsentBytes > this.#limits.unreadBytesMax) {
      this.#abort('unread', 'the client does not take its replies')
      return
    }
    if (this.#writer.isBlocked) this.#unread.start()
    else this.#unread.stop()
  }

  #drain(outcome: SessionOutcome): void {
    if (this.#outcome) return
    this.#outcome = outcome
    this.#releaseInput()
    if (!this.#isRunning) this.#finishIfDrained()
  }

  #finishIfDrained(): void {
    if (this.#isFinished || this.#isClosed) return
    if (this.#performer.inFlightCount > 0) return
    this.#writer.flush()
    if (this.#writer.unsentBytes > 0) return
    this.#isFinished = true
    // Closing a socket with bytes in it that nobody read resets the connection, and could take replies with it: read on for a while.
    this.#stream.end()
    if (this.#isClosed) return
    this.#stream.resume()
    this.#linger = this.#o.timers.setTimer(this.#limits.lingerTimeoutMs, () =>
      this.#stream.destroy(),
    )
  }

  #abort(reason: EndReason, message: string): void {
    this.destroy({ reason, message })
  }

  #onError(error: unknown): void {
    if (error instanceof ProtocolError) {
      this.destroy({ reason: 'protocol-error', message: error.message })
      return
    }
    this.destroy({ reason: 'failed', message: 'the session failed', error })
    if (isAssertion(error)) this.#o.onFatal(error)
  }

  #releaseInput(): void {
    this.#cancelWait?.()
    this.#cancelWait = undefined
    this.#endPayloadWait()
    this.#input.clear()
    this.#parts = []
    if (this.#grantedBytes > 0) this.#o.memory.budget.giveBack(this.#grantedBytes)
    this.#grantedBytes = 0
  }

  #onClose(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#outcome ??= { reason: 'end-of-stream', message: 'the connection was closed' }
    this.#releaseInput()
    this.#linger?.cancel()
    this.#unread.close()
    this.#stall.close()
    this.#performer.close()
    this.#writer.close()
    this.#resolveIfOver()
  }

  #resolveIfOver(): void {
    if (this.#performer.inFlightCount > 0) return
    assert(this.#outcome !== undefined)
    this.#done(this.#outcome)
  }
}
