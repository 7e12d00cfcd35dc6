// Schedules of two real nodes: clients, an operator, faults of disks, nodes and network, laws judged all the time, and a healed end in which both must become
// identical. Each seed is one schedule. `scripts/simulate` runs more of them.
import t from 'tap'
import { inWorker } from '../in-worker.js'
import { runSeeds } from '../seed-pool.js'
import { checkSchedules, testSchedules } from './schedule-suite.js'

/** Schedules that once found a bug run for ever. Plain ones draw the same whatever is added to the others. */
const keptSeeds: readonly {
  readonly seed: number
  readonly isPlain: boolean
  readonly found: string
}[] = [
  { seed: 5, isPlain: true, found: 'the pump turned for ever when a connection had said bye' },
  {
    seed: 6,
    isPlain: true,
    found: 'a resync filled a small outbox, folded it, and began again for ever',
  },
  {
    seed: 41,
    isPlain: true,
    found: 'with congestion "stall" writers waited for a peer that was away',
  },
  { seed: 1027, isPlain: true, found: 'a connection was reset before anybody had it in hand' },
  { seed: 1592, isPlain: true, found: 'a cut sector was written again over later zeroes' },
  { seed: 5515, isPlain: true, found: 'a flush overtook writes that waited for room' },
  {
    seed: 5922,
    isPlain: true,
    found: 'an activation came before the record of its peer, and was forgotten',
  },
  {
    seed: 20197,
    isPlain: false,
    found: 'a new generation waited behind writes that waited for extents, which it would set free',
  },
  { seed: 30216, isPlain: false, found: 'verify kept a store that was deleted meanwhile' },
  {
    seed: 30176,
    isPlain: false,
    found: 'a delete was refused although its snapshot was being made',
  },
  { seed: 30356, isPlain: false, found: 'an answer owed behind a bye was tried again for ever' },
  {
    seed: 40497,
    isPlain: false,
    found: 'behind a failed journal writes waited for extents for ever',
  },
  {
    seed: 50093,
    isPlain: false,
    found: 'a link said that it copied, and nothing was left to copy',
  },
  { seed: 552220, isPlain: false, found: 'the end of a resync came twice' },
  {
    seed: 552904,
    isPlain: false,
    found: 'extents became inactive while a start took its time, before it had used them',
  },
  {
    seed: 3002804,
    isPlain: false,
    found: 'the check: a flush from before the failure of an operation ruled that out',
  },
]

testSchedules(t, { first: 1, count: 500 })

t.test('what once failed holds', async (t) => {
  for (const { seed, isPlain, found } of keptSeeds) {
    t.comment(found)
    await checkSchedules(t, { first: seed, count: 1, isPlain })
  }
})

t.test('the same seed gives the same schedule', async (t) => {
  for (const isPlain of [false, true]) {
    const run = () =>
      inWorker<'pairs'>({
        kind: 'pairs',
        subject: 'lockstep',
        seed: 7,
        count: 3,
        actionCount: 120,
        isPlain,
      })
    const [first, second] = [await run(), await run()]
    if (!('report' in first) || !('report' in second)) return void t.fail('a law is broken')
    t.strictSame(first.report.traces, second.report.traces)
    t.strictSame(first.report.counts, second.report.counts)
  }
})

t.test('a schedule that does not end is ended, and its seed told', async (t) => {
  const broken: string[] = []
  await runSeeds({
    job: { kind: 'pairs', subject: 'lockstep', actionCount: 1_000_000 },
    first: 9,
    count: 1,
    threadCount: 1,
    deadlineMs: 3000,
    onFound: (_, found) => {
      if ('broken' in found) broken.push(found.broken)
      return true
    },
  })
  t.strictSame(broken, ['seed 9 does not end within 3 s'])
})
