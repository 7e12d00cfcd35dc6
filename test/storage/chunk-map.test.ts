// The two-level map beside a naive one: the same places, references that can be counted from scratch, and steps that do not grow with holes.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import {
  ChunkMap,
  type ChunkPage,
  type Look,
  type PageKeeper,
  pageEntryCount,
} from '../../src/storage/chunk-map.js'
import { SeededRandom } from '../support/random.js'

/** Takes releases at once, and counts. */
class CountingKeeper implements PageKeeper {
  checkpointNumber = 0
  readonly counts = new Map<number, number>()
  readonly changed: ChunkPage[] = []
  #next = 1

  /** A place with the one reference that `set` takes over. */
  take(): number {
    const place = this.#next++
    this.counts.set(place, 1)
    return place
  }

  retain(place: number): void {
    const count = this.counts.get(place)
    assert(count !== undefined && count > 0)
    this.counts.set(place, count + 1)
  }

  releaseLater(place: number): void {
    const count = this.counts.get(place)
    assert(count !== undefined)
    if (count === 1) this.counts.delete(place)
    else this.counts.set(place, count - 1)
  }

  releasePageLater(page: ChunkPage): void {
    page.holders--
    assert(page.holders >= 0)
    if (page.holders > 0) return
    for (const place of page.entries) if (place !== 0) this.releaseLater(place)
  }

  beforeChange(page: ChunkPage): void {
    this.changed.push(page)
    page.checkpointNumber = this.checkpointNumber
  }
}

/** Counts every reference from scratch, and compares. */
function checkReferences(keeper: CountingKeeper, maps: readonly ChunkMap[]): void {
  const holders = new Map<ChunkPage, number>()
  for (const map of maps) {
    let allocatedCount = 0
    for (const page of map.pages.values()) {
      holders.set(page, (holders.get(page) ?? 0) + 1)
      allocatedCount += page.usedCount
    }
    assert.equal(map.allocatedCount, allocatedCount)
  }
  const counts = new Map<number, number>()
  for (const [page, count] of holders) {
    assert.equal(page.holders, count)
    const places = page.entries.filter((place) => place !== 0)
    assert.equal(page.usedCount, places.length)
    assert(page.usedCount > 0, 'an empty page is let go')
    for (const place of places) counts.set(place, (counts.get(place) ?? 0) + 1)
  }
  assert.deepEqual(keeper.counts, new Map([...counts].sort(([a], [b]) => a - b)))
}

const pageCount = 3
const chunkEnd = pageCount * pageEntryCount
/** Chunks at the edges of pages, where mistakes live. */
const chunks = fc.constantFrom(...[0, 1, 2, 4094, 4095, 4096, 4097, 8191, 8192, 8193, chunkEnd - 1])
const ranges = fc
  .tuple(fc.oneof(chunks, fc.nat(chunkEnd)), fc.oneof(chunks, fc.nat(chunkEnd)))
  .map(([a, b]) => ({ first: Math.min(a, b), end: Math.max(a, b) }))
const mapIndexes = fc.nat(2)
const steps = fc.oneof(
  fc.record({ kind: fc.constant('set' as const), map: mapIndexes, chunk: chunks }),
  fc.record({ kind: fc.constant('set-hole' as const), map: mapIndexes, chunk: chunks }),
  fc.record({ kind: fc.constant('unmap' as const), map: mapIndexes, range: ranges }),
  fc.record({
    kind: fc.constant('copy' as const),
    map: mapIndexes,
    source: mapIndexes,
    range: ranges,
  }),
  fc.record({ kind: fc.constant('become' as const), map: mapIndexes, source: mapIndexes }),
  fc.record({ kind: fc.constant('clear' as const), map: mapIndexes }),
)
type Step = typeof steps extends fc.Arbitrary<infer T> ? T : never

function look(stepsLeft = 1_000_000): Look {
  return { stepsLeft }
}

type Pair = { readonly map: ChunkMap; model: Map<number, number> }

function pairOf(pairs: readonly Pair[], index: number): Pair {
  const pair = pairs[index]
  assert(pair)
  return pair
}

