// Each disk call of either of two nodes fails in turn, once and for good.
import t from 'tap'
import { inWorker } from '../in-worker.js'

t.setTimeout(600_000)

const shardCount = 2
const runsMin = 400

t.test(
  'whatever disk call of either node fails, nothing hangs, and both become equal',
  async (t) => {
    const found = await Promise.all(
      Array.from({ length: shardCount }, (_, shard) =>
        inWorker<'pair-sweep'>({
          ...{ kind: 'pair-sweep', subject: 'lockstep', seed: 1, stride: 2 },
          ...{ shard, shardCount },
        }),
      ),
    )
    const runCounts: Record<string, number> = {}
    for (const one of found) {
      if ('broken' in one) return void t.fail(one.broken)
      for (const [kind, count] of Object.entries(one.report.runCounts))
        runCounts[kind] = (runCounts[kind] ?? 0) + count
    }
    for (const [kind, count] of Object.entries(runCounts)) t.comment(`${kind}: ${count} runs`)
    const total = Object.values(runCounts).reduce((sum, count) => sum + count, 0)
    t.ok(total >= runsMin, `${total} runs with a failure`)
    for (const node of ['a', 'b'])
      for (const kind of ['EIO on writes', 'ENOSPC on writes', 'failed syncs', 'short writes'])
        for (const when of ['once', 'for good'])
          t.ok((runCounts[`${kind} ${when}, node ${node}`] ?? 0) > 0, `${kind} ${when}, ${node}`)
  },
)
