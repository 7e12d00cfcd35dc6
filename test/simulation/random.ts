// Randomness from one seed: every choice of a simulation comes from here, so the same seed gives the same run.
import assert from 'node:assert/strict'
import type { Random } from '../../src/core/clock.js'

/** xoshiro128** seeded by splitmix32: small, fast, and good enough to choose with. */
export class SeededRandom implements Random {
  readonly seed: number
  #a: number
  #b: number
  #c: number
  #d: number

  constructor(seed: number) {
    this.seed = seed
    const next = splitMix(seed)
    this.#a = next()
    this.#b = next()
    this.#c = next()
    this.#d = next()
  }

  /** 32 random bits. */
  bits(): number {
    const result = Math.imul(rotateLeft(Math.imul(this.#b, 5), 7), 9)
    const shifted = this.#b << 9
    this.#c ^= this.#a
    this.#d ^= this.#b
    this.#b ^= this.#c
    this.#a ^= this.#d
    this.#c ^= shifted
    this.#d = rotateLeft(this.#d, 11)
    return result >>> 0
  }

  /** A whole number from 0 to `end` - 1. */
  below(end: number): number {
    assert(Number.isSafeInteger(end))
    assert(end > 0)
    return Math.floor((this.bits() / 2 ** 32) * end)
  }

  chance(probability: number): boolean {
    return this.bits() / 2 ** 32 < probability
  }

  pick<T>(items: readonly T[]): T {
    assert(items.length > 0)
    return items[this.below(items.length)] as T
  }

  hex(lengthBytes: number): string {
    let text = ''
    for (let i = 0; i < lengthBytes; i++) text += this.below(256).toString(16).padStart(2, '0')
    return text
  }

  /** An independent stream: what one part of a simulation draws does not move the others. */
  fork(label: string): SeededRandom {
    let hash = this.seed ^ 0x9e3779b9
    for (let i = 0; i < label.length; i++) {
      hash = Math.imul(hash ^ label.charCodeAt(i), 0x01000193)
    }
    return new SeededRandom(hash >>> 0)
  }
}

function rotateLeft(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits))
}

function splitMix(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x9e3779b9) | 0
    let mixed = state ^ (state >>> 16)
    mixed = Math.imul(mixed, 0x21f0aaad)
    mixed ^= mixed >>> 15
    mixed = Math.imul(mixed, 0x735a2d97)
    return mixed ^ (mixed >>> 15)
  }
}
