// What a checkpoint under way gets of pages that change, and what is counted when.
import t from 'tap'
import { ChunkMap } from '../../src/storage/chunk-map.js'
import { PoolKeeper } from '../../src/storage/page-keeper.js'

function mapWith(keeper: PoolKeeper, ...places: readonly number[]): ChunkMap {
  const map = new ChunkMap(keeper)
  for (const [chunk, place] of places.entries()) map.set(chunk, place)
  return map
}

function pageOf(map: ChunkMap) {
  const page = map.pages.get(0)
  if (page === undefined) throw new Error('no page')
  return page
}

t.test('a page that changes before it was written is handed out as it was', async (t) => {
  const keeper = new PoolKeeper()
  const map = mapWith(keeper, 1, 2, 3)
  const page = pageOf(map)
  const entriesOf = keeper.freeze()
  map.set(0, 9)
  map.set(1, 9)
  t.strictSame([...entriesOf(page).subarray(0, 3)], [1, 2, 3])
  t.strictSame([...page.entries.subarray(0, 3)], [9, 9, 3])
})

t.test(
  'a page that did not change is handed out without a copy, and needs none later',
  async (t) => {
    const keeper = new PoolKeeper()
    const map = mapWith(keeper, 1)
    const page = pageOf(map)
    const entriesOf = keeper.freeze()
    t.equal(entriesOf(page), page.entries)
    t.equal(page.checkpointNumber, keeper.checkpointNumber)
  },
)

t.test('each checkpoint has its own images', async (t) => {
  const keeper = new PoolKeeper()
  const map = mapWith(keeper, 1)
  const page = pageOf(map)
  keeper.freeze()
  map.set(0, 2)
  keeper.thaw()
  map.set(0, 3)
  const entriesOf = keeper.freeze()
  map.set(0, 4)
  t.equal(entriesOf(page)[0], 3)
})

t.test('a page that was let go, and one that is shared, are kept too', async (t) => {
  const keeper = new PoolKeeper()
  const map = mapWith(keeper, 1, 2)
  const copy = new ChunkMap(keeper)
  copy.become(map)
  const page = pageOf(map)
  const entriesOf = keeper.freeze()
  map.set(0, 9)
  copy.set(1, 0)
  copy.clear()
  t.strictSame([...entriesOf(page).subarray(0, 2)], [1, 2])
})

t.test('while the journal is replayed nothing is counted but holders', async (t) => {
  const keeper = new PoolKeeper()
  const map = mapWith(keeper, 1, 2)
  const copy = new ChunkMap(keeper)
  copy.become(map)
  t.equal(pageOf(map).holders, 2)
  copy.set(5, 3)
  t.equal(pageOf(map).holders, 1)
  copy.clear()
  keeper.retain(77)
  keeper.releaseLater(77)
  t.equal(pageOf(map).holders, 1)
})
