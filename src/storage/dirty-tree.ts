// The pages of a dirty map in a tree: a node has 128 parts, which are nodes again, and at the bottom pages. Two levels are 2 TiB of a store, and the root has room for more than the largest one.
//
// Invariants: a part without a set bit is absent, and one whose bits are all set is the full part of its level, which everybody shares. So a range costs what lies at its two ends, however
// long it is. A part knows how many hold it, and is changed only when it and all above it are held once: maps share what they have in common.
import assert from 'node:assert/strict'
import { DirtyPage, dirtyPageBlockCount, dirtyPageWordCount, fullDirtyPage } from './dirty-page.js'

const fanOut = 128
/** Of the root; pages have 0. */
const rootLevel = 4
/** Blocks of a part, and pages, by its level. */
const blockCounts: number[] = [dirtyPageBlockCount]
const pageCounts: number[] = [1]

class DirtyNode {
  readonly parts: (DirtyPart | undefined)[]
  holders = 1
  setCount: number

  constructor(parts: (DirtyPart | undefined)[], setCount: number) {
    this.parts = parts
    this.setCount = setCount
  }

  copy(): DirtyNode {
    for (const part of this.parts) if (part !== undefined) part.holders++
    return new DirtyNode(this.parts.slice(), this.setCount)
  }
}

/** Of a tree, or all of it. */
export type DirtyPart = DirtyNode | DirtyPage

/** By level. */
const fullParts: DirtyPart[] = [fullDirtyPage]
for (let level = 1; level <= rootLevel; level++) {
  blockCounts.push(blockCountOf(level - 1) * fanOut)
  pageCounts.push((pageCounts[level - 1] as number) * fanOut)
  const parts = new Array<DirtyPart>(fanOut).fill(fullPartOf(level - 1))
  const full = new DirtyNode(parts, blockCountOf(level))
  full.holders = Number.POSITIVE_INFINITY
  fullParts.push(full)
}

/** Blocks that there is room for. */
export const treeBlockCount = blockCountOf(rootLevel)
export const fullDirtyTree = fullPartOf(rootLevel)

/** Pages from `first` up to, but not including, `end`, each as `page`: the full one, or a single other one. */
export type PageRun = { readonly first: number; readonly end: number; readonly page: DirtyPage }

export function isSetAt(tree: DirtyPart | undefined, block: number): boolean {
  let part = tree
  let at = block
  for (let level = rootLevel; part instanceof DirtyNode; level--) {
    const span = blockCountOf(level - 1)
    const index = Math.floor(at / span)
    at -= index * span
    part = part.parts[index]
  }
  return part?.firstOf(true, at, at + 1) === at
}

/** The first block of `[from, end)` that is set, or that is not; `end` when there is none. */
export function firstOf(
  part: DirtyPart | undefined,
  isSet: boolean,
  from: number,
  end: number,
  level = rootLevel,
): number {
  if (part === undefined || part === fullParts[level])
    return (part !== undefined) === isSet ? from : end
  if (part instanceof DirtyPage) return part.firstOf(isSet, from, end)
  const span = blockCountOf(level - 1)
  for (let index = Math.floor(from / span); index * span < end; index++) {
    const base = index * span
    const partEnd = Math.min(span, end - base)
    const found = firstOf(part.parts[index], isSet, Math.max(0, from - base), partEnd, level - 1)
    if (found < partEnd) return base + found
  }
  return end
}

/** Behind the last block of `[from, end)` that is set, or that is not; `from` when there is none. */
export function endOf(
  part: DirtyPart | undefined,
  isSet: boolean,
  from: number,
  end: number,
  level = rootLevel,
): number {
  if (part === undefined || part === fullParts[level])
    return (part !== undefined) === isSet ? end : from
  if (part instanceof DirtyPage) return part.endOf(isSet, from, end)
  const span = blockCountOf(level - 1)
  for (let index = Math.ceil(end / span) - 1; (index + 1) * span > from; index--) {
    const base = index * span
    const partFrom = Math.max(0, from - base)
    const partEnd = Math.min(span, end - base)
    const found = endOf(part.parts[index], isSet, partFrom, partEnd, level - 1)
    if (found > partFrom) return base + found
  }
  return from
}

