// The dirty map against a set of block numbers, and what its sharing promises: cheap copies, full pages that cost nothing, views that stay as they were.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { blockBytes, MiB, TiB } from '../../src/core/units.js'
import { DirtyMap } from '../../src/storage/dirty-map.js'
import { type DirtyPage, dirtyPageBlockCount, fullDirtyPage } from '../../src/storage/dirty-page.js'

const pageBytes = dirtyPageBlockCount * blockBytes
const blockCount = 3 * dirtyPageBlockCount + 100

/** Offsets that lie near what matters: blocks, words and pages begin and end there. */
const offsets = fc
  .tuple(
    fc.constantFrom(0, 1, 31, 32, 33, 64, dirtyPageBlockCount / 2),
    fc.nat(3),
    fc.constantFrom(0, 0, 1, 512, 4095),
    fc.nat(40),
  )
  .map(([block, page, bytes, more]) => page * pageBytes + (block + more) * blockBytes + bytes)
const ranges = fc
  .tuple(offsets, offsets)
  .map(([a, b]) => ({ offset: Math.min(a, b), lengthBytes: Math.abs(a - b) }))
const changes = fc.record(
  {
    what: fc.constantFrom('mark', 'mark', 'clean', 'copy', 'become', 'cut', 'view'),
    which: fc.nat(1),
    range: ranges,
  },
  { noNullPrototype: true },
)

class Pair {
  readonly map = new DirtyMap()
  blocks = new Set<number>()
}

function wholeBlocks(range: { readonly offset: number; readonly lengthBytes: number }): number[] {
  const first = Math.ceil(range.offset / blockBytes)
  const end = Math.floor((range.offset + range.lengthBytes) / blockBytes)
  return Array.from({ length: Math.max(0, end - first) }, (_, index) => first + index)
}

function touchedBlocks(range: { readonly offset: number; readonly lengthBytes: number }): number[] {
  if (range.lengthBytes === 0) return []
  const first = Math.floor(range.offset / blockBytes)
  const end = Math.ceil((range.offset + range.lengthBytes) / blockBytes)
  return Array.from({ length: end - first }, (_, index) => first + index)
}

function hull(blocks: readonly number[]): { first: number; end: number } | undefined {
  const [first] = blocks
  const last = blocks.at(-1)
  return first === undefined || last === undefined ? undefined : { first, end: last + 1 }
}

function runsOf(map: DirtyMap, end: number): number[] {
  const found: number[] = []
  for (let run = map.nextRun(0, end); run !== undefined; run = map.nextRun(run.end, end)) {
    assert(found.at(-1) !== run.first - 1, 'two runs do not touch')
    for (let block = run.first; block < run.end; block++) found.push(block)
  }
  return found
}

/** Each by itself, by its index. */
function pagesOf(map: DirtyMap): Map<number, DirtyPage> {
  const pages = new Map<number, DirtyPage>()
  for (const { first, end, page } of map.pageRuns())
    for (let index = first; index < end; index++) pages.set(index, page)
  return pages
}

function assertSame(pair: Pair): void {
  const expected = [...pair.blocks].sort((a, b) => a - b)
  assert.equal(pair.map.dirtyBlockCount, expected.length)
  assert.deepEqual(runsOf(pair.map, blockCount * 2), expected)
  for (const page of pagesOf(pair.map).values()) {
    assert(page.setCount > 0, 'no page without a bit')
    assert(page === fullDirtyPage || page.setCount < dirtyPageBlockCount, 'no second page of ones')
    let bits = 0
    for (const word of page.words) for (let rest = word; rest !== 0; rest &= rest - 1) bits++
    assert.equal(bits, page.setCount)
  }
}

type Change = {
  readonly what: string
  readonly which: number
  readonly range: { readonly offset: number; readonly lengthBytes: number }
}

