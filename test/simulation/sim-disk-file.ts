// An open file of the simulated disk: each call of src/core/disk.ts, failing or short on demand, as one step of the medium.
import assert from 'node:assert/strict'
import { type DiskFile, wouldBlock } from '../../src/core/disk.js'
import {
  type Asked,
  type CallKind,
  errnoError,
  type Fault,
  failOn,
  type SimDiskOptions,
} from './sim-call.js'
import { type SimFile, sectorBytes } from './sim-file.js'

/** The disk that the file is on. */
export type SimDiskCalls = {
  announce(what: Asked): Fault | undefined | 'ended'
  perform<T>(what: Asked, complete: (fault: Fault | undefined) => T, begin?: () => void): Promise<T>
  roomFor(file: SimFile, offset: number, lengthBytes: number): number
  violation(text: string): void
}

type Range = { readonly offset: number; readonly end: number }

export class SimDiskFile implements DiskFile {
  readonly isFixedSize: boolean
  readonly #disk: SimDiskCalls
  readonly #name: string
  readonly #file: SimFile
  readonly #options: SimDiskOptions
  readonly #writing = new Set<Range>()
  #isClosed = false

  constructor(disk: SimDiskCalls, name: string, file: SimFile, options: SimDiskOptions) {
    this.#disk = disk
    this.#name = name
    this.#file = file
    this.#options = options
    this.isFixedSize = options.device?.name === name
  }

