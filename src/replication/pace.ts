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

/** Samples closer than this say more about chance than about speed. */
const sampleMs = 250

/** A mean over about `windowMs` in which the newest counts most; until so long has passed, over all that has. */
export class RateMeter {
  readonly #windowMs: number
  /** The mean as if nothing had been done before the beginning. */
  #mean = 0
  /** How much of that mean is of the time since the beginning: from 0 towards 1. */
  #known = 0
  #atMs: number
  #amount = 0

  constructor(nowMs: number, windowMs: number) {
    this.#windowMs = windowMs
    this.#atMs = nowMs
  }

  /** Undefined until something was done. */
  get perSecond(): number | undefined {
    return this.#amount === 0 ? undefined : this.#mean / this.#known
  }

  /** `amount` is all that was done since the beginning. */
  count(nowMs: number, amount: number): void {
    const passedMs = nowMs - this.#atMs
    if (passedMs < sampleMs) return
    const present = ((amount - this.#amount) * 1000) / passedMs
    const weight = 1 - Math.exp(-passedMs / this.#windowMs)
    this.#mean += weight * (present - this.#mean)
    this.#known += weight * (1 - this.#known)
    this.#atMs = nowMs
    this.#amount = amount
  }
}