function apply(pair: Pair, other: Pair, { what, range }: Change): void {
  const { map, blocks } = pair
  const { offset, lengthBytes } = range
  if (what === 'mark') {
    const touched = touchedBlocks(range)
    const changed = hull(touched.filter((block) => !blocks.has(block)))
    assert.deepEqual(map.markBytes(offset, lengthBytes), changed)
    for (const block of touched) blocks.add(block)
  } else if (what === 'clean') {
    const whole = wholeBlocks(range)
    const changed = hull(whole.filter((block) => blocks.has(block)))
    assert.deepEqual(map.cleanBytes(offset, lengthBytes), changed)
    for (const block of whole) blocks.delete(block)
  } else if (what === 'copy') {
    map.copyRange(other.map, offset, lengthBytes)
    const whole = new Set(wholeBlocks(range))
    for (const block of touchedBlocks(range)) {
      if (other.blocks.has(block)) blocks.add(block)
      else if (whole.has(block)) blocks.delete(block)
    }
  } else if (what === 'become') {
    map.become(other.map)
    pair.blocks = new Set(other.blocks)
  } else {
    map.cut(offset)
    for (const block of blocks) if (block >= Math.ceil(offset / blockBytes)) blocks.delete(block)
  }
}

t.test('a map is a set of blocks, whatever is done to it and to those it shares with', async () => {
  const property = fc.property(fc.array(changes, { maxLength: 20 }), (list) => {
    const pairs = [new Pair(), new Pair()] as const
    const views: Pair[] = []
    for (const change of list) {
      const pair = pairs[change.which] as Pair
      if (change.what === 'view') {
        const view = new Pair()
        view.map.become(pair.map.share())
        view.blocks = new Set(pair.blocks)
        views.push(view)
      } else apply(pair, pairs[1 - change.which] as Pair, change)
    }
    for (const pair of [...pairs, ...views]) assertSame(pair)
  })
  fc.assert(property, { seed: 41, numRuns: 60 })
})

t.test('single blocks and their neighbours', async (t) => {
  const map = new DirtyMap()
  t.strictSame(map.markBytes(4096, 1), { first: 1, end: 2 })
  t.equal(map.markBytes(5000, 10), undefined, 'marked already')
  t.equal(map.markBytes(5000, 0), undefined, 'nothing is no block')
  t.ok(map.isDirty(1))
  t.notOk(map.isDirty(0))
  t.equal(map.cleanBytes(4096, 4095), undefined, 'a block that is not whole stays dirty')
  t.equal(map.cleanBytes(0, 4096), undefined)
  t.strictSame(map.cleanBytes(4095, 4097), { first: 1, end: 2 })
  t.equal(map.dirtyBlockCount, 0)
  t.equal(pagesOf(map).size, 0, 'an empty page is let go')
})

t.test('of a long run no more is looked at than is asked for', async (t) => {
  const map = new DirtyMap()
  const end = 3 * dirtyPageBlockCount
  map.markBlocks(5, end)
  t.strictSame(map.nextRun(0, end, 1), { first: 5, end: 6 })
  t.strictSame(map.nextRun(0, end, 40), { first: 5, end: 45 })
  t.strictSame(map.nextRun(7, end, 40), { first: 7, end: 47 })
  for (const first of [5, dirtyPageBlockCount - 40, dirtyPageBlockCount]) {
    // Cut before, at and behind the end of a page.
    for (const count of [39, 40, 41, dirtyPageBlockCount - 1, dirtyPageBlockCount, end]) {
      const cut = Math.min(first + count, end)
      t.strictSame(map.nextRun(first, end, count), { first, end: cut }, `${first}, ${count}`)
    }
  }
  map.cleanBlocks(10, 20)
  t.strictSame(map.nextRun(0, end, 40), { first: 5, end: 10 })
})