  sizeBytes(): Promise<number> {
    return this.#disk.perform({ kind: 'size', name: this.#name }, (fault) => {
      failOn(fault)
      return this.#file.lengthBytes
    })
  }

  readNow(target: Buffer, offset: number): number {
    this.#checkOpen('readNow')
    const what = { kind: 'readNow', name: this.#name, offset, lengthBytes: target.length } as const
    const fault = this.#disk.announce(what)
    if (fault === 'ended') return wouldBlock
    if (fault && fault !== 'short') throw errnoError(fault.errno)
    const { now, random } = this.#options
    if (now === 'never' || (now === 'random' && random.chance(0.5))) return wouldBlock
    const isPart = now === 'random' && random.chance(0.3) && target.length > 1
    if (!isPart) return this.#file.read(target, offset)
    // A page cache has whole pages: what comes later begins where a page does.
    const end = offset + 1 + random.below(target.length - 1)
    const unitEnd = end - (end % (this.#options.shortUnitBytes ?? 1))
    if (unitEnd <= offset) return wouldBlock
    return this.#file.read(target.subarray(0, unitEnd - offset), offset)
  }

  read(target: Buffer, offset: number): Promise<number> {
    this.#checkOpen('read')
    const what = { kind: 'read', name: this.#name, offset, lengthBytes: target.length } as const
    return this.#disk.perform(what, (fault) => {
      failOn(fault)
      return this.#file.read(target, offset)
    })
  }

  writeNow(parts: readonly Buffer[], offset: number): number {
    const lengthBytes = this.#checkWrite('writeNow', parts, offset)
    const what = { kind: 'writeNow', name: this.#name, offset, lengthBytes } as const
    const fault = this.#disk.announce(what)
    if (fault === 'ended') return wouldBlock
    if (fault && fault !== 'short') throw errnoError(fault.errno)
    const { now, random } = this.#options
    if (now === 'never' || (now === 'random' && random.chance(0.5))) return wouldBlock
    const written = this.#written(offset, lengthBytes, fault)
    if (written === 0 && lengthBytes > 0) throw errnoError('ENOSPC')
    if (written > 0) this.#file.finish(this.#file.begin(offset, cutParts(parts, written)))
    return written
  }

  write(parts: readonly Buffer[], offset: number): Promise<number> {
    const lengthBytes = this.#checkWrite('write', parts, offset)
    const what = { kind: 'write', name: this.#name, offset, lengthBytes } as const
    const range = { offset, end: offset + lengthBytes }
    let pending: ReturnType<SimFile['begin']> | undefined
    let before = ''
    const begin = () => {
      this.#writing.add(range)
      before = sampleOf(parts)
      const room = this.#disk.roomFor(this.#file, offset, lengthBytes)
      if (room > 0) pending = this.#file.begin(offset, cutParts(parts, room))
    }
    const complete = (fault: Fault | undefined) => {
      this.#writing.delete(range)
      if (sampleOf(parts) !== before) {
        this.#disk.violation(`${this.#name}: a buffer changed under way`)
      }
      if (fault && fault !== 'short') this.#failWrite(pending, parts, fault)
      const written = Math.min(
        this.#written(offset, lengthBytes, fault),
        pending ? pending.end - offset : 0,
      )
      if (written === 0 && lengthBytes > 0) {
        // There was room when it began, and none is left: nothing of it ever reaches the medium.
        if (pending) this.#file.abandon(pending)
        throw errnoError('ENOSPC')
      }
      if (pending && pending.end - offset === written) this.#file.finish(pending)
      else {
        if (pending) this.#file.abandon(pending)
        if (written > 0) this.#file.finish(this.#file.begin(offset, cutParts(parts, written)))
      }
      return written
    }
    return this.#disk.perform(what, complete, begin)
  }

  sync(): Promise<void> {
    this.#checkOpen('sync')
    const mark = this.#file.beginSync()
    return this.#disk.perform({ kind: 'sync', name: this.#name }, (fault) => {
      if (!fault || fault === 'short') return this.#file.finishSync(mark)
      const { random } = this.#options
      const lost = random.pick([0, 0.5, 1])
      this.#file.failSync(mark, () => random.chance(lost))
      throw errnoError(fault.errno)
    })
  }

  punch(offset: number, lengthBytes: number): Promise<boolean> {
    this.#checkRange('punch', offset, lengthBytes)
    const range = { offset, end: offset + lengthBytes }
    const what = { kind: 'punch', name: this.#name, offset, lengthBytes } as const
    let pending: ReturnType<SimFile['begin']> | undefined
    const begin = () => {
      this.#writing.add(range)
      if (this.#options.canPunch) pending = this.#file.beginPunch(offset, offset + lengthBytes)
    }
    const complete = (fault: Fault | undefined) => {
      this.#writing.delete(range)
      if (pending && fault) this.#file.abandon(pending)
      failOn(fault)
      if (pending) this.#file.finish(pending)
      return pending !== undefined
    }
    return this.#disk.perform(what, complete, begin)
  }

  truncate(sizeBytes: number): Promise<void> {
    this.#checkOpen('truncate')
    const what = { kind: 'truncate', name: this.#name, offset: sizeBytes } as const
    return this.#disk.perform(what, (fault) => {
      failOn(fault)
      if (this.isFixedSize) throw errnoError('EINVAL')
      this.#file.finish(this.#file.beginTruncate(sizeBytes))
    })
  }

  async close(): Promise<void> {
    this.#checkOpen('close')
    await this.#disk.perform({ kind: 'close', name: this.#name }, () => {
      this.#isClosed = true
    })
  }

  /** Some first part of it may have been written all the same. */
  #failWrite(
    pending: ReturnType<SimFile['begin']> | undefined,
    parts: readonly Buffer[],
    fault: { errno: string },
  ): never {
    if (pending) {
      this.#file.abandon(pending)
      // Whole sectors of the file: what a medium writes in one piece is never half new.
      const end = pending.offset + this.#options.random.below(pending.end - pending.offset + 1)
      const isAll = end === pending.end
      const written = (isAll ? end : end - (end % sectorBytes)) - pending.offset
      if (written > 0) this.#file.finish(this.#file.begin(pending.offset, cutParts(parts, written)))
    }
    throw errnoError(fault.errno)
  }

  /** Of `lengthBytes`, what this call writes. */
  #written(offset: number, lengthBytes: number, fault: Fault | undefined): number {
    let written = lengthBytes
    if (fault === 'short' && lengthBytes > 1) {
      const end = offset + 1 + this.#options.random.below(lengthBytes - 1)
      const unitEnd = end - (end % (this.#options.shortUnitBytes ?? 1))
      if (unitEnd > offset) written = unitEnd - offset
    }
    if (this.isFixedSize) written = Math.min(written, Math.max(0, this.#file.lengthBytes - offset))
    return Math.min(written, this.#disk.roomFor(this.#file, offset, written))
  }

  #checkWrite(kind: CallKind, parts: readonly Buffer[], offset: number): number {
    const lengthBytes = parts.reduce((sum, part) => sum + part.length, 0)
    this.#checkRange(kind, offset, lengthBytes)
    return lengthBytes
  }

  #checkRange(kind: CallKind, offset: number, lengthBytes: number): void {
    this.#checkOpen(kind)
    assert(Number.isSafeInteger(offset))
    assert(offset >= 0)
    for (const range of this.#writing) {
      if (range.offset < offset + lengthBytes && offset < range.end) {
        this.#disk.violation(`${this.#name}: overlapping ${kind} at ${offset}+${lengthBytes}`)
      }
    }
  }

  #checkOpen(kind: CallKind): void {
    if (this.#isClosed) this.#disk.violation(`${this.#name}: ${kind} after close`)
  }
}

function cutParts(parts: readonly Buffer[], lengthBytes: number): readonly Buffer[] {
  let left = lengthBytes
  const cut: Buffer[] = []
  for (const part of parts) {
    if (left <= 0) break
    cut.push(part.length <= left ? part : part.subarray(0, left))
    left -= part.length
  }
  return cut
}

/** Enough of the bytes to see that somebody wrote to them. */
function sampleOf(parts: readonly Buffer[]): string {
  return parts
    .map((part) => {
      const last = Math.max(0, part.length - 16)
      return part.toString('latin1', 0, 16) + part.toString('latin1', last)
    })
    .join('')
}
