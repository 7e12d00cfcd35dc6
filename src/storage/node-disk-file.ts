// One open file or block device of the real disk.
//
// Invariants: `readNow` and `writeNow` never wait for the medium as far as the kernel lets us know, and a descriptor is closed only when
// no call uses it any more, so that a number given to another file is never written to.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import { readFile } from 'node:fs/promises'
import { constants as os } from 'node:os'
import { getSystemErrorName } from 'node:util'
import { type DiskFile, wouldBlock } from '../core/disk.js'
import { sliceBytes, totalBytes } from './disk-io.js'
import type { Native } from './native.js'
import { ColdRuns } from './node-disk-cold-runs.js'
import { NotAFile, openFailure, otherKindOf } from './node-disk-kind.js'
import { lockData, openDeviceAlone } from './node-disk-lock.js'
import type { ReadRing } from './node-disk-read-ring.js'
import type { RunDelayMs } from './node-disk-run-delay.js'
import { WriteGate } from './write-gate.js'

/** The page cache's unit. A write that covers a page in part makes the kernel read the page first, unless it has it. */
const pageBytes = 4096
/**
 * Above this a write goes to the threads: other clients would feel the copy. A thread's hop and the wake-up after it cost more than half
 * of what a copy of 1 MiB does, and a file's writes exclude each other wherever they run. 2 MiB take half a millisecond, and the kernel's
 * client sends up to 1280 KiB at a time.
 */
const writeNowBytesMax = 2 * 1024 * 1024
/**
 * The most that one system call writes on the event loop. The kernel caches what one call writes in pieces as large as they can be, and
 * a later small write into a large piece walks all of it: measured on ext4 (Linux 6.18), 4 KiB into what was written by 4 KiB took
 * 1.6 µs, by 64 KiB 4 µs, by 128 KiB 6 µs, by 1 MiB 33 µs. Where all of it is cached already the pieces stay as they are, and one call
 * takes a quarter less time than many.
 */
const callBytesMax = 64 * 1024
/** The same on a thread, where each call costs a hop. */
const threadCallBytesMax = 256 * 1024
/** Slices of one write that are handed to threads together: the hops overlap, and others still find a thread. */
const waveSliceCount = 4

type OpenOptions = {
  /** Of open(2), for a file that may have to be made; else 0. */
  readonly createFlags: number
  /** Nobody else may have it open so: a device not for anything, a file not for this. */
  readonly isAlone?: boolean
  readonly native: Native | undefined
  readonly ring: ReadRing | undefined
  readonly nowMs: () => number
  readonly runDelayMs: RunDelayMs
}

export class NodeDiskFile implements DiskFile {
  readonly isFixedSize: boolean
  readonly #path: string
  readonly #fd: number
  readonly #native: Native | undefined
  readonly #ring: ReadRing | undefined
  readonly #gate: WriteGate
  readonly #nowMs: () => number
  readonly #coldRuns = new ColdRuns()
  readonly #probe = Buffer.alloc(1)
  #canReadNow: boolean
  #canPunch: boolean
  #canAskCache = true
  #callsUnderWay = 0
  #isClosed = false
  #onIdle: (() => void) | undefined

  private constructor(path: string, fd: number, isFixedSize: boolean, options: OpenOptions) {
    this.#path = path
    this.#fd = fd
    this.isFixedSize = isFixedSize
    this.#native = options.native
    this.#ring = options.ring
    this.#gate = new WriteGate(options.nowMs, options.runDelayMs)
    this.#nowMs = options.nowMs
    this.#canReadNow = options.native !== undefined
    this.#canPunch = options.native !== undefined
  }

  static async open(path: string, options: OpenOptions): Promise<NodeDiskFile> {
    const flags = fs.constants.O_RDWR | options.createFlags
    let fd = await call<number>((done) => fs.open(path, flags, 0o600, done)).catch(
      async (error: unknown) => {
        throw await openFailure(path, error)
      },
    )
    try {
      const stat = await call<fs.Stats>((done) => fs.fstat(fd, done))
      const kind = otherKindOf(stat)
      // A pipe opened for reading and writing opens at once, and then no read of it ends. A device is told by what it holds.
      if (kind !== undefined && !stat.isBlockDevice() && !stat.isCharacterDevice())
        throw new NotAFile(path, kind)
      if (options.isAlone === true && stat.isBlockDevice()) {
        const shared = fd
        fd = await openDeviceAlone(shared, path)
        await call<void>((done) => fs.close(shared, done))
      } else if (options.isAlone === true) await lockData(fd, path, options.native)
      // What is read in order here is a client's volume, or a file of our own from front to end.
      options.native?.adviseSequential(fd)
      return new NodeDiskFile(path, fd, stat.isBlockDevice(), options)
    } catch (error) {
      await call<void>((done) => fs.close(fd, done))
      throw error
    }
  }