t.test('a dirty terabyte takes no memory for its bits, and its runs are one', async (t) => {
  const map = new DirtyMap()
  t.strictSame(map.markBytes(0, TiB), { first: 0, end: TiB / blockBytes })
  t.equal(map.dirtyBlockCount, TiB / blockBytes)
  t.ok([...pagesOf(map).values()].every((page) => page === fullDirtyPage))
  t.strictSame(map.nextRun(5, TiB / blockBytes), { first: 5, end: TiB / blockBytes })
  t.strictSame(map.nextRun(0, 100), { first: 0, end: 100 })
  map.cleanBytes(pageBytes * 7 + blockBytes, blockBytes)
  t.strictSame(map.nextRun(0, TiB / blockBytes), { first: 0, end: 7 * dirtyPageBlockCount + 1 })
  t.equal([...pagesOf(map).values()].filter((page) => page !== fullDirtyPage).length, 1)
  t.equal(fullDirtyPage.setCount, dirtyPageBlockCount)
  t.ok(
    fullDirtyPage.words.every((word) => word === 0xffffffff),
    'the shared page is as ever',
  )
  map.markBytes(pageBytes * 7 + blockBytes, 1)
  t.equal(pagesOf(map).get(7), fullDirtyPage, 'a page that fills becomes the shared one')
})

t.test('the bits of a terabyte with a hole in every page fit in 40 MiB', async (t) => {
  const map = new DirtyMap()
  map.markBytes(0, TiB)
  for (let offset = 0; offset < TiB; offset += pageBytes) map.cleanBytes(offset, blockBytes)
  let bytes = 0
  for (const page of pagesOf(map).values()) bytes += page.words.byteLength + 300
  t.ok(bytes <= 40 * MiB, `${bytes}`)
})

t.test('pages are shared until one side writes, and only that page is copied', async (t) => {
  const volume = new DirtyMap()
  for (const page of [0, 1, 2]) volume.markBytes(page * pageBytes, 1)
  const snapshot = new DirtyMap()
  snapshot.become(volume)
  t.equal(pagesOf(snapshot).get(1), pagesOf(volume).get(1))
  volume.markBytes(pageBytes + blockBytes, 1)
  t.not(pagesOf(snapshot).get(1), pagesOf(volume).get(1))
  t.equal(pagesOf(snapshot).get(2), pagesOf(volume).get(2))
  t.equal(pagesOf(volume).get(1)?.holders, 1)
  t.equal(pagesOf(volume).get(2)?.holders, 2)
  snapshot.clear()
  t.equal(pagesOf(volume).get(2)?.holders, 1)
  const before = pagesOf(volume).get(2)
  volume.markBytes(2 * pageBytes + blockBytes, 1)
  t.equal(pagesOf(volume).get(2), before, 'a page of one map is changed where it is')
})

t.test('a scan skips what is far apart', async (t) => {
  const map = new DirtyMap()
  const far = 2 ** 50
  map.markBytes(far, 1)
  map.markBytes(7, 1)
  const end = 2 ** 53 / blockBytes
  t.strictSame(map.nextRun(1, end), { first: far / blockBytes, end: far / blockBytes + 1 })
  t.equal(map.nextRun(far / blockBytes + 1, end), undefined)
  map.markBytes(far / 2, 1)
  t.strictSame(map.nextRun(1, end)?.first, far / 2 / blockBytes, 'pages that came later are found')
  map.cut(8)
  t.equal(map.dirtyBlockCount, 1)
})

t.test('a picture shows how much of each slice is dirty', async (t) => {
  const map = new DirtyMap()
  t.strictSame(map.picture(4, 4 * pageBytes), [0, 0, 0, 0])
  map.markBytes(pageBytes, pageBytes)
  map.markBytes(2 * pageBytes, pageBytes / 2)
  t.strictSame(map.picture(4, 4 * pageBytes), [0, 1, 0.5, 0])
  t.strictSame(map.picture(8, 4 * pageBytes), [0, 0, 1, 1, 1, 0, 0, 0])
  t.strictSame(map.picture(1, 4 * pageBytes), [0.375])
  const small = new DirtyMap()
  small.markBytes(4096, 1)
  t.strictSame(small.picture(2, 8192), [0, 1])
  t.strictSame(small.picture(4, 8192), [0, 0, 1, 1], 'a block is several cells')
  t.strictSame(small.picture(2, 6144), [0, 2048 / 3072], 'it ends where the store ends')
})

t.test('a page read by recovery counts', async (t) => {
  const map = new DirtyMap()
  map.adopt(2, fullDirtyPage)
  t.equal(map.dirtyBlockCount, dirtyPageBlockCount)
  t.throws(() => map.adopt(2, fullDirtyPage), { name: 'AssertionError' })
})
