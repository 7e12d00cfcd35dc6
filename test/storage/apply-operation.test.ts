// What each operation does to stores and maps, and that doing it again from the journal gives the same.
import t from 'tap'
import { byteOffset, type Generation, type StoreId } from '../../src/core/units.js'
import { sharedChunks } from '../../src/storage/apply-operation.js'
import type { Store } from '../../src/storage/group-state.js'
import { Group, placesOf } from '../support/group.js'

const chunkBytes = 4096

function fill(store: Store, places: readonly number[], first = 0): void {
  for (const [index, place] of places.entries()) store.map.set(first + index, place)
}

t.test('a new volume is a hole', async (t) => {
  const group = new Group()
  const volume = group.volume('v', 1000)
  t.match(volume, { id: 1, name: 'v', sizeBytes: 1000, volumeId: undefined, position: undefined })
  t.equal(volume.map.allocatedCount, 0)
  t.equal(group.state.nextStoreId, 2)
  t.equal(group.state.sequence, 1)
})

t.test('a snapshot is its source, at the position of the operation', async (t) => {
  const group = new Group()
  const volume = group.volume('v', 3 * chunkBytes)
  fill(volume, [7, 0, 8])
  const snapshot = group.snapshot('v@a')
  t.match(snapshot, { sizeBytes: 3 * chunkBytes, volumeId: volume.id })
  t.strictSame(snapshot.position, { generation: 'g1', sequence: 2 })
  t.strictSame(placesOf(snapshot, 0, 3), [7, 0, 8])
  fill(volume, [9])
  const second = group.snapshot('v@b', snapshot)
  t.equal(second.volumeId, volume.id, 'a snapshot of a snapshot belongs to the volume')
  t.strictSame(placesOf(second, 0, 3), [7, 0, 8])
})

t.test('several snapshots of one operation have one position', async (t) => {
  const group = new Group()
  const ids = [group.volume('v', 512).id, group.volume('w', 512).id]
  group.apply({
    kind: 'create-snapshots',
    snapshots: ids.map((sourceId, index) => ({
      storeId: (3 + index) as StoreId,
      sourceId,
      name: 'x',
    })),
  })
  t.strictSame(group.store('v@x').position, group.store('w@x').position)
  t.strictSame(group.names(), ['v', 'w', 'v@x', 'w@x'])
})

t.test('a deleted store is gone, and says so to those who hold it', async (t) => {
  const group = new Group()
  const volume = group.volume('v', chunkBytes)
  fill(volume, [7])
  group.apply({ kind: 'delete', storeId: volume.id })
  t.strictSame(group.names(), [])
  t.equal(volume.isDeleted, true)
  t.equal(volume.map.pages.size, 0)
  t.equal(group.volume('v', 512).id, 2, 'an id is given once')
})

t.test('renaming a volume renames the first part of its snapshots', async (t) => {
  const group = new Group()
  const volume = group.volume('v', 512)
  const snapshot = group.snapshot('v@a')
  group.apply({ kind: 'rename', storeId: volume.id, name: 'w' })
  group.apply({ kind: 'rename', storeId: snapshot.id, name: 'b' })
  t.strictSame(group.names(), ['w', 'w@b'])
})

t.test('shrinking lets go of what lies behind, growing brings holes', async (t) => {
  const group = new Group()
  const volume = group.volume('v', 4 * chunkBytes)
  fill(volume, [1, 2, 3, 4])
  group.apply({ kind: 'resize', storeId: volume.id, sizeBytes: chunkBytes + 512 })
  t.strictSame(placesOf(volume, 0, 4), [1, 2, 0, 0])
  group.apply({ kind: 'resize', storeId: volume.id, sizeBytes: 4 * chunkBytes })
  t.strictSame(placesOf(volume, 0, 4), [1, 2, 0, 0])
  group.apply({ kind: 'resize', storeId: volume.id, sizeBytes: 512 })
  t.strictSame(placesOf(volume, 0, 4), [1, 0, 0, 0])
})