function perform(step: Step, pairs: readonly Pair[], keeper: CountingKeeper): void {
  const target = pairOf(pairs, step.map)
  const { map, model } = target
  const inRange = ([chunk]: [number, number]): boolean =>
    'range' in step && chunk >= step.range.first && chunk < step.range.end
  switch (step.kind) {
    case 'set': {
      const place = keeper.take()
      map.set(step.chunk, place)
      model.set(step.chunk, place)
      return
    }
    case 'set-hole':
      map.set(step.chunk, 0)
      model.delete(step.chunk)
      return
    case 'unmap':
      map.unmap(step.range.first, step.range.end)
      target.model = new Map([...model].filter((one) => !inRange(one)))
      return
    case 'clear':
      map.clear()
      target.model = new Map()
      return
    default: {
      const source = pairOf(pairs, step.source)
      if (source === target) return
      if (step.kind === 'become') {
        map.become(source.map)
        target.model = new Map(source.model)
        return
      }
      map.copyFrom(source.map, step.range.first, step.range.end)
      const kept = [...model].filter((one) => !inRange(one))
      target.model = new Map([...kept, ...[...source.model].filter(inRange)])
    }
  }
}

function checkMap({ map, model }: Pair): void {
  assert.equal(map.allocatedCount, model.size)
  for (const [chunk, place] of model) assert.equal(map.get(chunk), place)
  for (const chunk of [0, 3, 4093, 5000, 8190, chunkEnd - 2])
    if (!model.has(chunk)) assert.equal(map.get(chunk), 0)
}

t.test('maps are what a naive map would be, and every reference is counted', async () => {
  const property = fc.property(fc.array(steps, { maxLength: 30 }), (work) => {
    const keeper = new CountingKeeper()
    const pairs = [0, 1, 2].map(() => ({ map: new ChunkMap(keeper), model: new Map() }))
    for (const step of work) {
      perform(step, pairs, keeper)
      for (const pair of pairs) checkMap(pair)
    }
    checkReferences(
      keeper,
      pairs.map((pair) => pair.map),
    )
  })
  fc.assert(property, { seed: 1, numRuns: 300 })
})

t.test('runs and holes are those of a naive map', async () => {
  const property = fc.property(fc.array(steps, { maxLength: 12 }), ranges, (work, range) => {
    const keeper = new CountingKeeper()
    const pairs = [0, 1, 2].map(() => ({ map: new ChunkMap(keeper), model: new Map() }))
    for (const step of work) perform(step, pairs, keeper)
    const { first, end } = range
    const ours = pairOf(pairs, 0)
    const theirs = pairOf(pairs, 1)
    const isInside = (chunk: number): boolean => chunk >= first && chunk < end
    assert.equal(ours.map.isHole(first, end), ![...ours.model.keys()].some(isInside))
    if (first === end) return
    const isHole = ours.map.get(first) === 0
    let at = first
    while (at < end && !ours.model.has(at) === isHole) at++
    assert.equal(ours.map.runEnd(first, end, isHole, look()), at)
    const isSame = (chunk: number): boolean => ours.model.get(chunk) === theirs.model.get(chunk)
    at = first
    while (at < end && isSame(at) === isSame(first)) at++
    assert.equal(
      ours.map.sameRunEnd(theirs.map, { chunk: first, end, isSame: isSame(first) }, look()),
      at,
    )
  })
  fc.assert(property, { seed: 2, numRuns: 300 })
})

t.test('a copy shares its pages, and a write copies one of them', async (t) => {
  const keeper = new CountingKeeper()
  const volume = new ChunkMap(keeper)
  for (let page = 0; page < 100; page++) volume.set(page * pageEntryCount, keeper.take())
  const snapshot = new ChunkMap(keeper)
  snapshot.become(volume)
  t.ok([...volume.pages].every(([index, page]) => snapshot.pages.get(index) === page))
  t.equal(volume.ownPage(0), undefined, 'a shared page is nobody’s own')
  volume.set(1, keeper.take())
  t.equal([...volume.pages].filter(([index, page]) => snapshot.pages.get(index) !== page).length, 1)
  t.ok(volume.ownPage(0))
  t.equal(snapshot.get(1), 0)
  t.equal(keeper.counts.get(volume.get(0)), 2, 'both pages name the chunk')
})

t.test('what covers a whole page is shared, what covers a part is copied', async (t) => {
  const keeper = new CountingKeeper()
  const source = new ChunkMap(keeper)
  for (const chunk of [4095, 4096, 8191, 8192, 8193]) source.set(chunk, keeper.take())
  const target = new ChunkMap(keeper)
  target.copyFrom(source, 4095, 8193)
  t.equal(target.pages.get(1), source.pages.get(1))
  t.not(target.pages.get(0), source.pages.get(0))
  t.strictSame(
    [4095, 4096, 8191, 8192, 8193].map((chunk) => target.get(chunk) === source.get(chunk)),
    [true, true, true, true, false],
  )
})

