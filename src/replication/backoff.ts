// How long to wait before the next try to connect: doubling up to a bound, and never the same for two nodes.
import assert from 'node:assert/strict'
import type { Random } from '../core/clock.js'
import { linkLimits } from './limits.js'

export class Backoff {
  readonly #random: Random
  readonly #minMs: number
  readonly #maxMs: number
  #nextMs: number

  constructor(options: {
    readonly random: Random
    readonly minMs?: number
    readonly maxMs?: number
  }) {
    this.#random = options.random
    this.#minMs = options.minMs ?? linkLimits.reconnectMinMs
    this.#maxMs = options.maxMs ?? linkLimits.reconnectMaxMs
    assert(this.#minMs > 0)
    assert(this.#minMs <= this.#maxMs)
    this.#nextMs = this.#minMs
  }

  /** The delay before the next try: between half and all of what it is this time; twice as much the next time. */
  nextDelayMs(): number {
    const share = Number.parseInt(this.#random.hex(4), 16) / 2 ** 32
    const delayMs = Math.round(this.#nextMs * (0.5 + share / 2))
    this.#nextMs = Math.min(this.#nextMs * 2, this.#maxMs)
    return delayMs
  }

  /** A connection got as far as streaming: the next loss is a new one. */
  reset(): void {
    this.#nextMs = this.#minMs
  }
}
