// What a resync will move, beside the plan itself: never less, and the same unless it would take too long to find out.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { blockBytes, KiB, type StoreId } from '../../src/core/units.js'
import { moveBytes, moveBytesInPieces } from '../../src/engine/move-bytes.js'
import { ResyncPass, type ResyncView } from '../../src/replication/resync-plan.js'
import { ChunkMap, pageEntryCount } from '../../src/storage/chunk-map.js'
import type { GroupState, Store } from '../../src/storage/group-state.js'
import { nextDirtyIn, TrackedStores } from '../../src/storage/tracked-stores.js'
import { LooseKeeper } from '../support/loose-keeper.js'
import { SeededRandom } from '../support/random.js'

const chunkBytes = 8 * KiB
const chunkCount = 2 * pageEntryCount + 100

class Group {
  readonly stores = new Map<StoreId, Store>()
  readonly tracked = new TrackedStores()
  #place = 1

  add(id: number, volumeId?: number, sizeBytes = chunkCount * chunkBytes): Store {
    const map = new ChunkMap(new LooseKeeper())
    const store = { id, volumeId, sizeBytes, map } as unknown as Store
    this.stores.set(id as StoreId, store)
    this.tracked.add(id as StoreId, sizeBytes)
    return store
  }

  write(store: Store, first: number, end: number): void {
    for (let chunk = first; chunk < end; chunk++) store.map.set(chunk, this.#place++)
  }

  get moveBytes(): number {
    const state = { stores: this.stores, chunkBytes } as unknown as GroupState
    return moveBytes(state, this.tracked.stores)
  }

  /** The same in pieces, and how many those are. */
  inPieces(): { readonly bytes: number; readonly pieceCount: number } {
    const state = { stores: this.stores, chunkBytes } as unknown as GroupState
    const work = moveBytesInPieces(state, this.tracked.stores)
    for (let pieceCount = 1; ; pieceCount++) {
      const step = work.next()
      if (step.done === true) return { bytes: step.value, pieceCount }
    }
  }

  /** What the plan would send if nothing changed on the way. */
  plannedBytes(): number {
    const nextDirty: ResyncView['nextDirty'] = (id, from, max) => {
      const store = this.tracked.get(id)
      return store && nextDirtyIn(store, from, max)
    }
    const stores = [...this.stores.values()].map(({ id, sizeBytes, volumeId }) => ({
      id,
      sizeBytes,
      isVolume: volumeId === undefined,
    }))
    const pass = new ResyncPass({
      chunkBytes,
      stores: () => stores,
      nextDirty,
      isDirty: (id, offset, lengthBytes) => {
        const run = nextDirty(id, offset, lengthBytes)
        return run !== undefined && run.offset < offset + lengthBytes
      },
      isSuspect: () => false,
      place: (id, chunk) => this.stores.get(id)?.map.get(chunk) ?? 0,
      holeEnd: (id, chunk, end, look) =>
        this.stores.get(id)?.map.runEnd(chunk, end, true, look) ?? end,
    })
    let sum = 0
    for (let item = pass.next(); item !== undefined; item = pass.next())
      if (item !== 'pause' && item.kind === 'send') sum += item.lengthBytes
    return sum
  }
}

function randomGroup(random: SeededRandom): Group {
  const group = new Group()
  // Few sizes, so that many stores are of one: whole chunks, and cut in the last chunk and in its last block.
  const sizes = [0, 0, blockBytes, blockBytes - 512, 3 * chunkBytes + 512].map(
    (cutBytes) => chunkCount * chunkBytes - cutBytes,
  )
  const volumes = [group.add(1), group.add(2, undefined, random.pick(sizes))]
  for (let id = 3; id < 3 + random.below(6); id++) {
    const source = random.pick([...group.stores.values()])
    const size = random.below(2) === 0 ? source.sizeBytes : random.pick(sizes)
    const { map } = group.add(id, 1, size)
    map.become(source.map)
    map.unmap(Math.ceil(size / chunkBytes), chunkCount)
    for (const store of [source, ...volumes]) {
      const count = Math.ceil(store.sizeBytes / chunkBytes)
      const first = random.below(5) === 0 ? count - 1 : random.below(count)
      const end = Math.min(count, first + 1 + random.below(200))
      if (random.below(5) === 0) store.map.unmap(first, end)
      else group.write(store, first, end)
    }
  }
  for (const store of group.stores.values())
    for (let count = random.below(5); count > 0; count--) {
      const blocks = Math.ceil(store.sizeBytes / blockBytes)
      const offset = random.below(blocks) * blockBytes
      const lengthBytes = Math.min(store.sizeBytes - offset, blockBytes * random.below(6000))
      group.tracked.mark(store.id, { offset: offset as never, lengthBytes })
      if (random.below(2) === 0)
        group.tracked.mark(store.id, {
          offset: ((blocks - 1) * blockBytes) as never,
          lengthBytes: store.sizeBytes - (blocks - 1) * blockBytes,
        })
    }
  return group
}

t.test('the plan moves as much as was told', (t) => {
  let total = 0
  let marked = 0
  const property = fc.property(fc.integer(), (seed) => {
    const group = randomGroup(new SeededRandom(seed))
    assert.equal(group.moveBytes, group.plannedBytes())
    assert.equal(group.inPieces().bytes, group.moveBytes)
    total += group.moveBytes
    for (const { dirty } of group.tracked.stores.values())
      marked += dirty.dirtyBlockCount * blockBytes
  })
  fc.assert(property, { seed: 3, numRuns: 200 })
  t.ok(total > 0 && total < marked, `${total} of ${marked}`)
  t.end()
})

t.test('a chunk that is dirty elsewhere in the store it could come from goes over', (t) => {
  const group = new Group()
  const volume = group.add(1)
  group.write(volume, 0, 10)
  const snapshot = group.add(2, 1)
  snapshot.map.become(volume.map)
  // The two blocks of one chunk: neither store can have all of it from the other.
  group.tracked.mark(volume.id, { offset: blockBytes as never, lengthBytes: blockBytes })
  group.tracked.mark(snapshot.id, { offset: 0 as never, lengthBytes: blockBytes })
  t.equal(group.plannedBytes(), blockBytes)
  t.equal(group.moveBytes, blockBytes)
  t.end()
})

t.test('what lies in holes costs what there is beside them, at any size', (t) => {
  const group = new Group()
  const sizeBytes = 2 ** 53 - 512
  const volume = group.add(1, undefined, sizeBytes)
  const snapshot = group.add(2, 1, sizeBytes)
  group.write(volume, 7, 8)
  group.write(volume, 2 ** 38, 2 ** 38 + 3)
  snapshot.map.become(volume.map)
  group.write(volume, 2 ** 38 + 1, 2 ** 38 + 2)
  for (const { id } of [volume, snapshot])
    group.tracked.mark(id, { offset: 0 as never, lengthBytes: sizeBytes })
  t.equal(group.moveBytes, 5 * chunkBytes)
  t.equal(group.inPieces().pieceCount, 1)
  t.end()
})

t.test('what would take too long to look at counts as it is', (t) => {
  const group = new Group()
  const volume = group.add(1)
  group.write(volume, 0, chunkCount)
  for (let id = 2; id < 140; id++) {
    const snapshot = group.add(id, 1)
    snapshot.map.become(volume.map)
    // A page of its own, whose chunks are shared.
    for (const page of [0, 1, 2])
      group.write(snapshot, page * pageEntryCount, page * pageEntryCount + 1)
    group.tracked.mark(snapshot.id, { offset: 0 as never, lengthBytes: snapshot.sizeBytes })
  }
  const planned = 138 * 3 * chunkBytes
  t.ok(group.moveBytes > planned, 'more than is moved, never less')
  t.ok(group.moveBytes <= 138 * chunkCount * chunkBytes)
  const { bytes, pieceCount } = group.inPieces()
  t.equal(bytes, group.moveBytes)
  t.equal(pieceCount, 16, 'what may be looked at, a sixteenth at a time')
  const state = { stores: group.stores, chunkBytes } as unknown as GroupState
  t.ok(moveBytes(state, group.tracked.stores, 1000) >= bytes, 'the less is looked at, the more')
  t.end()
})
