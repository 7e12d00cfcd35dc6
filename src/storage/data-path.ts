// Bytes in and out of stores: the three ways, put together, and the whole new chunks that operations need besides.
//
// Invariant: a place that is taken is counted until a map refers to it or it is free again, whoever took it.
import type { Clock } from '../core/clock.js'
import type { DiskFile } from '../core/disk.js'
import type { ChunkAllocator } from './chunk-allocator.js'
import type { Committer } from './committer.js'
import type { Store } from './group-state.js'
import { ReadPath } from './read-path.js'
import type { Reclaimer } from './reclaimer.js'
import { poolFull, Room } from './room.js'
import { WritePath } from './write-path.js'
import { advance } from './write-plan.js'
import { ZeroPath } from './zero-path.js'

export type DataPathOptions = {
  readonly file: DiskFile
  readonly chunkBytes: number
  readonly allocator: ChunkAllocator
  readonly reclaimer: Reclaimer
  readonly committer: Committer
  readonly clock: Clock
  /** Resolves when no checkpoint is under way; never rejects. */
  readonly checkpointDone: () => Promise<void>
  readonly mutants: ReadonlySet<string>
}

export class DataPath {
  readonly reads: ReadPath
  readonly writes: WritePath
  readonly zeroes: ZeroPath
  readonly #room: Room
  readonly #file: DiskFile
  readonly #chunkBytes: number
  readonly #allocator: ChunkAllocator
  readonly #committer: Committer
  /** Places of chunks that are prepared, and neither installed nor dropped. */
  #preparedCount = 0

  constructor(options: DataPathOptions) {
    const { file, chunkBytes, allocator, committer, mutants } = options
    this.#file = file
    this.#chunkBytes = chunkBytes
    this.#allocator = allocator
    this.#committer = committer
    const room = new Room(options)
    const zeroes = Buffer.alloc(chunkBytes)
    this.#room = room
    this.reads = new ReadPath(options)
    this.writes = new WritePath({ file, allocator, committer, room, zeroes, mutants })
    const { writes } = this
    this.zeroes = new ZeroPath({ writes, committer, room, clock: options.clock, zeroes })
  }

  /** Places taken that no map refers to yet. */
  get heldCount(): number {
    return this.writes.heldCount + this.#preparedCount
  }

  /** A new chunk with `chunk`'s bytes of `base`, those of `[from, end)` replaced by `source`'s, or by zeroes. For operations; `install` or `drop` it. */
  async prepareChunk(options: {
    readonly base: Store
    readonly chunk: number
    readonly from: number
    readonly end: number
    readonly source?: Store
  }): Promise<{ readonly place: number; readonly install: () => void; readonly drop: () => void }> {
    const { base, chunk, from, end, source } = options
    const bytes = Buffer.alloc(this.#chunkBytes)
    await this.reads.read(base, chunk * this.#chunkBytes, bytes)
    bytes.fill(0, from, end)
    if (source !== undefined)
      await this.reads.read(source, chunk * this.#chunkBytes + from, bytes.subarray(from, end))
    const place = await this.#allocateOrReclaim()
    const drop = (): void => {
      this.#preparedCount--
      this.#allocator.free(place, true)
    }
    try {
      await this.#writeAll(bytes, place * this.#chunkBytes)
    } catch (error) {
      drop()
      throw error
    }
    const install = (): void => {
      this.#preparedCount--
      base.map.set(chunk, place)
      this.#committer.records.set(base.id, chunk, place)
    }
    return { place, install, drop }
  }

  /** Resolves when what was freed before the call has come back. */
  reclaim(): Promise<void> {
    return this.#room.reclaim()
  }

  async #allocateOrReclaim(): Promise<number> {
    let place = this.#allocator.allocate()
    if (place === 0) {
      await this.#room.reclaim()
      place = this.#allocator.allocate()
    }
    if (place === 0) throw poolFull()
    this.#preparedCount++
    return place
  }

  async #writeAll(bytes: Buffer, offset: number): Promise<void> {
    const writes = [{ offset, parts: [bytes] as readonly Buffer[], lengthBytes: bytes.length }]
    for (let write = writes[0]; write !== undefined; write = writes[0]) {
      advance(writes, await this.#file.write(write.parts, write.offset))
    }
    this.#committer.dataWritten()
  }
}
