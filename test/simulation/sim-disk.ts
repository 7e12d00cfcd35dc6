// The Disk that storage gets in a simulation: it counts and shows each call, fails on demand, answers in the scheduler's
// order, and stops for ever when its life ends.
//
// It also checks its callers: what breaks the contract of src/core/disk.ts is remembered in `violations`, because an
// assertion thrown into the code under test could be taken for a failed call.
import type { Disk, DiskFile } from '../../src/core/disk.js'
import {
  type Asked,
  type Call,
  callKinds,
  errnoError,
  type Fault,
  failOn,
  type SimDiskOptions,
} from './sim-call.js'
import { SimDiskFile } from './sim-disk-file.js'
import { pageBytes, type SimFile } from './sim-file.js'
import { SimMedium } from './sim-medium.js'

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
    what: Asked,
    complete: (fault: Fault | undefined) => T,
    begin?: () => void,
  ): Promise<T> {
    const { life, scheduler, completion, hold } = this.#options
    const fault = this.announce(what)
    // A promise of its own each time: one for all would keep whoever ever waited, and with them the worlds of all runs.
    if (fault === 'ended') return new Promise(() => {})
    begin?.()
    const held = hold?.(what)
    const run = () => complete(fault)
    if (completion !== 'scheduled') {
      try {
        return Promise.resolve(run())
      } catch (error) {
        return Promise.reject(error)
      }
    }
    return new Promise((resolve, reject) => {
      const post = () =>
        scheduler.post(life, () => {
          try {
            resolve(run())
          } catch (error) {
            reject(error)
          }
        })
      if (held === undefined) post()
      else void held.then(post)
    })
  }

  /** Counts and shows a call that is about to happen; its fault, or that it will never be. */
  announce(what: Asked): Fault | undefined | 'ended' {
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
    const roomBytes = typeof capacityBytes === 'number' ? capacityBytes : capacityBytes()
    if (roomBytes === Number.POSITIVE_INFINITY) return lengthBytes
    let free = Math.floor(roomBytes / pageBytes) - this.medium.allocatedPages
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
