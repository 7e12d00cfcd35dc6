// The structural laws of the pool, checked from scratch: for tests and the simulator, at any step.
import assert from 'node:assert/strict'
import type { ChunkAllocator } from './chunk-allocator.js'
import type { ChunkPage } from './chunk-map.js'
import type { GroupState } from './group-state.js'
import type { Releases } from './reclaimer.js'

export function checkPoolInvariants(pool: {
  readonly state: GroupState
  readonly allocator: ChunkAllocator
  readonly pending: readonly Releases[]
  /** Places taken by writes not installed yet, or being punched: one reference more than the maps tell. */
  readonly underWayCount: number
}): void {
  const holders = new Map<ChunkPage, number>()
  for (const store of pool.state.stores.values()) {
    let allocatedCount = 0
    for (const page of store.map.pages.values()) {
      holders.set(page, (holders.get(page) ?? 0) + 1)
      allocatedCount += page.usedCount
    }
    assert.equal(store.map.allocatedCount, allocatedCount, `allocated chunks of ${store.name}`)
  }
  for (const { pages } of pool.pending)
    for (const page of pages) holders.set(page, (holders.get(page) ?? 0) + 1)
  const references = new Map<number, number>()
  const count = (place: number): void =>
    void references.set(place, (references.get(place) ?? 0) + 1)
  for (const [page, held] of holders) {
    assert.equal(page.holders, held, 'holders of a page')
    let usedCount = 0
    for (const place of page.entries) {
      if (place === 0) continue
      usedCount++
      count(place)
    }
    assert.equal(page.usedCount, usedCount, 'used entries of a page')
  }
  for (const { places } of pool.pending) places.forEach(count)
  let freeCount = 0
  let underWayCount = 0
  for (let place = 1; place < pool.allocator.highWater; place++) {
    const actual = pool.allocator.count(place)
    const expected = references.get(place) ?? 0
    if (actual === 0) freeCount++
    if (actual === 1 && expected === 0) underWayCount++
    else assert.equal(actual, expected, `references to place ${place}`)
    references.delete(place)
  }
  assert.equal(references.size, 0, 'every place that is named lies below the high-water mark')
  assert.equal(underWayCount, pool.underWayCount, 'places under way')
  assert.equal(pool.allocator.usedCount, pool.allocator.highWater - 1 - freeCount, 'used places')
}
