// The dirty map of stores of any size against a list of runs: ranges of a block and of a whole store of 2^53 bytes, and what it costs to have them.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { blockBytes } from '../../src/core/units.js'
import { DirtyMap } from '../../src/storage/dirty-map.js'
import { dirtyPageBlockCount, fullDirtyPage } from '../../src/storage/dirty-page.js'
import { NaiveRuns } from '../support/naive-runs.js'

/** Of a store of 2^53 bytes: the largest there is, rounded up. */
const endBlock = 2 ** 41
const endBytes = 2 ** 53

/** Places of each size of step, so that whatever is kept together at any level begins and ends there, and a little beside. */
const places = fc
  .tuple(fc.integer({ min: 0, max: 41 }), fc.nat(5), fc.constantFrom(0, 0, 0, -1, 1, -33, 70))
  .map(([bits, count, more]) => Math.min(endBlock, Math.max(0, 2 ** bits * count + more)))
const ends = fc.oneof(places, fc.constant(endBlock))
const cuts = fc.constantFrom(0, 0, 0, 1, 512, 4095)
const ranges = fc.tuple(places, ends, cuts, cuts).map(([one, other, cut, endCut]) => {
  const offset = Math.min(one, other) * blockBytes + cut
  const end = Math.min(endBytes, Math.max(one, other) * blockBytes + endCut)
  return { offset, lengthBytes: Math.max(0, end - offset) }
})
const changes = fc.record(
  {
    what: fc.constantFrom(
      'mark',
      'mark',
      'mark',
      'clean',
      'clean',
      'copy',
      'become',
      'cut',
      'view',
    ),
    which: fc.nat(1),
    range: ranges,
  },
  { noNullPrototype: true },
)
type Range = { readonly offset: number; readonly lengthBytes: number }
type Change = { readonly what: string; readonly which: number; readonly range: Range }

class Pair {
  readonly map = new DirtyMap()
  runs = new NaiveRuns()

  change({ what, range }: Change, other: Pair): void {
    const { offset, lengthBytes } = range
    const touched = touchedBlocks(range)
    const whole = wholeBlocks(range)
    if (what === 'mark') {
      const changed = this.runs.gaps(touched.first, touched.end).hull
      assert.deepEqual(this.map.markBytes(offset, lengthBytes), changed)
      this.runs = this.runs.with(touched.first, touched.end)
    } else if (what === 'clean') {
      const changed = this.runs.within(whole.first, whole.end).hull
      assert.deepEqual(this.map.cleanBytes(offset, lengthBytes), changed)
      this.runs = this.runs.without(whole.first, whole.end)
    } else if (what === 'copy') {
      this.map.copyRange(other.map, offset, lengthBytes)
      const { runs } = other.runs.within(touched.first, touched.end)
      this.runs = this.runs.without(whole.first, whole.end)
      for (const run of runs) this.runs = this.runs.with(run.first, run.end)
    } else if (what === 'become') {
      this.map.become(other.map)
      this.runs = other.runs
    } else if (what === 'cut') {
      this.map.cut(offset)
      this.runs = this.runs.without(Math.ceil(offset / blockBytes), endBlock)
    }
  }

  check(): void {
    const { map, runs } = this
    const found: { first: number; end: number }[] = []
    for (let run = map.nextRun(0, endBlock); run; run = map.nextRun(run.end, endBlock))
      found.push(run)
    assert.deepEqual(found, runs.runs)
    assert.equal(map.dirtyBlockCount, runs.count)
    for (const { first, end, page } of map.pageRuns()) {
      assert(page === fullDirtyPage || (page.setCount > 0 && page.setCount < dirtyPageBlockCount))
      assert(page === fullDirtyPage || end === first + 1)
    }
    for (const at of runs.runs.flatMap(({ first, end }) => [first, end])) {
      for (const block of [at - 1, at, at + 1].filter((one) => one >= 0 && one < endBlock))
        assert.equal(map.isDirty(block), runs.within(block, block + 1).count === 1)
      const [run] = runs.within(at, endBlock).runs
      const cut = run && { first: run.first, end: Math.min(run.end, run.first + 40_000) }
      assert.deepEqual(map.nextRun(at, endBlock, 40_000), cut)
    }
  }
}

function touchedBlocks({ offset, lengthBytes }: Range): { first: number; end: number } {
  const first = Math.floor(offset / blockBytes)
  return { first, end: lengthBytes === 0 ? first : Math.ceil((offset + lengthBytes) / blockBytes) }
}

function wholeBlocks({ offset, lengthBytes }: Range): { first: number; end: number } {
  const first = Math.ceil(offset / blockBytes)
  return { first, end: Math.max(first, Math.floor((offset + lengthBytes) / blockBytes)) }
}

/** Clears and sets a block in each page that is not full. The answer are pages that were copied for it. */
function changedInPlace(map: DirtyMap): readonly number[] {
  const before = [...map.pageRuns()].filter(({ page }) => page !== fullDirtyPage)
  return before.flatMap(({ first, page }) => {
    const [from, end] = [first * dirtyPageBlockCount, (first + 1) * dirtyPageBlockCount]
    const run = map.nextRun(from, end)
    assert(run)
    if (page.setCount === 1) map.markBlocks(from, from + 2)
    map.cleanBlocks(run.first, run.first + 1)
    map.markBlocks(run.first, run.first + 1)
    const after = [...map.pageRuns()].find((one) => one.first === first)
    return after?.page === page ? [] : [first]
  })
}

