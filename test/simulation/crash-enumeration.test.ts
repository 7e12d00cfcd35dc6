// Every workload of up to three actions on the real engine, a crash before each disk call of its last action (those of the first
// ones are the last ones of a shorter workload), recovered and judged.
import t from 'tap'
import { inWorker } from './in-worker.js'

const seed = 1
const shardCount = 2
const statesMin = 50_000

t.setTimeout(600_000)

t.test('every crash state of every workload recovers to a legal state', async (t) => {
  const shards = Array.from({ length: shardCount }, (_, shard) =>
    inWorker<'enumerate'>({
      kind: 'enumerate',
      subject: 'lockstep',
      seed,
      lengthMax: 3,
      shard,
      shardCount,
    }),
  )
  const total = { workloads: 0, points: 0, states: 0, recoveries: 0 }
  for (const found of await Promise.all(shards)) {
    if ('broken' in found) {
      t.fail(found.broken)
      continue
    }
    total.workloads += found.report.workloadCount
    total.points += found.report.pointCount
    total.states += found.report.stateCount
    total.recoveries += found.report.recoveryCount
  }
  t.comment(
    `${total.states} crash states at ${total.points} points of ${total.workloads} workloads, ${total.recoveries} recoveries`,
  )
  t.ok(total.states >= statesMin, `at least ${statesMin} crash states`)
})

t.test('a file system that cannot punch holes changes nothing', async (t) => {
  const found = await inWorker<'enumerate'>({
    kind: 'enumerate',
    subject: 'lockstep',
    seed: seed + 1,
    lengthMax: 2,
    shard: 0,
    shardCount: 1,
    canPunch: false,
  })
  if ('broken' in found) return void t.fail(found.broken)
  t.comment(`${found.report.stateCount} crash states`)
  t.ok(found.report.stateCount > 5000)
})

// A file's length is durable by itself: sectors behind a sync may be on the medium and the length that they brought not.
t.test('a write behind one that ended within a sector tears no sector', async (t) => {
  const found = await inWorker<'enumerate'>({
    kind: 'enumerate',
    subject: 'lockstep',
    seed,
    lengthMax: 1,
    shard: 0,
    shardCount: 1,
    hasOddEnd: true,
  })
  if ('broken' in found) return void t.fail(found.broken)
  t.comment(`${found.report.stateCount} crash states`)
  t.ok(found.report.stateCount > 100)
})
