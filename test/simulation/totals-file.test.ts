// Totals that were written are found again, and a file that is something else is refused.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readTotals, type Totals, writeTotals } from './totals-file.js'

const totals: Totals = {
  kind: 'pairs',
  first: 7,
  next: 19,
  doneCount: 12,
  seconds: 1.5,
  brokenSeeds: [9],
  counts: { 'both nodes down': 3 },
}

t.test('they are as they were written; before that there are none', async (t) => {
  const path = join(t.testdir(), 'totals')
  t.equal(readTotals(path, 'pairs'), undefined)
  writeTotals(path, totals)
  t.strictSame(readTotals(path, 'pairs'), totals)
})

t.test('those of the other kind, and files that are none, are refused', async (t) => {
  const path = join(t.testdir(), 'totals')
  writeTotals(path, totals)
  t.throws(() => readTotals(path, 'lives'), /no totals of lives: name another file/)
  writeFileSync(path, '{}')
  t.throws(() => readTotals(path, 'pairs'), /no totals of pairs/)
})
