// The checker of two nodes passes a pair that is right and simple, and finds each of its planted bugs: shown before and beside the real engine.
import t from 'tap'
import { naivePairMutants } from '../../support/naive-pair.js'
import { inWorker } from '../in-worker.js'

t.setTimeout(600_000)

/** Within so many schedules each planted bug is found. */
const seedsMax = 300

const pairs = (count: number, mutants: readonly string[] = []) =>
  inWorker<'pairs'>({ kind: 'pairs', subject: 'naive', seed: 1, count, actionCount: 120, mutants })

t.test('40 schedules of a right pair break no law', async (t) => {
  const found = await pairs(40)
  t.ok('report' in found, 'broken' in found ? found.broken : '')
})

for (const mutant of naivePairMutants) {
  t.test(`${mutant} is found`, async (t) => {
    const found = await pairs(seedsMax, [mutant])
    t.ok('broken' in found)
    if ('broken' in found) t.comment(found.broken.split('\n')[0])
  })
}

t.test('the same seed gives the same schedule', async (t) => {
  const first = await pairs(3)
  t.ok('report' in first)
  t.same(await pairs(3), first)
})
