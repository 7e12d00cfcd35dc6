// Bytes into stores: finds the chunks of a range, writes in place what nothing else refers to, everything else to new chunks.
//
// Invariants: a write that changes the map is written whole before the map changes, so a failure (ENOSPC, EIO) leaves the old content there and
// nothing half done; what a new chunk holds beyond the write is the old content or zeroes, never old bytes of the place; no write makes the file end within
// a sector, because a crash that loses the length of the next one would then cut that sector. The caller (the engine) lets
// no two writes that touch the same chunk be under way together. A call that returns undefined is done.
import assert from 'node:assert/strict'
import type { DiskFile } from '../core/disk.js'
import { sectorBytes, wouldBlock } from '../core/disk.js'
import { limits } from '../core/limits.js'
import type { ChunkAllocator } from './chunk-allocator.js'
import type { Committer } from './committer.js'
import { readAtOnce, readFully, sliceBytes } from './disk-io.js'
import type { Store } from './group-state.js'
import { recordBytes } from './records.js'
import { poolFull, type Room } from './room.js'
import {
  addFresh,
  addPart,
  advance,
  type FreshChunk,
  joinCopy,
  joinTail,
  tailBehind,
  type WritePlan,
} from './write-plan.js'

export type WritePathOptions = {
  readonly file: DiskFile
  readonly allocator: ChunkAllocator
  readonly committer: Committer
  readonly room: Room
  /** A chunk of them. */
  readonly zeroes: Buffer
  readonly mutants: ReadonlySet<string>
}

export class WritePath {
  readonly #file: DiskFile
  readonly #chunkBytes: number
  readonly #allocator: ChunkAllocator
  readonly #committer: Committer
  readonly #room: Room
  readonly #zeroes: Buffer
  readonly #writesInPlaceAlways: boolean
  readonly #forgetsZeroFill: boolean
  /** Places taken by writes that are not in a map yet. */
  #heldCount = 0

  constructor(options: WritePathOptions) {
    this.#file = options.file
    this.#chunkBytes = options.zeroes.length
    this.#allocator = options.allocator
    this.#committer = options.committer
    this.#room = options.room
    this.#zeroes = options.zeroes
    this.#writesInPlaceAlways = options.mutants.has('inplace-on-shared')
    this.#forgetsZeroFill = options.mutants.has('forget-zero-fill')
  }

  get heldCount(): number {
    return this.#heldCount
  }

  /** Replaces the bytes from `offset` on by `parts`, which it keeps until it settles. Rejects or throws with the errno and nothing changed in the map. */
  write(
    store: Store,
    offset: number,
    lengthBytes: number,
    parts: readonly Buffer[],
  ): Promise<void> | undefined {
    const chunkBytes = this.#chunkBytes
    const chunk = Math.floor(offset / chunkBytes)
    const inner = offset - chunk * chunkBytes
    try {
      if (inner + lengthBytes <= chunkBytes && (inner + lengthBytes) % sectorBytes === 0) {
        const place = this.#ownPlace(store, chunk)
        if (place !== 0 && this.#file.writeNow(parts, place * chunkBytes + inner) === lengthBytes) {
          this.#committer.dataWritten()
          return undefined
        }
      }
      return this.#writePlanned(store, offset, lengthBytes, parts)
    } catch (error) {
      if (!this.#room.mayComeFor(error)) throw error
      return this.#writeAfterReclaim(store, offset, lengthBytes, parts)
    }
  }

  /** The chunk's place when it may be written in place, else 0. */
  #ownPlace(store: Store, chunk: number): number {
    if (this.#writesInPlaceAlways) return store.map.get(chunk)
    const page = store.map.ownPage(chunk)
    if (page === undefined) return 0
    const place = page.entries[chunk % page.entries.length] as number
    return place !== 0 && this.#allocator.count(place) === 1 ? place : 0
  }

  #writePlanned(
    store: Store,
    offset: number,
    lengthBytes: number,
    parts: readonly Buffer[],
  ): Promise<void> | undefined {
    const plan = this.#plan(store, offset, lengthBytes, parts)
    if (plan === undefined) return this.#writeAfterReclaim(store, offset, lengthBytes, parts)
    try {
      if (this.#copyNow(plan) && this.#writeNow(plan)) {
        this.#install(plan)
        return undefined
      }
    } catch (error) {
      this.#abandon(plan)
      throw error
    }
    return this.#finishOrRetry(plan, offset, lengthBytes, parts)
  }