  async sizeBytes(): Promise<number> {
    const stat = await this.#call<fs.BigIntStats>((done) =>
      fs.fstat(this.#fd, { bigint: true }, done),
    )
    return this.isFixedSize ? deviceSizeBytes(stat.rdev) : Number(stat.size)
  }

  readNow(target: Buffer, offset: number): number {
    this.#assertRange(offset, target.length)
    if (!this.#native || !this.#canReadNow) return wouldBlock
    const guess = this.#coldRuns.begin(offset, target.length)
    if (guess === 'cold') return wouldBlock
    const startedMs = guess === 'doubtful' ? this.#nowMs() : 0
    const count = this.#native.readNow(this.#fd, target, offset)
    if (count < target.length) this.#coldRuns.missed(offset, target.length)
    else if (guess === 'doubtful')
      this.#coldRuns.took(offset, target.length, this.#nowMs() - startedMs)
    return count >= 0 ? count : this.#readNowFailed(-count)
  }

  read(target: Buffer, offset: number): Promise<number> {
    return this.#track(() => this.#readAll(target, offset))
  }

  writeNow(parts: readonly Buffer[], offset: number): number {
    const lengthBytes = totalBytes(parts)
    this.#assertRange(offset, lengthBytes)
    if (lengthBytes > writeNowBytesMax) return wouldBlock
    const startedMs = this.#gate.enter()
    if (startedMs === undefined) return wouldBlock
    if (!this.#isPageInMemory(offset)) return wouldBlock
    if (!this.#isPageInMemory(offset + lengthBytes)) return wouldBlock
    const writtenBytes =
      lengthBytes <= callBytesMax || this.#isCached(offset, lengthBytes)
        ? fs.writevSync(this.#fd, parts, offset)
        : this.#writeSlices(parts, offset, lengthBytes)
    this.#gate.wrote(startedMs)
    return writtenBytes
  }

  write(parts: readonly Buffer[], offset: number): Promise<number> {
    return this.#track(() => this.#writeAll(parts, offset))
  }

  sync(): Promise<void> {
    return this.#call((done) => fs.fdatasync(this.#fd, done))
  }

  async punch(offset: number, lengthBytes: number): Promise<boolean> {
    this.#assertRange(offset, lengthBytes)
    assert(lengthBytes > 0)
    const native = this.#native
    if (!native || !this.#canPunch) return false
    const errno = -(await this.#track(() => native.punch(this.#fd, offset, lengthBytes)))
    if (errno === 0) return true
    if (errno !== os.errno.EOPNOTSUPP && errno !== os.errno.ENOSYS) {
      throw systemError(errno, 'fallocate', this.#path)
    }
    this.#canPunch = false
    return false
  }

  truncate(sizeBytes: number): Promise<void> {
    assert(!this.isFixedSize)
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0)
    return this.#call((done) => fs.ftruncate(this.#fd, sizeBytes, done))
  }

  /** Waits for the calls under way. */
  get isClosed(): boolean {
    return this.#isClosed
  }

  async close(): Promise<void> {
    assert(!this.#isClosed)
    this.#isClosed = true
    if (this.#callsUnderWay > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve))
    await call<void>((done) => fs.close(this.#fd, done))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #readAll(target: Buffer, offset: number): Promise<number> {
    this.#assertRange(offset, target.length)
    let doneBytes = 0
    while (doneBytes < target.length) {
      const count = await this.#readSome(target.subarray(doneBytes), offset + doneBytes)
      if (count === 0) break
      doneBytes += count
    }
    return doneBytes
  }

  /** The bytes read, fewer than asked perhaps; 0 at the end of the file. */
  async #readSome(target: Buffer, offset: number): Promise<number> {
    const ring = this.#ring
    if (ring !== undefined) {
      const result = await new Promise<number>((resolve) => {
        if (!ring.read(this.#fd, target, offset, resolve)) resolve(-os.errno.EAGAIN)
      })
      if (result >= 0) return result
      const isForThread = result === -os.errno.EAGAIN || result === -os.errno.EINTR
      if (!isForThread) throw systemError(-result, 'read', this.#path)
    }
    return call((done) => fs.read(this.#fd, target, 0, target.length, offset, done))
  }

  async #writeAll(parts: readonly Buffer[], offset: number): Promise<number> {
    const lengthBytes = totalBytes(parts)
    this.#assertRange(offset, lengthBytes)
    if (lengthBytes === 0) return 0
    let doneBytes = 0
    while (doneBytes < lengthBytes) {
      const wave: { readonly sliceBytes: number; readonly count: Promise<number> }[] = []
      for (let at = doneBytes; at < lengthBytes && wave.length < waveSliceCount; ) {
        const position = offset + at
        const end = Math.min(lengthBytes, sliceEnd(position, threadCallBytesMax) - offset)
        const slice = sliceBytes(parts, at, end)
        const count = call<number>((done) => fs.writev(this.#fd, slice, position, done))
        wave.push({ sliceBytes: end - at, count })
        at = end
      }
      // All of them end before this does, also when one fails: until then the parts are in use.
      await Promise.allSettled(wave.map(({ count }) => count))
      for (const { sliceBytes: wantedBytes, count } of wave) {
        const writtenBytes = await count
        doneBytes += writtenBytes
        // Short: the caller goes on from there, and meets the error if there is one.
        if (writtenBytes < wantedBytes) return doneBytes
      }
    }
    return doneBytes
  }

  #writeSlices(parts: readonly Buffer[], offset: number, lengthBytes: number): number {
    let doneBytes = 0
    while (doneBytes < lengthBytes) {
      const end = Math.min(lengthBytes, sliceEnd(offset + doneBytes, callBytesMax) - offset)
      const slice = sliceBytes(parts, doneBytes, end)
      try {
        doneBytes += fs.writevSync(this.#fd, slice, offset + doneBytes)
      } catch (error) {
        // What was written is told; the caller goes on, and meets the error again.
        if (doneBytes === 0) throw error
        return doneBytes
      }
      if (doneBytes < end) return doneBytes
    }
    return doneBytes
  }

  /** True when a write that begins or ends at `offset` needs no read: page bounds, the end of the file, and pages that are here. */
  #isPageInMemory(offset: number): boolean {
    if (offset % pageBytes === 0) return true
    if (!this.#native || !this.#canReadNow) return false
    const count = this.#native.readNow(this.#fd, this.#probe, offset)
    if (count === -os.errno.EOPNOTSUPP) this.#canReadNow = false
    return count >= 0
  }

  /** True when the kernel says that it has every page of the range in memory. */
  #isCached(offset: number, lengthBytes: number): boolean {
    if (!this.#native || !this.#canAskCache) return false
    const firstPage = Math.floor(offset / pageBytes)
    const endPage = Math.ceil((offset + lengthBytes) / pageBytes)
    const count = this.#native.cachedPageCount(this.#fd, offset, lengthBytes)
    if (count < 0) this.#canAskCache = false
    return count === endPage - firstPage
  }

  #readNowFailed(errno: number): number {
    if (errno === os.errno.EAGAIN) return wouldBlock
    // This file system cannot say what is in memory.
    if (errno !== os.errno.EOPNOTSUPP && errno !== os.errno.ENOSYS) {
      throw systemError(errno, 'preadv2', this.#path)
    }
    this.#canReadNow = false
    return wouldBlock
  }

  #assertRange(offset: number, lengthBytes: number): void {
    assert(!this.#isClosed)
    assert(Number.isSafeInteger(offset) && offset >= 0)
    assert(Number.isSafeInteger(offset + lengthBytes))
  }

  #call<Result>(start: (done: Done<Result>) => void): Promise<Result> {
    return this.#track(() => call(start))
  }

  async #track<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#callsUnderWay++
    try {
      return await work()
    } finally {
      this.#callsUnderWay--
      if (this.#callsUnderWay === 0) this.#onIdle?.()
    }
  }
}

type Done<Result> = (error: NodeJS.ErrnoException | null, result?: Result) => void

function call<Result>(start: (done: Done<Result>) => void): Promise<Result> {
  return new Promise((resolve, reject) => {
    start((error, result) => {
      if (error) reject(error)
      else resolve(result as Result)
    })
  })
}

/** Slices end at multiples of their size in the file, so that the kernel's pieces lie as it likes them. */
const sliceEnd = (offset: number, sliceBytesMax: number): number =>
  (Math.floor(offset / sliceBytesMax) + 1) * sliceBytesMax

/** The kernel's own number of 512-byte sectors of a device or a partition. */
async function deviceSizeBytes(device: bigint): Promise<number> {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn)
  const sectors = Number((await readFile(`/sys/dev/block/${major}:${minor}/size`, 'latin1')).trim())
  assert(Number.isSafeInteger(sectors * 512))
  return sectors * 512
}

function systemError(errno: number, syscall: string, path: string): NodeJS.ErrnoException {
  const code = getSystemErrorName(-errno)
  return Object.assign(new Error(`${code}: ${syscall} '${path}'`), {
    errno: -errno,
    code,
    syscall,
    path,
  })
}
