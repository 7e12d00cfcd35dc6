// The other end of the control socket, for the command line: one connection, requests and notifications. Every wait has a deadline.
import { connect, type Socket } from 'node:net'
import { type ErrorCode, errnoNameOf, errorCodes, LockstepError } from '../core/errors.js'
import { LineReader } from './line-reader.js'
import { checkSocketPath } from './socket-path.js'

/** What a status of the largest group needs, many times over; the daemon is trusted, its bugs are not. */
const replyBytesMax = 64 * 1024 * 1024

/** Methods that change nothing. */
const questions =
  /^(?:status|check|dirty|events|config|doctor|ping|version|methods|wait|job\.wait|\w+\.list)$/

type Waiting = {
  readonly method: string
  resolve(result: unknown): void
  reject(error: unknown): void
}

export class ControlClient {
  readonly #socket: Socket
  readonly #path: string
  readonly #waiting = new Map<number, Waiting>()
  #idLast = 0
  /** What the daemon said about the connection itself, before it ended it: the answer to everything that is asked. */
  #refusal: LockstepError | undefined
  #onNotification: (method: string, params: unknown) => void = () => {}
  /** Resolves when the connection ends, for whatever reason. */
  readonly closed: Promise<void>

  private constructor(socket: Socket, path: string) {
    this.#socket = socket
    this.#path = path
    const lines = new LineReader(replyBytesMax)
    socket.on('data', (chunk: Buffer) => {
      for (const line of lines.push(chunk)) {
        if (line === 'too-long') socket.destroy()
        else this.#take(line)
      }
    })
    socket.on('error', () => {}) // 'close' follows.
    this.closed = new Promise((resolve) =>
      socket.once('close', () => {
        this.#rejectAll()
        resolve()
      }),
    )
  }

  /** Rejects with LockstepError UNREACHABLE when no daemon answers on `path`. */
  static open(path: string, options: { readonly timeoutMs: number }): Promise<ControlClient> {
    checkSocketPath(path)
    return new Promise((resolve, reject) => {
      const socket = connect(path)
      const late = Object.assign(new Error('nobody accepts'), { code: 'ETIMEDOUT' })
      socket.setTimeout(options.timeoutMs, () => socket.destroy(late))
      socket.once('error', (error) => reject(unreachableDaemon(path, errnoNameOf(error))))
      socket.once('connect', () => {
        socket.setTimeout(0)
        socket.removeAllListeners('error')
        resolve(new ControlClient(socket, path))
      })
    })
  }

  onNotification(listener: (method: string, params: unknown) => void): void {
    this.#onNotification = listener
  }

  /** The result of one request. Rejects with the LockstepError that the daemon sent (LIMIT_REACHED when it has no place for this connection),
   *  TIMED_OUT, or UNREACHABLE when the connection ends first. */
  request(
    method: string,
    params: object,
    options: { readonly timeoutMs?: number } = {},
  ): Promise<unknown> {
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal)
    if (this.#socket.destroyed) return Promise.reject(lostConnection(this.#path, method))
    const id = ++this.#idLast
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(id, { method, resolve, reject })
    })
    this.#socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`)
    if (options.timeoutMs === undefined) return answer
    const timer = setTimeout(() => {
      this.#waiting.get(id)?.reject(noAnswer(method, options.timeoutMs ?? 0, this.#path))
      this.#waiting.delete(id)
    }, options.timeoutMs)
    return answer.finally(() => clearTimeout(timer))
  }

  get isOpen(): boolean {
    return !this.#socket.destroyed
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(line: Uint8Array): void {
    const message = JSON.parse(Buffer.from(line).toString()) as {
      id?: number | null
      method?: string
      params?: unknown
      result?: unknown
      error?: { message: string; data?: { code?: string; action?: string } }
    }
    if (typeof message.method === 'string') {
      this.#onNotification(message.method, message.params)
      return
    }
    if (typeof message.id !== 'number') {
      if (message.error === undefined) return
      this.#refusal = errorOf(message.error)
      this.#rejectAll()
      return
    }
    const waiting = this.#waiting.get(message.id)
    this.#waiting.delete(message.id)
    if (message.error === undefined) waiting?.resolve(message.result)
    else waiting?.reject(errorOf(message.error))
  }

  #rejectAll(): void {
    for (const { method, reject } of this.#waiting.values())
      reject(this.#refusal ?? lostConnection(this.#path, method))
    this.#waiting.clear()
  }
}

function errorOf(error: {
  readonly message: string
  readonly data?: { readonly code?: string; readonly action?: string }
}): LockstepError {
  const code = errorCodes.find((known) => known === error.data?.code) ?? 'INVALID_ARGUMENT'
  return new LockstepError(code satisfies ErrorCode, error.message, error.data?.action ?? '')
}

function directoryOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/'))) || '.'
}

function unreachableDaemon(path: string, errnoName: string): LockstepError {
  const directory = directoryOf(path)
  if (errnoName === 'EACCES') {
    return new LockstepError(
      'UNREACHABLE',
      `no permission to open ${path}`,
      `run the command as the owner of ${directory}`,
    )
  }
  // Another one could not be served beside it: it has the socket, and so many wait that no more are let in line.
  if (errnoName === 'EAGAIN' || errnoName === 'ETIMEDOUT') {
    return new LockstepError(
      'UNREACHABLE',
      `the daemon is there and accepts nobody on ${path} (${errnoName})`,
      lookAtDaemon(directory),
    )
  }
  return new LockstepError(
    'UNREACHABLE',
    `no daemon answers on ${path} (${errnoName})`,
    `lockstep serve ${directory}`,
  )
}

/** What somebody does about a daemon that has the socket and says nothing. */
function lookAtDaemon(directory: string): string {
  return `look at its process (ps -o pid,stat,wchan,cmd -p $(cat ${directory}/lock)), its log and the kernel's (dmesg): a disk may hang`
}

function lostConnection(path: string, method: string): LockstepError {
  return new LockstepError(
    'UNREACHABLE',
    `the daemon closed the connection on ${path} before it answered`,
    questions.test(method)
      ? 'the same once more: the daemon was stopped, or is being started again'
      : 'lockstep status, to see whether it was done',
  )
}

/** It has the socket and does not answer: it is stopped, or stands in a call to a disk that hangs. Asking again would wait as long. */
function noAnswer(method: string, timeoutMs: number, path: string): LockstepError {
  const told = questions.test(method) ? '' : '; whether it was done nobody knows yet'
  return new LockstepError(
    'TIMED_OUT',
    `the daemon is there and gave no answer to ${method} within ${timeoutMs / 1000} s${told}`,
    lookAtDaemon(directoryOf(path)),
  )
}