t.test('the map of the largest volume costs its pages, not its length', async (t) => {
  const keeper = new CountingKeeper()
  const chunkCount = 2 ** 53 / 4096
  const volume = new ChunkMap(keeper)
  const chunks = [0, 2 ** 32, 2 ** 32 + 1, 2 ** 40 + 4095, chunkCount - 1]
  for (const chunk of chunks) volume.set(chunk, keeper.take())
  let lookups = 0
  const { get } = volume.pages
  volume.pages.get = function (index: number) {
    lookups++
    return get.call(this, index)
  }
  const copy = new ChunkMap(keeper)
  copy.copyFrom(volume, 0, chunkCount)
  t.strictSame(
    chunks.map((chunk) => copy.get(chunk)),
    chunks.map((chunk) => volume.get(chunk)),
  )
  t.equal(volume.isHole(1, 2 ** 32), true)
  t.equal(volume.isHole(1, chunkCount), false)
  volume.unmap(0, chunkCount)
  t.ok(lookups < 100, `${lookups} lookups`)
  t.equal(volume.pages.size, 0)
  lookups = 0
  t.equal(volume.runEnd(0, chunkCount, true, look(160)), 10 * pageEntryCount, 'a look is bounded')
  t.equal(volume.runEnd(0, chunkCount, true, look(2000)), chunkCount, 'and costs what is there')
  const range = { chunk: 0, end: chunkCount, isSame: true }
  t.equal(volume.sameRunEnd(new ChunkMap(keeper), range, look(160)), 10 * pageEntryCount)
  t.ok(lookups <= 100)
})

t.test('the next chunk behind a long hole is found among the pages there are', async (t) => {
  const keeper = new CountingKeeper()
  const chunkCount = 2 ** 53 / 4096
  const volume = new ChunkMap(keeper)
  const random = new SeededRandom(5)
  const chunks: number[] = []
  for (let count = 300; count > 0; count--)
    chunks.push(random.below(2 ** 20) * 2 ** random.below(21))
  for (const chunk of chunks) volume.set(chunk, keeper.take())
  chunks.sort((a, b) => a - b)
  for (let count = 2000; count > 0; count--) {
    const from = random.below(2 ** 20) * 2 ** random.below(21)
    const end = Math.min(chunkCount, from + 2 ** random.below(41))
    const next = chunks.find((chunk) => chunk >= from) ?? end
    const steps = { stepsLeft: 100_000 }
    const found = volume.runEnd(from, end, true, steps)
    assert.equal(found, Math.min(end, next), `from ${from} to ${end}`)
    // Two pages that are there, the absent ones that are passed one by one, and a look at all.
    assert(steps.stepsLeft > 100_000 - 2 * pageEntryCount - 65 * 16 - 300)
  }
  const last = (chunks.at(-1) ?? 0) + pageEntryCount
  assert(last < chunkCount - 100 * pageEntryCount)
  const few = { stepsLeft: 16 * 70 }
  const end = volume.runEnd(last, chunkCount, true, few)
  t.ok(end < last + 71 * pageEntryCount, 'without steps for all, one by one')
  t.ok(few.stepsLeft > -17)
})

t.test('a page that became empty is let go', async (t) => {
  const keeper = new CountingKeeper()
  const volume = new ChunkMap(keeper)
  for (let page = 0; page < 50; page++) {
    const chunk = page * pageEntryCount + 7
    volume.set(chunk, keeper.take())
    volume.unmap(chunk, chunk + 1)
  }
  t.equal(volume.pages.size, 0)
  t.equal(keeper.counts.size, 0)
})

t.test('a page is shown before its first change after a checkpoint began, and once', async (t) => {
  const keeper = new CountingKeeper()
  const volume = new ChunkMap(keeper)
  volume.set(0, keeper.take())
  keeper.checkpointNumber++
  volume.set(1, keeper.take())
  volume.set(2, keeper.take())
  volume.set(pageEntryCount, keeper.take())
  t.strictSame(keeper.changed, [volume.pages.get(0)], 'not the page that is new')
})

t.test('a look at full and at mixed pages is bounded, too', async (t) => {
  const keeper = new CountingKeeper()
  const full = new ChunkMap(keeper)
  for (let chunk = 0; chunk < 20 * pageEntryCount; chunk++) full.set(chunk, keeper.take())
  const bounded = look(16 * 10)
  t.equal(full.runEnd(5, 20 * pageEntryCount, false, bounded), 10 * pageEntryCount)
  t.equal(full.runEnd(5, 20 * pageEntryCount, false, bounded), 5, 'nothing is left')
  const other = new ChunkMap(keeper)
  const range = { chunk: 0, end: 20 * pageEntryCount, isSame: false }
  t.equal(full.sameRunEnd(other, range, look(3 * pageEntryCount)), 3 * pageEntryCount)
})
