// What a resync sends next: a walk over what is dirty, which decides chunk by chunk. No I/O, and no state but where it is.
//
// A chunk that several stores share goes over once: whoever comes first in the order is sent, the others take it from a store that has the same place
// there. That is only cheap, never wrong: when a share leaves the outbox its target becomes exactly as dirty as its source is then, so a source that was
// not equal after all costs another pass.
import assert from 'node:assert/strict'
import { comparePieceBytes, digestBytes } from '../core/entry.js'
import { type ByteRange, byteOffset, type StoreId } from '../core/units.js'
import { resyncLimits } from './resync-limits.js'

export type ResyncStore = {
  readonly id: StoreId
  readonly sizeBytes: number
  readonly isVolume: boolean
}

/** Dirty maps and chunk maps as the planner sees them. Answers about a store that is gone are: nothing is dirty, all are holes. */
export interface ResyncView {
  readonly chunkBytes: number
  /** Longest piece of data, a power of two, when the outbox is too small for the usual ones. */
  readonly pieceBytesMax?: number
  /** Switchable bug: a store offers what was not sent yet. */
  readonly sharesUnsent?: boolean
  /** All stores of the stream, in any order. The same array as long as nothing was created, deleted or resized. */
  stores(): readonly ResyncStore[]
  /** The next run of dirty bytes at or behind `fromOffset`, cut to at most `lengthBytesMax` and at the store's end. */
  nextDirty(
    storeId: StoreId,
    fromOffset: number,
    lengthBytesMax: number,
  ): { readonly offset: number; readonly lengthBytes: number } | undefined
  /** True when a block of the range is dirty. */
  isDirty(storeId: StoreId, offset: number, lengthBytes: number): boolean
  /** True when digests should be compared before the block is sent. */
  isSuspect(storeId: StoreId, offset: number): boolean
  /** The place of one chunk; 0 is a hole. */
  place(storeId: StoreId, chunk: number): number
  /** The end of the holes from `chunk` on, `end` at most: `chunk` itself when that is none. Takes from `look` what it costs, and ends early when nothing is left. */
  holeEnd(storeId: StoreId, chunk: number, end: number, look: { stepsLeft: number }): number
}

export type ShareCopy = {
  readonly sourceId: StoreId
  readonly targetId: StoreId
  readonly range: ByteRange
}

export type ResyncItem =
  /** The bytes as they are when the entry gets its sequence. */
  | {
      readonly kind: 'send'
      readonly storeId: StoreId
      readonly offset: number
      readonly lengthBytes: number
    }
  /** A hole: `mayUnmap`. */
  | {
      readonly kind: 'zero'
      readonly storeId: StoreId
      readonly offset: number
      readonly lengthBytes: number
    }
  /** Digests of pieces. Blocks that differ stay dirty, are suspect no more, and go over in the next pass. */
  | {
      readonly kind: 'compare'
      readonly storeId: StoreId
      readonly offset: number
      readonly lengthBytes: number
    }
  /** Copies of reason `share` in one batch, all to one store, none to a source of another. */
  | { readonly kind: 'share'; readonly copies: readonly ShareCopy[] }

/** What becomes of a dirty chunk. `skip`: another store has it, and it was or will be shared from there. */
type Fate = 'zero' | 'compare' | 'send' | 'skip'

/** One walk over everything that is dirty: volumes first, then snapshots, oldest first. Dirt that appears behind it is for the next pass. */
export class ResyncPass {
  readonly #view: ResyncView
  #known: readonly ResyncStore[] = []
  /** In the order of the walk. */
  #order: readonly ResyncStore[] = []
  #index = -1
  #current: ResyncStore | undefined
  /** Of each store first what can be shared, then the rest. */
  #isSharing = true
  #offset = 0
  /** Where the last shared chunk came from: the next one likely does too. */
  #hint: ResyncStore | undefined
  /** Map entries that may still be looked at in this step. */
  #stepsLeft = 0

  constructor(view: ResyncView) {
    this.#view = view
    this.#takeStores()
    this.#begin(this.#order[0], 0)
  }

