// The control socket: accepts connections, and holds each to its limits. A client can make the daemon hold one unfinished line, a bounded
// number of requests and a bounded output, whatever it sends or does not read; requests of one connection begin in the order of their lines.
import { AssertionError } from 'node:assert'
import { once } from 'node:events'
import { chmod } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import type { Log } from '../core/log.js'
import type { Daemon } from './api.js'
import {
  errorLine,
  notificationLine,
  RpcCode,
  RpcError,
  type RpcRequest,
  readRequest,
  resultLine,
  rpcErrorOf,
} from './json-rpc.js'
import { controlLimits } from './limits.js'
import { LineReader } from './line-reader.js'
import { call, exampleOf, methods } from './methods.js'
import { claimSocketPath } from './socket-path.js'
import { TurnedAway } from './turned-away.js'

export type ControlLimits = { readonly [K in keyof typeof controlLimits]: number }

export class ControlServer {
  readonly #server: Server
  readonly #connections = new Set<Connection>()
  readonly #turnedAway: TurnedAway
  readonly #limits: ControlLimits
  #begin: () => void = () => {}
  readonly #begun = new Promise<void>((resolve) => {
    this.#begin = resolve
  })

  private constructor(options: {
    readonly daemon: Daemon
    readonly log: Log
    readonly limits: ControlLimits
  }) {
    this.#limits = options.limits
    this.#turnedAway = new TurnedAway(options.limits)
    let connectionNumber = 0
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      if (this.#connections.size >= options.limits.connectionCountMax) {
        this.#turnedAway.take(socket)
        return
      }
      const connection = new Connection(socket, {
        ...options,
        log: options.log.child({ connection: ++connectionNumber }),
        begun: this.#begun,
      })
      this.#connections.add(connection)
      connection.ended.then(() => this.#connections.delete(connection), rethrowLater)
    })
  }

  /** Listens on `path`, which only the owner can open. A socket left by a process that died is replaced. Requests wait for `serve`. */
  static async open(options: {
    readonly path: string
    readonly daemon: Daemon
    readonly log: Log
    readonly limits?: Partial<ControlLimits>
  }): Promise<ControlServer> {
    await claimSocketPath(options.path)
    const server = new ControlServer({
      daemon: options.daemon,
      log: options.log.child({ component: 'control' }),
      limits: { ...controlLimits, ...options.limits },
    })
    // The socket exists from listen() on, before any await: the mask makes it private from its first moment.
    const mask = process.umask(0o177)
    try {
      server.#server.listen(options.path)
    } finally {
      process.umask(mask)
    }
    await once(server.#server, 'listening').catch((error: unknown) => {
      throw new LockstepError(
        'IO_ERROR',
        `cannot listen on ${options.path}: ${errnoNameOf(error)}`,
        'check that the directory can be written',
      )
    })
    await chmod(options.path, 0o600)
    return server
  }

  /** Answers from now on, and what came before. */
  serve(): void {
    this.#begin()
  }

  get connectionCount(): number {
    return this.#connections.size
  }

  /** Accepts nobody any more, lets requests under way be answered for a moment, closes. */
  async stop(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#turnedAway.close()
    const ended = [...this.#connections].map((connection) =>
      connection.stop(this.#limits.stopTimeoutMs),
    )
    // Whoever still waits for the beginning is closed without an answer.
    this.#begin()
    await Promise.all(ended)
    await closed
  }
}

/** Nobody knows whether it was the whole line: it is not performed. */
function unfinishedLine(): RpcError {
  const action = 'end each request with a newline'
  return new RpcError(RpcCode.PARSE_ERROR, 'the last line has no end', { action })
}

/** An assertion that failed must end the process: no promise chain may keep it. */
function rethrowLater(error: unknown): void {
  setImmediate(() => {
    throw error
  })
}

class Connection {
  /** Settles when the connection is closed; rejects with the assertion that failed while it was served. */
  readonly ended: Promise<void>
  readonly #socket: Socket
  readonly #daemon: Daemon
  readonly #log: Log
  readonly #limits: ControlLimits
  readonly #lines: LineReader
  readonly #closers: (() => void)[] = []
  #requestsInFlight = 0
  #isFollowing = false
  #isStopping = false
  #lineTimer: NodeJS.Timeout | undefined
  #unreadTimer: NodeJS.Timeout | undefined
  #wake: () => void = () => {}

