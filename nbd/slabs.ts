// Memory that sockets read into, used again as soon as nobody looks at it: a buffer for each read would keep the garbage collector
// busier than the requests do.
//
// Invariant: a slab goes back to the pool when its last hold is released. The socket's reader holds it while it may read into it,
// the input holds it for each piece that was not used up, a request for as long as it keeps views of it.
import assert from 'node:assert/strict'
import type { BufferPool, MemoryBudget } from './memory.js'

export class Slab {
  readonly bytes: Buffer
  /** Where the next read goes. */
  filledBytes = 0
  holds = 1

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }
}

export class Slabs {
  readonly #pool: BufferPool
  readonly #budget: MemoryBudget
  readonly #inUse = new Map<ArrayBufferLike, Slab>()

  constructor(memory: { readonly pool: BufferPool; readonly budget: MemoryBudget }) {
    this.#pool = memory.pool
    this.#budget = memory.budget
  }

  get inUseCount(): number {
    return this.#inUse.size
  }

  /** A slab of at least `lengthBytes`, held once by the caller. Counted in the budget without asking: a socket must have one. */
  take(lengthBytes: number): Slab {
    const bytes = this.#pool.take(lengthBytes)
    this.#budget.takeAnyway(bytes.length)
    const slab = new Slab(bytes)
    assert(!this.#inUse.has(bytes.buffer))
    this.#inUse.set(bytes.buffer, slab)
    return slab
  }

  drop(slab: Slab): void {
    assert(slab.holds > 0)
    slab.holds--
    if (slab.holds > 0) return
    this.#inUse.delete(slab.bytes.buffer)
    this.#budget.giveBack(slab.bytes.length)
    this.#pool.give(slab.bytes)
  }

  /** Keeps what `view` shows as it is until `release`. Memory that is not a slab's needs no keeping. */
  hold(view: Buffer): void {
    const slab = this.#inUse.get(view.buffer)
    if (slab) slab.holds++
  }

  release(view: Buffer): void {
    const slab = this.#inUse.get(view.buffer)
    if (slab) this.drop(slab)
  }

  /** Bytes of memory that `views` keep and no slab accounts for. Views of one buffer in several requests are counted in each: never too little. */
  strangeBytesOf(views: readonly Buffer[]): number {
    let lengthBytes = 0
    for (const view of views) {
      if (!this.#inUse.has(view.buffer)) lengthBytes += view.buffer.byteLength
    }
    return lengthBytes
  }
}
