// Random lives of a group: many requests under way, operations between them, crashes. Each seed is one life; the same seed gives the
// same life. `scripts/simulate --one` runs more of them.
import t from 'tap'
import { inWorker } from './in-worker.js'
import type { Finding } from './jobs.js'

t.setTimeout(600_000)

/** Lives that once found a bug run for ever. */
const keptSeeds: readonly { readonly seed: number; readonly found: string }[] = [
  { seed: 6, found: 'a write that waited behind the deletion of its store ended in an assertion' },
  { seed: 100119, found: 'a late short write cut what a sync had kept, on the simulated disk' },
  {
    seed: 600212,
    found: 'the data file ended within a sector, and a crash cut the next write there',
  },
]

/** What must have happened in so many lives, for them to prove anything. */
const rare = [
  'crash in an operation',
  'crash in recovery',
  'kill without loss',
  'operation among other requests',
  'refused CONFLICT',
  'write behind the end of a store',
  'batch',
  'disk punch',
  'snapshot.refresh',
]

function lives(seed: number, count: number, actionCount: number): Promise<Finding<'lives'>> {
  return inWorker<'lives'>({ kind: 'lives', subject: 'lockstep', seed, count, actionCount })
}

t.test('200 lives of 150 requests break no law', async (t) => {
  const found = await lives(1, 200, 150)
  if ('broken' in found) return void t.fail(found.broken)
  const { counts } = found.report
  for (const what of rare) {
    t.comment(`${what}: ${counts[what] ?? 0}`)
    t.ok((counts[what] ?? 0) > 0, `${what} happened`)
  }
})

t.test('long lives fill the journal many times and break no law', async (t) => {
  const found = await lives(1000, 6, 2500)
  if ('broken' in found) return void t.fail(found.broken)
  const renames = found.report.counts['disk rename'] ?? 0
  t.comment(`${renames} checkpoints`)
  t.ok(renames > 24)
})

t.test('what once failed holds', async (t) => {
  for (const { seed, found: what } of keptSeeds) {
    const found = await lives(seed, 1, 150)
    t.ok('report' in found, 'broken' in found ? found.broken : what)
  }
})

t.test('the same seed gives the same life', async (t) => {
  const [first, second] = await Promise.all([lives(7, 5, 150), lives(7, 5, 150)])
  t.ok('report' in first)
  t.same(first, second)
})
