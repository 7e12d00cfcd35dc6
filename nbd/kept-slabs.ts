// Payload that is looked at after its request was answered: what an export sends on to somebody else stays in the slab that it was read into, for as long as it says.
//
// Invariants: no more than `keptBytesMax` of slabs are kept so; a slab that somebody keeps does not count against the budget of the clients, who would wait for an
// export's own business; what is sealed is never used again, for somebody may look at it without saying so.
import assert from 'node:assert/strict'
import { BufferPool } from './buffer-pool.js'
import type { PartKeeper } from './bytes/part-keeper.js'
import type { Slab, Slabs } from './slabs.js'
import { nodeTimers, type Timers } from './timers.js'

/** Memory that was kept costs more than the copy it saves when the system has to hand it out anew: it stays here for the next burst. */
const spareAfterMs = 60_000

export type KeptSlabsOptions = {
  readonly slabs: Slabs
  readonly keptBytesMax: number
  readonly keptPayloadBytesMin: number
  readonly timers?: Timers
}

export class KeptSlabs implements PartKeeper {
  readonly #slabs: Slabs
  readonly #bytesMax: number
  readonly #payloadBytesMin: number
  readonly #timers: Timers
  #keptBytes = 0
  #isIdle = true
  #isLooking = false

  constructor(options: KeptSlabsOptions) {
    this.#slabs = options.slabs
    this.#bytesMax = options.keptBytesMax
    this.#payloadBytesMin = options.keptPayloadBytesMin
    this.#timers = options.timers ?? nodeTimers
  }

  /** Of whole slabs, however little of them is looked at. */
  get keptBytes(): number {
    return this.#keptBytes
  }

  keep(views: readonly Buffer[]): boolean {
    let lengthBytes = 0
    for (const view of views) lengthBytes += view.length
    if (lengthBytes < this.#payloadBytesMin) return false
    for (const [index, view] of views.entries()) {
      if (this.#keepOne(view)) continue
      for (const kept of views.slice(0, index)) this.#letGoOne(kept)
      return false
    }
    this.#isIdle = false
    this.#saveSpare()
    return true
  }

  letGo(views: readonly Buffer[]): void {
    for (const view of views) this.#letGoOne(view)
  }

  seal(views: readonly Buffer[]): void {
    for (const view of views) this.#slabOf(view).isSealed = true
  }

  #keepOne(view: Buffer): boolean {
    const slab = this.#slabs.find(view)
    if (slab === undefined) return false
    if (slab.keeps === 0) {
      if (this.#keptBytes + slab.bytes.length > this.#bytesMax) return false
      this.#keptBytes += slab.bytes.length
    }
    this.#slabs.keep(slab)
    return true
  }

  #letGoOne(view: Buffer): void {
    const slab = this.#slabOf(view)
    assert(slab.keeps > 0)
    if (slab.keeps === 1) this.#keptBytes -= slab.bytes.length
    this.#slabs.letGo(slab)
  }

  #slabOf(view: Buffer): Slab {
    const slab = this.#slabs.find(view)
    assert(slab !== undefined)
    return slab
  }

  #saveSpare(): void {
    if (this.#isLooking) return
    this.#isLooking = true
    this.#slabs.spare ??= new BufferPool(this.#bytesMax)
    this.#timers.setTimer(spareAfterMs, () => this.#look())
  }

  /** Nothing was kept since the last look: nor is the memory. */
  #look(): void {
    this.#isLooking = false
    if (this.#isIdle) this.#slabs.spare = undefined
    else this.#saveSpare()
    this.#isIdle = true
  }
}
