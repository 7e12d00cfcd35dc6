// Requests that passed their checks, performed: the export is called, and its answer becomes a reply. What the export answers at once
// is laid out at once; the rest is in flight, holds what it needs, and settles in any order.
//
// Invariant: each request gets exactly one reply, and what it held is given back exactly once, also when the connection is gone.
import assert from 'node:assert/strict'
import { Command, CommandFlag, nameOf } from './constants.js'
import { type RequestError, toRequestError } from './errors.js'
import type { Export, Extent } from './export.js'
import { type Counters, type FailedRequest, isAssertion } from './hooks.js'
import { allOf, layOutRead } from './large-read.js'
import type { Limits } from './limits.js'
import type { SharedMemory } from './memory.js'
import type { ReplyEncoder } from './replies.js'
import type { ReplyWriter, Slot } from './reply-writer.js'
import type { Request } from './request.js'
import { SlicedRead } from './sliced-read.js'
import type { MetaContext } from './status.js'
import { perContextExtentCount, sendStatus, statusOf } from './status.js'
import type { LongTurns } from './turns.js'

type Pending = {
  readonly request: Request
  /** Counted against the connection's limit. */
  readonly lengthBytes: number
  /** Taken from the shared budget, to be given back. */
  readonly heldBytes: number
  /** A WRITE's payload, held until it settles. */
  readonly parts?: readonly Buffer[]
  /** A READ's reply, header and data. */
  readonly slot?: Slot
  readonly replyBytes?: number
}

export type PerformerOptions = {
  readonly target: Export
  readonly contexts: readonly MetaContext[]
  readonly encoder: ReplyEncoder
  readonly writer: ReplyWriter
  readonly memory: SharedMemory
  readonly limits: Limits
  readonly turns: LongTurns
  readonly counters: Counters
  readonly onFailed: (failure: FailedRequest) => void
  /** A request that was in flight has its reply laid out. */
  readonly onSettled: () => void
  /** An assertion failed. */
  readonly onFatal: (error: unknown) => void
}

export class Performer {
  readonly #o: PerformerOptions
  readonly #target: Export
  readonly #encoder: ReplyEncoder
  readonly #writer: ReplyWriter
  readonly #limits: Limits
  readonly #counters: Counters
  /** All contexts of a block status reply share one limit. */
  readonly #statusBytesMax: number
  #inFlightCount = 0
  #inFlightBytes = 0
  #isClosed = false

  constructor(options: PerformerOptions) {
    this.#o = options
    this.#target = options.target
    this.#encoder = options.encoder
    this.#writer = options.writer
    this.#limits = options.limits
    this.#counters = options.counters
    this.#statusBytesMax = this.#encoder.statusChunkBytes(this.#limits.extentCountMax)
  }

  get inFlightCount(): number {
    return this.#inFlightCount
  }

  get inFlightBytes(): number {
    return this.#inFlightBytes
  }

  /** The connection is gone: what settles from now on is not answered. */
  close(): void {
    this.#isClosed = true
  }

  /** What a request holds of its connection while it is under way: its payload, or the data of its reply. */
  costBytesOf(request: Request): number {
    const { type, lengthBytes } = request
    if (type === Command.READ || type === Command.WRITE) return lengthBytes
    return type === Command.BLOCK_STATUS ? this.#statusBytesMax : 0
  }

