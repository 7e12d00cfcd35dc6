// Every workload of up to three actions on the real engine, a crash before each disk call of its last action (those of the first
// ones are the last ones of a shorter workload), recovered and judged.
import t from 'tap'
import { type ChoicePlan, CrashChecker } from './crash-check.js'
import { realSubject } from './real-engine.js'
import { actionsOf, makeBase, sequences } from './workloads.js'

const seed = 1
const journalBytes = 256 * 1024

/** The shorter the workload, the more of its crash states. */
const plans: readonly ChoicePlan[] = [
  { exhaustiveMax: 256, singles: true, randomCount: 16 },
  { exhaustiveMax: 16, singles: false, randomCount: 4 },
  { exhaustiveMax: 2, singles: false, randomCount: 1 },
]

t.setTimeout(600_000)

t.test('every crash state of every workload recovers to a legal state', async (t) => {
  const options = { subject: realSubject, seed }
  const base = await makeBase(options, journalBytes)
  const checker = new CrashChecker(base, options)
  for (const [index, plan] of plans.entries()) {
    for (const names of sequences(index + 1)) await checker.checkWorkload(actionsOf(names), plan)
    const { stateCount, recoveryCount, pointCount } = checker
    t.comment(
      `up to ${index + 1} actions: ${stateCount} crash states at ${pointCount} points, ${recoveryCount} recoveries`,
    )
  }
  t.ok(checker.stateCount >= 50_000)
})
