// Seeded choices for tests: the same seed makes the same run.
import assert from 'node:assert/strict'

export class SeededRandom {
  #state: number

  constructor(seed: number) {
    this.#state = (seed ^ 0x9e3779b9) >>> 0
  }

  /** A whole number from 0 up to, but not including, `end`. */
  below(end: number): number {
    assert(end > 0)
    // Mulberry32: 32 bits of state, which is plenty to choose what a test does.
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * end)
  }

  pick<T>(choices: readonly T[]): T {
    const choice = choices[this.below(choices.length)]
    assert(choice !== undefined)
    return choice
  }

  /** Bytes that do not compress and do not repeat. */
  bytes(lengthBytes: number): Buffer {
    const buffer = Buffer.alloc(lengthBytes)
    for (let offset = 0; offset < lengthBytes; offset++) buffer[offset] = this.below(256)
    return buffer
  }
}
