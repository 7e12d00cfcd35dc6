// How much data a resync moves at most: of what is dirty the chunks that hold data, and each of those that several stores share once. The plan of a resync
// (replication/resync-plan.ts) finds the same chunk by chunk; here it is found page by page, in bounded time, and in pieces where nobody may be kept waiting.
//
// Invariant: never less than the plan would send, as the maps are when they are looked at.
import { blockBytes, type StoreId } from '../core/units.js'
import { type ChunkPage, pageEntryCount } from '../storage/chunk-map.js'
import type { BlockRun, DirtyMap } from '../storage/dirty-map.js'
import { dirtyPageBlockCount } from '../storage/dirty-page.js'
import { type GroupState, isLocalId, type Store } from '../storage/group-state.js'
import { dirtyBytesOf, type TrackedStore } from '../storage/tracked-stores.js'

/** Map entries that are looked at: some ten milliseconds. What lies behind counts as if it were in no other store. */
const allStepsMax = 512 * 1024
/** Of these in one piece: a millisecond or two. */
export const pieceStepsMax = 32 * 1024
/** A run of blocks. */
const runSteps = 32
/** Somebody else's page: two tables are asked for it. */
const siblingSteps = 4

/** At once; with less than the usual `stepsMax` it takes less time, and the answer may be larger. */
export function moveBytes(
  state: GroupState,
  tracked: ReadonlyMap<StoreId, TrackedStore>,
  stepsMax = allStepsMax,
): number {
  const work = moveBytesInPieces(state, tracked, stepsMax)
  for (let step = work.next(); ; step = work.next()) if (step.done === true) return step.value
}

/** The same; something else may be done at each `yield`, and change the chunk maps. The dirty maps must stay as they are. */
export function* moveBytesInPieces(
  state: GroupState,
  tracked: ReadonlyMap<StoreId, TrackedStore>,
  stepsMax = allStepsMax,
): Pieces {
  const order = [...state.stores.values()].filter(({ id }) => !isLocalId(id)).sort(inOrder)
  const count = new Count(order, tracked, { chunkBytes: state.chunkBytes, stepsMax })
  let sum = 0
  // Snapshots first: what they share is found at once, and a volume shares little where it was written to.
  for (const [index, store] of [...order.entries()].reverse()) {
    const known = tracked.get(store.id)
    if (known !== undefined) sum += yield* count.ofStore(index, known)
  }
  return sum
}

type Pieces = Generator<undefined, number, undefined>

/** Somebody else's page at the same place. */
type Sibling = {
  readonly page: ChunkPage
  readonly dirty: DirtyMap
  /** That store comes first in the order. */
  readonly isBefore: boolean
  /** Only what ends here can come from there: whole chunks, and a last one that is cut where both stores end. */
  readonly sharedEnd: number
}

class Count {
  readonly #order: readonly Store[]
  readonly #tracked: ReadonlyMap<StoreId, TrackedStore>
  readonly #blocksPerChunk: number
  readonly #blocksPerPage: number
  #stepsLeft: number
  /** Where the piece ends. */
  #pauseAtSteps: number
  /** Of the page that was looked at last. */
  #siblings: readonly Sibling[] = []
  /** Of the store that is looked at: its last block, and by how much its end cuts it. */
  #endBlock = 0
  #cutBytes = 0

  constructor(
    order: readonly Store[],
    tracked: ReadonlyMap<StoreId, TrackedStore>,
    { chunkBytes, stepsMax }: { readonly chunkBytes: number; readonly stepsMax: number },
  ) {
    this.#stepsLeft = stepsMax
    this.#pauseAtSteps = stepsMax - pieceStepsMax
    this.#order = order
    this.#tracked = tracked
    this.#blocksPerChunk = chunkBytes / blockBytes
    this.#blocksPerPage = pageEntryCount * this.#blocksPerChunk
  }

