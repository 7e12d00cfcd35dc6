// Where the log's lines go. What the system does not take (a full disk, a reader that has gone) is dropped and counted, so that neither
// the daemon's work nor its end ever waits for its log.
//
// Invariant: write() never waits, and flush() waits for a reader at most flushMs. Lines leave in the order they came, but for a batch that is in flight
// when flush() is called: its thread finishes it, before the process is gone.
import { constants, fstatSync, openSync, write, writeSync } from 'node:fs'
import { errnoNameOf } from '../core/errors.js'

/** Lines that wait for a slow reader; more are dropped. */
const waitingBytesMax = 4 * 1024 * 1024
/** What one call gives to the system, and what is lost when it fails. */
const batchBytesMax = 64 * 1024
/** How soon a reader that was full is tried again. */
const retryMs = 100
/** What a flush waits for a reader that is full: the last lines are worth it, a clean stop within its time is worth more. */
const flushMs = 500
const flushRetryMs = 10

const lineEnd = 0x0a

export type LogTarget = {
  readonly fd: number
  /** Each write may take long: they are made beside the loop. */
  readonly isSlow: boolean
}

/** Never blocks where the system lets it: a pipe or a terminal is opened anew, since O_NONBLOCK on `fd` itself would reach all who share it. */
export function openLogTarget(fd: number): LogTarget {
  try {
    const stat = fstatSync(fd)
    if (stat.isFile() || stat.isBlockDevice()) return { fd, isSlow: true }
    const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY
    return { fd: openSync(`/proc/self/fd/${fd}`, flags), isSlow: false }
  } catch {
    // A socket cannot be opened; Node made it non-blocking when process.stderr was first used.
    return { fd, isSlow: true }
  }
}

export class LogWriter {
  readonly #target: LogTarget
  readonly #onTaken: (lostCount: number) => void
  #waiting: Buffer[] = []
  #waitingBytes = 0
  /** A write is in flight, or the retry of one is to come. */
  #isBusy = false
  /** What was taken last did not end its line. */
  #isLineOpen = false
  /** The rest of that line is lost: what follows must begin a line of its own. */
  #isTorn = false
  #lostCount = 0

  /** `onTaken` is told, when lines are taken again, how many were lost before. */
  constructor(options: {
    readonly target: LogTarget
    readonly onTaken: (lostCount: number) => void
  }) {
    this.#target = options.target
    this.#onTaken = options.onTaken
  }

  /** A whole line, with its end. */
  write(line: string): void {
    const bytes = Buffer.from(line)
    if (this.#waitingBytes + bytes.length > waitingBytesMax) {
      this.#lostCount++
      return
    }
    this.#waiting.push(bytes)
    this.#waitingBytes += bytes.length
    if (!this.#isBusy) this.#pump()
  }

  /** For an exit. What is not taken in time is dropped. */
  flush(): void {
    for (let triesLeft = flushMs / flushRetryMs; this.#waitingBytes > 0; ) {
      if (this.#writeNow(this.#nextBatch())) continue
      if (triesLeft-- > 0) waitMs(flushRetryMs)
      else this.#drop(this.#nextBatch(Number.POSITIVE_INFINITY))
    }
  }

  #pump(): void {
    while (this.#waitingBytes > 0) {
      if (this.#target.isSlow) {
        this.#writeBeside(this.#nextBatch())
        return
      }
      if (!this.#writeNow(this.#nextBatch())) {
        this.#retryLater()
        return
      }
    }
  }

  #writeBeside(batch: Buffer): void {
    this.#isBusy = true
    write(this.#target.fd, batch, (error, count) => {
      this.#isBusy = false
      if (this.#settle(batch, error, count)) this.#pump()
      else this.#retryLater()
    })
  }

  #writeNow(batch: Buffer): boolean {
    try {
      return this.#settle(batch, null, writeSync(this.#target.fd, batch))
    } catch (error) {
      return this.#settle(batch, error, 0)
    }
  }

  /** False when the rest of the batch waits for the reader. */
  #settle(batch: Buffer, error: unknown, count: number): boolean {
    if (error === null) {
      this.#putBack(batch.subarray(count))
      if (count > 0) this.#isLineOpen = batch[count - 1] !== lineEnd
      this.#tellLoss()
      return true
    }
    if (errnoNameOf(error) === 'EAGAIN') {
      this.#putBack(batch)
      return false
    }
    this.#drop(batch)
    return true
  }

  #tellLoss(): void {
    const lostCount = this.#lostCount
    if (lostCount === 0 || this.#waitingBytes > 0) return
    this.#lostCount = 0
    // Busy, so that the line only joins those that wait: whoever settles this write goes on with it.
    const isBusy = this.#isBusy
    this.#isBusy = true
    this.#onTaken(lostCount)
    this.#isBusy = isBusy
  }

  #retryLater(): void {
    this.#isBusy = true
    setTimeout(() => {
      this.#isBusy = false
      this.#pump()
    }, retryMs).unref()
  }

  #nextBatch(bytesMax = batchBytesMax): Buffer {
    let count = 0
    let sizeBytes = 0
    for (const { length } of this.#waiting) {
      if (count > 0 && sizeBytes + length > bytesMax) break
      sizeBytes += length
      count++
    }
    this.#waitingBytes -= sizeBytes
    const [first = Buffer.alloc(0), ...others] = this.#waiting.splice(0, count)
    if (!this.#isTorn && others.length === 0) return first
    const start = this.#isTorn ? [Buffer.of(lineEnd)] : []
    this.#isTorn = false
    return Buffer.concat([...start, first, ...others])
  }

  #putBack(rest: Buffer): void {
    if (rest.length === 0) return
    this.#waiting.unshift(rest)
    this.#waitingBytes += rest.length
  }

  #drop(batch: Buffer): void {
    // A line end at the front is that of a line that was counted, or whole but for it.
    for (const byte of batch.subarray(1)) if (byte === lineEnd) this.#lostCount++
    this.#isTorn = this.#isLineOpen
  }
}

function waitMs(timeMs: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, timeMs)
}
