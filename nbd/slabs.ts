// Memory that sockets read into, used again as soon as nobody looks at it: a buffer for each read would keep the garbage collector
// busier than the requests do.
//
// Invariants: a slab goes back to the pool when its last hold is released. The socket's reader holds it while it may read into it,
// the input holds it for each piece that was not used up, a request for as long as it keeps views of it. The budget counts slabs that
// their reader has left; the one slab that each socket reads into is on top of it.
import assert from 'node:assert/strict'

type Pool = {
  take(lengthBytes: number): Buffer
  tryTake(lengthBytes: number): Buffer | undefined
  give(buffer: Buffer): boolean
}
type Budget = { takeAnyway(lengthBytes: number): void; giveBack(lengthBytes: number): void }

/** Readers that may have the largest slabs at one time: what many clients hold beside the budget stays what it is. */
const seatCount = 16

export class Slab {
  readonly bytes: Buffer
  /** Where the next read goes. */
  filledBytes = 0
  /** The reader's is the first. */
  holds = 1
  isCounted = false
  /** Holds that go on behind the request: see kept-slabs. */
  keeps = 0
  /** Never used again: somebody may look at it who holds it no more. */
  isSealed = false

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }
}

export class Slabs {
  readonly #pool: Pool
  readonly #budget: Budget
  readonly #inUse = new Map<ArrayBufferLike, Slab>()
  #freeSeatCount = seatCount
  /** For what the pool has no place for. */
  spare: Pool | undefined

  constructor(memory: { readonly pool: Pool; readonly budget: Budget }) {
    this.#pool = memory.pool
    this.#budget = memory.budget
  }

  get inUseCount(): number {
    return this.#inUse.size
  }

  get hasSeat(): boolean {
    return this.#freeSeatCount > 0
  }

  /** False when there are enough readers with the largest slabs. Who was let in calls `leaveSeat`. */
  takeSeat(): boolean {
    if (this.#freeSeatCount === 0) return false
    this.#freeSeatCount--
    return true
  }

  leaveSeat(): void {
    this.#freeSeatCount++
    assert(this.#freeSeatCount <= seatCount)
  }

  /** A slab of at least `lengthBytes` for a reader, who calls `leave`. */
  take(lengthBytes: number): Slab {
    const found = this.#pool.tryTake(lengthBytes) ?? this.spare?.tryTake(lengthBytes)
    const bytes = found ?? this.#pool.take(lengthBytes)
    const slab = new Slab(bytes)
    assert(!this.#inUse.has(bytes.buffer))
    this.#inUse.set(bytes.buffer, slab)
    return slab
  }

  /** Nothing more is read into the slab; what was read stays as long as somebody holds it. */
  leave(slab: Slab): void {
    assert(!slab.isCounted)
    slab.isCounted = true
    if (slab.keeps === 0) this.#budget.takeAnyway(slab.bytes.length)
    this.#drop(slab)
  }

  /** Keeps what `view` shows as it is until `release`. Memory that is not a slab's needs no keeping. */
  hold(view: Buffer): void {
    const slab = this.#inUse.get(view.buffer)
    if (slab) slab.holds++
  }

  release(view: Buffer): void {
    const slab = this.#inUse.get(view.buffer)
    if (slab) this.#drop(slab)
  }

  /** The slab that `view` shows a part of; none when it is other memory. */
  find(view: Buffer): Slab | undefined {
    return this.#inUse.get(view.buffer)
  }

  /** Holds the slab for somebody who is no client: as long as there is one, it does not count for the clients. */
  keep(slab: Slab): void {
    if (slab.keeps === 0 && slab.isCounted) this.#budget.giveBack(slab.bytes.length)
    slab.keeps++
    slab.holds++
  }

  letGo(slab: Slab): void {
    slab.keeps--
    assert(slab.keeps >= 0)
    if (slab.keeps === 0 && slab.isCounted) this.#budget.takeAnyway(slab.bytes.length)
    this.#drop(slab)
  }

  /** Bytes of memory that `views` keep and no slab accounts for. Views of one buffer in several requests are counted in each: never too little. */
  strangeBytesOf(views: readonly Buffer[]): number {
    let lengthBytes = 0
    for (const view of views) {
      if (!this.#inUse.has(view.buffer)) lengthBytes += view.buffer.byteLength
    }
    return lengthBytes
  }

  #drop(slab: Slab): void {
    slab.holds--
    assert(slab.holds >= 0)
    if (slab.holds > 0) return
    assert(slab.isCounted)
    this.#inUse.delete(slab.bytes.buffer)
    this.#budget.giveBack(slab.bytes.length)
    assert(slab.keeps === 0)
    if (!slab.isSealed && !this.#pool.give(slab.bytes)) this.spare?.give(slab.bytes)
  }
}
