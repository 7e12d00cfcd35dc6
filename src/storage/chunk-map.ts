// A store's map from chunk number to the chunk's place in the data file: two levels, the pages shared between stores.
//
// A page knows how many maps hold it. A map changes only pages that it holds alone; a shared page is copied first, and the copy is one
// more reference to each chunk in it. So a chunk's reference count is the number of distinct pages (not stores) that name it, and copying a map costs
// time in proportion to its pages, not its chunks. Entry 0 is a hole.
import assert from 'node:assert/strict'

export const pageEntryCount = 4096

/** How much one caller may still look at: an entry is a step. Mutable, so that several looks share one bound. */
export type Look = { stepsLeft: number }
/** A page that is passed over as a whole. */
const pageSteps = 16
/** Absent pages that are passed one by one before somebody looks at all that are there for the next one. */
const absentPagesWalked = 64

export class ChunkPage {
  readonly entries: Uint32Array
  /** Maps that hold this page, with releases under way counted until they are done. */
  holders = 1
  /** Entries that are not holes. */
  usedCount = 0
  /** The last checkpoint that has this page's content or need not have it; see PageKeeper.beforeChange. */
  checkpointNumber: number

  constructor(checkpointNumber: number, entries?: Uint32Array) {
    this.entries = entries ?? new Uint32Array(pageEntryCount)
    this.checkpointNumber = checkpointNumber
  }
}

/** What the maps need from the pool. Releases take effect later: when the record of the change is durable and no read uses the chunk. */
export interface PageKeeper {
  /** The number that a page made now must have. */
  readonly checkpointNumber: number
  retain(place: number): void
  releaseLater(place: number): void
  releasePageLater(page: ChunkPage): void
  /** Called before a page changes that the checkpoint under way has not written. */
  beforeChange(page: ChunkPage): void
}

export class ChunkMap {
  readonly #keeper: PageKeeper
  readonly pages = new Map<number, ChunkPage>()
  /** Chunks that are not holes. */
  allocatedCount = 0

  constructor(keeper: PageKeeper) {
    this.#keeper = keeper
  }

  /** The place of a chunk; 0 is a hole. */
  get(chunk: number): number {
    const page = this.pages.get(Math.floor(chunk / pageEntryCount))
    return page === undefined ? 0 : (page.entries[chunk % pageEntryCount] as number)
  }

  /** The page of a chunk when no other map holds it: its chunks may be written in place if nothing else refers to them. */
  ownPage(chunk: number): ChunkPage | undefined {
    const page = this.pages.get(Math.floor(chunk / pageEntryCount))
    return page !== undefined && page.holders === 1 ? page : undefined
  }

  /** Points a chunk at `place`, whose reference the caller hands over; the old place is released later. */
  set(chunk: number, place: number): void {
    const pageIndex = Math.floor(chunk / pageEntryCount)
    if (place === 0 && !this.pages.has(pageIndex)) return
    const page = this.#writable(pageIndex)
    const entry = chunk % pageEntryCount
    const old = page.entries[entry] as number
    page.entries[entry] = place
    if (old !== 0) this.#keeper.releaseLater(old)
    const change = (place === 0 ? 0 : 1) - (old === 0 ? 0 : 1)
    page.usedCount += change
    this.allocatedCount += change
    // A page of holes costs memory like any other: whoever writes and trims all over a large volume must not fill it.
    if (page.usedCount === 0) this.#dropPage(pageIndex, page)
  }

  /** Makes `[first, end)` holes: whole pages at once. */
  unmap(first: number, end: number): void {
    eachPage(first, end, [this], (pageIndex, from, to) => {
      const page = this.pages.get(pageIndex)
      if (page === undefined) return
      if (to - from === pageEntryCount) this.#dropPage(pageIndex, page)
      else
        for (let entry = from; entry < to; entry++)
          if (page.entries[entry] !== 0) this.set(pageIndex * pageEntryCount + entry, 0)
    })
  }

  /** True when no chunk of `[first, end)` has a place. */
  isHole(first: number, end: number): boolean {
    let isHole = true
    eachPage(first, end, [this], (pageIndex, from, to) => {
      const page = this.pages.get(pageIndex)
      if (page === undefined || page.usedCount === 0 || !isHole) return
      if (to - from === pageEntryCount) isHole = false
      else for (let entry = from; entry < to && isHole; entry++) isHole = page.entries[entry] === 0
    })
    return isHole
  }

  /** Makes `[first, end)` refer to the same chunks as in `source`: whole pages are shared, the rest entry by entry. */
  copyFrom(source: ChunkMap, first: number, end: number): void {
    assert(source !== this)
    eachPage(first, end, [this, source], (pageIndex, from, to) => {
      const theirs = source.pages.get(pageIndex)
      const ours = this.pages.get(pageIndex)
      if (ours === theirs) return
      if (theirs === undefined)
        return this.unmap(pageIndex * pageEntryCount + from, pageIndex * pageEntryCount + to)
      if (to - from === pageEntryCount) {
        if (ours !== undefined) this.#dropPage(pageIndex, ours)
        theirs.holders++
        this.pages.set(pageIndex, theirs)
        this.allocatedCount += theirs.usedCount
        return
      }
      for (let entry = from; entry < to; entry++) {
        const place = theirs.entries[entry] as number
        const chunk = pageIndex * pageEntryCount + entry
        if (this.get(chunk) === place) continue
        if (place !== 0) this.#keeper.retain(place)
        this.set(chunk, place)
      }
    })
  }

  /** Lets go of every page: the store is deleted, or becomes another's copy. */
  clear(): void {
    for (const page of this.pages.values()) this.#keeper.releasePageLater(page)
    this.pages.clear()
    this.allocatedCount = 0
  }

