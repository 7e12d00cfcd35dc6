// Zeroes in stores: whole chunks leave the map and give their space back, the edges of a range are written, and so is everything that must stay allocated.
//
// Invariants: a hole is neither written nor unmapped again; the edges are zeroes before the chunks between them leave the map; a request for very many
// zeroes lets everybody else have a turn. A call that returns undefined is done.
import type { Clock } from '../core/clock.js'
import { limits } from '../core/limits.js'
import { MiB } from '../core/units.js'
import type { Committer } from './committer.js'
import type { Store } from './group-state.js'
import { runRecordBytes } from './records.js'
import { poolFull, type Room } from './room.js'
import type { WritePath } from './write-path.js'

/** Zeroes written in one turn of the event loop; the rest waits for everybody else's turn. A request may ask for a whole volume of them. */
const zeroBytesPerTurn = MiB

export class ZeroPath {
  readonly #chunkBytes: number
  readonly #writes: WritePath
  readonly #committer: Committer
  readonly #room: Room
  readonly #clock: Clock
  readonly #zeroes: Buffer

  constructor(options: {
    readonly writes: WritePath
    readonly committer: Committer
    readonly room: Room
    readonly clock: Clock
    /** A chunk of them. */
    readonly zeroes: Buffer
  }) {
    this.#chunkBytes = options.zeroes.length
    this.#writes = options.writes
    this.#committer = options.committer
    this.#room = options.room
    this.#clock = options.clock
    this.#zeroes = options.zeroes
  }

  /** Makes a range read as zeroes; whole chunks give their space back unless `mayUnmap` is false. */
  zero(
    store: Store,
    offset: number,
    lengthBytes: number,
    mayUnmap: boolean,
  ): Promise<void> | undefined {
    const chunkBytes = this.#chunkBytes
    const end = offset + lengthBytes
    if (!mayUnmap) return this.#writeZeroes(store, offset, end)
    const first = Math.ceil(offset / chunkBytes)
    const last =
      end === store.sizeBytes ? Math.ceil(end / chunkBytes) : Math.floor(end / chunkBytes)
    if (first > last) return this.#zeroEdge(store, offset, end)
    const tailFrom = Math.max(offset, last * chunkBytes)
    const zeroTail = (): Promise<void> | undefined => {
      const tail = this.#zeroEdge(store, tailFrom, end)
      return tail === undefined
        ? this.#unmap(store, first, last)
        : tail.then(() => this.#unmap(store, first, last))
    }
    const head = this.#zeroEdge(store, offset, Math.min(end, first * chunkBytes))
    return head === undefined ? zeroTail() : head.then(zeroTail)
  }

  /** Part of one chunk: nothing to do in a hole. */
  #zeroEdge(store: Store, offset: number, end: number): Promise<void> | undefined {
    if (offset >= end || store.map.get(Math.floor(offset / this.#chunkBytes)) === 0)
      return undefined
    return this.#writes.write(store, offset, end - offset, [this.#zeroes.subarray(0, end - offset)])
  }

  #unmap(store: Store, first: number, end: number): Promise<void> | undefined {
    if (store.map.isHole(first, end)) return undefined
    const lengthBytes = runRecordBytes({ first, end })
    if (!this.#committer.hasRoom(lengthBytes, limits.journalReserveBytes)) {
      return this.#room.reclaim().then(() => {
        if (!this.#committer.hasRoom(lengthBytes, limits.journalReserveBytes)) throw poolFull()
        this.#unmapNow(store, first, end)
      })
    }
    this.#unmapNow(store, first, end)
    return undefined
  }

  #unmapNow(store: Store, first: number, end: number): void {
    store.map.unmap(first, end)
    this.#committer.records.unmap(store.id, first, end)
    this.#committer.changed()
  }

  async #writeZeroes(store: Store, offset: number, end: number): Promise<void> {
    for (let at = offset; at < end; ) {
      const pieceEnd = Math.min(end, (Math.floor(at / zeroBytesPerTurn) + 1) * zeroBytesPerTurn)
      await this.#writes.write(store, at, pieceEnd - at, this.#zeroParts(pieceEnd - at))
      at = pieceEnd
      if (at < end) await new Promise<void>((resolve) => this.#clock.defer(resolve))
    }
  }

  #zeroParts(lengthBytes: number): readonly Buffer[] {
    const parts: Buffer[] = []
    for (let leftBytes = lengthBytes; leftBytes > 0; leftBytes -= this.#chunkBytes)
      parts.push(leftBytes < this.#chunkBytes ? this.#zeroes.subarray(0, leftBytes) : this.#zeroes)
    return parts
  }
}
