// Schedules of two real nodes: clients, an operator, faults of both disks, of the nodes and of the network, laws judged all the time, and a healed end in
// which both must become identical. Each seed is one schedule. `scripts/simulate --pair` runs more of them.
import t from 'tap'
import { inWorker } from '../in-worker.js'
import type { Finding } from '../jobs.js'

t.setTimeout(900_000)

const actionCount = 120

/** Schedules that once found a bug run for ever. */
const keptSeeds: readonly { readonly seed: number; readonly found: string }[] = [
  { seed: 5, found: 'the pump turned for ever when a connection had said bye' },
  { seed: 6, found: 'a resync filled a small outbox, folded it, and began again for ever' },
  { seed: 41, found: 'with congestion "stall" writers waited for a peer that was away' },
  { seed: 1027, found: 'a connection was reset before anybody had it in hand' },
  { seed: 5515, found: 'a flush overtook writes that waited for room' },
  { seed: 5922, found: 'an activation came before the record of its peer, and was forgotten' },
]

/** What must have happened in so many schedules, for them to prove anything. */
const rare = [
  'both nodes down',
  'quiet and in sync',
  'link: changes go on without the peer: a new generation began',
  'link: the outbox is full: what the peer lacks is kept as a map',
  'resync: the copying was cut off',
]

function schedules(seed: number, count: number): Promise<Finding<'pairs'>> {
  return inWorker<'pairs'>({ kind: 'pairs', subject: 'lockstep', seed, count, actionCount })
}

t.test('1,000 schedules break no law', async (t) => {
  const counts: Record<string, number> = {}
  for (let seed = 1; seed <= 1000; seed += 250) {
    const found = await schedules(seed, 250)
    if ('broken' in found) return void t.fail(found.broken)
    for (const [what, count] of Object.entries(found.report.counts))
      counts[what] = (counts[what] ?? 0) + count
  }
  for (const what of rare) {
    t.comment(`${what}: ${counts[what] ?? 0}`)
    t.ok((counts[what] ?? 0) > 0, `${what} happened`)
  }
})

t.test('what once failed holds', async (t) => {
  for (const { seed, found: what } of keptSeeds) {
    const found = await schedules(seed, 1)
    t.ok('report' in found, 'broken' in found ? found.broken : what)
  }
})

t.test('the same seed gives the same schedule', async (t) => {
  const [first, second] = [await schedules(7, 2), await schedules(7, 2)]
  if (!('report' in first) || !('report' in second)) return void t.fail('a law is broken')
  t.strictSame(first.report.traces, second.report.traces)
})
