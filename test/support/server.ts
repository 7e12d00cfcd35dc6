// The real daemon as a child process: a data directory, a Unix socket and a loopback port of the system's choice, the command line beside
// it. It ends with the test: by its own pid, and also when the test's process dies.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { DaemonStatus } from '../../src/control/api.js'
import { ControlClient } from '../../src/control/client.js'
import {
  endChild,
  type Finished,
  hasTool,
  output,
  type RunOptions,
  run,
  toolEnvironment,
  withDeadline,
} from './process.js'

/** What a test or a script has for ending things: tap's `t`, or a list of its own. */
export type Owner = { teardown(end: () => unknown): void }

export type ServerOptions = {
  /** An existing, empty directory for data and sockets. */
  readonly directory: string
  /** Volumes to create, by name. Without `init` they must exist. */
  readonly volumes?: Readonly<Record<string, number>>
  readonly initArgs?: readonly string[]
  readonly serveArgs?: readonly string[]
  /** Begins the command that serves: the daemon's sockets are where this leads. */
  readonly enter?: readonly string[]
}

const readyTimeoutMs = 60_000
const askTimeoutMs = 60_000
/** Kept for failures. */
const logLinesMax = 2000

/** The compiled command line that belongs to the compiled tests. */
export const mainPath = fileURLToPath(new URL('../../src/app/main.js', import.meta.url))

export class LockstepServer {
  /** Holds the data directory and the NBD socket. */
  readonly directory: string
  readonly dataDirectory: string
  readonly socketPath: string
  readonly #serveArgs: readonly string[]
  readonly #enter: readonly string[]
  #child: ChildProcess | undefined
  #port = 0
  #log: string[] = []

  private constructor(options: ServerOptions) {
    this.directory = options.directory
    this.dataDirectory = join(options.directory, 'data')
    this.socketPath = join(options.directory, 'nbd.sock')
    this.#serveArgs = options.serveArgs ?? []
    this.#enter = options.enter ?? []
  }

  /** A new group with `volumes`, served. */
  static async start(owner: Owner, options: ServerOptions): Promise<LockstepServer> {
    const server = new LockstepServer(options)
    await server.ok('init', server.dataDirectory, ...(options.initArgs ?? []))
    owner.teardown(() => server.end())
    await server.serve()
    for (const [name, sizeBytes] of Object.entries(options.volumes ?? {}))
      await server.ok('volume', 'create', name, String(sizeBytes))
    return server
  }

  get pid(): number {
    const pid = this.#child?.pid
    assert(pid !== undefined, 'the server does not run')
    return pid
  }

  get port(): number {
    assert(this.#port > 0)
    return this.#port
  }

  /** Everything the daemon logged since its last start. */
  get log(): string {
    return this.#log.join('\n')
  }

  uri(name: string): string {
    return `nbd+unix:///${name}?socket=${this.socketPath}`
  }

  tcpUri(name: string): string {
    return `nbd://127.0.0.1:${this.port}/${name}`
  }

  /** Starts the daemon and waits until it is ready. */
  async serve(): Promise<void> {
    assert.equal(this.#child, undefined)
    this.#log = []
    const command = [...this.#enter, process.execPath, mainPath, 'serve', this.dataDirectory]
    const listeners = [
      '--listen',
      `nbd+unix:///?socket=${this.socketPath}`,
      '--listen',
      'nbd://127.0.0.1:0',
    ]
    const guarded = hasTool('setpriv') ? ['setpriv', '--pdeathsig', 'KILL', ...command] : command
    const [program = '', ...args] = [...guarded, ...listeners, ...this.#serveArgs]
    const child = spawn(program, args, {
      env: toolEnvironment(),
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#child = child
    const ready = new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stderr }).on('line', (line) => {
        if (this.#log.length < logLinesMax) this.#log.push(line)
        if (/"msg":"ready"|^ready$/.test(line)) resolve()
      })
      child.once('error', reject)
      child.once('exit', (code, signal) => {
        if (this.#child === child) this.#child = undefined
        reject(
          new Error(`the daemon ended with ${signal ?? code} before it was ready:\n${this.log}`),
        )
      })
    })
    await withDeadline(ready, readyTimeoutMs, () => `starting the daemon\n${this.log}`)
    const status = (await this.ask('status')) as DaemonStatus
    const port = status.listeners.map((uri) => /^nbd:\/\/127\.0\.0\.1:(\d+)/.exec(uri)?.[1])
    this.#port = Number(port.find((text) => text !== undefined))
  }

  /** kill -9, now: nothing else runs between the call and the signal. `gone` resolves when the process has ended. */
  kill9(): { readonly gone: Promise<void> } {
    const child = this.#child
    assert(child !== undefined, 'the server does not run')
    child.kill('SIGKILL')
    this.#child = undefined
    return { gone: new Promise((resolve) => child.once('exit', () => resolve())) }
  }

  /** SIGTERM. Answers the exit code; rejects when the daemon takes longer than 20 s. */
  async stop(): Promise<number | null> {
    const child = this.#child
    assert(child !== undefined, 'the server does not run')
    const gone = new Promise<number | null>((resolve) =>
      child.once('exit', (code) => resolve(code)),
    )
    child.kill('SIGTERM')
    const code = await withDeadline(gone, 20_000, () => `SIGTERM\n${this.log}`)
    this.#child = undefined
    return code
  }

  /** For teardown: whatever state it is in. */
  async end(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (child) await endChild(child)
  }

  /** The command line, as a person would type it. */
  cli(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    const env = { LOCKSTEP_DIR: this.dataDirectory, ...options.env }
    return run(process.execPath, [mainPath, ...args], { ...options, env })
  }

  /** As `cli`, and it must succeed: answers its standard output. */
  ok(...args: readonly string[]): Promise<string> {
    const env = { LOCKSTEP_DIR: this.dataDirectory }
    return output(process.execPath, [mainPath, ...args], { env })
  }

  async status(): Promise<DaemonStatus> {
    return JSON.parse(await this.ok('status', '--json')) as DaemonStatus
  }

  async storeStatus(name: string): Promise<DaemonStatus['stores'][number]> {
    const store = (await this.status()).stores.find((one) => one.name === name)
    assert(store, `no store ${name}`)
    return store
  }

  /** One request on the control socket: quicker than a command, of which the tests need many. */
  async ask(
    method: string,
    params: object = {},
    options: { readonly timeoutMs: number } = { timeoutMs: askTimeoutMs },
  ): Promise<unknown> {
    const client = await this.control()
    try {
      return await client.request(method, params, options)
    } finally {
      client.close()
    }
  }

  /** The control socket, for commands in quick succession. */
  control(): Promise<ControlClient> {
    return ControlClient.open(join(this.dataDirectory, 'control.sock'), { timeoutMs: 10_000 })
  }
}

/** For scripts that are no test: collects what is to be ended, the last first. */
export class Ending implements Owner, AsyncDisposable {
  readonly #ends: (() => unknown)[] = []

  teardown(end: () => unknown): void {
    this.#ends.push(end)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#ends.reverse()) await end()
  }
}