  constructor(
    socket: Socket,
    options: {
      readonly daemon: Daemon
      readonly log: Log
      readonly limits: ControlLimits
      readonly begun: Promise<void>
    },
  ) {
    this.#socket = socket
    this.#daemon = options.daemon
    this.#log = options.log
    this.#limits = options.limits
    this.#lines = new LineReader(options.limits.lineBytesMax)
    socket.on('error', (error) => this.#log.debug({ err: error }, 'control connection failed'))
    for (const event of ['readable', 'end', 'drain']) socket.on(event, () => this.#wake())
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    socket.once('close', () => this.#close())
    this.ended = options.begun.then(() => this.#serve()).then(() => closed)
  }

  /** Reads nothing any more; what is under way is answered if that takes no longer than `timeoutMs`. */
  async stop(timeoutMs: number): Promise<void> {
    const timer = setTimeout(() => this.#socket.destroy(), timeoutMs)
    this.#isStopping = true
    this.#isFollowing = false
    this.#wake()
    await this.ended.finally(() => clearTimeout(timer))
  }

  /** One waiter (this) and one wake-up for all it waits for: it looks at the state again after each. */
  async #serve(): Promise<void> {
    const socket = this.#socket
    while (!this.#isStopping && !socket.readableEnded && !socket.destroyed) {
      const chunk: Buffer | null = socket.read()
      if (chunk === null) await this.#woken()
      else if (!(await this.#takeLines(chunk))) break
    }
    if (socket.readableEnded && this.#lines.heldBytes > 0) this.#refuse(undefined, unfinishedLine())
    // A client that has said all it wants to say still reads the answers, and the events it asked for.
    while (!socket.destroyed && (this.#requestsInFlight > 0 || this.#isFollowing)) {
      await this.#woken()
    }
    this.#endSoon()
  }

  /** False when nothing more can be read from this client. */
  async #takeLines(chunk: Buffer): Promise<boolean> {
    for (const line of this.#lines.push(chunk)) {
      clearTimeout(this.#lineTimer)
      this.#lineTimer = undefined
      if (line === 'too-long') {
        this.#refuseLongLine()
        return false
      }
      if (line.length === 0) continue
      while (!this.#hasRoom() && !this.#socket.destroyed) await this.#woken()
      if (this.#socket.destroyed) return false
      void this.#answer(line).catch(rethrowLater)
    }
    if (this.#lines.heldBytes > 0) {
      this.#lineTimer ??= setTimeout(() => this.#socket.destroy(), this.#limits.lineTimeoutMs)
    }
    return true
  }

  #hasRoom(): boolean {
    return (
      this.#requestsInFlight < this.#limits.requestsInFlightMax &&
      this.#socket.writableLength <= this.#limits.outputBytesHigh
    )
  }

  #woken(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  /** The request begins before the first await, so requests begin in the order of their lines. */
  async #answer(line: Uint8Array): Promise<void> {
    let request: RpcRequest | undefined
    this.#requestsInFlight++
    try {
      request = readRequest(line)
      const result = await call(request, {
        daemon: this.#daemon,
        notify: (method, params) => this.#send(notificationLine(method, params)),
        onEnd: (ended) => this.#follow(ended),
      })
      if (request.id !== undefined) this.#send(resultLine(request.id, result))
    } catch (error) {
      if (error instanceof AssertionError) throw error
      this.#refuse(request, error)
    } finally {
      this.#requestsInFlight--
      this.#wake()
    }
  }

  #refuse(request: RpcRequest | undefined, error: unknown): void {
    const method = request === undefined ? undefined : methods.get(request.method)
    let answer = rpcErrorOf(error, method === undefined ? '' : exampleOf(method))
    if (answer === undefined) {
      this.#log.error({ err: error, method: request?.method }, 'control request failed')
      answer = new RpcError(RpcCode.INTERNAL_ERROR, 'the daemon could not do this', {
        code: 'IO_ERROR',
        action: "read the daemon's log, which has the cause",
      })
    }
    if (request !== undefined && request.id === undefined) return // A notification gets no answer.
    this.#send(errorLine(request?.id ?? answer.id, answer))
  }

  #refuseLongLine(): void {
    const message = `the line is longer than ${this.#limits.lineBytesMax} bytes`
    const action = 'send less in one request; this connection is closed'
    this.#send(errorLine(null, new RpcError(RpcCode.INVALID_REQUEST, message, { action })))
  }

  #follow(ended: () => void): void {
    this.#isFollowing = true
    this.#closers.push(ended)
  }

  #send(line: string): void {
    if (this.#socket.destroyed || this.#socket.writableEnded) return
    this.#socket.write(line, () => this.#outputMoved())
    if (this.#socket.writableLength > this.#limits.outputBytesMax) {
      this.#log.warn({ unreadBytes: this.#socket.writableLength }, 'client does not read: closed')
      this.#socket.destroy()
    } else if (this.#socket.writableLength > 0 && this.#unreadTimer === undefined) {
      this.#outputMoved()
    }
  }

  /** Starts the unread timer anew while output waits: each write that leaves is a sign of life. */
  #outputMoved(): void {
    clearTimeout(this.#unreadTimer)
    this.#unreadTimer = undefined
    if (this.#socket.destroyed || this.#socket.writableLength === 0) return
    this.#unreadTimer = setTimeout(() => this.#socket.destroy(), this.#limits.unreadTimeoutMs)
  }

  /** Lets what is written leave, then closes. What the client still sends is thrown away: unread bytes would cost it the answer. */
  #endSoon(): void {
    if (this.#socket.destroyed) return
    clearTimeout(this.#lineTimer)
    this.#lineTimer = setTimeout(() => this.#socket.destroy(), this.#limits.stopTimeoutMs)
    this.#socket.end()
    this.#socket.removeAllListeners('readable')
    this.#socket.resume()
  }

  #close(): void {
    clearTimeout(this.#lineTimer)
    clearTimeout(this.#unreadTimer)
    for (const closer of this.#closers.splice(0)) closer()
    this.#wake()
  }
}
