// The Disk that storage gets in a simulation: it counts and shows each call, fails on demand, answers in the scheduler's
// order, and stops for ever when its life ends.
//
// It also checks its callers: what breaks the contract of src/core/disk.ts is remembered in `violations`, because an
// assertion thrown into the code under test could be taken for a failed call.
import assert from 'node:assert/strict'
import { type Disk, type DiskFile, wouldBlock } from '../../src/core/disk.js'
import type { SeededRandom } from './random.js'
import type { Life, Scheduler } from './sim-clock.js'
import { pageBytes, type SimFile, sectorBytes } from './sim-file.js'
import { SimMedium } from './sim-medium.js'

export const callKinds = [
  'open',
  'size',
  'readNow',
  'read',
  'writeNow',
  'write',
  'sync',
  'punch',
  'truncate',
  'close',
  'rename',
  'remove',
  'list',
  'syncDirectory',
] as const
export type CallKind = (typeof callKinds)[number]

export type Call = {
  /** The first call of a disk is 0. */
  readonly index: number
  readonly kind: CallKind
  readonly name: string
  readonly offset: number
  readonly lengthBytes: number
}

/** `short`: a write that ends early, if it can. `errno`: the call fails; a failed sync loses part of what it should have made durable. */
export type Fault = { readonly errno: string } | 'short'

export type SimDiskOptions = {
  readonly medium?: SimMedium
  readonly life: Life
  readonly scheduler: Scheduler
  /** `immediate`: calls complete when called. `scheduled`: the scheduler chooses when. */
  readonly completion?: 'immediate' | 'scheduled'
  readonly canPunch?: boolean
  /** How readNow and writeNow answer: done, `wouldBlock`, or by chance either (a read also in part). */
  readonly now?: 'always' | 'never' | 'random'
  readonly random: SeededRandom
  /** Bytes of medium; writes that need more get ENOSPC. */
  readonly capacityBytes?: number
  /** A file that has this length, for ever. */
  readonly device?: { readonly name: string; readonly sizeBytes: number }
  /** Called before each call. May end the life: the call then does nothing and never settles. */
  readonly beforeCall?: (call: Call) => void
  readonly fault?: (call: Call) => Fault | undefined
}

const never = new Promise<never>(() => {})

export class SimDisk implements Disk {
  readonly medium: SimMedium
  readonly violations: string[] = []
  readonly #options: SimDiskOptions
  #callCount = 0

  constructor(options: SimDiskOptions) {
    this.#options = options
    this.medium = options.medium ?? new SimMedium()
    const device = options.device
    if (device && !this.medium.find(device.name)) {
      const file = this.medium.create(device.name)
      file.finish(file.beginTruncate(device.sizeBytes))
      file.finishSync(file.beginSync())
      this.medium.finishSync(this.medium.beginSync())
    }
  }

  get callCount(): number {
    return this.#callCount
  }

  async open(name: string, options: { readonly create?: boolean } = {}): Promise<DiskFile> {
    return this.perform({ kind: 'open', name }, (fault) => {
      failOn(fault)
      const found = this.medium.find(name)
      if (!found && !options.create) throw errnoError('ENOENT')
      const file = found ?? this.medium.create(name)
      return new SimDiskFile(this, name, file, this.#options)
    })
  }

  rename(from: string, to: string): Promise<void> {
    return this.perform({ kind: 'rename', name: `${from} > ${to}` }, (fault) => {
      failOn(fault)
      if (!this.medium.find(from)) throw errnoError('ENOENT')
      this.medium.rename(from, to)
    })
  }

  remove(name: string): Promise<void> {
    return this.perform({ kind: 'remove', name }, (fault) => {
      failOn(fault)
      if (!this.medium.find(name)) throw errnoError('ENOENT')
      this.medium.remove(name)
    })
  }

  list(): Promise<readonly string[]> {
    return this.perform({ kind: 'list', name: '' }, (fault) => {
      failOn(fault)
      return this.medium.names()
    })
  }

  syncDirectory(): Promise<void> {
    const mark = this.medium.beginSync()
    return this.perform({ kind: 'syncDirectory', name: '' }, (fault) => {
      failOn(fault)
      this.medium.finishSync(mark)
    })
  }

  violation(text: string): void {
    this.violations.push(text)
  }

  /** One asynchronous call: shown, perhaps failed, completed in the scheduler's order. */
  perform<T>(
    what: { kind: CallKind; name: string; offset?: number; lengthBytes?: number },
    complete: (fault: Fault | undefined) => T,
    begin?: () => void,
  ): Promise<T> {
    const { life, scheduler, completion } = this.#options
    const fault = this.announce(what)
    if (fault === 'ended') return never
    begin?.()
    const run = () => complete(fault)
    if (completion !== 'scheduled') {
      try {
        return Promise.resolve(run())
      } catch (error) {
        return Promise.reject(error)
      }
    }
    return new Promise((resolve, reject) => {
      scheduler.post(life, () => {
        try {
          resolve(run())
        } catch (error) {
          reject(error)
        }
      })
    })
  }

  /** Counts and shows a call that is about to happen; its fault, or that it will never be. */
  announce(what: {
    kind: CallKind
    name: string
    offset?: number
    lengthBytes?: number
  }): Fault | undefined | 'ended' {
    const { life, scheduler } = this.#options
    if (life.isEnded) return 'ended'
    const call: Call = {
      index: this.#callCount++,
      kind: what.kind,
      name: what.name,
      offset: what.offset ?? 0,
      lengthBytes: what.lengthBytes ?? 0,
    }
    scheduler.note(callKinds.indexOf(call.kind))
    scheduler.note(call.offset)
    scheduler.note(call.lengthBytes)
    this.#options.beforeCall?.(call)
    return life.isEnded ? 'ended' : this.#options.fault?.(call)
  }

  /** How many of these bytes the medium has room for. */
  roomFor(file: SimFile, offset: number, lengthBytes: number): number {
    const { capacityBytes } = this.#options
    if (capacityBytes === undefined) return lengthBytes
    let free = Math.floor(capacityBytes / pageBytes) - this.medium.allocatedPages
    let end = offset
    while (end < offset + lengthBytes) {
      const stop = Math.min(offset + lengthBytes, (Math.floor(end / pageBytes) + 1) * pageBytes)
      free -= file.newPages(end, stop)
      if (free < 0) break
      end = stop
    }
    return end - offset
  }
}

type Range = { readonly offset: number; readonly end: number }

class SimDiskFile implements DiskFile {
  readonly isFixedSize: boolean
  readonly #disk: SimDisk
  readonly #name: string
  readonly #file: SimFile
  readonly #options: SimDiskOptions
  readonly #writing = new Set<Range>()
  #isClosed = false

  constructor(disk: SimDisk, name: string, file: SimFile, options: SimDiskOptions) {
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
    const part = isPart ? target.subarray(0, 1 + random.below(target.length - 1)) : target
    return this.#file.read(part, offset)
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
      if (written === 0 && lengthBytes > 0) throw errnoError('ENOSPC')
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
    if (fault === 'short' && lengthBytes > 1)
      written = 1 + this.#options.random.below(lengthBytes - 1)
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

function failOn(fault: Fault | undefined): void {
  if (fault && fault !== 'short') throw errnoError(fault.errno)
}

/** An error as Node's fs throws it. */
export function errnoError(errno: string): Error {
  return Object.assign(new Error(`${errno}: simulated`), { code: errno })
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