t.test('a whole copy takes the size, too, and only a refresh moves the position', async (t) => {
  const group = new Group()
  const volume = group.volume('v', 2 * chunkBytes)
  fill(volume, [1, 2])
  const snapshot = group.snapshot('v@a')
  const { position } = snapshot
  group.apply({ kind: 'resize', storeId: volume.id, sizeBytes: 9 * chunkBytes })
  fill(volume, [3, 4, 5])
  const ends = { sourceId: snapshot.id, targetId: volume.id }
  group.apply({ kind: 'copy', reason: 'restore', ...ends })
  t.equal(volume.sizeBytes, 2 * chunkBytes)
  t.strictSame(placesOf(volume, 0, 3), [1, 2, 0])
  fill(volume, [6])
  const back = { sourceId: volume.id, targetId: snapshot.id }
  group.apply({ kind: 'copy', reason: 'sync', ...back })
  t.strictSame(snapshot.position, position)
  group.state.generations = [
    ...group.state.generations,
    { generation: 'g2' as Generation, forkSequence: 3 },
  ]
  group.apply({ kind: 'copy', reason: 'refresh', ...back })
  t.strictSame(snapshot.position, { generation: 'g2', sequence: 6 })
  t.strictSame(placesOf(snapshot, 0, 3), [6, 2, 0])
})

t.test('a copied range shares whole chunks and leaves the others', async (t) => {
  const group = new Group()
  const source = group.volume('v', 5 * chunkBytes)
  const target = group.volume('w', 9 * chunkBytes)
  fill(source, [1, 2, 0, 4, 5])
  fill(target, [11, 12, 13, 14, 15])
  const range = { offset: byteOffset(100), lengthBytes: 3 * chunkBytes + 100 }
  group.apply({ kind: 'copy', reason: 'sync', sourceId: source.id, targetId: target.id, range })
  t.strictSame(placesOf(target, 0, 5), [11, 2, 0, 14, 15])
  t.equal(target.sizeBytes, 9 * chunkBytes)
})

t.test('the last chunk is shared when both stores end there', async (t) => {
  const shared = (
    offset: number,
    lengthBytes: number,
    sourceBytes: number,
    targetBytes: number,
  ) => {
    const range = { offset: byteOffset(offset), lengthBytes }
    const { first, end } = sharedChunks(range, { sourceBytes, targetBytes, chunkBytes })
    return [first, end]
  }
  t.strictSame(shared(0, 5000, 5000, 5000), [0, 2])
  t.strictSame(shared(0, 5000, 5000, 6000), [0, 1], 'the target goes on')
  t.strictSame(shared(0, 5000, 6000, 5000), [0, 1], 'the source goes on')
  t.strictSame(shared(0, 4999, 5000, 5000), [0, 1])
  t.strictSame(shared(4097, 903, 5000, 5000), [2, 2])
  t.strictSame(shared(4096, 904, 5000, 5000), [1, 2])
  t.strictSame(shared(100, 100, 9000, 9000), [1, 1])
  t.strictSame(shared(100, 4096, 9000, 9000), [1, 1])
  t.strictSame(shared(100, 8092, 9000, 9000), [1, 2])
})

t.test('a batch is its operations under one sequence', async (t) => {
  const group = new Group()
  const volume = group.volume('v', 512)
  group.apply({
    kind: 'batch',
    operations: [
      { kind: 'create-volume', storeId: 2 as StoreId, name: 'w', sizeBytes: 512 },
      {
        kind: 'create-snapshots',
        snapshots: [{ storeId: 3 as StoreId, sourceId: volume.id, name: 'a' }],
      },
      { kind: 'rename', storeId: volume.id, name: 'x' },
    ],
  })
  t.strictSame(group.names(), ['x', 'w', 'x@a'])
  t.equal(group.state.sequence, 2)
  t.equal(group.store('x@a').position?.sequence, 2)
})

t.test('what our own code must never ask for is a bug', async (t) => {
  const group = new Group()
  group.volume('v', 512)
  const unknown = 9 as StoreId
  t.throws(() => group.apply({ kind: 'delete', storeId: unknown }), { name: 'AssertionError' })
  const again = { kind: 'create-volume', storeId: 1 as StoreId, name: 'w', sizeBytes: 512 } as const
  t.throws(() => group.apply(again), { name: 'AssertionError' })
})

t.test(
  'a history keeps as many generations as a table may have, on every node alike',
  async (t) => {
    const group = new Group()
    for (let number = 2; number <= 1100; number++)
      group.apply({
        kind: 'new-generation',
        record: { generation: `g${number}` as Generation, forkSequence: number },
      })
    t.equal(group.state.generations.length, 1024)
    t.equal(group.state.generations[0]?.generation, 'g77')
    t.equal(group.state.generations.at(-1)?.generation, 'g1100')
  },
)
