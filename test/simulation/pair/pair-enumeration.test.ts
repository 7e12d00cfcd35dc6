// Two nodes, a crash of either or of both before chosen calls of their disks and of the network between them, from four starting states; and planted bugs, which
// this must find. `scripts/simulate --pair-enumeration` takes every call, and longer workloads.
import t from 'tap'
import { inWorker } from '../in-worker.js'
import type { Finding } from '../jobs.js'

t.setTimeout(600_000)

const shardCount = 2
const statesMin = 3000

type Part = Readonly<{ lengths: readonly number[]; stride?: number; pointStride?: number }>

function shards(part: Part, mutants: readonly string[] = []) {
  return Promise.all(
    Array.from({ length: shardCount }, (_, shard) =>
      inWorker<'pair-enumerate'>({
        ...{ kind: 'pair-enumerate', subject: 'lockstep', seed: 1, mutants },
        ...{ shard, shardCount },
        ...part,
      }),
    ),
  )
}

function brokenOf(found: readonly Finding<'pair-enumerate'>[]): string | undefined {
  return found.flatMap((one) => ('broken' in one ? [one.broken] : []))[0]
}

t.test('whoever crashes, what differs is known, and both become equal', async (t) => {
  const parts: readonly Part[] = [
    { lengths: [1], pointStride: 12 },
    { lengths: [2, 3], stride: 140, pointStride: 14 },
  ]
  const total = { workloads: 0, points: 0, states: 0, heals: 0 }
  for (const part of parts) {
    for (const found of await shards(part)) {
      if ('broken' in found) return void t.fail(found.broken)
      total.workloads += found.report.workloadCount
      total.points += found.report.pointCount
      total.states += found.report.stateCount
      total.heals += found.report.healCount
    }
  }
  t.comment(
    `${total.states} crash states at ${total.points} points of ${total.workloads} workloads, ${total.heals} led to the end`,
  )
  t.ok(total.states >= statesMin, `at least ${statesMin} crash states`)
})

for (const [mutant, by] of [
  ['skip-activate-sync', /law 2/],
  ['forget-active-at-recovery', /differs/],
  // What the replica lost the primary has forgotten: found where it is, or in what comes of it.
  ['durable-at-applied', /law 2|not in sync/],
  ['reuse-sequence', /not in sync/],
  ['operation-without-barrier', /./],
] as const) {
  t.test(`${mutant} is found`, async (t) => {
    const broken = brokenOf(await shards({ lengths: [1], pointStride: 5 }, [mutant]))
    t.match(broken, by)
    t.comment(broken?.split('\n')[0])
  })
}
