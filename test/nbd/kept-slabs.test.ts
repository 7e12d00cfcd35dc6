// Payload that an export keeps behind its request: it stays as it is, within a bound of its own, and what somebody may still look at is never used again.
import t from 'tap'
import { BufferPool } from '../../nbd/buffer-pool.js'
import { KeptSlabs } from '../../nbd/kept-slabs.js'
import { MemoryBudget } from '../../nbd/memory.js'
import { Slabs } from '../../nbd/slabs.js'
import { ManualTimers } from '../support/manual-timers.js'

const KiB = 1024
const slabBytes = 128 * KiB + 4096

function newKept(options: { readonly keptBytesMax?: number; readonly pooledBytesMax?: number }) {
  const pool = new BufferPool(options.pooledBytesMax ?? 0)
  const budget = new MemoryBudget(1024 * KiB)
  const slabs = new Slabs({ pool, budget })
  const timers = new ManualTimers()
  const keptBytesMax = options.keptBytesMax ?? 1024 * KiB
  const kept = new KeptSlabs({ slabs, keptBytesMax, keptPayloadBytesMin: 100, timers })
  /** A slab that was read into and left, with one request's hold of a part of it. */
  const request = () => {
    const slab = slabs.take(128 * KiB)
    const view = slab.bytes.subarray(1000, 2000)
    slabs.hold(view)
    slabs.leave(slab)
    return { slab, view }
  }
  return { pool, budget, slabs, timers, kept, request }
}

t.test(
  'what is kept stays in use when its request is over, and costs the clients nothing',
  async (t) => {
    const { slabs, budget, kept, request } = newKept({})
    const { view } = request()
    t.equal(budget.usedBytes, slabBytes)
    t.ok(kept.keep([view]))
    t.equal(budget.usedBytes, 0)
    t.equal(kept.keptBytes, slabBytes)
    slabs.release(view)
    t.equal(slabs.inUseCount, 1)
    kept.letGo([view])
    t.equal(slabs.inUseCount, 0)
    t.equal(kept.keptBytes, 0)
    t.equal(budget.usedBytes, 0)
  },
)

t.test(
  'a request that goes on behind what kept its payload counts for its client again',
  async (t) => {
    const { slabs, budget, kept, request } = newKept({})
    const { view } = request()
    kept.keep([view, view])
    kept.letGo([view])
    t.equal(budget.usedBytes, 0)
    kept.letGo([view])
    t.equal(budget.usedBytes, slabBytes)
    slabs.release(view)
    t.equal(budget.usedBytes, 0)
  },
)

t.test('a slab that its reader has not left counts when it does', async (t) => {
  const { slabs, budget, kept } = newKept({})
  const slab = slabs.take(128 * KiB)
  const view = slab.bytes.subarray(0, 500)
  kept.keep([view])
  slabs.leave(slab)
  t.equal(budget.usedBytes, 0)
  kept.letGo([view])
  t.equal(budget.usedBytes, 0)
  t.equal(slabs.inUseCount, 0)
})

t.test('beyond the bound nothing is kept, not even in part', async (t) => {
  const { slabs, kept, request } = newKept({ keptBytesMax: 2 * slabBytes })
  const views = [request().view, request().view, request().view]
  t.notOk(kept.keep(views))
  t.equal(kept.keptBytes, 0)
  t.ok(kept.keep(views.slice(1)))
  for (const view of views) slabs.release(view)
  t.equal(slabs.inUseCount, 2)
})

t.test('little payload and memory that is no slab are not kept', async (t) => {
  const { kept, request } = newKept({})
  const { view } = request()
  t.notOk(kept.keep([view.subarray(0, 99)]))
  t.ok(kept.keep([view.subarray(0, 99), view.subarray(99, 100)]))
  t.notOk(kept.keep([Buffer.alloc(1000)]))
  t.equal(kept.keptBytes, slabBytes)
})

t.test('what was sealed is not used again, what was not is', async (t) => {
  const { slabs, kept, request } = newKept({ pooledBytesMax: 10 * slabBytes })
  const plain = request()
  const sealed = request()
  for (const { view } of [plain, sealed]) {
    kept.keep([view])
    slabs.release(view)
  }
  kept.seal([sealed.view])
  kept.letGo([sealed.view])
  kept.letGo([plain.view])
  const next = [slabs.take(128 * KiB).bytes, slabs.take(128 * KiB).bytes]
  t.ok(next.includes(plain.slab.bytes))
  t.notOk(next.includes(sealed.slab.bytes))
})

t.test(
  'memory that has no place in the pool is kept for the next burst, for a while',
  async (t) => {
    const { slabs, kept, request, timers } = newKept({})
    const burst = (): Buffer => {
      const { slab, view } = request()
      kept.keep([view])
      slabs.release(view)
      kept.letGo([view])
      return slab.bytes
    }
    const first = burst()
    t.equal(burst(), first)
    timers.advance(60_000)
    t.equal(burst(), first, 'there was one within the last minute')
    timers.advance(60_000)
    timers.advance(60_000)
    t.not(burst(), first)
  },
)
