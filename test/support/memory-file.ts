// A file in memory that keeps every promise of a disk file and fails never: for parsers, which want thousands of files.
import type { DiskFile } from '../../src/core/disk.js'

export class MemoryFile implements DiskFile {
  readonly isFixedSize = false
  #bytes: Buffer

  constructor(bytes: Buffer = Buffer.alloc(0)) {
    this.#bytes = Buffer.from(bytes)
  }

  /** A copy of what is in it. */
  get bytes(): Buffer {
    return Buffer.from(this.#bytes)
  }

  async sizeBytes(): Promise<number> {
    return this.#bytes.length
  }

  readNow(target: Buffer, offset: number): number {
    return this.#bytes.copy(target, 0, Math.min(offset, this.#bytes.length))
  }

  async read(target: Buffer, offset: number): Promise<number> {
    return this.readNow(target, offset)
  }

  writeNow(parts: readonly Buffer[], offset: number): number {
    const added = Buffer.concat(parts)
    const end = offset + added.length
    if (end > this.#bytes.length) {
      const grown = Buffer.alloc(end)
      this.#bytes.copy(grown)
      this.#bytes = grown
    }
    added.copy(this.#bytes, offset)
    return added.length
  }

  async write(parts: readonly Buffer[], offset: number): Promise<number> {
    return this.writeNow(parts, offset)
  }

  async sync(): Promise<void> {}

  async punch(offset: number, lengthBytes: number): Promise<boolean> {
    this.#bytes.fill(0, Math.min(offset, this.#bytes.length), offset + lengthBytes)
    return true
  }

  async truncate(sizeBytes: number): Promise<void> {
    const cut = Buffer.alloc(sizeBytes)
    this.#bytes.copy(cut)
    this.#bytes = cut
  }

  async close(): Promise<void> {}
}
