// How fast: a limit that spreads bytes over time, and a meter of what was done. Both live on the monotonic time that they are given.
import assert from 'node:assert/strict'

/** Bytes may go when those before them have had their time. */
export class Pace {
  #perSecondMax: number | undefined
  #freeAtMs = 0

  constructor(perSecondMax: number | undefined) {
    this.setMax(perSecondMax)
  }

  /** Undefined: as fast as it goes. What waits already waits as it was told. */
  setMax(perSecondMax: number | undefined): void {
    assert(perSecondMax === undefined || perSecondMax > 0)
    this.#perSecondMax = perSecondMax
  }

  /** 0: go on now. */
  waitMs(nowMs: number): number {
    if (this.#perSecondMax === undefined) return 0
    return Math.max(0, this.#freeAtMs - nowMs)
  }

  /** Time that nobody used is lost: no burst follows a pause. */
  spend(nowMs: number, bytes: number): void {
    const costMs = this.#perSecondMax === undefined ? 0 : (bytes * 1000) / this.#perSecondMax
    this.#freeAtMs = Math.max(this.#freeAtMs, nowMs) + costMs
  }
}

/** A rate of less time than this says more about chance than about speed. */
const spanMsMin = 250

/** A mean over about `windowMs` in which the newest counts most; until so long has passed, over all that has. */
export class RateMeter {
  readonly #windowMs: number
  readonly #sinceMs: number
  /** Per second, as if nothing had been done before the beginning. */
  #mean = 0
  #atMs: number
  #amount = 0

  constructor(nowMs: number, windowMs: number) {
    this.#windowMs = windowMs
    this.#sinceMs = nowMs
    this.#atMs = nowMs
  }

  /** As of the last count. Undefined until something was done, and in the first moments. */
  get perSecond(): number | undefined {
    const spanMs = this.#atMs - this.#sinceMs
    if (this.#amount === 0 || spanMs < spanMsMin) return undefined
    // How much of the mean is of the time since the beginning: from 0 towards 1.
    return this.#mean / (1 - Math.exp(-spanMs / this.#windowMs))
  }

  /** `amount` is all that was done since the beginning. Much may come at one moment: each count takes all of it. */
  count(nowMs: number, amount: number): void {
    const part = (nowMs - this.#atMs) / this.#windowMs
    const kept = Math.exp(-part)
    // What was done was done evenly since the last count; at once, where no time has passed.
    const weight = part === 0 ? 1 : (1 - kept) / part
    this.#mean = this.#mean * kept + (weight * (amount - this.#amount) * 1000) / this.#windowMs
    this.#atMs = nowMs
    this.#amount = amount
  }
}
