// Child processes for tests: every one has a deadline, is ended by its own pid, and its whole output is at hand when it fails.
import assert from 'node:assert/strict'
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { accessSync, constants, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import Bluebird from 'bluebird'
import type { Test } from 'tap'

export type Finished = {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export type RunOptions = {
  readonly input?: string | Buffer
  readonly timeoutMs?: number
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
}

/** Generous on two busy cores: a deadline that strikes means that something hangs. */
const runTimeoutMs = 60_000

const { PATH: inheritedPath } = process.env

/** Debian's own directories first: nbdsh needs Debian's Python, whatever else is in PATH. */
export const toolPath = [
  '/usr/sbin',
  '/usr/bin',
  '/sbin',
  '/bin',
  ...(inheritedPath ?? '').split(delimiter),
].join(delimiter)

export function toolEnvironment(
  extra: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(TAP|LOCKSTEP|NODE_OPTIONS|NODE_V8_COVERAGE|FORCE_COLOR)/.test(name),
  )
  const values = Object.fromEntries(inherited) as Record<string, string>
  return { ...values, PATH: toolPath, LC_ALL: 'C', ...extra }
}

/** Runs a program to its end. Rejects, with the program ended, when that takes longer than `timeoutMs`; a failing program is an answer. */
export async function run(
  command: string,
  args: readonly string[] = [],
  options: RunOptions = {},
): Promise<Finished> {
  const spawnOptions: SpawnOptions = { env: toolEnvironment(options.env), stdio: 'pipe' }
  if (options.cwd !== undefined) spawnOptions.cwd = options.cwd
  const child = spawn(command, [...args], spawnOptions)
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout?.on('data', (data: Buffer) => stdout.push(data))
  child.stderr?.on('data', (data: Buffer) => stderr.push(data))
  child.stdin?.on('error', () => {})
  child.stdin?.end(options.input ?? '')
  const text = (parts: Buffer[]): string => Buffer.concat(parts).toString('utf8')
  const closed = new Promise<Finished>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (status, signal) =>
      resolve({ status, signal, stdout: text(stdout), stderr: text(stderr) }),
    )
  })
  const line = [command, ...args].join(' ')
  return withDeadline(closed, options.timeoutMs ?? runTimeoutMs, () => {
    child.kill('SIGKILL')
    return `${line}\n${text(stdout)}${text(stderr)}`
  })
}

/** As `run`, and the program must succeed: answers its standard output. */
export async function output(
  command: string,
  args: readonly string[] = [],
  options: RunOptions = {},
): Promise<string> {
  const finished = await run(command, args, options)
  const said = `${finished.stderr}${finished.stdout}`.slice(-4000)
  const ended = finished.signal ?? finished.status
  assert.equal(ended, 0, `${[command, ...args].join(' ')} ended with ${ended}:\n${said}`)
  return finished.stdout
}

/** Settles as `work` does, or rejects after `timeoutMs` with what `onTimeout` says (and ends). */
export async function withDeadline<T>(
  work: Promise<T>,
  timeoutMs: number,
  onTimeout: () => string,
): Promise<T> {
  try {
    return await Bluebird.resolve(work).timeout(timeoutMs)
  } catch (error) {
    if (!(error instanceof Bluebird.TimeoutError)) throw error
    throw new Error(`no end within ${timeoutMs} ms: ${onTimeout()}`)
  }
}

/** Ends a child of ours: SIGTERM, then SIGKILL when that takes longer than `timeoutMs`. */
export async function endChild(child: ChildProcess, timeoutMs = 10_000): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  child.kill('SIGTERM')
  await withDeadline(gone, timeoutMs, () => 'SIGTERM').catch(async () => {
    child.kill('SIGKILL')
    await gone
  })
}

/** A line of proc(5) status, in bytes: memory now, or the most that there was. */
export function memoryOf(pid: number, name: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024
}

export function hasTool(name: string): boolean {
  return toolPath.split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** For a test's `skip`: why it cannot run here. Where CI=true nothing is skipped: the test runs, and fails for what is missing. */
export function missingTools(...names: readonly string[]): string | false {
  const missing = names.filter((name) => !hasTool(name))
  const { CI } = process.env
  if (missing.length === 0 || CI === 'true') return false
  return `missing: ${missing.join(', ')} (scripts/test installs them on Debian as root)`
}

/** A directory that goes with the test. */
export function scratch(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-test-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}
