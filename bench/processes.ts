// Child processes of the bench: each one that was started is ended, on every way out, and none is waited for without a deadline.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Servers are local and do little at start and end; a minute is for a machine that is very busy. */
const serverTimeoutMs = 60_000
/** The longest run of a tool: one over a terabyte. */
const toolTimeoutMs = 30 * 60_000

const running = new Set<number>()
process.on('exit', () => {
  for (const pid of running) process.kill(pid, 'SIGKILL')
})

/** Runs a tool to its end: what it printed, or an Error with what it complained about. */
export async function runTool(tool: string, args: readonly string[]): Promise<string> {
  const { stdout } = await run(tool, args, { maxBuffer: 64 * 1024 * 1024, timeout: toolTimeoutMs })
  return stdout
}

export async function isInstalled(tool: string): Promise<boolean> {
  return run('sh', ['-c', `command -v ${tool}`]).then(
    () => true,
    () => false,
  )
}

export type DaemonOptions = {
  /** True as soon as the server can be used. */
  readonly isReady: () => Promise<boolean>
  /** Where a server that puts itself into the background leaves its process number. */
  readonly pidFile?: string
}

export class Daemon {
  readonly pid: number

  private constructor(pid: number) {
    this.pid = pid
    running.add(pid)
  }

  static async start(
    command: readonly [string, ...string[]],
    { isReady, pidFile }: DaemonOptions,
  ): Promise<Daemon> {
    const [tool, ...args] = command
    const child = spawn(tool, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    const ended = endOf(child)
    try {
      if (pidFile === undefined) await Promise.race([poll(isReady), ended.then(fail)])
      else await ended.then((status) => (status === 'ended with 0' ? poll(isReady) : fail(status)))
    } catch (error) {
      child.kill('SIGKILL')
      throw new Error(`${command.join(' ')}: ${error instanceof Error ? error.message : error}`)
    }
    return new Daemon(pidFile === undefined ? (child.pid ?? -1) : pidIn(pidFile))
  }

  /** Processor time of the process and its children so far, in milliseconds. */
  cpuMs(): number {
    return familyOf(this.pid).reduce((sum, pid) => sum + cpuMsOf(pid), 0)
  }

  /** Resident memory now and at its highest, in bytes. */
  memory(): { readonly residentBytes: number; readonly peakBytes: number } {
    const status = readFileSync(`/proc/${this.pid}/status`, 'latin1')
    const bytes = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1024
    return { residentBytes: bytes('VmRSS'), peakBytes: bytes('VmHWM') }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (!running.delete(this.pid)) return
    process.kill(this.pid, signal)
    await poll(async () => !existsSync(`/proc/${this.pid}`))
  }
}

/** How the child ended, with the last of its complaints. */
function endOf(child: ChildProcess): Promise<string> {
  let complaints = ''
  child.stderr?.on('data', (data: Buffer) => {
    complaints = (complaints + data.toString()).slice(-4000)
  })
  return new Promise((resolve) => {
    child.on('exit', (code, signal) => {
      resolve(code === 0 ? 'ended with 0' : `ended with ${signal ?? code}\n${complaints}`)
    })
    child.on('error', (error) => resolve(error.message))
  })
}

async function poll(isDone: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + serverTimeoutMs
  while (!(await isDone())) {
    if (performance.now() > endMs) throw new Error(`not done in ${serverTimeoutMs} ms`)
    await sleep(2)
  }
}

function fail(message: string): never {
  throw new Error(message)
}

const pidIn = (path: string): number => Number(readFileSync(path, 'latin1').trim())

/** A port that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  return typeof address === 'object' && address !== null ? address.port : 0
}

/** True when someone accepts connections there. */
export function accepts(
  where: { path: string } | { host: string; port: number },
): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(where)
    const answer = (is: boolean) => () => {
      socket.destroy()
      resolve(is)
    }
    socket.once('connect', answer(true)).once('error', answer(false))
  })
}

function familyOf(pid: number): readonly number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((task) => {
    try {
      return readFileSync(`/proc/${pid}/task/${task}/children`, 'latin1').trim().split(' ')
    } catch {
      return [] // The thread has ended meanwhile.
    }
  })
  return [
    pid,
    ...children.filter((child) => child !== '').flatMap((child) => familyOf(Number(child))),
  ]
}

/** Fields 14 to 17 of proc(5) stat: its own ticks, and those of children that it has waited for; 100 a second on Linux. */
function cpuMsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) * 10
}