  /** What the shared budget must grant before `perform`: large reads have a buffer of their own. */
  neededBytes(request: Request): number {
    if (request.type !== Command.READ) return 0
    if (request.lengthBytes <= this.#limits.arenaReadBytesMax) return 0
    const { pool } = this.#o.memory
    return pool.classBytesOf(request.lengthBytes + this.#encoder.dataHeaderBytes)
  }

  /** Performs a request without payload. `grantedBytes` is what `neededBytes` said. */
  perform(request: Request, grantedBytes: number): void {
    switch (request.type) {
      case Command.READ:
        if (grantedBytes > 0) {
          this.#readLarge(request, grantedBytes)
          return
        }
        this.#read(request)
        return
      case Command.BLOCK_STATUS:
        this.status(request, this.#o.contexts, request.lengthBytes)
        return
      default:
        this.#simple(request)
        return
    }
  }

  /** `parts` are the payload, in views of socket buffers; `grantedBytes` of the budget are held for them already. */
  write(request: Request, parts: readonly Buffer[], grantedBytes: number): void {
    const { offset, lengthBytes } = request
    if (lengthBytes === 0) {
      this.succeed(request)
      return
    }
    const fua = (request.flags & CommandFlag.FUA) !== 0
    this.#counters.writtenBytes += lengthBytes
    let pending: Promise<void> | undefined
    try {
      const keeper = this.#o.memory.kept
      pending = this.#target.write({ offset, lengthBytes, parts, fua, keeper })
    } catch (error) {
      this.#o.memory.budget.giveBack(grantedBytes)
      this.fail(request, this.#toRequestError(request, error))
      return
    }
    if (pending === undefined) {
      if (grantedBytes > 0) this.#o.memory.budget.giveBack(grantedBytes)
      this.succeed(request)
      return
    }
    const { budget, slabs } = this.#o.memory
    for (const part of parts) slabs.hold(part)
    const heldBytes = Math.max(slabs.strangeBytesOf(parts), grantedBytes)
    budget.takeAnyway(heldBytes - grantedBytes)
    const inFlightBytes = Math.max(lengthBytes, heldBytes)
    const copy = request.copy()
    this.#track(pending, { request: copy, lengthBytes: inFlightBytes, heldBytes, parts })
  }

  /** Answers a block status with one chunk for each of `contexts`: now, or when it is its turn. */
  status(request: Request, contexts: readonly MetaContext[], lengthBytes: number): void {
    const { turns } = this.#o
    if (!turns.isUsedUp) {
      const pending = this.#status(request, contexts, lengthBytes)
      if (pending) this.#trackStatus(request.copy(), pending)
      return
    }
    const copy = request.copy()
    const answered = new Promise<void>((resolve, reject) => {
      turns.wait(this, () => {
        try {
          resolve(this.#isClosed ? undefined : this.#status(copy, contexts, lengthBytes))
        } catch (error) {
          reject(error)
        }
      })
    })
    this.#trackStatus(copy, answered)
  }

  succeed(request: Request): void {
    const lengthBytes = this.#encoder.statusBytes
    const at = this.#writer.reserve(lengthBytes)
    this.#encoder.success(this.#writer.bytes, at, request)
    this.#writer.commit(lengthBytes)
  }

  fail(request: Request, error: RequestError): void {
    this.#counters.failedRequests++
    const at = this.#writer.reserve(this.#encoder.failureBytesMax)
    const end = this.#encoder.failure(this.#writer.bytes, at, request, error)
    this.#writer.commit(end - at)
  }

  #read(request: Request): void {
    const { offset, lengthBytes } = request
    if (lengthBytes === 0) {
      this.#readNothing(request)
      return
    }
    const writer = this.#writer
    const replyBytes = this.#encoder.dataHeaderBytes + lengthBytes
    const at = writer.reserve(replyBytes)
    const bytes = writer.bytes
    const dataAt = this.#encoder.wholeDataHeader(bytes, at, request)
    this.#counters.readBytes += lengthBytes
    let pending: Promise<void> | undefined
    try {
      pending = this.#target.read({ offset, target: bytes.subarray(dataAt, at + replyBytes) })
    } catch (error) {
      this.fail(request, this.#toRequestError(request, error))
      return
    }
    if (pending === undefined) {
      writer.commit(replyBytes)
      return
    }
    const slot = writer.detach(replyBytes)
    this.#track(pending, { request: request.copy(), lengthBytes, heldBytes: 0, slot, replyBytes })
  }

  /** proto.md leaves a read of nothing open; a content chunk of no bytes is forbidden. */
  #readNothing(request: Request): void {
    if (this.#encoder.style === 'simple') {
      this.succeed(request)
      return
    }
    const at = this.#writer.reserve(this.#encoder.doneBytes)
    this.#encoder.done(this.#writer.bytes, at, request)
    this.#writer.commit(this.#encoder.doneBytes)
  }

  #readLarge(request: Request, grantedBytes: number): void {
    const { pool } = this.#o.memory
    this.#counters.readBytes += request.lengthBytes
    const bytes = pool.take(request.lengthBytes + this.#encoder.dataHeaderBytes)
    assert.equal(bytes.length, grantedBytes)
    const slot = this.#writer.slotOf(bytes, bytes.length)
    if (request.lengthBytes > this.#limits.readSliceBytes) {
      this.#readSliced(request.copy(), bytes, slot)
      return
    }
    const waits: Promise<void>[] = []
    let end = 0
    try {
      end = layOutRead(this.#o, request, bytes, waits)
    } catch (error) {
      // Reads of earlier pieces may still fill the buffer: it is not used again, and comes back to nobody.
      if (waits.length === 0) this.#writer.drop(slot)
      else void Promise.allSettled(waits).then(() => this.#writer.drop(slot))
      this.fail(request, this.#toRequestError(request, error))
      return
    }
    if (waits.length === 0) {
      this.#writer.send(slot, end)
      if (this.#writer.unsentBytes >= this.#limits.replyBatchBytes) this.#writer.flush()
      return
    }
    this.#track(allOf(waits), {
      request: request.copy(),
      lengthBytes: request.lengthBytes,
      heldBytes: 0,
      slot,
      replyBytes: end,
    })
  }

  #readSliced(request: Request, bytes: Buffer, slot: Slot): void {
    const { lengthBytes } = request
    const read = new SlicedRead(this.#o, request, bytes)
    const pending = {
      request,
      lengthBytes,
      heldBytes: 0,
      slot,
      get replyBytes() {
        return read.end
      },
    }
    this.#track(
      read.run(this, () => !this.#isClosed),
      pending,
    )
  }

  #simple(request: Request): void {
    if (request.lengthBytes === 0 && request.type !== Command.FLUSH) {
      this.succeed(request)
      return
    }
    let pending: Promise<void> | undefined
    try {
      pending = this.#call(request)
    } catch (error) {
      this.fail(request, this.#toRequestError(request, error))
      return
    }
    if (pending === undefined) {
      this.succeed(request)
      return
    }
    this.#track(pending, { request: request.copy(), lengthBytes: 0, heldBytes: 0 })
  }

  #call(request: Request): Promise<void> | undefined {
    const { offset, lengthBytes, flags } = request
    const fua = (flags & CommandFlag.FUA) !== 0
    switch (request.type) {
      case Command.FLUSH:
        return this.#target.flush()
      case Command.TRIM:
        return this.#target.zero({
          offset,
          lengthBytes,
          fua,
          mayUnmap: true,
          fastOnly: false,
          errnoBeyondEnd: 'EINVAL',
        })
      case Command.WRITE_ZEROES: {
        const mayUnmap = (flags & CommandFlag.NO_HOLE) === 0
        const fastOnly = (flags & CommandFlag.FAST_ZERO) !== 0
        const isWanted = (): boolean => !this.#isClosed
        return this.#target.zero({ offset, lengthBytes, fua, mayUnmap, fastOnly, isWanted })
      }
      default:
        assert.equal(request.type, Command.CACHE)
        // A hint: what one request may read is enough of it.
        return this.#target.cache({
          offset,
          lengthBytes: Math.min(lengthBytes, this.#limits.payloadBytesMax),
          isWanted: () => !this.#isClosed,
        })
    }
  }

  /** Lays the reply out, or answers what is still to be waited for. */
  #status(
    request: Request,
    contexts: readonly MetaContext[],
    lengthBytes: number,
  ): Promise<void> | undefined {
    const { offset } = request
    const extentCountMax = perContextExtentCount(request, contexts.length, this.#limits)
    const stepsMax = this.#limits.statusStepsMax
    const look = { stepsLeft: stepsMax }
    const range = { contexts, offset, lengthBytes, extentCountMax, look }
    let answers: Promise<readonly (readonly Extent[])[]> | readonly (readonly Extent[])[]
    try {
      answers = statusOf(this.#target, range)
    } catch (error) {
      this.fail(request, this.#toRequestError(request, error))
      return
    } finally {
      this.#o.turns.spend(stepsMax - look.stepsLeft)
    }
    if (!(answers instanceof Promise)) {
      this.#sendStatus(request, contexts, answers)
      return
    }
    const copy = request.copy()
    return answers.then((found) => {
      if (!this.#isClosed) this.#sendStatus(copy, contexts, found)
    })
  }

  #trackStatus(request: Request, promise: Promise<void>): void {
    const lengthBytes = this.#statusBytesMax
    this.#track(promise, { request, lengthBytes, heldBytes: 0, replyBytes: 0 })
  }

  #sendStatus(
    request: Request,
    contexts: readonly MetaContext[],
    answers: readonly (readonly Extent[])[],
  ): void {
    if (contexts.length === 0) {
      this.#readNothing(request)
      return
    }
    sendStatus(this.#o, request, contexts, answers)
  }

  #track(promise: Promise<void>, pending: Pending): void {
    this.#inFlightCount++
    this.#inFlightBytes += pending.lengthBytes
    promise.then(
      () => this.#settle(pending, undefined),
      (error: unknown) => this.#settle(pending, { error }),
    )
  }

  #settle(pending: Pending, failure: { readonly error: unknown } | undefined): void {
    this.#inFlightCount--
    this.#inFlightBytes -= pending.lengthBytes
    const { budget, slabs } = this.#o.memory
    if (pending.heldBytes > 0) budget.giveBack(pending.heldBytes)
    for (const part of pending.parts ?? []) slabs.release(part)
    try {
      this.#answer(pending, failure)
      this.#o.onSettled()
    } catch (error) {
      this.#o.onFatal(error)
    }
  }

  #answer(pending: Pending, failure: { readonly error: unknown } | undefined): void {
    const { request, slot, replyBytes } = pending
    if (failure) {
      if (slot) this.#writer.drop(slot)
      const error = this.#toRequestError(request, failure.error)
      if (!this.#isClosed) this.fail(request, error)
      return
    }
    if (slot) {
      this.#writer.send(slot, replyBytes ?? 0)
      return
    }
    if (this.#isClosed || replyBytes !== undefined) return
    this.succeed(request)
  }

  /** An assertion is thrown on; what is not known is EIO on the wire and reported whole. */
  #toRequestError(request: Request, error: unknown): RequestError {
    if (isAssertion(error)) throw error
    this.#o.onFailed({
      command: nameOf(Command, request.type) as FailedRequest['command'],
      offset: request.offset,
      lengthBytes: request.lengthBytes,
      error,
    })
    return toRequestError(error)
  }
}
