// The checkers against the naive engine: without a planted bug nothing is found, with each one something is.
import t from 'tap'
import { naiveMutants, naiveSubject } from '../support/naive-engine.js'
import { type ChoicePlan, CrashChecker } from './crash-check.js'
import { LawBroken } from './laws.js'
import { actionsOf, makeBase, sequences } from './workloads.js'

const plan: ChoicePlan = { exhaustiveMax: 16, singles: false, randomCount: 2 }
const seed = 1

async function check(mutants: ReadonlySet<string>, lengthMax: number): Promise<CrashChecker> {
  const options = { subject: naiveSubject, seed, mutants }
  const base = await makeBase({ subject: naiveSubject, seed }, 0)
  const checker = new CrashChecker(base, options)
  for (let length = 1; length <= lengthMax; length++) {
    for (const names of sequences(length)) await checker.checkWorkload(actionsOf(names), plan)
  }
  return checker
}

t.test('the naive engine is correct in every crash state', async (t) => {
  const checker = await check(new Set(), 2)
  t.comment(`${checker.stateCount} crash states, ${checker.recoveryCount} recoveries`)
  t.ok(checker.stateCount > 1000)
})

/** What the enumeration cannot see: it lets no two entries overlap in time, and its disks do not fail. */
const unseen: readonly string[] = [
  'snapshot-misses-inflight',
  'retry-failed-sync',
  'lose-write-on-enospc',
]

for (const mutant of naiveMutants) {
  if (unseen.includes(mutant)) continue
  t.test(`the enumeration finds ${mutant}`, async (t) => {
    const error: unknown = await check(new Set([mutant]), 2).catch((error: unknown) => error)
    t.type(error, LawBroken)
    t.comment(error instanceof Error ? error.message : String(error))
  })
}
