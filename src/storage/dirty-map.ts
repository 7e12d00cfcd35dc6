// One bit a block of a store: may differ from the peer's copy. Pages of 32 Ki bits (128 MiB of a store), shared between maps and copied when written.
//
// Invariants: a page knows how many maps hold it, and only a page that one map holds is changed; a page without a set bit is absent, and one whose bits are
// all set is the one page of ones that everybody shares. So a snapshot's map costs a list of pages, and a map of a whole terabyte 8,192 entries.
import assert from 'node:assert/strict'
import { blockBytes } from '../core/units.js'

export const dirtyPageBlockCount = 32768
export const dirtyPageWordCount = dirtyPageBlockCount / 32

/** Blocks from `first` up to, but not including, `end`. */
export type BlockRun = { readonly first: number; readonly end: number }

export class DirtyPage {
  readonly words: Uint32Array
  /** Maps that hold this page. */
  holders = 1
  setCount: number

  constructor(words: Uint32Array, setCount: number) {
    assert.equal(words.length, dirtyPageWordCount)
    this.words = words
    this.setCount = setCount
  }
}

/** All bits set. Never changed: a map that clears one of them takes a copy. */
export const fullDirtyPage = new DirtyPage(
  new Uint32Array(dirtyPageWordCount).fill(0xffffffff),
  dirtyPageBlockCount,
)
fullDirtyPage.holders = Number.POSITIVE_INFINITY

export class DirtyMap {
  readonly #pages = new Map<number, DirtyPage>()
  /** Page indexes in order, when somebody needed them since the last page came or went. */
  #order: readonly number[] | undefined
  #dirtyBlockCount = 0

  get dirtyBlockCount(): number {
    return this.#dirtyBlockCount
  }

  get pages(): ReadonlyMap<number, DirtyPage> {
    return this.#pages
  }

  isDirty(block: number): boolean {
    const page = this.#pages.get(Math.floor(block / dirtyPageBlockCount))
    if (page === undefined) return false
    const bit = block % dirtyPageBlockCount
    return ((page.words[bit >>> 5] as number) & (1 << (bit & 31))) !== 0
  }

  /** Marks every block that the range touches. The answer is the smallest run with all blocks that were clean before; undefined when there were none. */
  markBytes(offset: number, lengthBytes: number): BlockRun | undefined {
    if (lengthBytes === 0) return undefined
    return this.markBlocks(
      Math.floor(offset / blockBytes),
      Math.ceil((offset + lengthBytes) / blockBytes),
    )
  }

  markBlocks(first: number, end: number): BlockRun | undefined {
    if (end === first + 1 && this.isDirty(first)) return undefined
    let changedFirst = -1
    let changedEnd = -1
    for (let block = first; block < end; ) {
      const pageIndex = Math.floor(block / dirtyPageBlockCount)
      const base = pageIndex * dirtyPageBlockCount
      const to = Math.min(dirtyPageBlockCount, end - base)
      const changed = this.#markInPage(pageIndex, block - base, to)
      block = base + to
      if (changed === undefined) continue
      if (changedFirst < 0) changedFirst = base + changed.first
      changedEnd = base + changed.end
    }
    return changedFirst < 0 ? undefined : { first: changedFirst, end: changedEnd }
  }

  /** Cleans the blocks that lie wholly inside the range. The answer is the smallest run with all blocks that were dirty before; undefined when there were none. */
  cleanBytes(offset: number, lengthBytes: number): BlockRun | undefined {
    return this.cleanBlocks(
      Math.ceil(offset / blockBytes),
      Math.floor((offset + lengthBytes) / blockBytes),
    )
  }

