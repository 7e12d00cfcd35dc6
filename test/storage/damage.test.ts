// Damaged metadata is refused or makes no difference; making a group can be cut off anywhere; journals get full.
import t from 'tap'
import { inWorker } from '../simulation/in-worker.js'

t.setTimeout(240_000)

t.test('a damaged journal, checkpoint or label is refused or makes no difference', async (t) => {
  const found = await inWorker<'damage'>({ kind: 'damage', subject: 'lockstep', seed: 1 })
  if ('broken' in found) return void t.fail(found.broken)
  const { flipCount, cutCount, refusedCount, tornCount } = found.report
  t.comment(
    `${flipCount} flipped bits, ${cutCount} cut or missing files: ${refusedCount} refused, ${tornCount} taken for a torn tail`,
  )
  t.ok(flipCount > 2000)
  t.ok(refusedCount > 1000)
  t.ok(tornCount > 0)
})

t.test(
  'a group that was cut off while it was made is refused, and can be made again',
  async (t) => {
    const found = await inWorker<'init'>({ kind: 'init', subject: 'lockstep', seed: 1 })
    if ('broken' in found) return void t.fail(found.broken)
    t.comment(`${found.report.stateCount} crash states`)
    t.ok(found.report.stateCount > 50)
  },
)

t.test('a journal that was filled several times recovers from every crash', async (t) => {
  const found = await inWorker<'wrap'>({ kind: 'wrap', subject: 'lockstep', seed: 1 })
  if ('broken' in found) return void t.fail(found.broken)
  t.comment(`${found.report.stateCount} crash states`)
  t.ok(found.report.stateCount > 50)
})
