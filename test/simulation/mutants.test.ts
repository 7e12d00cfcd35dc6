// Planted bugs: a checker that never failed proves nothing. Each mutant of the real engine must be found by the checker named here,
// within the states or seeds named here.
import t from 'tap'
import { inWorker } from './in-worker.js'
import type { Job } from './jobs.js'

t.setTimeout(600_000)

type Kill = { readonly mutant: string; readonly by: string; readonly job: Job }

const enumerated = (mutant: string, lengthMax: number): Kill => ({
  mutant,
  by: `the workloads of up to ${lengthMax} actions`,
  job: {
    kind: 'enumerate',
    subject: 'lockstep',
    seed: 1,
    mutants: [mutant],
    lengthMax,
    shard: 0,
    shardCount: 1,
  },
})

const lived = (mutant: string, count: number, actionCount = 150): Kill => ({
  mutant,
  by: `${count} random lives of ${actionCount} actions`,
  job: { kind: 'lives', subject: 'lockstep', seed: 1, mutants: [mutant], count, actionCount },
})

const kills: readonly Kill[] = [
  enumerated('skip-data-sync', 1),
  enumerated('skip-journal-sync', 1),
  enumerated('inplace-on-shared', 1),
  enumerated('reuse-before-journal', 2),
  lived('forget-zero-fill', 20),
  lived('snapshot-misses-inflight', 20),
  lived('release-ignores-readers', 60, 600),
  lived('reuse-before-journal', 100),
  {
    mutant: 'retry-failed-sync',
    by: 'the sweep of failures',
    job: { kind: 'sweep', subject: 'lockstep', seed: 1, mutants: ['retry-failed-sync'] },
  },
]

for (const { mutant, by, job } of kills) {
  t.test(`${mutant} is found by ${by}`, async (t) => {
    const found = await inWorker(job)
    t.ok('broken' in found, `${mutant} is found`)
    if ('broken' in found) t.comment(found.broken.split('\n').slice(0, 3).join('\n'))
  })
}

t.test('an engine without directory syncs is found by full journals', async (t) => {
  const found = await inWorker<'wrap'>({
    kind: 'wrap',
    subject: 'without directory syncs',
    seed: 1,
  })
  t.ok('broken' in found, 'it is found')
})

t.test('an engine without checkpoint syncs is found by the workloads of one action', async (t) => {
  const found = await inWorker<'enumerate'>({
    kind: 'enumerate',
    subject: 'without checkpoint syncs',
    seed: 1,
    lengthMax: 1,
    shard: 0,
    shardCount: 1,
  })
  t.ok('broken' in found, 'it is found')
})