t.test('a map of any size is a list of runs, whatever is done to it and to others', async () => {
  const property = fc.property(fc.array(changes, { maxLength: 30, size: 'max' }), (list) => {
    const pairs = [new Pair(), new Pair()] as const
    const views: Pair[] = []
    for (const change of list) {
      const pair = pairs[change.which] as Pair
      if (change.what === 'view') {
        const view = new Pair()
        view.map.become(pair.map)
        view.runs = pair.runs
        views.push(view)
      } else pair.change(change, pairs[1 - change.which] as Pair)
    }
    for (const pair of [...pairs, ...views]) pair.check()
    // Letting go of one takes nothing away from the others, and the last one has all for itself.
    const all = [...pairs, ...views]
    for (let last = all.pop(); last !== undefined; last = all.pop()) {
      if (all.length === 0) assert.deepEqual(changedInPlace(last.map), [])
      last.map.clear()
      for (const pair of all) pair.check()
    }
  })
  fc.assert(property, { seed: 53, numRuns: 400 })
})

t.test('a store of 2^53 bytes that is dirty as a whole is one run of pages', (t) => {
  const map = new DirtyMap()
  const pageCount = endBlock / dirtyPageBlockCount
  t.strictSame(map.markBytes(0, endBytes - 512), { first: 0, end: endBlock })
  t.strictSame([...map.pageRuns()], [{ first: 0, end: pageCount, page: fullDirtyPage }])
  t.equal(map.markBytes(4096, endBytes / 2), undefined, 'nothing new')
  const snapshot = new DirtyMap()
  snapshot.become(map)
  map.cleanBytes(endBytes / 2, blockBytes)
  const runs = [...map.pageRuns()].map(({ first, end, page }) => [first, end, page.setCount])
  const half = pageCount / 2
  t.strictSame(runs, [
    [0, half, dirtyPageBlockCount],
    [half, half + 1, dirtyPageBlockCount - 1],
    [half + 1, pageCount, dirtyPageBlockCount],
  ])
  t.equal(map.countIn(0, endBlock), endBlock - 1)
  t.equal(map.countIn(endBlock / 2 - 7, endBlock / 2 + 7), 13)
  t.equal(snapshot.dirtyBlockCount, endBlock, 'the copy is as it was')
  t.strictSame(map.picture(4, endBytes), [1, 1, 1 - 2 ** -39, 1])
  t.strictSame(map.cleanBlocks(0, Number.MAX_SAFE_INTEGER), { first: 0, end: endBlock })
  t.strictSame([...map.pageRuns()], [])
  t.end()
})

t.test('full pages and others in between are told in order', (t) => {
  const map = new DirtyMap()
  const wholePages = [0, 1, 127, 128, 129, 2 ** 14 - 1, 2 ** 14, 2 ** 25]
  for (const page of wholePages)
    map.markBlocks(page * dirtyPageBlockCount, (page + 1) * dirtyPageBlockCount)
  for (const page of [2, 130, 2 ** 20])
    map.markBlocks(page * dirtyPageBlockCount, (3 * 2 ** 40) / 2)
  map.cleanBlocks(131 * dirtyPageBlockCount, 2 ** 40)
  map.cleanBlocks(2 ** 40 + 1, endBlock)
  const runs = [...map.pageRuns()].map(({ first, end, page }) => [first, end, page.setCount])
  t.strictSame(runs, [
    [0, 131, dirtyPageBlockCount],
    [2 ** 25, 2 ** 25 + 1, 1],
  ])
  const places = wholePages.slice(0, 5)
  for (const page of places) map.cleanBlocks(page * dirtyPageBlockCount + 5, page * 32768 + 6)
  t.strictSame(
    [...map.pageRuns()].map(({ first, end }) => [first, end]),
    [
      [0, 1],
      [1, 2],
      [2, 127],
      [127, 128],
      [128, 129],
      [129, 130],
      [130, 131],
      [2 ** 25, 2 ** 25 + 1],
    ],
  )
  t.throws(() => map.markBlocks(0, 2 ** 44), { name: 'AssertionError' })
  t.end()
})

t.test('what maps have in common is there once, until one of them changes it', (t) => {
  const map = new DirtyMap()
  // Pages of their own, far apart and side by side.
  for (let page = 0; page < 300; page++) map.markBlocks(page * 32768 + 3, page * 32768 + 9)
  for (let bits = 9; bits < 26; bits++) map.markBlocks(2 ** bits * 32768, 2 ** bits * 32768 + 1)
  const pages = (of: DirtyMap): readonly unknown[] => [...of.pageRuns()].map(({ page }) => page)
  const before = pages(map)
  const copies = Array.from({ length: 20 }, () => map.share())
  for (const copy of copies) t.ok(pages(copy).every((page, index) => page === before[index]))
  map.cleanBlocks(5, 6)
  map.markBlocks(200 * 32768, 200 * 32768 + 1)
  const other = pages(map).filter((page, index) => page !== before[index])
  t.equal(other.length, 2, 'two pages are copied')
  for (const copy of copies) copy.clear()
  const own = pages(map)
  map.markBlocks(70, 80)
  map.cleanBlocks(2 ** 25 * 32768 + 1, endBlock)
  for (let page = 0; page < 300; page++) map.cleanBlocks(page * 32768 + 4, page * 32768 + 5)
  t.ok(
    pages(map).every((page, index) => page === own[index]),
    'no copies without anybody else',
  )
  t.end()
})
