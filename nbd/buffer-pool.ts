// Free buffers, by size, for the next one who needs some: the system hands memory out anew for more than it costs to fill.
//
// Invariant: what is here is nobody's, and no more than the pool was made for.

/** Room for the header in front of the data, so that a power of two of data fits its class. */
const headRoomBytes = 4096
const smallestClassBytes = 16 * 1024

export class BufferPool {
  readonly #pooledBytesMax: number
  readonly #free = new Map<number, Buffer[]>()
  #pooledBytes = 0

  constructor(pooledBytesMax: number) {
    this.#pooledBytesMax = pooledBytesMax
  }

  get pooledBytes(): number {
    return this.#pooledBytes
  }

  /** The size of the buffer that `take` would give. */
  classBytesOf(lengthBytes: number): number {
    let classBytes = smallestClassBytes
    while (classBytes + headRoomBytes < lengthBytes) classBytes *= 2
    return classBytes + headRoomBytes
  }

  /** A buffer of at least `lengthBytes`, with whatever was in it before. Last in, first out: the warmest. */
  take(lengthBytes: number): Buffer {
    return this.tryTake(lengthBytes) ?? Buffer.allocUnsafeSlow(this.classBytesOf(lengthBytes))
  }

  /** The same when there is one. */
  tryTake(lengthBytes: number): Buffer | undefined {
    const found = this.#free.get(this.classBytesOf(lengthBytes))?.pop()
    if (found !== undefined) this.#pooledBytes -= found.length
    return found
  }

  /** The caller forgets the buffer: nothing may write to it or read it any more. False when there is no place for it. */
  give(buffer: Buffer): boolean {
    if (this.#pooledBytes + buffer.length > this.#pooledBytesMax) return false
    this.#pooledBytes += buffer.length
    const free = this.#free.get(buffer.length)
    if (free) free.push(buffer)
    else this.#free.set(buffer.length, [buffer])
    return true
  }
}
