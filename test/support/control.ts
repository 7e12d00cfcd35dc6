// Helpers for tests of the control socket: a server over the engine's double, and a raw client that can misbehave.
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import { parsePeerUri } from '../../src/app/listen.js'
import type { Daemon } from '../../src/control/api.js'
import { Jobs } from '../../src/control/jobs.js'
import { type ControlLimits, ControlServer } from '../../src/control/server.js'
import { silentLog } from '../../src/core/log.js'
import { EngineDouble } from './engine-double.js'
import { scratch, withDeadline } from './process.js'

const waitTimeoutMs = 20_000

export type Reply = {
  readonly id?: number | string | null
  readonly method?: string
  readonly params?: unknown
  readonly result?: unknown
  readonly error?: {
    readonly code: number
    readonly message: string
    readonly data: { readonly code: string; readonly action: string; readonly field?: string }
  }
}

export async function startControl(
  t: Test,
  limits: Partial<ControlLimits> = {},
): Promise<{ engine: EngineDouble; path: string; server: ControlServer; daemon: Daemon }> {
  const engine = new EngineDouble()
  const daemon: Daemon = {
    engine,
    version: '0.0.0',
    jobs: new Jobs(),
    listeners: () => ['nbd://127.0.0.1:1'],
    setPeer: async (changes) => {
      if (changes.uri !== undefined) parsePeerUri(changes.uri)
      await engine.setPeer(changes)
    },
    fileSystem: async () => ({ sizeBytes: 2 ** 40, freeBytes: 2 ** 39 }),
    settings: () => [{ key: 'log-level', value: 'info', origin: 'default' }],
    doctor: async () => [{ name: 'double', result: 'ok', message: 'all is well' }],
  }
  const path = join(scratch(t), 'control.sock')
  const server = await ControlServer.open({ path, daemon, log: silentLog, limits })
  server.serve()
  let isStopped = false
  const stop = server.stop.bind(server)
  server.stop = () => {
    isStopped = true
    return stop()
  }
  t.teardown(() => (isStopped ? undefined : stop()))
  return { engine, path, server, daemon }
}

/** Says bytes, hears lines. Every wait has a deadline. */
export class RawClient {
  readonly socket: Socket
  readonly #lines: string[] = []
  #partial = ''
  #isClosed = false
  #wake: () => void = () => {}

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk: Buffer) => {
      const parts = (this.#partial + chunk.toString('utf8')).split('\n')
      this.#partial = parts.pop() ?? ''
      this.#lines.push(...parts)
      this.#wake()
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#isClosed = true
      this.#wake()
    })
  }

  static async open(t: Test, path: string): Promise<RawClient> {
    const socket = connect(path)
    t.teardown(() => socket.destroy())
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve())
      socket.once('error', reject)
    })
    return new RawClient(socket)
  }

  say(bytes: string | Uint8Array): void {
    this.socket.write(bytes)
  }

  request(id: number, method: string, params?: unknown): void {
    this.say(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`)
  }

  async ask(method: string, params?: unknown): Promise<Reply> {
    this.request(1, method, params)
    return this.next()
  }

  /** The next line, parsed; rejects when the connection ends first. */
  async next(): Promise<Reply> {
    const line = await withDeadline(this.#nextLine(), waitTimeoutMs, () => 'no line came')
    return JSON.parse(line) as Reply
  }

  async #nextLine(): Promise<string> {
    for (;;) {
      const line = this.#lines.shift()
      if (line !== undefined) return line
      if (this.#isClosed) throw new Error('the connection ended')
      await this.#woken()
    }
  }

  async closed(): Promise<void> {
    const wait = async () => {
      while (!this.#isClosed) await this.#woken()
    }
    await withDeadline(wait(), waitTimeoutMs, () => 'the connection stays open')
  }

  #woken(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }
}
