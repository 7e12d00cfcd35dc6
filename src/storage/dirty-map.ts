// One bit a block of a store: may differ from the peer's copy. A tree of pages of 32 Ki bits (128 MiB of a store), shared between maps and copied when written.
//
// Invariant: what a map costs, and what is done to it, is in proportion to its runs of dirty blocks, never to the store's size: a store of 2^53 bytes that is dirty as a whole is one part.
// A copy of a map is a reference to the same tree.
import assert from 'node:assert/strict'
import { blockBytes } from '../core/units.js'
import { type DirtyPage, fullDirtyPage } from './dirty-page.js'
import {
  countIn,
  type DirtyPart,
  endOf,
  firstOf,
  fullDirtyTree,
  hold,
  isSetAt,
  type PageRun,
  pageRuns,
  release,
  replaced,
  treeBlockCount,
  withPage,
} from './dirty-tree.js'

/** Blocks from `first` up to, but not including, `end`. */
export type BlockRun = { readonly first: number; readonly end: number }

export class DirtyMap {
  #tree: DirtyPart | undefined

  get dirtyBlockCount(): number {
    return this.#tree?.setCount ?? 0
  }

  isDirty(block: number): boolean {
    return isSetAt(this.#tree, block)
  }

  /** How many blocks of `[first, end)` are dirty. */
  countIn(first: number, end: number): number {
    return first < end ? countIn(this.#tree, first, end) : 0
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
    assert(end <= treeBlockCount)
    return this.#set(true, first, end)
  }

  /** Cleans the blocks that lie wholly inside the range. The answer is the smallest run with all blocks that were dirty before; undefined when there were none. */
  cleanBytes(offset: number, lengthBytes: number): BlockRun | undefined {
    return this.cleanBlocks(
      Math.ceil(offset / blockBytes),
      Math.floor((offset + lengthBytes) / blockBytes),
    )
  }

  cleanBlocks(first: number, end: number): BlockRun | undefined {
    if (this.#tree === undefined) return undefined
    return this.#set(false, first, Math.min(end, treeBlockCount))
  }

  /** Becomes equal to `source`, and shares its tree. */
  become(source: DirtyMap): void {
    const tree = source.#tree
    hold(tree)
    this.clear()
    this.#tree = tree
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
    if (wholeFirst < wholeEnd) this.#tree = replaced(this.#tree, source.#tree, wholeFirst, wholeEnd)
  }

  /** Cleans everything that lies wholly behind a store of `sizeBytes`. */
  cut(sizeBytes: number): void {
    this.cleanBlocks(Math.ceil(sizeBytes / blockBytes), treeBlockCount)
  }

  /** The first run of dirty blocks in `[from, end)`, cut at both, and after `blockCountMax`. Takes some microseconds at most, however long and far it is. */
  nextRun(
    from: number,
    end: number,
    blockCountMax = Number.MAX_SAFE_INTEGER,
  ): BlockRun | undefined {
    const to = Math.min(end, treeBlockCount)
    if (this.#tree === undefined || from >= to) return undefined
    const first = firstOf(this.#tree, true, from, to)
    if (first === to) return undefined
    return { first, end: firstOf(this.#tree, false, first, Math.min(to, first + blockCountMax)) }
  }

  /** A view of the map as it is now, for a checkpoint: what changes afterwards is copied. The caller clears it. */
  share(): DirtyMap {
    const view = new DirtyMap()
    view.become(this)
    return view
  }

  /** Lets go of everything. */
  clear(): void {
    release(this.#tree)
    this.#tree = undefined
  }

  /** Pages that have dirty blocks, in order: full ones that lie side by side are one run, others are alone. */
  *pageRuns(): Generator<PageRun> {
    let full: PageRun | undefined
    for (const run of pageRuns(this.#tree)) {
      if (full !== undefined && run.page === fullDirtyPage && run.first === full.end) {
        full = { ...full, end: run.end }
        continue
      }
      if (full !== undefined) yield full
      full = run.page === fullDirtyPage ? run : undefined
      if (full === undefined) yield run
    }
    if (full !== undefined) yield full
  }

  /** Takes a page that the caller has counted; nothing may be dirty where it belongs. */
  adopt(pageIndex: number, page: DirtyPage): void {
    if (page.setCount > 0) this.#tree = withPage(this.#tree, pageIndex, page)
  }

  /** The dirty part (0 to 1) of each of `cellCount` equal slices of a store of `sizeBytes`. */
  picture(cellCount: number, sizeBytes: number): readonly number[] {
    const cellBytes = sizeBytes / cellCount
    return Array.from({ length: cellCount }, (_, cell) =>
      Math.min(1, this.#bytesBetween(cell * cellBytes, (cell + 1) * cellBytes) / cellBytes),
    )
  }

  /** Dirty bytes from `offset` to `end`, which need not be whole numbers. */
  #bytesBetween(offset: number, end: number): number {
    const first = Math.ceil(offset / blockBytes)
    const last = Math.floor(end / blockBytes)
    if (first > last) return this.isDirty(last) ? end - offset : 0
    const headBytes = this.isDirty(first - 1) ? first * blockBytes - offset : 0
    const tailBytes = this.isDirty(last) ? end - last * blockBytes : 0
    return headBytes + this.countIn(first, last) * blockBytes + tailBytes
  }

  /** All blocks of `[first, end)`. The answer is the smallest run with those that were otherwise. */
  #set(isDirty: boolean, first: number, end: number): BlockRun | undefined {
    if (first >= end) return undefined
    const from = firstOf(this.#tree, !isDirty, first, end)
    if (from === end) return undefined
    const to = end === from + 1 ? end : endOf(this.#tree, !isDirty, from, end)
    this.#tree = replaced(this.#tree, isDirty ? fullDirtyTree : undefined, from, to)
    return { first: from, end: to }
  }
}