  /** The next item; 'pause' when many chunks were looked at without one (let others run, then ask again); undefined at the end. */
  next(): ResyncItem | 'pause' | undefined {
    this.#stepsLeft = resyncLimits.lookupsPerStepMax
    this.#takeStores()
    while (this.#current !== undefined) {
      const item = this.#isSharing ? this.#nextShare(this.#current) : this.#nextPiece(this.#current)
      if (item !== undefined) return item
      if (this.#stepsLeft <= 0) return 'pause'
      if (this.#isSharing) {
        this.#isSharing = false
        this.#offset = 0
      } else this.#begin(this.#order[this.#index + 1], this.#index + 1)
    }
    return undefined
  }

  #begin(store: ResyncStore | undefined, index: number): void {
    this.#current = store
    this.#index = index
    this.#isSharing = this.#order.length > 1
    this.#offset = 0
  }

  /** Stores come and go during a pass: the walk goes on behind where it was. */
  #takeStores(): void {
    const stores = this.#view.stores()
    if (stores === this.#known) return
    this.#known = stores
    this.#order = [...stores].sort(inOrder)
    this.#hint = undefined
    const current = this.#current
    if (current === undefined) return
    const index = this.#order.findIndex((store) => inOrder(store, current) >= 0)
    const found = index < 0 ? undefined : this.#order[index]
    if (found?.id !== current.id) this.#begin(found, index < 0 ? this.#order.length : index)
    else {
      this.#current = found
      this.#index = index
    }
  }

  /** One batch of shares into `target`. */
  #nextShare(target: ResyncStore): ResyncItem | undefined {
    const { chunkBytes } = this.#view
    const runs: { source: ResyncStore; offset: number; end: number }[] = []
    for (;;) {
      const offset = this.#nextDirtyChunk(target)
      if (offset === undefined || this.#stepsLeft <= 0) break
      const source = this.#sourceOf(target, offset / chunkBytes)
      const holeEnd = this.#holeEnd(target, offset / chunkBytes, target.sizeBytes)
      if (holeEnd > offset) {
        this.#offset = holeEnd
        continue
      }
      const end = Math.min(offset + chunkBytes, target.sizeBytes)
      const last = runs.at(-1)
      if (source !== undefined && source !== 'later') {
        if (last !== undefined && last.source.id === source.id && last.end === offset)
          last.end = end
        else if (runs.length === resyncLimits.shareCountMax) break
        else runs.push({ source, offset, end })
      }
      this.#offset = end
    }
    if (runs.length === 0) return undefined
    const copies = runs.map(({ source, offset, end }) => ({
      sourceId: source.id,
      targetId: target.id,
      range: { offset: byteOffset(offset), lengthBytes: end - offset },
    }))
    return { kind: 'share', copies }
  }