  cleanBlocks(first: number, end: number): BlockRun | undefined {
    if (this.#dirtyBlockCount === 0) return undefined
    let changedFirst = -1
    let changedEnd = -1
    for (const pageIndex of this.#pagesIn(first, end)) {
      const base = pageIndex * dirtyPageBlockCount
      const from = Math.max(0, first - base)
      const to = Math.min(dirtyPageBlockCount, end - base)
      const changed = this.#cleanInPage(pageIndex, from, to)
      if (changed === undefined) continue
      if (changedFirst < 0) changedFirst = base + changed.first
      changedEnd = base + changed.end
    }
    return changedFirst < 0 ? undefined : { first: changedFirst, end: changedEnd }
  }

  /** Becomes equal to `source`. Shares its pages. */
  become(source: DirtyMap): void {
    if (source === this) return
    for (const page of source.#pages.values()) page.holders++
    this.clear()
    for (const [pageIndex, page] of source.#pages) this.#pages.set(pageIndex, page)
    this.#dirtyBlockCount = source.#dirtyBlockCount
  }

  /** As `source`, but for pages without a block of `[first, end)`: those are clean. */
  becomePart(source: DirtyMap, { first, end }: BlockRun): void {
    assert(source !== this)
    this.clear()
    for (const pageIndex of source.#pagesIn(first, end)) {
      const page = source.#pages.get(pageIndex)
      assert(page)
      page.holders++
      this.adopt(pageIndex, page)
    }
  }

  /** Blocks wholly inside the range become as in `source`; blocks partly inside become dirty where they are dirty there. */
  copyRange(source: DirtyMap, offset: number, lengthBytes: number): void {
    assert(source !== this)
    const end = offset + lengthBytes
    const wholeFirst = Math.ceil(offset / blockBytes)
    const wholeEnd = Math.max(wholeFirst, Math.floor(end / blockBytes))
    const touchedFirst = Math.floor(offset / blockBytes)
    const touchedEnd = Math.ceil(end / blockBytes)
    if (lengthBytes > 0 && touchedFirst < wholeFirst && source.isDirty(touchedFirst))
      this.markBlocks(touchedFirst, touchedFirst + 1)
    if (lengthBytes > 0 && wholeEnd < touchedEnd && source.isDirty(touchedEnd - 1))
      this.markBlocks(touchedEnd - 1, touchedEnd)
    const pageIndexes = new Set([
      ...this.#pagesIn(wholeFirst, wholeEnd),
      ...source.#pagesIn(wholeFirst, wholeEnd),
    ])
    for (const pageIndex of pageIndexes) {
      const base = pageIndex * dirtyPageBlockCount
      const from = Math.max(0, wholeFirst - base)
      const to = Math.min(dirtyPageBlockCount, wholeEnd - base)
      this.#copyInPage(pageIndex, source.#pages.get(pageIndex), from, to)
    }
  }

  /** Cleans everything that lies wholly behind a store of `sizeBytes`. */
  cut(sizeBytes: number): void {
    this.cleanBlocks(Math.ceil(sizeBytes / blockBytes), Number.MAX_SAFE_INTEGER)
  }

  /** The first run of dirty blocks in `[from, end)`, cut at both, and after `blockCountMax`. Takes time in proportion to the pages and words that it passes: of a long run no more than is asked for. */
  nextRun(
    from: number,
    end: number,
    blockCountMax = Number.MAX_SAFE_INTEGER,
  ): BlockRun | undefined {
    if (this.#dirtyBlockCount === 0) return undefined
    let first = -1
    let runEnd = -1
    for (const pageIndex of this.#pagesIn(from, end)) {
      const base = pageIndex * dirtyPageBlockCount
      // An absent page in between ends the run.
      if (first >= 0 && runEnd < base) break
      const to = Math.min(dirtyPageBlockCount, end - base)
      const { words } = this.#pages.get(pageIndex) as DirtyPage
      let bit = Math.max(0, from - base)
      if (first < 0) {
        bit = findBit(words, bit, to, 0)
        if (bit === to) continue
        first = base + bit
      }
      const far = Math.min(to, first + blockCountMax - base)
      runEnd = base + findBit(words, bit, far, 0xffffffff)
      if (runEnd < base + to) break
    }
    return first < 0 ? undefined : { first, end: runEnd }
  }

  /** A view of the map as it is now, for a checkpoint: pages are copied when they change afterwards. The caller clears it. */
  share(): DirtyMap {
    const view = new DirtyMap()
    view.become(this)
    return view
  }

  /** Lets go of every page. */
  clear(): void {
    for (const page of this.#pages.values()) page.holders--
    this.#pages.clear()
    this.#order = undefined
    this.#dirtyBlockCount = 0
  }

  /** Takes a page that the caller has counted. */
  adopt(pageIndex: number, page: DirtyPage): void {
    assert(!this.#pages.has(pageIndex))
    this.#setPage(pageIndex, page)
    this.#dirtyBlockCount += page.setCount
  }

  /** The dirty part (0 to 1) of each of `cellCount` equal slices of a store of `sizeBytes`. */
  picture(cellCount: number, sizeBytes: number): readonly number[] {
    const cells = new Array<number>(cellCount).fill(0)
    const cellBytes = sizeBytes / cellCount
    const paint = (from: number, lengthBytes: number, dirtyBytes: number): boolean => {
      const cell = Math.floor(from / cellBytes)
      if (from < sizeBytes && from + lengthBytes > (cell + 1) * cellBytes) return false
      if (cell < cellCount) cells[cell] = (cells[cell] as number) + dirtyBytes
      return true
    }
    for (const [pageIndex, page] of this.#pages) {
      const from = pageIndex * dirtyPageBlockCount * blockBytes
      const pageBytes = dirtyPageBlockCount * blockBytes
      if (!paint(from, pageBytes, page.setCount * blockBytes)) paintPage(page, from, paint)
    }
    return cells.map((bytes) => Math.min(1, bytes / cellBytes))
  }

  /** Indexes of the pages that are there in a range of blocks, in order. */
  *#pagesIn(first: number, end: number): Generator<number> {
    if (first >= end) return
    const firstPage = Math.floor(first / dirtyPageBlockCount)
    const endPage = Math.ceil(end / dirtyPageBlockCount)
    if (endPage - firstPage <= this.#pages.size) {
      for (let index = firstPage; index < endPage; index++) if (this.#pages.has(index)) yield index
      return
    }
    // Whoever changes pages on the way changes those behind only: the order is that of the start.
    this.#order ??= [...this.#pages.keys()].sort((a, b) => a - b)
    const order = this.#order
    for (let at = lowerBound(order, firstPage); at < order.length; at++) {
      const index = order[at] as number
      if (index >= endPage) return
      yield index
    }
  }

  #setPage(pageIndex: number, page: DirtyPage): void {
    if (!this.#pages.has(pageIndex)) this.#order = undefined
    this.#pages.set(pageIndex, page)
  }

  #dropPage(pageIndex: number): void {
    const page = this.#pages.get(pageIndex)
    if (page === undefined) return
    page.holders--
    this.#pages.delete(pageIndex)
    this.#order = undefined
  }

  #writable(pageIndex: number): DirtyPage {
    const page = this.#pages.get(pageIndex)
    if (page?.holders === 1) return page
    const copy =
      page === undefined
        ? new DirtyPage(new Uint32Array(dirtyPageWordCount), 0)
        : new DirtyPage(page.words.slice(), page.setCount)
    if (page !== undefined) page.holders--
    this.#setPage(pageIndex, copy)
    return copy
  }

  /** After bits of a page of our own changed: none set, or all, is no page of our own any more. */
  #settle(pageIndex: number, page: DirtyPage): void {
    if (page.setCount === 0) this.#dropPage(pageIndex)
    else if (page.setCount === dirtyPageBlockCount) this.#pages.set(pageIndex, fullDirtyPage)
  }

  #markInPage(pageIndex: number, from: number, to: number): BlockRun | undefined {
    const page = this.#pages.get(pageIndex)
    if (page === fullDirtyPage) return undefined
    if (page === undefined && to - from === dirtyPageBlockCount) {
      this.#setPage(pageIndex, fullDirtyPage)
      this.#dirtyBlockCount += dirtyPageBlockCount
      return { first: 0, end: dirtyPageBlockCount }
    }
    const first = page === undefined ? from : findBit(page.words, from, to, 0xffffffff)
    if (first === to) return undefined
    const own = this.#writable(pageIndex)
    const end = changeBits(own.words, first, to, (word, mask) => (word | mask) >>> 0, own)
    this.#dirtyBlockCount += end.added
    this.#settle(pageIndex, own)
    return { first, end: end.end }
  }

  #cleanInPage(pageIndex: number, from: number, to: number): BlockRun | undefined {
    const page = this.#pages.get(pageIndex)
    if (page === undefined) return undefined
    if (to - from === dirtyPageBlockCount) {
      this.#dirtyBlockCount -= page.setCount
      this.#dropPage(pageIndex)
      return { first: findBit(page.words, 0, to, 0), end: lastSetBit(page.words) + 1 }
    }
    const first = findBit(page.words, from, to, 0)
    if (first === to) return undefined
    const own = this.#writable(pageIndex)
    const end = changeBits(own.words, first, to, (word, mask) => (word & ~mask) >>> 0, own)
    this.#dirtyBlockCount += end.added
    this.#settle(pageIndex, own)
    return { first, end: end.end }
  }

  #copyInPage(pageIndex: number, theirs: DirtyPage | undefined, from: number, to: number): void {
    const ours = this.#pages.get(pageIndex)
    if (ours === theirs) return
    if (theirs === undefined) {
      this.#cleanInPage(pageIndex, from, to)
      return
    }
    if (to - from === dirtyPageBlockCount) {
      theirs.holders++
      this.#dirtyBlockCount += theirs.setCount - (ours?.setCount ?? 0)
      if (ours !== undefined) ours.holders--
      this.#setPage(pageIndex, theirs)
      return
    }
    const own = this.#writable(pageIndex)
    const { words } = theirs
    const change = (word: number, mask: number, index: number): number =>
      ((word & ~mask) | ((words[index] as number) & mask)) >>> 0
    this.#dirtyBlockCount += changeBits(own.words, from, to, change, own).added
    this.#settle(pageIndex, own)
  }
}

