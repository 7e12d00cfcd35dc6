// The shared budget and the pool: nothing is granted twice, nothing is lost, first come first served.
import t from 'tap'
import { BufferPool } from '../../nbd/buffer-pool.js'
import { MemoryBudget } from '../../nbd/memory.js'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

t.test(
  'takes fit into the budget, and what is larger than all of it fits when nothing is in use',
  async (t) => {
    const budget = new MemoryBudget(100)
    t.equal(budget.tryTake(60), true)
    t.equal(budget.tryTake(41), false)
    t.equal(budget.tryTake(40), true)
    budget.giveBack(100)
    t.equal(budget.tryTake(1000), true)
    t.equal(budget.tryTake(1), false)
    budget.giveBack(1000)
    t.equal(budget.usedBytes, 0)
    t.throws(() => budget.giveBack(1), { name: 'AssertionError' })
  },
)

t.test('who waits is served in order, and nobody overtakes', async (t) => {
  const budget = new MemoryBudget(100)
  budget.takeAnyway(100)
  const served: string[] = []
  budget.wait(80, () => void served.push('large'))
  budget.wait(10, () => void served.push('small'))
  budget.giveBack(50)
  t.equal(budget.tryTake(1), false, 'others wait')
  await turn()
  t.same(served, [])
  budget.giveBack(50)
  await turn()
  t.same(served, ['large', 'small'])
  t.equal(budget.usedBytes, 90)
  t.equal(budget.waitingCount, 0)
})

t.test('who gives up waiting makes room for the next', async (t) => {
  const budget = new MemoryBudget(100)
  budget.takeAnyway(50)
  const served: string[] = []
  const cancel = budget.wait(80, () => void served.push('large'))
  budget.wait(50, () => void served.push('small'))
  cancel()
  cancel()
  await turn()
  t.same(served, ['small'])
})

t.test(
  'buffers come in classes, are used again last in first out, and are kept up to a limit',
  async (t) => {
    const pool = new BufferPool(300_000)
    const first = pool.take(100_000)
    t.equal(first.length, pool.classBytesOf(100_000))
    t.equal(pool.classBytesOf(131_072 + 28), 131_072 + 4096, 'a power of two of data and a header')
    const second = pool.take(100_000)
    pool.give(first)
    pool.give(second)
    t.equal(pool.take(100_000), second)
    t.equal(pool.take(100_000), first)
    for (let count = 0; count < 5; count++) pool.give(Buffer.alloc(135_168))
    t.ok(pool.pooledBytes <= 300_000)
    t.equal(pool.pooledBytes, 2 * 135_168)
  },
)