  *ofStore(index: number, known: TrackedStore): Pieces {
    const store = this.#order[index] as Store
    const sizeBytes = Math.min(known.sizeBytes, store.sizeBytes)
    const endBlock = Math.ceil(sizeBytes / blockBytes)
    this.#endBlock = endBlock
    this.#cutBytes = endBlock * blockBytes - sizeBytes
    const { dirty } = known
    let savedBytes = 0
    let pageIndex = -1
    for (let at = 0; at < endBlock && this.#stepsLeft > 0; ) {
      if (this.#isPieceOver()) yield
      const run = dirty.nextRun(at, endBlock, 1)
      this.#stepsLeft -= runSteps
      if (run === undefined) break
      at = run.first
      const holesEnd = this.#holesEnd(store, at)
      if (holesEnd > at) {
        savedBytes += this.#dirtyBytes(dirty, at, holesEnd)
        at = holesEnd
        continue
      }
      if (pageIndex !== Math.floor(at / this.#blocksPerPage)) {
        pageIndex = Math.floor(at / this.#blocksPerPage)
        this.#siblings = this.#siblingsOf(index, pageIndex)
      }
      const page = store.map.pages.get(pageIndex)
      // What is one page of both maps.
      const pageBlockCount = Math.min(this.#blocksPerPage, dirtyPageBlockCount)
      const until = Math.min(endBlock, (Math.floor(at / pageBlockCount) + 1) * pageBlockCount)
      if (this.#isSaved(page, at, until)) savedBytes += this.#dirtyBytes(dirty, at, until)
      else savedBytes += yield* this.#savedRuns(dirty, page, { first: at, end: until })
      at = until
    }
    return dirtyBytesOf(known) - savedBytes
  }

  /** The end of the holes from a block on, whole chunks but for the first: however many pages are absent. */
  #holesEnd(store: Store, block: number): number {
    const stepsMax = Math.min(this.#stepsLeft, pieceStepsMax)
    const look = { stepsLeft: stepsMax }
    const chunk = Math.floor(block / this.#blocksPerChunk)
    const endChunk = Math.ceil(this.#endBlock / this.#blocksPerChunk)
    const end = store.map.runEnd(chunk, endChunk, true, look)
    this.#stepsLeft -= stepsMax - look.stepsLeft
    return Math.min(this.#endBlock, end * this.#blocksPerChunk)
  }

  *#savedRuns(dirty: DirtyMap, page: ChunkPage | undefined, { first, end }: BlockRun): Pieces {
    let savedBytes = 0
    for (let at = first; at < end && this.#stepsLeft > 0; ) {
      if (this.#isPieceOver()) yield
      const run = dirty.nextRun(at, end)
      this.#stepsLeft -= runSteps
      if (run === undefined) break
      savedBytes +=
        this.#savedAsOne(page, run.first, run.end) ??
        (yield* this.#savedChunks(page as ChunkPage, run.first, run.end))
      at = run.end
    }
    return savedBytes
  }

  #isPieceOver(): boolean {
    if (this.#stepsLeft > this.#pauseAtSteps) return false
    this.#pauseAtSteps = this.#stepsLeft - pieceStepsMax
    return true
  }

  #siblingsOf(index: number, pageIndex: number): readonly Sibling[] {
    const { sizeBytes } = this.#order[index] as Store
    const siblings: Sibling[] = []
    for (const [other, store] of this.#order.entries()) {
      this.#stepsLeft -= siblingSteps
      const page = other === index ? undefined : store.map.pages.get(pageIndex)
      const dirty = this.#tracked.get(store.id)?.dirty
      // What is not tracked yet is dirty as soon as it is.
      if (page === undefined || dirty === undefined) continue
      const wholeChunks = Math.floor(
        Math.min(sizeBytes, store.sizeBytes) / (this.#blocksPerChunk * blockBytes),
      )
      const sharedEnd =
        store.sizeBytes === sizeBytes
          ? Number.POSITIVE_INFINITY
          : wholeChunks * this.#blocksPerChunk
      siblings.push({ page, dirty, isBefore: other < index, sharedEnd })
    }
    return siblings
  }

  /** True when none of the blocks goes over: holes, or another store's page. */
  #isSaved(page: ChunkPage | undefined, first: number, end: number): boolean {
    if (page === undefined || page.usedCount === 0) return true
    this.#stepsLeft -= this.#siblings.length
    // A chunk is shared as a whole: what is dirty beside the range counts too.
    const from = Math.floor(first / this.#blocksPerChunk) * this.#blocksPerChunk
    const to = Math.ceil(end / this.#blocksPerChunk) * this.#blocksPerChunk
    return this.#siblings.some((one) => one.page === page && isThere(one, from, to))
  }

  /** Bytes of the dirty blocks `[first, end)`, which lie in one page of the chunk map, that do not go over; undefined when each chunk has to be looked at. */
  #savedAsOne(page: ChunkPage | undefined, first: number, end: number): number | undefined {
    if (page === undefined || this.#isSaved(page, first, end)) return this.#bytesOf(first, end)
    return this.#siblings.length === 0 && page.usedCount === pageEntryCount ? 0 : undefined
  }

  *#savedChunks(page: ChunkPage, first: number, end: number): Pieces {
    let savedBytes = 0
    for (let at = first; at < end && this.#stepsLeft > 0; ) {
      if (this.#isPieceOver()) yield
      const chunk = Math.floor(at / this.#blocksPerChunk)
      const until = Math.min(end, (chunk + 1) * this.#blocksPerChunk)
      if (!this.#goesOver(page, chunk)) savedBytes += this.#bytesOf(at, until)
      at = until
    }
    return savedBytes
  }

  #dirtyBytes(dirty: DirtyMap, first: number, end: number): number {
    this.#stepsLeft -= runSteps
    const isCut = end === this.#endBlock && dirty.isDirty(end - 1)
    return dirty.countIn(first, end) * blockBytes - (isCut ? this.#cutBytes : 0)
  }

  #bytesOf(first: number, end: number): number {
    return (end - first) * blockBytes - (end === this.#endBlock ? this.#cutBytes : 0)
  }

  #goesOver(page: ChunkPage, chunk: number): boolean {
    const entry = chunk % pageEntryCount
    const place = page.entries[entry]
    this.#stepsLeft -= 1 + this.#siblings.length
    if (place === 0) return false
    const first = chunk * this.#blocksPerChunk
    return !this.#siblings.some(
      (sibling) =>
        sibling.page.entries[entry] === place &&
        isThere(sibling, first, first + this.#blocksPerChunk),
    )
  }
}

/** The peer has these blocks of the sibling, or gets them before. */
function isThere({ dirty, isBefore, sharedEnd }: Sibling, first: number, end: number): boolean {
  if (end > sharedEnd) return false
  return isBefore || dirty.nextRun(first, end, 1) === undefined
}

/** As the plan walks. */
function inOrder(a: Store, b: Store): number {
  if ((a.volumeId === undefined) !== (b.volumeId === undefined))
    return a.volumeId === undefined ? -1 : 1
  return a.id - b.id
}