/** Changes the bits `[from, to)` word by word and keeps the page's count. Tells how many more are set, and the end of those that changed. */
function changeBits(
  words: Uint32Array,
  from: number,
  to: number,
  change: (word: number, mask: number, index: number) => number,
  page: DirtyPage,
): { readonly added: number; readonly end: number } {
  let added = 0
  let end = from
  for (let index = from >>> 5; index * 32 < to; index++) {
    const mask = wordMask(index, from, to)
    const before = words[index] as number
    const after = change(before, mask, index)
    if (after === before) continue
    words[index] = after
    added += bitCount(after) - bitCount(before)
    end = index * 32 + 32 - Math.clz32(after ^ before)
  }
  page.setCount += added
  return { added, end }
}

/** The bits of word `index` that lie in `[from, to)`. */
function wordMask(index: number, from: number, to: number): number {
  const base = index * 32
  const low = from <= base ? 0xffffffff : (0xffffffff << (from - base)) >>> 0
  const high = to >= base + 32 ? 0xffffffff : ~(0xffffffff << (to - base)) >>> 0
  return (low & high) >>> 0
}

/** The first bit of `[from, to)` that is set in `word ^ flip`; `to` when there is none. */
function findBit(words: Uint32Array, from: number, to: number, flip: number): number {
  for (let index = from >>> 5; index * 32 < to; index++) {
    const found = (((words[index] as number) ^ flip) & wordMask(index, from, to)) >>> 0
    if (found !== 0) return index * 32 + 31 - Math.clz32(found & -found)
  }
  return to
}

