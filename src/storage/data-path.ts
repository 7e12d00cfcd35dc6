// Bytes in and out of stores: finds the chunks of a range, writes in place what nothing else refers to, everything else to new chunks.
//
// Invariants: a write that changes the map is written whole before the map changes, so a failure (ENOSPC, EIO) leaves the old content there and
// nothing half done; what a new chunk holds beyond the write is the old content or zeroes, never old bytes of the place; no write makes the file end within
// a sector, because a crash that loses the length of the next one would then cut that sector. The caller (the engine) lets
// no two writes that touch the same chunk be under way together. A call that returns undefined is done.
import assert from 'node:assert/strict'
import type { Clock } from '../core/clock.js'
import type { DiskFile } from '../core/disk.js'
import { sectorBytes, wouldBlock } from '../core/disk.js'
import { LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import { MiB } from '../core/units.js'
import type { ChunkAllocator } from './chunk-allocator.js'
import type { Committer } from './committer.js'
import { readAtOnce, readFully, skipBytes, sliceBytes } from './disk-io.js'
import type { Store } from './group-state.js'
import type { Reclaimer } from './reclaimer.js'
import { addPart, type FreshChunk, tailBehind, type WritePlan } from './write-plan.js'

const recordBytes = 16
const readsInFlightMax = 16
/** Zeroes written in one turn of the event loop; the rest waits for everybody else's turn. A request may ask for a whole volume of them. */
const zeroBytesPerTurn = MiB

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
  readonly #file: DiskFile
  readonly #chunkBytes: number
  readonly #allocator: ChunkAllocator
  readonly #reclaimer: Reclaimer
  readonly #committer: Committer
  readonly #clock: Clock
  readonly #checkpointDone: () => Promise<void>
  readonly #zeroes: Buffer
  readonly #writesInPlaceAlways: boolean
  readonly #forgetsZeroFill: boolean
  /** Places taken by writes that are not in a map yet. */
  #heldCount = 0

  constructor(options: DataPathOptions) {
    this.#file = options.file
    this.#chunkBytes = options.chunkBytes
    this.#allocator = options.allocator
    this.#reclaimer = options.reclaimer
    this.#committer = options.committer
    this.#clock = options.clock
    this.#checkpointDone = options.checkpointDone
    this.#zeroes = Buffer.alloc(options.chunkBytes)
    this.#writesInPlaceAlways = options.mutants.has('inplace-on-shared')
    this.#forgetsZeroFill = options.mutants.has('forget-zero-fill')
  }

  get heldCount(): number {
    return this.#heldCount
  }

  /** Fills `target` with the store's bytes from `offset` on. */
  read(store: Store, offset: number, target: Buffer): Promise<void> | undefined {
    const chunkBytes = this.#chunkBytes
    assert(offset + target.length <= Math.ceil(store.sizeBytes / chunkBytes) * chunkBytes)
    let rest: { readonly target: Buffer; readonly offset: number }[] | undefined
    for (let done = 0; done < target.length; ) {
      const chunk = Math.floor((offset + done) / chunkBytes)
      const inner = offset + done - chunk * chunkBytes
      const place = store.map.get(chunk)
      let runBytes = Math.min(chunkBytes - inner, target.length - done)
      for (let next = 1; done + runBytes < target.length; next++) {
        if (store.map.get(chunk + next) !== (place === 0 ? 0 : place + next)) break
        runBytes += Math.min(chunkBytes, target.length - done - runBytes)
      }
      const slice = runBytes === target.length ? target : target.subarray(done, done + runBytes)
      done += runBytes
      if (place === 0) {
        slice.fill(0)
        continue
      }
      const fileOffset = place * chunkBytes + inner
      const got = readAtOnce(this.#file, slice, fileOffset)
      if (got === runBytes) continue
      rest ??= []
      rest.push({ target: slice.subarray(got), offset: fileOffset + got })
    }
    return rest === undefined ? undefined : this.#readRest(rest)
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
      if (!this.#mayRetry(error)) throw error
      return this.#writeAfterReclaim(store, offset, lengthBytes, parts)
    }
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
    await this.read(base, chunk * this.#chunkBytes, bytes)
    bytes.fill(0, from, end)
    if (source !== undefined)
      await this.read(source, chunk * this.#chunkBytes + from, bytes.subarray(from, end))
    const place = await this.#allocateOrReclaim()
    const drop = (): void => {
      this.#heldCount--
      this.#allocator.free(place, true)
    }
    try {
      await this.#writeAll(bytes, place * this.#chunkBytes)
    } catch (error) {
      drop()
      throw error
    }
    const install = (): void => {
      this.#heldCount--
      base.map.set(chunk, place)
      this.#committer.records.set(base.id, chunk, place)
    }
    return { place, install, drop }
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

  async #readRest(
    rest: readonly { readonly target: Buffer; readonly offset: number }[],
  ): Promise<void> {
    const epoch = this.#reclaimer.beginRead()
    let next = 0
    let failure: unknown
    // Every reader ends before this settles: the buffer is the caller's again then.
    const reader = async (): Promise<void> => {
      for (
        let piece = rest[next++];
        piece !== undefined && failure === undefined;
        piece = rest[next++]
      ) {
        await readFully(this.#file, piece.target, piece.offset).catch((error: unknown) => {
          failure = error
        })
      }
    }
    await Promise.all(Array.from({ length: Math.min(readsInFlightMax, rest.length) }, reader))
    this.#reclaimer.endRead(epoch)
    if (failure !== undefined) throw failure
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
      if (!this.#mayRetry(error)) throw error
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

  #mayRetry(error: unknown): boolean {
    return (error as { code?: unknown }).code === 'ENOSPC' && this.#hasReclaimable
  }

  get #hasReclaimable(): boolean {
    return this.#reclaimer.isWorking || this.#reclaimer.hasUncommitted || !this.#committer.isClean
  }

  /** The pool had no room: once more when all that was freed has come back. */
  async #writeAfterReclaim(
    store: Store,
    offset: number,
    lengthBytes: number,
    parts: readonly Buffer[],
  ): Promise<void> {
    await this.reclaim()
    const plan = this.#plan(store, offset, lengthBytes, parts)
    if (plan === undefined) throw poolFull()
    await this.#finish(plan)
  }

  /** Resolves when what was released before the call is free again, as far as reads under way allow, and the journal has all the room it can get. */
  async reclaim(): Promise<void> {
    await this.#committer.commit()
    await this.#checkpointDone()
    await this.#reclaimer.drain()
  }

  async #allocateOrReclaim(): Promise<number> {
    let place = this.#allocator.allocate()
    if (place === 0) {
      await this.reclaim()
      place = this.#allocator.allocate()
    }
    if (place === 0) throw poolFull()
    this.#heldCount++
    return place
  }

  async #writeAll(bytes: Buffer, offset: number): Promise<void> {
    const writes = [{ offset, parts: [bytes] as readonly Buffer[], lengthBytes: bytes.length }]
    for (let write = writes[0]; write !== undefined; write = writes[0]) {
      advance(writes, await this.#file.write(write.parts, write.offset))
    }
    this.#committer.dataWritten()
  }

  /** Part of one chunk: nothing to do in a hole. */
  #zeroEdge(store: Store, offset: number, end: number): Promise<void> | undefined {
    if (offset >= end || store.map.get(Math.floor(offset / this.#chunkBytes)) === 0)
      return undefined
    return this.write(store, offset, end - offset, [this.#zeroes.subarray(0, end - offset)])
  }

  #unmap(store: Store, first: number, end: number): Promise<void> | undefined {
    if (store.map.isHole(first, end)) return undefined
    if (!this.#committer.hasRoom(recordBytes, limits.journalReserveBytes)) {
      return this.reclaim().then(() => {
        if (!this.#committer.hasRoom(recordBytes, limits.journalReserveBytes)) throw poolFull()
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
      await this.write(store, at, pieceEnd - at, this.#zeroParts(pieceEnd - at))
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

function joinCopy(plan: WritePlan, fresh: FreshChunk, old: Buffer): void {
  const parts = [old.subarray(0, fresh.from), ...fresh.parts, old.subarray(fresh.end)].filter(
    (part) => part.length > 0,
  )
  addPart(plan.freshWrites, fresh.place * old.length, parts, old.length)
  fresh.copyFrom = 0
}

/** The last write in place goes on to the end of its sector. */
function joinTail(plan: WritePlan, bytes: Buffer): void {
  addPart(plan.inPlaceWrites, plan.tail.offset, [bytes], bytes.length)
  plan.tail = tailBehind(0)
}

function addFresh(plan: WritePlan, fresh: FreshChunk, chunkBytes: number): void {
  addPart(
    plan.freshWrites,
    fresh.place * chunkBytes + fresh.from,
    fresh.parts,
    fresh.end - fresh.from,
  )
}

/** Takes `count` written bytes off the front. */
function advance(
  writes: { offset: number; parts: readonly Buffer[]; lengthBytes: number }[],
  count: number,
): void {
  const write = writes[0]
  assert(write)
  assert(count > 0)
  if (count === write.lengthBytes) {
    writes.shift()
    return
  }
  write.offset += count
  write.lengthBytes -= count
  write.parts = skipBytes(write.parts, count)
}

function poolFull(): LockstepError {
  return new LockstepError(
    'NO_SPACE',
    'the pool has no free chunk or no journal room left',
    'delete a snapshot, or give the pool more space',
  )
}