  /** Becomes equal to `source`, chunk by chunk the same places. */
  become(source: ChunkMap): void {
    assert(source !== this)
    for (const page of source.pages.values()) page.holders++
    this.clear()
    for (const [pageIndex, page] of source.pages) this.pages.set(pageIndex, page)
    this.allocatedCount = source.allocatedCount
  }

  /** For recovery: takes a page that the caller has counted. */
  adopt(pageIndex: number, page: ChunkPage): void {
    assert(!this.pages.has(pageIndex))
    this.pages.set(pageIndex, page)
    this.allocatedCount += page.usedCount
  }

  /** The end of the run from `chunk` on (at most `end`) whose chunks are all holes, or all not. Ends early when the look has no steps left. */
  runEnd(chunk: number, end: number, isHole: boolean, look: Look): number {
    let at = chunk
    let absentCount = 0
    while (at < end && look.stepsLeft > 0) {
      const pageIndex = Math.floor(at / pageEntryCount)
      const pageEnd = Math.min(end, (pageIndex + 1) * pageEntryCount)
      const page = this.pages.get(pageIndex)
      if (page === undefined && isHole && ++absentCount > absentPagesWalked) {
        const endPage = Math.ceil(end / pageEntryCount)
        at = Math.min(end, this.#absentEnd(pageIndex, endPage, look) * pageEntryCount)
        continue
      }
      const usedCount = page?.usedCount ?? 0
      if (page === undefined || usedCount === 0 || usedCount === pageEntryCount) {
        look.stepsLeft -= pageSteps
        if ((usedCount === 0) !== isHole) return at
        at = pageEnd
        continue
      }
      const from = at
      while (at < pageEnd && (page.entries[at % pageEntryCount] === 0) === isHole) at++
      look.stepsLeft -= at - from + 1
      if (at < pageEnd) return at
    }
    return at
  }

  /** The end of the run from `chunk` on (at most `end`) whose chunks are all the same as (or all other than) in `other`. As `runEnd`. */
  sameRunEnd(other: ChunkMap, run: { chunk: number; end: number; isSame: boolean }, look: Look) {
    const { chunk, end, isSame } = run
    let at = chunk
    while (at < end && look.stepsLeft > 0) {
      const pageIndex = Math.floor(at / pageEntryCount)
      const pageEnd = Math.min(end, (pageIndex + 1) * pageEntryCount)
      const ours = this.pages.get(pageIndex)
      const theirs = other.pages.get(pageIndex)
      if (ours === theirs) {
        look.stepsLeft -= pageSteps
        if (!isSame) return at
        at = pageEnd
        continue
      }
      const from = at
      for (; at < pageEnd; at++) {
        const entry = at % pageEntryCount
        if (((ours?.entries[entry] ?? 0) === (theirs?.entries[entry] ?? 0)) !== isSame) break
      }
      look.stepsLeft -= at - from + 1
      if (at < pageEnd) return at
    }
    return at
  }

  /** The end of the absent pages that begin with one, before `endPage`; that of a part of them when finding it costs more than passing them one by one. */
  #absentEnd(pageIndex: number, endPage: number, look: Look): number {
    const { size } = this.pages
    look.stepsLeft -= pageSteps
    if (size > Math.min(endPage - pageIndex, look.stepsLeft)) return pageIndex + 1
    look.stepsLeft -= size
    let next = endPage
    for (const index of this.pages.keys()) if (index >= pageIndex && index < next) next = index
    return next
  }

  #dropPage(pageIndex: number, page: ChunkPage): void {
    this.pages.delete(pageIndex)
    this.allocatedCount -= page.usedCount
    this.#keeper.releasePageLater(page)
  }

  #writable(pageIndex: number): ChunkPage {
    const keeper = this.#keeper
    const page = this.pages.get(pageIndex)
    if (page === undefined) {
      const fresh = new ChunkPage(keeper.checkpointNumber)
      this.pages.set(pageIndex, fresh)
      return fresh
    }
    if (page.holders === 1) {
      if (page.checkpointNumber !== keeper.checkpointNumber) keeper.beforeChange(page)
      return page
    }
    const copy = new ChunkPage(keeper.checkpointNumber, page.entries.slice())
    copy.usedCount = page.usedCount
    for (const place of copy.entries) if (place !== 0) keeper.retain(place)
    keeper.releasePageLater(page)
    this.pages.set(pageIndex, copy)
    return copy
  }
}

/** Calls `visit` for each page of `[first, end)` that one of `maps` has: a long range over few pages costs the pages, not the range. */
function eachPage(
  first: number,
  end: number,
  maps: readonly ChunkMap[],
  visit: (pageIndex: number, from: number, to: number) => void,
): void {
  const firstPage = Math.floor(first / pageEntryCount)
  const endPage = Math.ceil(end / pageEntryCount)
  const visitOne = (pageIndex: number): void => {
    const base = pageIndex * pageEntryCount
    visit(pageIndex, Math.max(0, first - base), Math.min(pageEntryCount, end - base))
  }
  const pageCount = maps.reduce((sum, map) => sum + map.pages.size, 0)
  if (endPage - firstPage <= pageCount) {
    for (let pageIndex = firstPage; pageIndex < endPage; pageIndex++) visitOne(pageIndex)
    return
  }
  const present = new Set(maps.flatMap((map) => [...map.pages.keys()]))
  for (const pageIndex of [...present].sort((a, b) => a - b)) {
    if (pageIndex >= firstPage && pageIndex < endPage) visitOne(pageIndex)
  }
}
