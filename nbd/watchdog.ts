// Notices a wait that makes no progress, without touching a timer on the hot path: progress only counts, and a timer that runs while
// there is something to wait for compares. Expires after `timeoutMs` without progress, at the latest a quarter later.
import type { Timers } from './timers.js'

const strikesToExpire = 4

export class Watchdog {
  readonly #timers: Timers
  readonly #timeoutMs: number
  readonly #onExpired: () => void
  #timer: { cancel(): void } | undefined
  #isWaiting = false
  #progress = 0
  #seenProgress = 0
  #strikes = 0

  constructor(timers: Timers, timeoutMs: number, onExpired: () => void) {
    this.#timers = timers
    this.#timeoutMs = timeoutMs
    this.#onExpired = onExpired
  }

  /** Something is awaited; `progress` is any number that changes when some of it comes. */
  start(progress: number): void {
    this.#isWaiting = true
    this.#progress = progress
    if (!this.#timer) this.#arm()
  }

  /** Nothing is awaited any more. A timer that is under way runs out by itself. */
  stop(): void {
    this.#isWaiting = false
  }

  close(): void {
    this.#isWaiting = false
    this.#timer?.cancel()
    this.#timer = undefined
  }

  #arm(): void {
    this.#seenProgress = this.#progress
    this.#timer = this.#timers.setTimer(this.#timeoutMs / strikesToExpire, () => this.#look())
  }

  #look(): void {
    this.#timer = undefined
    if (!this.#isWaiting) {
      this.#strikes = 0
      return
    }
    this.#strikes = this.#progress === this.#seenProgress ? this.#strikes + 1 : 0
    if (this.#strikes < strikesToExpire) {
      this.#arm()
      return
    }
    this.#isWaiting = false
    this.#strikes = 0
    this.#onExpired()
  }
}