  /** Where the next chunk with dirt begins, at or behind the place of the walk. */
  #nextDirtyChunk(target: ResyncStore): number | undefined {
    const { chunkBytes } = this.#view
    const run = this.#view.nextDirty(target.id, this.#offset, chunkBytes)
    return run && run.offset - (run.offset % chunkBytes)
  }

  #nextPiece(target: ResyncStore): ResyncItem | undefined {
    const { chunkBytes } = this.#view
    while (this.#stepsLeft > 0) {
      const zeroBytesMax = resyncLimits.zeroChunkCountMax * chunkBytes
      const run = this.#view.nextDirty(target.id, this.#offset, zeroBytesMax)
      if (run === undefined) return undefined
      assert(run.offset >= this.#offset)
      const runEnd = run.offset + run.lengthBytes
      const fate = this.#fateOf(target, run.offset)
      // A hole is a hole as a whole: zeroes over all of the chunk give it back on the peer too.
      const isHole = fate === 'zero'
      const offset = isHole ? run.offset - (run.offset % chunkBytes) : run.offset
      const { pieceBytesMax } = resyncLimits
      const sendBytesMax = Math.min(pieceBytesMax, this.#view.pieceBytesMax ?? pieceBytesMax)
      const farEnd = Math.min(runEnd, farthest(fate, offset, { sendBytesMax, zeroBytesMax }))
      const end = this.#extend(target, fate, offset, farEnd)
      this.#offset = end
      if (fate !== 'skip')
        return { kind: fate, storeId: target.id, offset, lengthBytes: end - offset }
    }
    return undefined
  }

  /** Up to where chunks share one fate, from a place in the first of them: `limit` at most, except that a hole ends where its chunk does. */
  #extend(target: ResyncStore, fate: Fate, offset: number, limit: number): number {
    const { chunkBytes } = this.#view
    if (fate === 'zero') return this.#holeEnd(target, offset / chunkBytes, limit)
    let chunk = Math.floor(offset / chunkBytes)
    do chunk++
    while (
      chunk * chunkBytes < limit &&
      this.#stepsLeft > 0 &&
      this.#fateOf(target, chunk * chunkBytes) === fate
    )
    const chunkEnd = Math.min(chunk * chunkBytes, target.sizeBytes)
    return fate === 'skip' ? chunkEnd : Math.min(chunkEnd, limit)
  }

  /** The end of a run of holes that begins with a chunk: as far as the chunk with the last byte before `limit`. Pages of holes are passed over as a whole. */
  #holeEnd(target: ResyncStore, chunk: number, limit: number): number {
    const { chunkBytes } = this.#view
    const look = { stepsLeft: Math.max(1, this.#stepsLeft) }
    const end = this.#view.holeEnd(target.id, chunk, Math.ceil(limit / chunkBytes), look)
    this.#stepsLeft = Math.min(this.#stepsLeft - 1, look.stepsLeft)
    return Math.min(end * chunkBytes, target.sizeBytes)
  }

  /** Of the chunk in which `offset` is the first dirty byte. */
  #fateOf(target: ResyncStore, offset: number): Fate {
    this.#stepsLeft--
    const chunk = Math.floor(offset / this.#view.chunkBytes)
    if (this.#view.place(target.id, chunk) === 0) return 'zero'
    if (this.#sourceOf(target, chunk) !== undefined) return 'skip'
    return this.#view.isSuspect(target.id, offset) ? 'compare' : 'send'
  }

  /** The store that `target` can have the chunk from; 'later' when there will be one after digests were compared. */
  #sourceOf(target: ResyncStore, chunk: number): ResyncStore | 'later' | undefined {
    this.#stepsLeft--
    const place = this.#view.place(target.id, chunk)
    if (place === 0) return undefined
    const hint = this.#hint
    if (hint !== undefined && this.#offers(hint, target, chunk, place) === true) return hint
    let isLater = false
    for (const source of this.#order) {
      const offer = this.#offers(source, target, chunk, place)
      if (offer === true) {
        this.#hint = source
        return source
      }
      if (offer === 'later') isLater = true
    }
    return isLater ? 'later' : undefined
  }

  #offers(
    source: ResyncStore,
    target: ResyncStore,
    chunk: number,
    place: number,
  ): boolean | 'later' {
    this.#stepsLeft--
    if (source.id === target.id || this.#view.place(source.id, chunk) !== place) return false
    const { chunkBytes } = this.#view
    const offset = chunk * chunkBytes
    const end = Math.min(source.sizeBytes, target.sizeBytes, offset + chunkBytes)
    // Only whole chunks are shared, or the last one where both end.
    if (end < offset + chunkBytes && source.sizeBytes !== target.sizeBytes) return false
    if (!this.#view.isDirty(source.id, offset, end - offset)) return true
    const dirty = this.#view.nextDirty(source.id, offset, end - offset)
    assert(dirty)
    // Who comes before the target was sent in this pass, unless only its digests were.
    if (inOrder(source, target) > 0) return this.#view.sharesUnsent === true
    return this.#view.isSuspect(source.id, dirty.offset) ? 'later' : true
  }
}

/** Data of an item on the wire: 0 for zeroes and shares. */
export function dataBytesOf(item: ResyncItem): number {
  if (item.kind === 'send') return item.lengthBytes
  return item.kind === 'compare' ? Math.ceil(item.lengthBytes / comparePieceBytes) * digestBytes : 0
}

/** Where an item that begins at `offset` ends at the latest. Pieces end at multiples of their size, so that they cut no chunk in two. */
function farthest(
  fate: Fate,
  offset: number,
  { sendBytesMax, zeroBytesMax }: { readonly sendBytesMax: number; readonly zeroBytesMax: number },
): number {
  const { compareBytesMax } = resyncLimits
  const pitch = fate === 'send' ? sendBytesMax : fate === 'compare' ? compareBytesMax : zeroBytesMax
  return offset - (offset % pitch) + pitch
}

/** Volumes first, then snapshots; ids are given in order, so the oldest comes first. */
function inOrder(a: ResyncStore, b: ResyncStore): number {
  if (a.isVolume !== b.isVolume) return a.isVolume ? -1 : 1
  return a.id - b.id
}
