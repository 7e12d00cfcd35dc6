// Ranges that clients ask to have in memory: a few are read at a time, a piece each in a turn of the event loop, and what is read is thrown away.
//
// Invariants: one buffer for all, which nobody looks at; a piece for each of `readAheadCountMax` ranges in a turn at most, also when a range ends and
// the next one begins; beyond `readAheadWaitingMax` ranges in line nothing is read, since to have it in memory was only a hint.
import type { Clock } from '../core/clock.js'
import { limits } from '../core/limits.js'
import { MiB } from '../core/units.js'

const pieceBytes = MiB

export type ReadAheadRange = {
  /** True when there is nothing left to read, or nobody who wants it. */
  isOver(): boolean
  /** Reads the next piece into `scratch`, at most its length. Throws or rejects when it cannot be read. */
  readPiece(scratch: Buffer): Promise<void> | undefined
}

type Task = {
  readonly range: ReadAheadRange
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

export class ReadAhead {
  readonly #clock: Clock
  readonly #line: Task[] = []
  #scratch: Buffer | undefined
  #workerCount = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Settles when the range was read; undefined when it will not be, because too many wait. */
  run(range: ReadAheadRange): Promise<void> | undefined {
    const isBusy = this.#workerCount >= limits.readAheadCountMax
    if (isBusy && this.#line.length >= limits.readAheadWaitingMax) return undefined
    const done = new Promise<void>((resolve, reject) => {
      this.#line.push({ range, resolve, reject })
    })
    if (!isBusy) void this.#work()
    return done
  }

  /** Reads one range after the other until none waits. */
  async #work(): Promise<void> {
    this.#workerCount++
    this.#scratch ??= Buffer.allocUnsafeSlow(pieceBytes)
    for (let task = this.#line.shift(); task !== undefined; task = this.#line.shift()) {
      try {
        await this.#read(task.range, this.#scratch)
        task.resolve()
      } catch (error) {
        task.reject(error)
      }
      // Before anything else is begun here, also by a range that comes later.
      await this.#turn()
    }
    this.#workerCount--
  }

  async #read(range: ReadAheadRange, scratch: Buffer): Promise<void> {
    while (!range.isOver()) {
      await range.readPiece(scratch)
      if (!range.isOver()) await this.#turn()
    }
  }

  #turn(): Promise<void> {
    return new Promise((resolve) => this.#clock.defer(resolve))
  }
}