/** The last bit of a page that has one. */
function lastSetBit(words: Uint32Array): number {
  let index = words.length - 1
  while (words[index] === 0) index--
  return index * 32 + 31 - Math.clz32(words[index] as number)
}

function bitCount(word: number): number {
  const pairs = word - ((word >>> 1) & 0x55555555)
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333)
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}

/** Paints a page that lies in several cells: word by word, and bit by bit where a word does too. */
function paintPage(
  page: DirtyPage,
  pageOffset: number,
  paint: (from: number, lengthBytes: number, dirtyBytes: number) => boolean,
): void {
  const wordBytes = 32 * blockBytes
  for (const [index, word] of page.words.entries()) {
    const offset = pageOffset + index * wordBytes
    if (word === 0 || paint(offset, wordBytes, bitCount(word) * blockBytes)) continue
    for (let bit = 0; bit < 32; bit++) {
      if ((word & (1 << bit)) === 0) continue
      // The shortest piece that is painted: small stores have more cells than blocks.
      for (let piece = 0; piece < blockBytes; piece += 512)
        paint(offset + bit * blockBytes + piece, 1, 512)
    }
  }
}

/** The index of the first number that is at least `value`. */
function lowerBound(sorted: readonly number[], value: number): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] as number) < value) low = middle + 1
    else high = middle
  }
  return low
}
