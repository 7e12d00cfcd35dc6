// Accepts connections up to the limits, shares memory and counters among them, and stops in bounded time.
//
// Invariant: every accepted socket is in `#connections` until it is closed and its requests are over.
import assert from 'node:assert/strict'
import { createServer, type Server, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { SendNow } from './bytes/send-now.js'
import { Connection } from './connection.js'
import type { ExportList } from './export.js'
import type { PrivateOption, TlsOffer } from './handshake.js'
import { type Counters, type Hooks, newCounters } from './hooks.js'
import { defaultLimits, type Limits } from './limits.js'
import { SharedMemory } from './memory.js'
import { standardOptions } from './options.js'
import { Poller } from './poller.js'
import { nodeTimers, type Timers } from './timers.js'
import { LongTurns } from './turns.js'

export type NbdServerOptions = {
  readonly exports: ExportList
  readonly hooks?: Hooks
  readonly limits?: Partial<Limits>
  readonly timers?: Timers
  readonly tls?: TlsOffer
  readonly privateOptions?: readonly PrivateOption[]
  /** Quicker than a stream's own write, where the embedder has a way. */
  readonly sendNow?: SendNow
}

export class NbdServer {
  readonly #o: NbdServerOptions
  readonly #limits: Limits
  readonly #timers: Timers
  readonly #hooks: Hooks
  readonly #memory: SharedMemory
  readonly #poller: Poller
  readonly #turns: LongTurns
  readonly #options: ReturnType<typeof standardOptions>
  readonly #privateOptions: ReadonlyMap<number, PrivateOption>
  readonly #counters: Counters = newCounters()
  readonly #connections = new Map<Connection, Promise<void>>()
  /** In their handshake, the oldest first. */
  readonly #shaking = new Set<Connection>()
  readonly #listeners = new Set<Server>()
  #connectionCount = 0
  #isStopping = false

  constructor(options: NbdServerOptions) {
    this.#o = options
    this.#limits = { ...defaultLimits, ...options.limits }
    this.#timers = options.timers ?? nodeTimers
    this.#hooks = options.hooks ?? {}
    this.#memory = new SharedMemory({ ...this.#limits, timers: this.#timers })
    this.#poller = new Poller(this.#limits)
    this.#turns = new LongTurns(this.#limits)
    this.#options = standardOptions(this.#limits)
    const privateOptions = options.privateOptions ?? []
    for (const { option, bodyBytesMax } of privateOptions) {
      assert(!this.#options.has(option))
      assert(bodyBytesMax <= this.#limits.optionBytesMax)
    }
    this.#privateOptions = new Map(privateOptions.map((option) => [option.option, option]))
  }

  /** What has happened so far; a copy. */
  counters(): Counters {
    return { ...this.#counters }
  }

  /** Bytes in use for payload and replies now. */
  get usedBytes(): number {
    return this.#memory.budget.usedBytes
  }

  /** A listener with the options that sockets for `accept` need, served already: call `listen` on it. */
  createListener(): Server {
    const listener = createServer({ allowHalfOpen: true, noDelay: true })
    this.serve(listener)
    return listener
  }

  /** Accepts what `listener` accepts, until `stop`. It should have `allowHalfOpen`, or a client that closes its side first loses replies. */
  serve(listener: Server): void {
    this.#listeners.add(listener)
    listener.once('close', () => this.#listeners.delete(listener))
    listener.on('connection', (socket: Socket) => this.accept(socket))
  }

  /** Takes a connected socket over. What is above a limit is closed at once. */
  accept(stream: Duplex, peer = peerOf(stream)): void {
    const refusal = this.#refusal()
    if (refusal) {
      this.#counters.refusedConnections++
      stream.on('error', () => {})
      stream.destroy()
      this.#hooks.onRefused?.(peer, refusal)
      return
    }
    if (stream instanceof Socket) {
      stream.setNoDelay(true)
      stream.setKeepAlive(true, this.#limits.keepAliveDelayMs)
    }
    const { exports, tls, sendNow } = this.#o
    const counters = this.#counters
    counters.acceptedConnections++
    counters.connections++
    const connection: Connection = new Connection({
      id: ++this.#connectionCount,
      peer,
      stream,
      exports,
      options: this.#options,
      privateOptions: this.#privateOptions,
      ...(tls ? { tls } : {}),
      hooks: this.#hooks,
      limits: this.#limits,
      timers: this.#timers,
      poller: this.#poller,
      turns: this.#turns,
      sendNow,
      memory: this.#memory,
      counters,
      onHandshakeOver: () => this.#handshakeOver(connection),
    })
    this.#shaking.add(connection)
    counters.handshakes = this.#shaking.size
    const run = connection.run().finally(() => {
      this.#connections.delete(connection)
      counters.connections--
    })
    this.#connections.set(connection, run)
  }

  /** Stops accepting, lets requests under way be answered, and closes. Resolves in `stopTimeoutMs` and a little, whatever clients do. */
  async stop(): Promise<void> {
    this.#isStopping = true
    for (const listener of this.#listeners) listener.close()
    for (const connection of this.#connections.keys()) connection.stop()
    const deadline = this.#timers.setTimer(this.#limits.stopTimeoutMs, () => {
      for (const connection of this.#connections.keys()) {
        connection.cut({ reason: 'stopped', message: 'the server is stopping' })
      }
    })
    await Promise.all(this.#connections.values())
    deadline.cancel()
  }

  #refusal(): string | undefined {
    const { connectionCountMax, handshakeCountMax } = this.#limits
    if (this.#isStopping) return 'the server is stopping'
    if (this.#counters.connections >= connectionCountMax) {
      return `there are ${connectionCountMax} connections already`
    }
    if (this.#shaking.size >= handshakeCountMax && !this.#cutSlowest()) {
      return `there are ${handshakeCountMax} connections in their handshake already`
    }
    return undefined
  }

  /** Whoever opens connections and says nothing must not keep others out: the oldest that is slow gives way. */
  #cutSlowest(): boolean {
    const [oldest] = this.#shaking
    if (oldest?.isSlow !== true) return false
    oldest.cut({ reason: 'timeout', message: 'the handshake took long, and others waited' })
    this.#handshakeOver(oldest)
    return true
  }

  #handshakeOver(connection: Connection): void {
    this.#shaking.delete(connection)
    this.#counters.handshakes = this.#shaking.size
  }
}

function peerOf(stream: Duplex): string {
  if (!(stream instanceof Socket) || stream.remoteAddress === undefined) return 'unix'
  return `${stream.remoteAddress}:${stream.remotePort}`
}
