// The checkers against the naive engine: without a planted bug nothing is found, with each one something is. And the shortest
// enumeration of the real engine.
import t from 'tap'
import { naiveMutants } from '../support/naive-engine.js'
import { inWorker } from './in-worker.js'
import type { Finding, Job } from './jobs.js'

t.setTimeout(240_000)

function enumerated(
  subject: 'naive' | 'lockstep',
  lengthMax: number,
  mutants: readonly string[] = [],
  isThorough = false,
): Promise<Finding<'enumerate'>> {
  return inWorker<'enumerate'>({
    kind: 'enumerate',
    subject,
    seed: 1,
    mutants,
    lengthMax,
    shard: 0,
    shardCount: 1,
    isThorough,
  })
}

t.test('the naive engine is correct in every crash state', async (t) => {
  const found = await enumerated('naive', 2)
  if ('broken' in found) return void t.fail(found.broken)
  t.comment(`${found.report.stateCount} crash states`)
  t.ok(found.report.stateCount > 4000)
})

t.test('the real engine is correct in the crash states of single actions', async (t) => {
  const found = await enumerated('lockstep', 1)
  if ('broken' in found) return void t.fail(found.broken)
  t.comment(`${found.report.stateCount} crash states`)
  t.ok(found.report.stateCount > 2000)
})

/** The checkers that see what the enumeration cannot: entries that overlap in time, disks that fail. */
const others: Readonly<Record<string, Job>> = {
  'snapshot-misses-inflight': {
    kind: 'lives',
    subject: 'naive',
    seed: 1,
    count: 40,
    actionCount: 150,
  },
  'retry-failed-sync': { kind: 'sweep', subject: 'naive', seed: 1 },
}

for (const mutant of naiveMutants) {
  t.test(`the checkers find ${mutant}`, async (t) => {
    const other = others[mutant]
    const found = other
      ? await inWorker({ ...other, mutants: [mutant] })
      : await enumerated('naive', 2, [mutant], true)
    t.ok('broken' in found, `${mutant} is found`)
  })
}

for (const job of Object.values(others)) {
  t.test(`without a planted bug ${job.kind} finds nothing in the naive engine`, async (t) => {
    const found = await inWorker(job)
    if ('broken' in found) t.fail(found.broken)
    else t.pass()
  })
}
