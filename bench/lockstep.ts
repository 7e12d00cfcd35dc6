// Lockstep's own daemon as the bench starts it: the built program, default settings, listening on a Unix socket and on TCP.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { LineName } from './options.js'
import { accepts, Daemon, freePort, runTool } from './processes.js'

/** The built program, from out/bench/ where this file is compiled to. */
const program = fileURLToPath(new URL('../../dist/src/app/main.js', import.meta.url))

export class Lockstep {
  readonly directory: string
  readonly daemon: Daemon
  readonly #socket: string
  readonly #port: number

  private constructor(directory: string, daemon: Daemon, socket: string, port: number) {
    this.directory = directory
    this.daemon = daemon
    this.#socket = socket
    this.#port = port
  }

  /** Starts the daemon on `directory`; initialises it where that was not done. */
  static async start(
    directory: string,
    options: {
      readonly nodeOptions?: readonly string[]
      readonly initArgs?: readonly string[]
      readonly serveArgs?: readonly string[]
    } = {},
  ): Promise<Lockstep> {
    const { nodeOptions = [], initArgs = [], serveArgs = [] } = options
    if (!existsSync(program)) throw new Error('build first: npm ci && npm run build')
    if (!existsSync(`${directory}/checkpoint`)) await Lockstep.init(directory, initArgs)
    const socket = `${directory}/bench.sock`
    const port = await freePort()
    const listen = [`nbd+unix:///?socket=${socket}`, `nbd://127.0.0.1:${port}`]
    const serve = ['serve', directory, '--log-level', 'warn', ...serveArgs]
    const listeners = listen.flatMap((uri) => ['--listen', uri])
    const daemon = await Daemon.start(
      [process.execPath, ...nodeOptions, program, ...serve, ...listeners],
      {
        isReady: async () =>
          (await accepts({ path: `${directory}/control.sock` })) && accepts({ path: socket }),
      },
    )
    return new Lockstep(directory, daemon, socket, port)
  }

  static async init(directory: string, args: readonly string[] = []): Promise<void> {
    await runTool(process.execPath, [program, 'init', directory, ...args])
  }

  unixUri(store: string): string {
    return `nbd+unix:///${store}?socket=${this.#socket}`
  }

  tcpUri(store: string): string {
    return `nbd://127.0.0.1:${this.#port}/${store}`
  }

  /** Where another node finds this one. */
  peerUri(line: LineName): string {
    return line === 'unix' ? this.unixUri('') : `nbd://127.0.0.1:${this.#port}`
  }

  /** What the stores' bytes are in. */
  get dataFile(): string {
    return `${this.directory}/data`
  }

  get socketPath(): string {
    return this.#socket
  }

  /** Runs a command of the program against this daemon. */
  async command(...args: readonly string[]): Promise<string> {
    return runTool(process.execPath, [program, ...args, '--dir', this.directory])
  }

  async ensureVolume(name: string, sizeBytes: number): Promise<void> {
    const volumes = await this.command('volume', 'list', '--json')
    if (!volumes.includes(`"${name}"`))
      await this.command('volume', 'create', name, String(sizeBytes))
  }
}
