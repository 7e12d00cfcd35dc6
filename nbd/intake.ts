// Requests, one after the other, from the bytes that arrived: header, checks, memory, payload, performer. Nothing is read while the
// connection has too much under way or the server's memory is used up; then the caller pauses the socket and comes back.
//
// Invariants: each part of a payload is held until it was performed; what was granted by the shared budget for the request being received is given on to the performer, or given back, once.
import assert from 'node:assert/strict'
import { ProtocolError } from './bytes/protocol-error.js'
import { Command, CommandFlag } from './constants.js'
import { RequestError } from './errors.js'
import type { Export } from './export.js'
import type { Counters } from './hooks.js'
import { Input } from './input.js'
import type { Limits } from './limits.js'
import type { SharedMemory } from './memory.js'
import { ExtendedRequestHeader, RequestHeader } from './messages.js'
import type { Performer } from './performer.js'
import type { ReplyStyle } from './replies.js'
import type { ReplyWriter } from './reply-writer.js'
import {
  allowedFlags,
  checkMagic,
  magicBytes,
  payloadBytesOf,
  Request,
  type RequestRules,
  readRequest,
  refusalOf,
  statusRangeRefusal,
} from './request.js'
import { type MetaContext, parseStatusFilter, statusFilterBytesMax } from './status.js'
import type { Watchdog } from './watchdog.js'

export type IntakeOptions = {
  readonly target: Export
  readonly style: ReplyStyle
  readonly contexts: readonly MetaContext[]
  readonly memory: SharedMemory
  readonly limits: Limits
  readonly counters: Counters
  readonly performer: Performer
  readonly writer: ReplyWriter
  /** Runs while a payload has begun and is not whole. */
  readonly payloadWatchdog: Watchdog
  readonly onDisconnect: () => void
  /** Memory that `step` waited for is there: it can go on. */
  readonly onMemory: () => void
  readonly onError: (error: unknown) => void
}

/** `starved`: more bytes must come. `blocked`: something must be finished first. */
export type IntakeStep = 'went-on' | 'starved' | 'blocked'

/** What the next bytes are. */
type Expect = 'header' | 'room' | 'memory' | 'payload' | 'skipped'

/** Of what may be unread: for headers and errors, which no request is charged with. 128 requests of them are below 64 KiB. */
const smallRepliesBytes = 1024 * 1024

export class Intake {
  readonly #o: IntakeOptions
  readonly #limits: Limits
  readonly #isExtended: boolean
  readonly #headerBytes: number
  readonly #rules: RequestRules
  readonly #allowed: readonly number[]
  readonly #performer: Performer
  readonly #writer: ReplyWriter
  readonly #input: Input
  #expect: Expect = 'header'
  readonly #request = new Request()
  #refusal: RequestError | undefined
  #payloadLeftBytes = 0
  #payloadCount = 0
  #parts: Buffer[] = []
  /** Of the shared budget, for the request being received. */
  #grantedBytes = 0
  #cancelWait: (() => void) | undefined
  #isClosed = false

  constructor(options: IntakeOptions) {
    const { limits, contexts, target, style } = options
    this.#o = options
    this.#limits = limits
    this.#performer = options.performer
    this.#writer = options.writer
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
    this.#input = new Input(ExtendedRequestHeader.lengthBytes, options.memory.slabs)
  }

