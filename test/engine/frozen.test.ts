// Stores that are kept for verify: under their number, as they were, out of sight, and gone with the next start.
import t from 'tap'
import type { Operation } from '../../src/core/operation.js'
import type { Sequence, StoreId } from '../../src/core/units.js'
import { FrozenStores } from '../../src/engine/frozen.js'
import { findStore, volumesOf } from '../../src/engine/names.js'
import { storeOf } from '../../src/storage/group-state.js'
import { SeededRandom } from '../simulation/random.js'
import { TrackedNode } from '../support/tracked-node.js'

const volumeId = 1 as StoreId

/** A pool with the volume `v` of two chunks, the first of them written. */
async function start() {
  const node = new TrackedNode({ random: new SeededRandom(3) })
  await node.init()
  const { pool } = node
  const frozen = new FrozenStores(pool)
  const perform = (operation: Operation): void => {
    const sequence = (pool.state.sequence + 1) as Sequence
    pool.perform({ kind: 'operation', sequence, at: '2024-01-01T00:00:00Z', operation }, [])
    frozen.performed(operation)
  }
  perform({ kind: 'create-volume', storeId: volumeId, name: 'v', sizeBytes: 8192 })
  const volume = storeOf(pool.state, volumeId)
  const write = async (value: number): Promise<void> => {
    const written = pool.write(volume, 0, 4096, [Buffer.alloc(4096, value)])
    if (written !== undefined) await node.run(written)
  }
  const firstByte = async (frozenId: number): Promise<number | undefined> => {
    const store = frozen.find(frozenId)
    const target = Buffer.alloc(1)
    if (store === undefined) return undefined
    const read = pool.read(store, 0, target)
    if (read !== undefined) await node.run(read)
    return target[0]
  }
  await write(1)
  return { node, pool, frozen, perform, write, firstByte }
}

t.test('what a run of the primary froze goes when another one asks', async (t) => {
  const { pool, frozen, perform, firstByte } = await start()
  frozen.belongTo('first')
  perform({ kind: 'freeze', frozenId: 7, storeId: volumeId })
  frozen.belongTo('first')
  t.equal(await firstByte(7), 1, 'the same run after a lost link')
  frozen.belongTo('second')
  t.equal(frozen.find(7), undefined)
  t.equal(pool.state.stores.size, 1)
})

t.test('a store is kept as it was, whatever is written behind it', async (t) => {
  const kit = await start()
  const { node, pool, frozen, perform, write, firstByte } = kit
  perform({ kind: 'freeze', frozenId: 7, storeId: volumeId })
  await write(2)
  perform({ kind: 'freeze', frozenId: 8, storeId: volumeId })
  await write(3)
  t.equal(await firstByte(7), 1)
  t.equal(await firstByte(8), 2)
  perform({ kind: 'thaw', frozenId: 7 })
  t.equal(frozen.find(7), undefined)
  t.equal(await firstByte(8), 2)
  perform({ kind: 'thaw', frozenId: 7 })
  perform({ kind: 'freeze', frozenId: 8, storeId: volumeId })
  t.equal(await firstByte(8), 3, 'a number that is used again is another store')
  t.equal(pool.state.stores.size, 2)
  perform({ kind: 'thaw', frozenId: 8 })
  await node.run(pool.reclaim())
  pool.checkInvariants()
})

t.test('nobody finds it by a name, and it is no volume', async (t) => {
  const kit = await start()
  const { pool, frozen, perform } = kit
  perform({ kind: 'freeze', frozenId: 7, storeId: volumeId })
  t.equal(findStore(pool.state, frozen.find(7)?.name ?? ''), undefined)
  t.same(
    volumesOf(pool.state).map(({ name }) => name),
    ['v'],
  )
})

t.test('what an earlier run left is let go of', async (t) => {
  const kit = await start()
  const { node, pool, perform } = kit
  perform({ kind: 'freeze', frozenId: 7, storeId: volumeId })
  const next = new FrozenStores(pool)
  t.equal(next.find(7), undefined)
  next.clear()
  t.same([...pool.state.stores.keys()], [volumeId])
  await node.run(pool.reclaim())
  pool.checkInvariants()
})
