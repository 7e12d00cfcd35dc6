// A run of bytes that grows at its end and is let go of at its front, in blocks of memory that are used again: no allocation for what
// is appended in the steady state. A place in it is a number that never changes its meaning.
//
// Invariant: bytes between the released front and the end stay where they are. A block is used again only when all of it was released,
// and never when somebody outside may still look at its old bytes (`seal`, `forget`).
import assert from 'node:assert/strict'
import { linkLimits } from './limits.js'

const { blockBytes, burstBlockCountMax, freeBlockCountMax } = linkLimits

type Block = { readonly bytes: Buffer; isSealed: boolean }

export class ByteLog {
  /** By number: place / blockBytes. */
  readonly #blocks = new Map<number, Block>()
  readonly #free: Buffer[] = []
  #start = 0
  #end = 0

  /** Memory in use, and kept for use. */
  get memoryBytes(): number {
    return (this.#blocks.size + this.#free.length) * blockBytes
  }

  /** True when more memory is kept for use than usual: `trim` gives it back. */
  get isAmple(): boolean {
    return this.#free.length > freeBlockCountMax
  }

  trim(): void {
    this.#free.splice(0, Math.max(0, this.#free.length - freeBlockCountMax))
  }

  /** Room for `lengthBytes` behind everything there is; answers its place. */
  append(lengthBytes: number): number {
    assert(lengthBytes > 0)
    const place = this.#end
    this.#end += lengthBytes
    const last = Math.floor((this.#end - 1) / blockBytes)
    for (let number = Math.floor(place / blockBytes); number <= last; number++)
      if (!this.#blocks.has(number)) this.#blocks.set(number, this.#takeBlock())
    return place
  }

  write(place: number, source: Buffer): void {
    assert(place >= this.#start)
    assert(place + source.length <= this.#end)
    let at = 0
    while (at < source.length) {
      const inBlock = (place + at) % blockBytes
      at += source.copy(this.#blockAt(place + at).bytes, inBlock, at)
    }
  }

  /** Adds views of the bytes from `place` to `end` to `parts`. */
  view(place: number, end: number, parts: Buffer[]): void {
    assert(place >= this.#start)
    assert(end <= this.#end)
    for (let at = place; at < end; ) {
      const inBlock = at % blockBytes
      const lengthBytes = Math.min(end - at, blockBytes - inBlock)
      parts.push(this.#blockAt(at).bytes.subarray(inBlock, inBlock + lengthBytes))
      at += lengthBytes
    }
  }

  /** Nobody looks at what is before `place` any more. */
  release(place: number): void {
    assert(place >= this.#start)
    assert(place <= this.#end)
    const first = Math.floor(this.#start / blockBytes)
    this.#start = place
    // The block that the end is in goes on being filled.
    const end = Math.floor(place / blockBytes)
    for (let number = first; number < end; number++) this.#giveBlock(number)
  }

  /** Somebody may look at the bytes that are there now for longer than they are held: their blocks are not used again. */
  seal(): void {
    for (const block of this.#blocks.values()) block.isSealed = true
  }

  /** Lets go of everything. Views of it stay as they are. */
  forget(): void {
    this.#blocks.clear()
    this.#end = Math.ceil(this.#end / blockBytes) * blockBytes
    this.#start = this.#end
  }

  #blockAt(place: number): Block {
    const block = this.#blocks.get(Math.floor(place / blockBytes))
    assert(block !== undefined)
    return block
  }

  #takeBlock(): Block {
    return { bytes: this.#free.pop() ?? Buffer.allocUnsafeSlow(blockBytes), isSealed: false }
  }

  #giveBlock(number: number): void {
    const block = this.#blocks.get(number)
    if (block === undefined) return
    this.#blocks.delete(number)
    if (!block.isSealed && this.#free.length < burstBlockCountMax) this.#free.push(block.bytes)
  }
}
