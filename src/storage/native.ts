// The system calls that Node lacks, through a small FFI library that may be absent: preadv2 with RWF_NOWAIT, fallocate, flock, cachestat,
// posix_fadvise.
//
// Invariant: nothing here is needed for correctness. Every caller has a slower way for `undefined`, and every call answers
// a count or a negated errno, as the kernel does; it throws only when our own code passed nonsense.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'

/** What `doctor` shows: which calls are there, and why not. */
export type NativeSupport = {
  readonly preadv2: boolean
  readonly punch: boolean
  readonly flock: boolean
  readonly reason?: string
}

export interface Native {
  /** Reads what is in memory: the bytes read, or a negated errno (EAGAIN: the medium is needed; EOPNOTSUPP: this file cannot tell). */
  readNow(fd: number, target: Uint8Array, offset: number): number
  /** The pages of a range that are in memory (a hole's may be missing); a negated errno where the kernel cannot tell (ENOSYS before Linux 6.5). Reads nothing. */
  cachedPageCount(fd: number, offset: number, lengthBytes: number): number
  /** Tells the kernel to read further ahead of whoever reads in order: twice as far. Other reads stay as they are. 0 or an errno. */
  adviseSequential(fd: number): number
  /** Punches a hole on another thread; 0 or a negated errno. */
  punch(fd: number, offset: number, lengthBytes: number): Promise<number>
  /** Takes an exclusive lock without waiting; 0 or a negated errno (EWOULDBLOCK: someone has it). */
  lock(fd: number): number
}

/** The part of the library that is used. Written down here because the package, types included, may be absent. */
type ForeignFunction = {
  (...values: unknown[]): number
  async(...values: unknown[]): void
}
type ForeignLibrary = {
  func(name: string, result: string, parameters: readonly string[]): ForeignFunction
}
export type Foreign = {
  load(path: null): ForeignLibrary
  address(value: object): bigint
  sizeof(type: string): number
  errno(): number
  /** Memory that is not JavaScript's own, as an ArrayBuffer. */
  view(address: bigint, lengthBytes: number): ArrayBuffer
  readonly node: {
    poll(
      fd: number,
      events: { readonly readable: true },
      callback: () => void,
    ): { ref(): void; unref(): void }
  }
}

/** linux/fs.h and linux/falloc.h, sys/file.h, linux/fadvise.h. */
const flags = {
  rwfNowait: 0x8,
  fallocKeepSize: 0x1,
  fallocPunchHole: 0x2,
  lockExclusive: 0x2,
  lockNonBlocking: 0x4,
  adviseSequential: 2,
} as const

/** asm-generic/unistd.h: the same on every architecture. */
const syscallCachestat = 451

/** Punches at once: each occupies a worker thread of the library while the file system works, and more of them only queue on the inode's lock. */
const punchesAtOnceMax = 2

type Loaded = { readonly foreign?: Foreign; readonly native?: Native; readonly reason?: string }
let loaded: Loaded | undefined

/** The native calls, or undefined where the library or the platform has none. */
export function loadNative(): Native | undefined {
  loaded ??= tryLoad()
  return loaded.native
}

/** The library itself, for what needs more than a call. */
export function loadForeign(): Foreign | undefined {
  loaded ??= tryLoad()
  return loaded.foreign
}

export function nativeSupport(): NativeSupport {
  const present = loadNative() !== undefined
  const support = { preadv2: present, punch: present, flock: present }
  const reason = loaded?.reason
  return reason === undefined ? support : { ...support, reason }
}

function tryLoad(): Loaded {
  if (process.platform !== 'linux') return { reason: `no native calls for ${process.platform}` }
  try {
    const foreign = createRequire(import.meta.url)('koffi') as Foreign
    // Offsets are passed as `long`: on a 32-bit machine they would be cut.
    if (foreign.sizeof('long') !== 8) return { reason: `no native calls for ${process.arch}` }
    return { foreign, native: bind(foreign) }
  } catch (error) {
    const message = error instanceof Error ? error.message.split('\n', 1)[0] : String(error)
    return { reason: `the optional package koffi cannot be used: ${message}` }
  }
}

function bind(foreign: Foreign): Native {
  const libc = foreign.load(null)
  const preadv2 = libc.func('preadv2', 'long', ['int', 'void *', 'int', 'long', 'int'])
  const fallocate = libc.func('fallocate', 'int', ['int', 'int', 'long', 'long'])
  const flock = libc.func('flock', 'int', ['int', 'int'])
  const fadvise = libc.func('posix_fadvise', 'int', ['int', 'long', 'long', 'int'])
  const cachestat = libc.func('syscall', 'long', ['long', 'int', 'void *', 'void *', 'uint'])
  // struct cachestat_range: offset and length; struct cachestat: five counters, of which the first is wanted.
  const cacheRange = new BigUint64Array(2)
  const cacheCounters = new BigUint64Array(5)
  const limited = limiter(punchesAtOnceMax)
  // struct iovec: address and length, filled anew for each call; calls are synchronous, so one is enough.
  const vector = new BigUint64Array(2)

  return {
    readNow(fd, target, offset) {
      assert(Number.isSafeInteger(offset) && offset >= 0)
      if (target.length === 0) return 0
      vector[0] = foreign.address(target)
      vector[1] = BigInt(target.length)
      const count = preadv2(fd, vector, 1, offset, flags.rwfNowait)
      return count < 0 ? -foreign.errno() : count
    },
    cachedPageCount(fd, offset, lengthBytes) {
      assert(Number.isSafeInteger(offset) && offset >= 0)
      cacheRange[0] = BigInt(offset)
      cacheRange[1] = BigInt(lengthBytes)
      const result = cachestat(syscallCachestat, fd, cacheRange, cacheCounters, 0)
      return result < 0 ? -foreign.errno() : Number(cacheCounters[0])
    },
    punch(fd, offset, lengthBytes) {
      assert(Number.isSafeInteger(offset) && offset >= 0)
      assert(Number.isSafeInteger(lengthBytes) && lengthBytes > 0)
      const mode = flags.fallocPunchHole | flags.fallocKeepSize
      return limited(
        () =>
          new Promise((resolve, reject) => {
            fallocate.async(fd, mode, offset, lengthBytes, (error: unknown, result: number) => {
              if (error) reject(error as Error)
              else resolve(result < 0 ? -foreign.errno() : result)
            })
          }),
      )
    },
    adviseSequential(fd) {
      return fadvise(fd, 0, 0, flags.adviseSequential)
    },
    lock(fd) {
      return flock(fd, flags.lockExclusive | flags.lockNonBlocking) < 0 ? -foreign.errno() : 0
    },
  }
}

/** Runs at most `atOnceMax` of the given works at a time, in the order given. */
function limiter(atOnceMax: number): <Result>(work: () => Promise<Result>) => Promise<Result> {
  let running = 0
  const waiting: (() => void)[] = []
  return async (work) => {
    if (running >= atOnceMax) await new Promise<void>((start) => waiting.push(start))
    else running++
    try {
      return await work()
    } finally {
      // The place goes to the next in line directly, or back.
      const next = waiting.shift()
      if (next) next()
      else running--
    }
  }
}
