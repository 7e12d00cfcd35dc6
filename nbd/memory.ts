// The buffers of all connections of a server: one budget, one pool. A connection that finds the budget used up waits in line and reads
// nothing meanwhile, so that memory does not grow with the number of clients.
//
// Invariant: `usedBytes` is the sum of what was taken and not returned. `tryTake` never exceeds the budget; `takeAnyway` is for what
// lets others finish (replies), and its callers are bounded by themselves.
import assert from 'node:assert/strict'
import { BufferPool } from './buffer-pool.js'
import { KeptSlabs } from './kept-slabs.js'
import { Slabs } from './slabs.js'
import type { Timers } from './timers.js'

export class MemoryBudget {
  readonly bytesMax: number
  #usedBytes = 0
  #waiting: { readonly lengthBytes: number; readonly granted: () => void }[] = []

  constructor(bytesMax: number) {
    assert(bytesMax > 0)
    this.bytesMax = bytesMax
  }

  get usedBytes(): number {
    return this.#usedBytes
  }

  get waitingCount(): number {
    return this.#waiting.length
  }

  /** False when it does not fit or others wait already: nothing was taken. What is larger than the whole budget fits when nothing else is in use. */
  tryTake(lengthBytes: number): boolean {
    if (this.#waiting.length > 0 || !this.#fits(lengthBytes)) return false
    this.#usedBytes += lengthBytes
    return true
  }

  takeAnyway(lengthBytes: number): void {
    this.#usedBytes += lengthBytes
  }

  /** Calls `granted` in a later step, first come first served, when `lengthBytes` have been taken for it. The answer cancels. */
  wait(lengthBytes: number, granted: () => void): () => void {
    const entry = { lengthBytes, granted }
    this.#waiting.push(entry)
    return () => {
      const index = this.#waiting.indexOf(entry)
      if (index < 0) return
      this.#waiting.splice(index, 1)
      this.#grant()
    }
  }

  giveBack(lengthBytes: number): void {
    assert(lengthBytes <= this.#usedBytes)
    this.#usedBytes -= lengthBytes
    if (this.#waiting.length > 0) this.#grant()
  }

  #fits(lengthBytes: number): boolean {
    return this.#usedBytes + lengthBytes <= this.bytesMax || this.#usedBytes === 0
  }

  #grant(): void {
    for (;;) {
      const first = this.#waiting[0]
      if (!first || !this.#fits(first.lengthBytes)) return
      this.#waiting.shift()
      this.#usedBytes += first.lengthBytes
      setImmediate(first.granted)
    }
  }
}

/** What all sessions of one server share. */
export class SharedMemory {
  readonly budget: MemoryBudget
  readonly pool: BufferPool
  readonly slabs: Slabs
  readonly kept: KeptSlabs

  constructor(options: {
    readonly processBytesMax: number
    readonly pooledBytesMax: number
    readonly keptBytesMax?: number
    readonly keptPayloadBytesMin?: number
    readonly timers?: Timers
  }) {
    const { keptBytesMax = 0, keptPayloadBytesMin = 0 } = options
    const timers = options.timers === undefined ? {} : { timers: options.timers }
    this.budget = new MemoryBudget(options.processBytesMax)
    this.pool = new BufferPool(options.pooledBytesMax)
    this.slabs = new Slabs(this)
    this.kept = new KeptSlabs({ slabs: this.slabs, keptBytesMax, keptPayloadBytesMin, ...timers })
  }
}
