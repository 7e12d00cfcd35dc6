// Runs of equal status beside a naive look at every byte, and the bounds of one look.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import type { StoreId } from '../../src/core/units.js'
import { ChunkMap, pageEntryCount } from '../../src/storage/chunk-map.js'
import { allocatedRuns, changedPicture, changedRuns, type Run } from '../../src/storage/extents.js'
import { Store } from '../../src/storage/group-state.js'
import { LooseKeeper } from '../support/loose-keeper.js'

const chunkBytes = 4096

function storeOf(sizeBytes: number, places: ReadonlyMap<number, number> = new Map()): Store {
  const map = new ChunkMap(new LooseKeeper())
  for (const [chunk, place] of places) map.set(chunk, place)
  return new Store({ id: 1 as StoreId, name: 'v', sizeBytes, map, createdAt: '' })
}

/** Chunks near the bound of two pages; places few enough to be equal now and then. */
const places = fc
  .array(fc.tuple(fc.integer({ min: 4080, max: 4110 }), fc.integer({ min: 1, max: 3 })))
  .map((pairs) => new Map(pairs))
const queries = fc.record(
  {
    offset: fc.integer({ min: 4078 * chunkBytes, max: 4112 * chunkBytes }),
    lengthBytes: fc.integer({ min: 1, max: 40 * chunkBytes }),
    runCountMax: fc.integer({ min: 1, max: 6 }),
  },
  { noNullPrototype: true },
)
type Query = { offset: number; lengthBytes: number; runCountMax: number }

/** Compares with the status of every block of 512 bytes, cut at `runCountMax` runs. */
function checkRuns(runs: readonly Run[], query: Query, isSet: (chunk: number) => boolean): void {
  const expected: { lengthBytes: number; isSet: boolean }[] = []
  const end = query.offset + query.lengthBytes
  for (let at = query.offset; at < end; ) {
    const chunk = Math.floor(at / chunkBytes)
    const next = Math.min(end, (chunk + 1) * chunkBytes)
    const last = expected.at(-1)
    if (last?.isSet === isSet(chunk)) last.lengthBytes += next - at
    else expected.push({ lengthBytes: next - at, isSet: isSet(chunk) })
    at = next
  }
  assert.deepEqual(runs, expected.slice(0, query.runCountMax))
}

t.test('allocated runs are those of a look at every chunk', async () => {
  const property = fc.property(places, queries, (ours, query) => {
    const store = storeOf(2 ** 40, ours)
    const runs = allocatedRuns(store, { ...query, chunkBytes })
    checkRuns(runs, query, (chunk) => ours.has(chunk))
  })
  fc.assert(property, { seed: 1, numRuns: 500 })
})

t.test('changed runs are those of a look at every chunk', async () => {
  const property = fc.property(places, places, queries, (ours, theirs, query) => {
    const store = storeOf(2 ** 40, ours)
    const since = storeOf(2 ** 40, theirs)
    const runs = changedRuns(store, since, { ...query, chunkBytes })
    checkRuns(runs, query, (chunk) => ours.get(chunk) !== theirs.get(chunk))
  })
  fc.assert(property, { seed: 2, numRuns: 500 })
})

t.test('the picture has every changed byte once', async () => {
  const sizes = fc.integer({ min: 4070 * 8, max: 4115 * 8 }).map((sectors) => sectors * 512)
  const cells = fc.integer({ min: 1, max: 1024 })
  const property = fc.property(
    places,
    places,
    sizes,
    cells,
    (ours, theirs, sizeBytes, cellCount) => {
      const options = { chunkBytes, cellCount }
      const found = changedPicture(storeOf(sizeBytes, ours), storeOf(2 ** 40, theirs), options)
      let expected = 0
      for (let chunk = 4080; chunk <= 4110; chunk++) {
        if (ours.get(chunk) === theirs.get(chunk)) continue
        const from = Math.min(sizeBytes, chunk * chunkBytes)
        expected += Math.min(sizeBytes, (chunk + 1) * chunkBytes) - from
      }
      assert.equal(found.dirtyBytes, expected)
      assert.equal(found.picture.length, cellCount)
      let pictured = 0
      for (const part of found.picture) {
        assert(part >= 0)
        assert(part <= 1)
        pictured += (part * sizeBytes) / cellCount
      }
      assert(Math.abs(pictured - expected) < 1)
    },
  )
  fc.assert(property, { seed: 3, numRuns: 300 })
})

t.test('the picture of a whole store is full, without snapshot or beside one', async (t) => {
  const places = new Map(Array.from({ length: pageEntryCount + 10 }, (_, chunk) => [chunk, 1]))
  const store = storeOf((pageEntryCount + 10) * chunkBytes - 512, places)
  const options = { chunkBytes, cellCount: 7 }
  for (const since of [undefined, storeOf(512), storeOf(512, new Map([[0, 2]]))]) {
    const { dirtyBytes, picture } = changedPicture(store, since, options)
    t.equal(dirtyBytes, store.sizeBytes)
    t.ok(picture.every((part) => part > 0.999 && part <= 1))
  }
})

t.test('one look at the largest volume is bounded, and a client gets through', async (t) => {
  const sizeBytes = 2 ** 53 - 512
  const store = storeOf(sizeBytes, new Map([[2 ** 37 - 2, 1]]))
  let lookups = 0
  const { get } = store.map.pages
  store.map.pages.get = function (index: number) {
    lookups++
    return get.call(this, index)
  }
  let lookupsMax = 0
  let calls = 0
  let at = 0
  const seen: Run[] = []
  while (at < sizeBytes) {
    lookups = 0
    const query = { offset: at, lengthBytes: sizeBytes - at, chunkBytes: 65536, runCountMax: 8 }
    const runs = allocatedRuns(store, query)
    lookupsMax = Math.max(lookupsMax, lookups)
    for (const run of runs) at += run.lengthBytes
    seen.push(...runs)
    calls++
  }
  t.equal(at, sizeBytes, 'the answers end where the volume ends')
  t.ok(lookupsMax <= 65546, `at most ${lookupsMax} pages in one look`)
  t.ok(calls <= 520, `${calls} looks`)
  t.equal(seen.filter((run) => run.isSet).length, 1)
})

t.test('answers that share their steps get shorter together, and each is one run at least', (t) => {
  const chunkCount = 64 * pageEntryCount
  const everySecond = new Map(
    Array.from({ length: chunkCount / 2 }, (_, index) => [2 * index, 1] as const),
  )
  const store = storeOf(chunkCount * chunkBytes, everySecond)
  const since = storeOf(chunkCount * chunkBytes)
  const look = { stepsLeft: 10_000 }
  const query = { offset: 0, lengthBytes: store.sizeBytes, chunkBytes, runCountMax: 8192, look }
  const first = allocatedRuns(store, { ...query, runCountMax: 100 })
  t.equal(first.length, 100)
  const left = look.stepsLeft
  t.ok(left > 5000 && left < 10_000 - 100, `${left} steps are left`)
  const second = changedRuns(store, since, query)
  t.ok(second.length > 100 && second.length < left / 10, `${second.length} runs of the rest`)
  t.ok(look.stepsLeft <= 0)
  look.stepsLeft = 1
  const third = changedRuns(store, since, query)
  t.strictSame(third, [{ lengthBytes: chunkBytes, isSet: true }])
  t.throws(() => allocatedRuns(store, { ...query, look: { stepsLeft: 0 } }))
  t.end()
})
