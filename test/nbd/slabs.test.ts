// Slabs: what is held stays, what nobody holds is used again, and the budget counts what readers have left behind.
import t from 'tap'
import { BufferPool } from '../../nbd/buffer-pool.js'
import { MemoryBudget } from '../../nbd/memory.js'
import { Slabs } from '../../nbd/slabs.js'

const KiB = 1024

function newSlabs() {
  const pool = new BufferPool(1024 * KiB)
  const budget = new MemoryBudget(1024 * KiB)
  return { pool, budget, slabs: new Slabs({ pool, budget }) }
}

t.test('a slab that was left goes back to the pool with its last hold', async (t) => {
  const { pool, budget, slabs } = newSlabs()
  const slab = slabs.take(128 * KiB)
  t.equal(budget.usedBytes, 0, 'the slab being read into is not counted')
  const views = [slab.bytes.subarray(0, 10), slab.bytes.subarray(10, 20)] as const
  for (const view of views) slabs.hold(view)
  slabs.leave(slab)
  t.equal(budget.usedBytes, slab.bytes.length, 'what was left behind is')
  slabs.release(views[0])
  t.equal(slabs.inUseCount, 1)
  t.equal(pool.pooledBytes, 0)
  slabs.release(views[1])
  t.equal(slabs.inUseCount, 0)
  t.equal(budget.usedBytes, 0)
  t.equal(pool.pooledBytes, slab.bytes.length)
  t.equal(slabs.take(128 * KiB).bytes, slab.bytes, 'and is used again')
})

t.test('memory that is no slab needs no holds, and is counted whole', async (t) => {
  const { slabs } = newSlabs()
  const strange = Buffer.alloc(100 * KiB)
  const views = [strange.subarray(0, 1), strange.subarray(5, 6)]
  for (const view of views) slabs.hold(view)
  for (const view of views) slabs.release(view)
  const slab = slabs.take(16 * KiB)
  t.equal(slabs.strangeBytesOf([...views, slab.bytes.subarray(3, 7)]), 200 * KiB)
})

t.test('a hold too few is our own mistake', async (t) => {
  const { slabs } = newSlabs()
  const slab = slabs.take(16 * KiB)
  t.throws(() => slabs.release(slab.bytes), { name: 'AssertionError' })
})
