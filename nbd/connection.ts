// One client from accept to close: handshake under a deadline, then a session, or a private option's owner. Says once how it ended.
import type { Duplex } from 'node:stream'
import { ConnectionEnded, ProtocolError } from './bytes/protocol-error.js'
import type { SendNow } from './bytes/send-now.js'
import type { ExportList } from './export.js'
import { Handshake, type HandshakeResult, type PrivateOption, type TlsOffer } from './handshake.js'
import {
  type Counters,
  type Hooks,
  isAssertion,
  reportFatal,
  type SessionEnd,
  type SessionInfo,
} from './hooks.js'
import type { Limits } from './limits.js'
import type { SharedMemory } from './memory.js'
import type { OptionHandler } from './options.js'
import type { Poller } from './poller.js'
import { Session } from './session.js'
import type { Timers } from './timers.js'
import type { LongTurns } from './turns.js'

export type ConnectionOptions = {
  readonly id: number
  readonly peer: string
  readonly stream: Duplex
  readonly exports: ExportList
  readonly options: ReadonlyMap<number, OptionHandler>
  readonly privateOptions: ReadonlyMap<number, PrivateOption>
  readonly tls?: TlsOffer
  readonly hooks: Hooks
  readonly limits: Limits
  readonly timers: Timers
  readonly poller: Poller
  readonly turns: LongTurns
  readonly sendNow?: SendNow | undefined
  readonly memory: SharedMemory
  readonly counters: Counters
  readonly onHandshakeOver: () => void
}

export class Connection {
  readonly #o: ConnectionOptions
  readonly #handshake: Handshake
  #info: SessionInfo
  #session: Session | undefined
  #isStopping = false
  #isTaken = false
  #isHandshakeOver = false
  #isSlow = false
  #end: SessionEnd | undefined

  constructor(options: ConnectionOptions) {
    this.#o = options
    this.#info = { id: options.id, peer: options.peer }
    this.#handshake = new Handshake({
      stream: options.stream,
      peer: options.peer,
      limits: options.limits,
      exports: options.exports,
      options: options.options,
      privateOptions: options.privateOptions,
      ...(options.tls ? { tls: options.tls } : {}),
      isStopping: () => this.#isStopping,
    })
  }

  /** Resolves when the socket is closed and nothing of the connection is in flight, or when it was taken over. Never rejects. */
  async run(): Promise<void> {
    const { stream } = this.#o
    const closed = new Promise<void>((resolve) => stream.once('close', resolve))
    // Whoever reads or writes hears of it too; without this listener an error between two owners would end the process.
    stream.on('error', () => {})
    try {
      const result = await this.#shakeHands()
      if (result) await this.#serve(result)
    } catch (error) {
      this.#fail(error)
    }
    // From here on it is its new owner's to read, to count and to close.
    if (this.#isTaken) return this.#sayEnd()
    if (!stream.destroyed) stream.resume() // Or the end of the input is never seen.
    await closed
    this.#sayEnd()
  }

  /** Its handshake takes longer than any honest one. */
  get isSlow(): boolean {
    return this.#isSlow
  }

  #sayEnd(): void {
    const end = this.#end ?? { reason: 'failed', message: 'no reason' }
    this.#o.hooks.onSessionEnd?.(this.#info, end)
  }

  /** Accepts no further requests and ends when those in flight were answered. */
  stop(): void {
    this.#isStopping = true
    if (this.#session) {
      this.#session.stop()
      return
    }
    // In a handshake nothing is in flight.
    if (!this.#isTaken) this.cut({ reason: 'stopped', message: 'the server is stopping' })
  }

  /** Ends at once. */
  cut(end: SessionEnd): void {
    this.#end ??= end
    if (this.#session) this.#session.destroy(end)
    this.#handshake.stream.destroy()
    this.#o.stream.destroy()
  }

  async #shakeHands(): Promise<HandshakeResult | undefined> {
    const { timers, limits } = this.#o
    const patience = timers.setTimer(limits.handshakePatienceMs, () => {
      this.#isSlow = true
    })
    const waitUntil = (timeoutMs: number, waitedMs: number): void => {
      deadline = timers.setTimer(timeoutMs - waitedMs, () => {
        if (this.#isHandshakeOver) return
        const grownMs = this.#handshake.timeoutMs
        if (grownMs > timeoutMs) waitUntil(grownMs, timeoutMs)
        else this.cut({ reason: 'timeout', message: 'the handshake took too long' })
      })
    }
    let deadline: { cancel(): void } | undefined
    waitUntil(limits.handshakeTimeoutMs, 0)
    try {
      return await this.#handshake.run()
    } catch (error) {
      if (error instanceof ConnectionEnded) {
        this.#end ??= { reason: 'end-of-stream', message: 'the client left during the handshake' }
        this.cut(this.#end)
        return undefined
      }
      throw error
    } finally {
      patience.cancel()
      deadline?.cancel()
      this.#isHandshakeOver = true
      this.#o.onHandshakeOver()
    }
  }

  async #serve(result: HandshakeResult): Promise<void> {
    switch (result.kind) {
      case 'taken':
        this.#isTaken = true
        this.#end ??= { reason: 'taken', message: 'a private option took the connection over' }
        return
      case 'aborted':
        this.#end ??= { reason: 'disconnect', message: 'the client aborted the handshake' }
        return this.#closeSoon()
      case 'transmission':
        return this.#transmit(result)
    }
  }

  async #transmit(result: HandshakeResult & { kind: 'transmission' }): Promise<void> {
    const { hooks, limits, timers, poller, turns, sendNow, memory, counters } = this.#o
    const info = { ...this.#info, exportName: result.target.name }
    this.#info = info
    let isReleased = false
    const release = (): void => {
      if (isReleased) return
      isReleased = true
      result.release()
    }
    const session = new Session({
      stream: result.stream,
      received: result.received,
      target: result.target,
      style: result.style,
      contexts: result.contexts,
      memory,
      limits,
      timers,
      poller,
      turns,
      sendNow,
      counters,
      onFailed: (failure) => hooks.onRequestFailed?.(info, failure),
      onFatal: (error) => reportFatal(hooks, error),
      // A client that has seen its connection end may delete the export at once.
      onDrained: release,
    })
    this.#session = session
    try {
      hooks.onSessionStart?.(info)
      session.start()
      if (this.#isStopping) session.stop()
      this.#end ??= await session.ended
    } finally {
      release()
    }
    this.#o.stream.destroy()
  }

  #closeSoon(): void {
    const stream = this.#handshake.stream
    stream.end()
    const linger = this.#o.timers.setTimer(this.#o.limits.lingerTimeoutMs, () =>
      this.#o.stream.destroy(),
    )
    this.#o.stream.once('close', () => linger.cancel())
  }

  #fail(error: unknown): void {
    if (this.#end) this.cut(this.#end)
    else if (error instanceof ProtocolError) {
      this.cut({ reason: 'protocol-error', message: error.message })
    } else if (isSocketError(error)) {
      this.cut({ reason: 'socket-error', message: error.message, error })
    } else {
      this.cut({ reason: 'failed', message: 'the connection failed', error })
    }
    if (isAssertion(error)) reportFatal(this.#o.hooks, error)
  }
}

/** What a socket's 'error' event brings has the system call in it. */
function isSocketError(error: unknown): error is Error {
  return error instanceof Error && 'syscall' in error
}