  /** Takes a piece over that is held for it. */
  push(piece: Buffer): void {
    if (this.#isClosed) this.#o.memory.slabs.release(piece)
    else this.#input.push(piece)
  }

  /** True when the bytes so far end where a request ends. */
  get isBetweenRequests(): boolean {
    return this.#expect === 'header' && !this.#input.isInsideHeader
  }

  /** Whether a request that has arrived would be taken on now. */
  get canGoOn(): boolean {
    if (this.#isClosed || this.#expect === 'memory') return false
    if (this.#expect === 'room') return this.#hasRoom()
    return this.#expect !== 'header' || this.#mayAccept()
  }

  /** Handles the next header, or what is there of a payload. Throws ProtocolError. */
  step(): IntakeStep {
    if (this.#isClosed) return 'blocked'
    switch (this.#expect) {
      case 'header':
        if (!this.#mayAccept()) return 'blocked'
        if (!this.#input.takeHeader(this.#headerBytes)) {
          this.#checkBeginning()
          return 'starved'
        }
        this.#accept()
        return 'went-on'
      case 'room':
        if (!this.#hasRoom()) return 'blocked'
        this.#expect = 'header'
        this.#begin()
        return 'went-on'
      case 'memory':
        return 'blocked'
      case 'payload':
        return this.#takePayload() ? 'went-on' : 'starved'
      case 'skipped':
        return this.#skipPayload() ? 'went-on' : 'starved'
    }
  }

  /** An idle connection keeps no socket buffer. */
  tidy(): void {
    this.#input.tidy()
  }

  /** Nothing more is taken in; what was granted goes back. */
  close(): void {
    this.#isClosed = true
    this.#cancelWait?.()
    this.#cancelWait = undefined
    this.#o.payloadWatchdog.close()
    this.#input.clear()
    this.#releaseParts(this.#parts)
    this.#parts = []
    if (this.#grantedBytes > 0) this.#o.memory.budget.giveBack(this.#grantedBytes)
    this.#grantedBytes = 0
  }

  #mayAccept(): boolean {
    const { requestCountMax, inFlightBytesMax, unreadBytesHigh } = this.#limits
    if (this.#performer.inFlightCount >= requestCountMax) return false
    if (this.#performer.inFlightBytes >= inFlightBytesMax) return false
    if (this.#writer.unsentBytes < unreadBytesHigh) return this.#hasMemory()
    this.#writer.flush()
    return this.#writer.unsentBytes < unreadBytesHigh && this.#hasMemory()
  }

  /**
   * With the budget used up, a connection waits in line before it takes on anything new, except that one which holds nothing may always
   * have one small request: clients that hold much cannot lock out those that want little.
   */
  #hasMemory(): boolean {
    const { budget } = this.#o.memory
    if (budget.usedBytes < budget.bytesMax) return true
    // Its own finished replies may be what holds it.
    this.#writer.flush()
    if (budget.usedBytes < budget.bytesMax || this.#holdsNothing()) return true
    this.#cancelWait ??= budget.wait(1, () => {
      this.#cancelWait = undefined
      budget.giveBack(1)
      if (!this.#isClosed) this.#o.onMemory()
    })
    return false
  }

  #holdsNothing(): boolean {
    return this.#writer.unsentBytes === 0 && this.#performer.inFlightCount === 0
  }

  /** Who speaks something else may wait for an answer to less than a header. */
  #checkBeginning(): void {
    const beginning = this.#input.beginningOfHeader(magicBytes)
    if (beginning !== undefined) checkMagic(beginning, 0, this.#isExtended)
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
    if (refusal) this.#refuse(refusal, payloadBytes)
    else if (request.type === Command.DISC) this.#o.onDisconnect()
    else if (this.#hasRoom()) this.#begin()
    else this.#expect = 'room'
  }

  /**
   * Whether the connection may hold the request's data beside what it holds: its payload, or its reply. Counting a reply before it is
   * read keeps an honest client, however much it asks for at once, from ever having more unread replies than it may.
   */
  #hasRoom(): boolean {
    const { inFlightBytesMax, unreadBytesMax } = this.#limits
    const { inFlightBytes } = this.#performer
    const costBytes = this.#performer.costBytesOf(this.#request)
    if (inFlightBytes > 0 && inFlightBytes + costBytes > inFlightBytesMax) return false
    const otherBytesMax = unreadBytesMax - smallRepliesBytes - costBytes
    if (inFlightBytes + this.#writer.unsentBytes <= otherBytesMax) return true
    this.#writer.flush()
    const otherBytes = inFlightBytes + this.#writer.unsentBytes
    return otherBytes <= otherBytesMax || otherBytes === 0
  }

  #begin(): void {
    const request = this.#request
    const payloadBytes = payloadBytesOf(request, this.#isExtended)
    if (payloadBytes > 0) this.#acceptPayload(payloadBytes)
    else if (request.type === Command.WRITE) this.#performer.write(request, [], 0)
    else {
      const neededBytes = this.#performer.neededBytes(request)
      if (neededBytes === 0) this.#performer.perform(request, 0)
      else this.#withMemory(neededBytes)
    }
  }

  #acceptPayload(payloadBytes: number): void {
    if (
      this.#request.type === Command.BLOCK_STATUS &&
      payloadBytes > statusFilterBytesMax(this.#o.contexts.length)
    ) {
      const refusal = new RequestError('EINVAL', 'a block status payload with too many contexts')
      this.#refuse(refusal, payloadBytes)
      return
    }
    this.#payloadLeftBytes = payloadBytes
    if (this.#input.hasInOnePiece(payloadBytes)) this.#takePayload()
    else this.#withMemory(payloadBytes)
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
    if (lengthBytes <= this.#limits.arenaReadBytesMax && this.#holdsNothing()) {
      budget.takeAnyway(lengthBytes)
      this.#granted(lengthBytes)
      return
    }
    this.#expect = 'memory'
    this.#cancelWait = budget.wait(lengthBytes, () => {
      this.#cancelWait = undefined
      if (this.#isClosed) {
        budget.giveBack(lengthBytes)
        return
      }
      this.#expect = 'header'
      try {
        this.#granted(lengthBytes)
        this.#o.onMemory()
      } catch (error) {
        this.#o.onError(error)
      }
    })
  }

  #granted(lengthBytes: number): void {
    if (this.#payloadLeftBytes === 0) {
      this.#performer.perform(this.#request, lengthBytes)
      return
    }
    this.#grantedBytes = lengthBytes
    this.#expect = 'payload'
    this.#o.payloadWatchdog.start(++this.#payloadCount)
  }

  /** Takes what is there of the payload, as views; true when the request was whole and was performed. */
  #takePayload(): boolean {
    this.#payloadLeftBytes -= this.#input.takeParts(this.#payloadLeftBytes, this.#parts)
    if (this.#payloadLeftBytes > 0) return false
    const parts = this.#parts
    const grantedBytes = this.#grantedBytes
    this.#parts = []
    this.#grantedBytes = 0
    this.#expect = 'header'
    if (grantedBytes > 0) this.#o.payloadWatchdog.stop()
    if (this.#request.type === Command.WRITE) {
      this.#performer.write(this.#request, parts, grantedBytes)
    } else {
      if (grantedBytes > 0) this.#o.memory.budget.giveBack(grantedBytes)
      this.#filteredStatus(parts)
    }
    this.#releaseParts(parts)
    return true
  }

  #releaseParts(parts: readonly Buffer[]): void {
    for (const part of parts) this.#o.memory.slabs.release(part)
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
}
