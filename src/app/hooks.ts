// The programs that marks may run on this node: the list of them, checked at the start, and how one is run: without a shell, with an environment of its own, as a
// process group that ends when its time is over.
//
// Invariant: nothing is run but the absolute paths of the configuration, and nothing that comes over the link becomes more than an environment variable.
import { spawn } from 'node:child_process'
import { access, constants, stat } from 'node:fs/promises'
import { isAbsolute } from 'node:path'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import { shownName } from '../core/shown-name.js'
import type { HookOutcome, RunHook } from '../engine/api.js'

export type Hooks = Readonly<Record<string, string>>
type HookRequest = Parameters<RunHook>[0]

const namePattern = /^[A-Za-z0-9][A-Za-z0-9._:+-]{0,126}$/
/** Where a hook finds its tools, whatever the daemon was started with. */
const searchPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** Between the request to end and the end. */
const killAfterMs = 2_000
/** For output that is still on its way when the program has ended; what it left running may hold the pipe. */
const drainTimeoutMs = 1_000

/** `value` is the table [hooks] of a configuration file. Throws INVALID_CONFIG. */
export function readHooks(value: unknown, path: string): Hooks {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(`${path}: hooks must be a table`, `write [hooks] on a line of its own in ${path}`)
  for (const [name, program] of Object.entries(value)) {
    if (!namePattern.test(name))
      throw invalid(
        `${path}: ${shownName(name, 127)} cannot be a hook's name`,
        'use 1 to 127 letters, digits and . _ : + - and begin with a letter or digit',
      )
    if (typeof program !== 'string' || !isAbsolute(program))
      throw invalid(
        `${path}: hooks.${name} must be an absolute path, not ${JSON.stringify(program)}`,
        `write ${name} = "/usr/local/sbin/${name}" in ${path}`,
      )
  }
  return value as Hooks
}

/** Every program is there and may be run. Rejects with INVALID_CONFIG. */
export async function checkHooks(hooks: Hooks): Promise<void> {
  for (const [name, program] of Object.entries(hooks)) await checkProgram(name, program)
}

async function checkProgram(name: string, program: string): Promise<void> {
  const wrong = (why: string, action: string): LockstepError =>
    invalid(`hook ${name}: ${program} ${why}`, action)
  const found = await stat(program).catch((error: unknown) => {
    throw wrong(`cannot be found: ${errnoNameOf(error)}`, `ls -l ${program}`)
  })
  if (!found.isFile()) throw wrong('is not a file', 'name a program')
  if ((found.mode & 0o002) !== 0)
    throw wrong('can be changed by every user of this machine', `chmod o-w ${program}`)
  await access(program, constants.X_OK).catch(() => {
    throw wrong('may not be executed', `chmod +x ${program}`)
  })
}

export class HookRunner {
  readonly #hooks: Hooks
  readonly #timeoutMs: number
  readonly #directory: string
  #running: Running | undefined
  #isClosed = false

  constructor(options: {
    readonly hooks: Hooks
    readonly timeoutMs: number
    /** The data directory: a hook may ask the daemon. */
    readonly directory: string
  }) {
    this.#hooks = options.hooks
    this.#timeoutMs = options.timeoutMs
    this.#directory = options.directory
  }

  readonly run: RunHook = async (request) => {
    const program = Object.hasOwn(this.#hooks, request.hook) ? this.#hooks[request.hook] : undefined
    if (program === undefined) throw notAllowed(request.hook, Object.keys(this.#hooks))
    if (this.#isClosed)
      throw new LockstepError(
        'BUSY',
        `hook ${request.hook} did not run: the replica is stopping`,
        'lockstep mark, once more',
      )
    const running = new Running(program, this.#environment(request), this.#timeoutMs)
    this.#running = running
    try {
      return { name: request.hook, ...(await running.ended) }
    } finally {
      this.#running = undefined
    }
  }

  /** Ends the hook that runs; others do not begin any more. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#running?.end()
    await this.#running?.ended.catch(() => {})
  }

  #environment(request: HookRequest): Readonly<Record<string, string>> {
    const { name, hook, position, message = '', snapshot = '' } = request
    return {
      PATH: searchPath,
      LOCKSTEP_DIR: this.#directory,
      LOCKSTEP_HOOK: hook,
      LOCKSTEP_MARK: name,
      LOCKSTEP_MESSAGE: message.replaceAll('\0', ' '),
      LOCKSTEP_GENERATION: position.generation,
      LOCKSTEP_SEQUENCE: String(position.sequence),
      LOCKSTEP_SNAPSHOT: snapshot,
    }
  }
}

/** One program from its start to its end. */
class Running {
  readonly #child
  readonly ended: Promise<Omit<HookOutcome, 'name'>>
  #output = Buffer.alloc(0)
  #isTimedOut = false

  constructor(program: string, environment: Readonly<Record<string, string>>, timeoutMs: number) {
    // A process group of its own, so that what it starts ends with it.
    const child = spawn(program, [], {
      cwd: '/',
      env: environment,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child = child
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (bytes: Buffer) => this.#keep(bytes)).on('error', () => {})
    const timer = setTimeout(() => {
      this.#isTimedOut = true
      this.end()
    }, timeoutMs)
    this.ended = new Promise((resolve, reject) => {
      child.once('error', (error) => {
        clearTimeout(timer)
        reject(notStarted(program, error))
      })
      child.once('exit', (exitCode, signal) => {
        clearTimeout(timer)
        void this.#drained().then(() =>
          resolve({
            ...(exitCode === null ? {} : { exitCode }),
            ...(signal === null ? {} : { signal }),
            isTimedOut: this.#isTimedOut,
            output: this.#output.toString('utf8'),
          }),
        )
      })
    })
  }

  /** Asks the whole group to end, and soon makes it. */
  end(): void {
    this.#signal('SIGTERM')
    setTimeout(() => this.#signal('SIGKILL'), killAfterMs).unref()
  }

  #signal(name: NodeJS.Signals): void {
    const { pid } = this.#child
    if (pid === undefined) return
    try {
      process.kill(-pid, name)
    } catch {
      // Nobody of the group is left.
    }
  }

  #keep(bytes: Buffer): void {
    this.#output = Buffer.concat([this.#output, bytes]).subarray(-limits.hookOutputBytesMax)
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const { stdout, stderr } = this.#child
      const over = (): void => {
        clearTimeout(timer)
        stdout.destroy()
        stderr.destroy()
        resolve()
      }
      const timer = setTimeout(over, drainTimeoutMs)
      this.#child.once('close', over)
    })
  }
}

function notAllowed(hook: string, known: readonly string[]): LockstepError {
  const list = known.length === 0 ? 'it allows none' : `it allows ${known.slice(0, 10).join(', ')}`
  return new LockstepError(
    'INVALID_ARGUMENT',
    `hook ${hook} did not run: it is not in the list of the replica; ${list}`,
    `in lockstep.toml of the replica: [hooks] and below it ${hook} = "/absolute/path", then start it again`,
  )
}

function notStarted(program: string, error: unknown): LockstepError {
  return new LockstepError(
    'IO_ERROR',
    `${program} cannot be started: ${errnoNameOf(error)}`,
    `on the replica: ls -l ${program}; a script begins with #! and its interpreter`,
  )
}

function invalid(message: string, action: string): LockstepError {
  return new LockstepError('INVALID_CONFIG', message, action)
}
