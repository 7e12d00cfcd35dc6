// Keeps the event loop turning for a moment after work was done, because the next work often comes within that moment: to sleep and to be
// woken costs more than most requests, and twice as much on a virtual machine.
//
// Invariants: with nothing to do the loop turns for at most `pollUsMax` after the last step and then sleeps; it turns only where that has
// paid off lately, and each time in a row that it did not, it tries twice as many waits later. Small requests that come many at a
// time are better served asleep: more of them gather meanwhile, and one system call serves them all.

/** Waits without a crowd before the loop turns at all: a deep queue shows itself within a few. */
const calmCountMin = 64
/** The most waits between two tries. A client that is slow for good costs one try in so many requests. */
const skipCountMax = 1024

/** One reason to wait, and how well turning has done at it. */
class Wait {
  skipCount = 0
  #nextSkipCount = 1

  succeeded(): void {
    this.#nextSkipCount = 1
  }

  failed(): void {
    this.skipCount = this.#nextSkipCount
    this.#nextSkipCount = Math.min(2 * this.#nextSkipCount, skipCountMax)
  }
}

export type PollerOptions = {
  /** How long to turn at most; 0: never. */
  readonly pollUsMax: number
  /** Monotonic milliseconds. */
  readonly nowMs?: () => number
  /** Calls back in the next turn of the event loop, which does not sleep before. */
  readonly nextTurn?: (callback: () => void) => void
}

export class Poller {
  readonly #pollMsMax: number
  readonly #nowMs: () => number
  readonly #nextTurn: (callback: () => void) => void
  readonly #forClient = new Wait()
  readonly #forExport = new Wait()
  /** What the loop turns for now. */
  #turningFor: Wait | undefined
  #isTurnDue = false
  #calmCount = 0
  #lastMs = 0

  constructor(options: PollerOptions) {
    this.#pollMsMax = options.pollUsMax / 1000
    this.#nowMs = options.nowMs ?? (() => performance.now())
    this.#nextTurn = options.nextTurn ?? setImmediate
  }

  /** Something was done. `isCrowd`: many small requests together. `isInFlight`: an export has yet to settle some. */
  worked({
    isCrowd,
    isInFlight,
  }: {
    readonly isCrowd: boolean
    readonly isInFlight: boolean
  }): void {
    if (this.#pollMsMax === 0) return
    this.#turningFor?.succeeded()
    this.#turningFor = undefined
    if (isCrowd) {
      this.#calmCount = 0
      return
    }
    if (this.#calmCount < calmCountMin) {
      this.#calmCount++
      return
    }
    const wait = isInFlight ? this.#forExport : this.#forClient
    if (wait.skipCount > 0) {
      wait.skipCount--
      return
    }
    this.#lastMs = this.#nowMs()
    this.#turningFor = wait
    if (this.#isTurnDue) return
    this.#isTurnDue = true
    this.#nextTurn(this.#turn)
  }

  readonly #turn = (): void => {
    if (this.#turningFor === undefined) {
      this.#isTurnDue = false
      return
    }
    if (this.#nowMs() - this.#lastMs < this.#pollMsMax) {
      this.#nextTurn(this.#turn)
      return
    }
    this.#isTurnDue = false
    this.#turningFor.failed()
    this.#turningFor = undefined
  }
}