/** How many blocks of `[from, end)` are set. */
export function countIn(
  part: DirtyPart | undefined,
  from: number,
  end: number,
  level = rootLevel,
): number {
  if (part === undefined) return 0
  if (part === fullParts[level]) return end - from
  if (from === 0 && end === blockCountOf(level)) return part.setCount
  if (part instanceof DirtyPage) return part.countIn(from, end)
  const span = blockCountOf(level - 1)
  let count = 0
  for (let index = Math.floor(from / span); index * span < end; index++) {
    const base = index * span
    const partEnd = Math.min(span, end - base)
    count += countIn(part.parts[index], Math.max(0, from - base), partEnd, level - 1)
  }
  return count
}

/** The tree with `[from, end)` as in `theirs`, which it shares. Takes the caller's hold on `part`, and gives one on the answer. */
export function replaced(
  part: DirtyPart | undefined,
  theirs: DirtyPart | undefined,
  from: number,
  end: number,
  level = rootLevel,
): DirtyPart | undefined {
  if (part === theirs) return part
  if (from === 0 && end === blockCountOf(level)) {
    hold(theirs)
    release(part)
    return theirs
  }
  const own = ownOf(part, level)
  if (own instanceof DirtyPage) own.replace(theirs as DirtyPage | undefined, from, end)
  else {
    const span = blockCountOf(level - 1)
    for (let index = Math.floor(from / span); index * span < end; index++) {
      const base = index * span
      const other = (theirs as DirtyNode | undefined)?.parts[index]
      const partEnd = Math.min(span, end - base)
      const before = own.parts[index]
      // Before it is changed: it may be changed where it is.
      own.setCount -= before?.setCount ?? 0
      const after = replaced(before, other, Math.max(0, from - base), partEnd, level - 1)
      own.setCount += after?.setCount ?? 0
      own.parts[index] = after
    }
  }
  return settled(own, level)
}

/** The tree with a page where it had none. Takes the caller's hold on `part` and `page`. */
export function withPage(
  part: DirtyPart | undefined,
  pageIndex: number,
  page: DirtyPage,
  level = rootLevel,
): DirtyPart | undefined {
  const own = ownOf(part, level)
  assert(own instanceof DirtyNode)
  const span = pageCounts[level - 1] as number
  const index = Math.floor(pageIndex / span)
  const before = own.parts[index]
  assert(level > 1 || before === undefined)
  own.parts[index] =
    level === 1 ? page : withPage(before, pageIndex - index * span, page, level - 1)
  own.setCount += page.setCount
  return settled(own, level)
}

/** What is there, in order. Full parts that lie side by side are several runs. */
export function* pageRuns(
  part: DirtyPart | undefined,
  firstPage = 0,
  level = rootLevel,
): Generator<PageRun> {
  if (part === undefined) return
  const pageCount = pageCounts[level] as number
  if (part === fullParts[level])
    yield { first: firstPage, end: firstPage + pageCount, page: fullDirtyPage }
  else if (part instanceof DirtyPage) yield { first: firstPage, end: firstPage + 1, page: part }
  else
    for (const [index, one] of part.parts.entries())
      yield* pageRuns(one, firstPage + (index * pageCount) / fanOut, level - 1)
}

/** One more has it. */
export function hold(part: DirtyPart | undefined): void {
  if (part !== undefined) part.holders++
}

/** One less has it; nobody may have it any more. */
export function release(part: DirtyPart | undefined): void {
  if (part === undefined) return
  part.holders--
  if (part.holders === 0 && part instanceof DirtyNode) for (const one of part.parts) release(one)
}

/** A part that nobody else holds, with the same bits. */
function ownOf(part: DirtyPart | undefined, level: number): DirtyPart {
  if (part?.holders === 1) return part
  if (part !== undefined) {
    part.holders--
    return part.copy()
  }
  if (level === 0) return new DirtyPage(new Uint32Array(dirtyPageWordCount), 0)
  return new DirtyNode(new Array<undefined>(fanOut).fill(undefined), 0)
}

/** After bits of a part of our own changed. */
function settled(part: DirtyPart, level: number): DirtyPart | undefined {
  if (part.setCount === 0) return undefined
  return part.setCount === blockCountOf(level) ? fullPartOf(level) : part
}

function blockCountOf(level: number): number {
  return blockCounts[level] as number
}

function fullPartOf(level: number): DirtyPart {
  return fullParts[level] as DirtyPart
}
