// The size of libuv's thread pool. libuv reads it from the environment when the pool starts, and loading an ES module starts the pool: a
// program cannot set it for itself. So the process replaces itself once (execve: same pid, same files, no second process) with
// the variable set. Needs the optional FFI package; without it the daemon goes on with fewer threads and says so.
import { createRequire } from 'node:module'
import type { Log } from '../core/log.js'

/** libuv's own default. */
const threadCountDefault = 4
/** Standard files, and those that systemd passes: the ones that may be inherited. */
const inheritableFdEnd = 67

/** linux/fcntl.h */
const fcntlGetFlags = 1
const fcntlSetFlags = 2
const closeOnExec = 1

type Foreign = {
  load(path: string | null): {
    func(declaration: string): (...values: unknown[]) => number
  }
}

/** Threads for file operations in this process. */
export function threadCount(): number {
  const { UV_THREADPOOL_SIZE: text } = process.env
  const given = Number(text)
  return Number.isInteger(given) && given > 0 ? given : threadCountDefault
}

/** Returns when the pool has `wanted` threads already or cannot get them. Otherwise does not return: the program starts again, with them. */
export function ensureThreads(
  wanted: number,
  options: { readonly isExplicit: boolean; readonly log: Log },
): void {
  const { UV_THREADPOOL_SIZE: given } = process.env
  if (threadCount() === wanted || (given !== undefined && !options.isExplicit)) return
  // A parent that speaks to us over a channel would lose it.
  if (process.channel) return
  try {
    startAgain(wanted)
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n', 1)[0] : String(error)
    const action = `start it with UV_THREADPOOL_SIZE=${wanted}, or: npm install koffi`
    options.log.warn({ threads: threadCount(), wanted, reason, action }, 'few threads for the disk')
  }
}

function startAgain(wanted: number): void {
  const koffi = createRequire(import.meta.url)('koffi') as Foreign
  const libc = koffi.load(null)
  const fcntl = libc.func('int fcntl(int, int, ...)')
  const execve = libc.func('int execve(const char *, const char **, const char **)')
  // Node marks what it inherited to be closed; what was inherited is ours to keep.
  for (let fd = 0; fd < inheritedFdEnd(); fd++) {
    const flags = fcntl(fd, fcntlGetFlags)
    if (flags >= 0) fcntl(fd, fcntlSetFlags, 'int', flags & ~closeOnExec)
  }
  const environment = { ...process.env, UV_THREADPOOL_SIZE: String(wanted) }
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`)
  const words = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  execve(process.execPath, [...words, null], [...variables, null])
  throw new Error('execve failed')
}

function inheritedFdEnd(): number {
  const { LISTEN_FDS: countText = '0', LISTEN_PID: pid } = process.env
  const count = Number(countText)
  const isOurs = pid === String(process.pid)
  return Math.min(inheritableFdEnd, 3 + (isOurs && Number.isInteger(count) ? count : 0))
}
