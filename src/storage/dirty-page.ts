// A page of a dirty map: one bit a block for 128 MiB of a store, and what is done to its bits word by word.
//
// Invariant: a page knows how many set bits it has, and how many hold it. Only one that nobody else holds is changed.
import assert from 'node:assert/strict'

export const dirtyPageBlockCount = 32768
export const dirtyPageWordCount = dirtyPageBlockCount / 32

export class DirtyPage {
  readonly words: Uint32Array
  /** Parts of maps that hold this page. */
  holders = 1
  setCount: number

  constructor(words: Uint32Array, setCount: number) {
    assert.equal(words.length, dirtyPageWordCount)
    this.words = words
    this.setCount = setCount
  }

  copy(): DirtyPage {
    return new DirtyPage(this.words.slice(), this.setCount)
  }

  /** The bits `[from, end)` become as in `theirs`; absent: none is set. */
  replace(theirs: DirtyPage | undefined, from: number, end: number): void {
    const { words } = this
    for (let index = from >>> 5; index * 32 < end; index++) {
      const mask = wordMask(index, from, end)
      const before = words[index] as number
      const after = ((before & ~mask) | ((theirs?.words[index] ?? 0) & mask)) >>> 0
      if (after === before) continue
      words[index] = after
      this.setCount += bitCount(after) - bitCount(before)
    }
  }

  /** The first bit of `[from, end)` that is set, or that is not; `end` when there is none. */
  firstOf(isSet: boolean, from: number, end: number): number {
    for (let index = from >>> 5; index * 32 < end; index++) {
      const found = this.#found(isSet, index, from, end)
      if (found !== 0) return index * 32 + 31 - Math.clz32(found & -found)
    }
    return end
  }

  /** Behind the last bit of `[from, end)` that is set, or that is not; `from` when there is none. */
  endOf(isSet: boolean, from: number, end: number): number {
    for (let index = (end - 1) >>> 5; (index + 1) * 32 > from; index--) {
      const found = this.#found(isSet, index, from, end)
      if (found !== 0) return index * 32 + 32 - Math.clz32(found)
    }
    return from
  }

  countIn(from: number, end: number): number {
    let count = 0
    for (let index = from >>> 5; index * 32 < end; index++)
      count += bitCount(this.#found(true, index, from, end))
    return count
  }

  /** Bits of a word that are what is looked for. */
  #found(isSet: boolean, index: number, from: number, end: number): number {
    const word = this.words[index] as number
    return ((isSet ? word : ~word) & wordMask(index, from, end)) >>> 0
  }
}

/** All bits set. Never changed: whoever clears one of them takes a copy. */
export const fullDirtyPage = new DirtyPage(
  new Uint32Array(dirtyPageWordCount).fill(0xffffffff),
  dirtyPageBlockCount,
)
fullDirtyPage.holders = Number.POSITIVE_INFINITY

/** The bits of word `index` that lie in `[from, end)`. */
function wordMask(index: number, from: number, end: number): number {
  const base = index * 32
  const low = from <= base ? 0xffffffff : (0xffffffff << (from - base)) >>> 0
  const high = end >= base + 32 ? 0xffffffff : ~(0xffffffff << (end - base)) >>> 0
  return (low & high) >>> 0
}

function bitCount(word: number): number {
  const pairs = word - ((word >>> 1) & 0x55555555)
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333)
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
