// Each disk call fails in turn, once and for good; a disk gets full.
import t from 'tap'
import { inWorker } from './in-worker.js'

t.setTimeout(600_000)

t.test('whatever disk call fails, the laws hold and recovery is legal', async (t) => {
  const found = await inWorker<'sweep'>({ kind: 'sweep', subject: 'lockstep', seed: 1 })
  if ('broken' in found) return void t.fail(found.broken)
  const counts = Object.entries(found.report.runCounts)
  for (const [kind, count] of counts) {
    t.comment(`${kind}: ${count} runs`)
    t.ok(count > 0, `${kind} happened`)
  }
  const total = counts.reduce((sum, [, count]) => sum + count, 0)
  t.ok(total > 4000, `${total} runs with a failure`)
})

t.test('a full disk refuses, keeps what it has, and deletes', async (t) => {
  const found = await inWorker<'full-disk'>({
    kind: 'full-disk',
    subject: 'lockstep',
    seed: 1,
    count: 20,
  })
  if ('broken' in found) return void t.fail(found.broken)
  t.comment(`${found.report.runCount} full disks, ${found.report.refusedCount} refusals`)
  t.ok(found.report.refusedCount > 500)
})