  /** Finds or takes the place of every chunk; undefined when the pool or the journal has no room now. */
  #plan(
    store: Store,
    offset: number,
    lengthBytes: number,
    parts: readonly Buffer[],
  ): WritePlan | undefined {
    const chunkBytes = this.#chunkBytes
    const plan: WritePlan = {
      store,
      fresh: [],
      freshWrites: [],
      inPlaceWrites: [],
      tail: tailBehind(0),
    }
    for (let done = 0; done < lengthBytes; ) {
      const chunk = Math.floor((offset + done) / chunkBytes)
      const from = offset + done - chunk * chunkBytes
      const pieceBytes = Math.min(chunkBytes - from, lengthBytes - done)
      const piece = pieceBytes === lengthBytes ? parts : sliceBytes(parts, done, done + pieceBytes)
      done += pieceBytes
      const own = this.#ownPlace(store, chunk)
      if (own !== 0) {
        addPart(plan.inPlaceWrites, own * chunkBytes + from, piece, pieceBytes)
        plan.tail = tailBehind(own * chunkBytes + from + pieceBytes)
        continue
      }
      const place = this.#allocator.allocate()
      if (place === 0) {
        this.#abandon(plan)
        return undefined
      }
      this.#heldCount++
      plan.fresh.push(
        this.#freshChunk(store, { chunk, place, from, end: from + pieceBytes, piece }),
      )
    }
    if (
      plan.fresh.length > 0 &&
      !this.#committer.hasRoom(plan.fresh.length * recordBytes, limits.journalReserveBytes)
    ) {
      this.#abandon(plan)
      return undefined
    }
    for (const fresh of plan.fresh) if (fresh.copyFrom === 0) addFresh(plan, fresh, chunkBytes)
    return plan
  }

  #freshChunk(
    store: Store,
    piece: {
      readonly chunk: number
      readonly place: number
      readonly from: number
      readonly end: number
      readonly piece: readonly Buffer[]
    },
  ): FreshChunk {
    const { chunk, place, from, end } = piece
    const isWhole = from === 0 && end === this.#chunkBytes
    const copyFrom = isWhole ? 0 : store.map.get(chunk)
    if (isWhole || copyFrom !== 0) return { chunk, place, from, end, parts: piece.piece, copyFrom }
    if (!this.#allocator.isStale(place) || this.#forgetsZeroFill) {
      // Whole sectors: the file may end here.
      const fillBytes = tailBehind(end).lengthBytes
      const parts =
        fillBytes === 0 ? piece.piece : [...piece.piece, this.#zeroes.subarray(0, fillBytes)]
      return { chunk, place, from, end: end + fillBytes, parts, copyFrom }
    }
    const parts = [
      this.#zeroes.subarray(0, from),
      ...piece.piece,
      this.#zeroes.subarray(end),
    ].filter((part) => part.length > 0)
    return { chunk, place, from: 0, end: this.#chunkBytes, parts, copyFrom }
  }

  /** Reads what partly written shared chunks and the last sector held; false when the medium is needed for one. */
  #copyNow(plan: WritePlan): boolean {
    const chunkBytes = this.#chunkBytes
    for (const fresh of plan.fresh) {
      if (fresh.copyFrom === 0) continue
      const old = Buffer.allocUnsafe(chunkBytes)
      if (readAtOnce(this.#file, old, fresh.copyFrom * chunkBytes) < chunkBytes) return false
      joinCopy(plan, fresh, old)
    }
    if (plan.tail.lengthBytes === 0) return true
    const tail = Buffer.allocUnsafe(plan.tail.lengthBytes)
    if (readAtOnce(this.#file, tail, plan.tail.offset) < tail.length) return false
    joinTail(plan, tail)
    return true
  }

  async #copyRest(plan: WritePlan): Promise<void> {
    const chunkBytes = this.#chunkBytes
    for (const fresh of plan.fresh) {
      if (fresh.copyFrom === 0) continue
      const old = Buffer.allocUnsafe(chunkBytes)
      await readFully(this.#file, old, fresh.copyFrom * chunkBytes)
      joinCopy(plan, fresh, old)
    }
    if (plan.tail.lengthBytes === 0) return
    const tail = Buffer.allocUnsafe(plan.tail.lengthBytes)
    await readFully(this.#file, tail, plan.tail.offset)
    joinTail(plan, tail)
  }

  /** Writes as much as can be written at once; true when that was all. New chunks come first: a full disk is met before anything old changes. */
  #writeNow(plan: WritePlan): boolean {
    for (const writes of [plan.freshWrites, plan.inPlaceWrites]) {
      for (let write = writes[0]; write !== undefined; write = writes[0]) {
        const count = this.#file.writeNow(write.parts, write.offset)
        if (count === wouldBlock) return false
        advance(writes, count)
      }
    }
    return true
  }

  async #finishOrRetry(
    plan: WritePlan,
    offset: number,
    lengthBytes: number,
    parts: readonly Buffer[],
  ): Promise<void> {
    try {
      await this.#finish(plan)
    } catch (error) {
      if (!this.#room.mayComeFor(error)) throw error
      await this.#writeAfterReclaim(plan.store, offset, lengthBytes, parts)
    }
  }

  async #finish(plan: WritePlan): Promise<void> {
    try {
      await this.#copyRest(plan)
      for (const writes of [plan.freshWrites, plan.inPlaceWrites]) {
        for (let write = writes[0]; write !== undefined; write = writes[0]) {
          advance(writes, await this.#file.write(write.parts, write.offset))
        }
      }
    } catch (error) {
      this.#abandon(plan)
      throw error
    }
    this.#install(plan)
  }

  #install(plan: WritePlan): void {
    this.#committer.dataWritten()
    if (plan.fresh.length === 0) return
    assert(!plan.store.isDeleted)
    this.#heldCount -= plan.fresh.length
    for (const fresh of plan.fresh) {
      plan.store.map.set(fresh.chunk, fresh.place)
      this.#committer.records.set(plan.store.id, fresh.chunk, fresh.place)
    }
    this.#committer.changed()
  }

  #abandon(plan: WritePlan): void {
    this.#heldCount -= plan.fresh.length
    for (const fresh of plan.fresh) this.#allocator.free(fresh.place, true)
    // In-place parts may be written in part: the next flush syncs them.
    this.#committer.dataWritten()
  }

  /** The pool had no room: once more when all that was freed has come back. */
  async #writeAfterReclaim(
    store: Store,
    offset: number,
    lengthBytes: number,
    parts: readonly Buffer[],
  ): Promise<void> {
    await this.#room.reclaim()
    const plan = this.#plan(store, offset, lengthBytes, parts)
    if (plan === undefined) throw poolFull()
    await this.#finish(plan)
  }
}
