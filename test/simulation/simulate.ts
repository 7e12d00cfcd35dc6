// The program behind scripts/simulate: random lives of one node, or schedules of two, one after the other, until so many or for ever. A run that breaks a
// law is shown with the one command that repeats it. With --mutants each planted bug of replication is switched on in turn: every one must be found.
//
//   node out/test/simulation/simulate.js [--pair] [--seeds N] [--seed S] [--actions N] [--mutant NAME]... [--mutants] [--naive]
import { parseArgs } from 'node:util'
import { type Finding, type Job, runJob } from './jobs.js'
import { pairMutants } from './pair/mutants.js'

const options = {
  seeds: { type: 'string' },
  seed: { type: 'string' },
  actions: { type: 'string' },
  mutant: { type: 'string', multiple: true },
  mutants: { type: 'boolean', default: false },
  pair: { type: 'boolean', default: false },
  naive: { type: 'boolean', default: false },
} as const

/** Between two lines of progress. */
const reportMs = 10_000
const lifeActionCount = 150
const pairActionCount = 120
/** A planted bug must be found within so many schedules. */
const mutantSeedsMax = 5000

type Plan = {
  readonly kind: 'lives' | 'pairs'
  readonly subject: 'lockstep' | 'naive'
  readonly first: number
  readonly count: number
  readonly actionCount: number
  readonly mutants: readonly string[]
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options })
  const kind = values.pair || values.mutants ? 'pairs' : 'lives'
  const usual = kind === 'pairs' ? pairActionCount : lifeActionCount
  const isBounded = values.seeds !== undefined || values.mutants
  const plan: Plan = {
    kind,
    subject: values.naive ? 'naive' : 'lockstep',
    first: wholeNumber('--seed', values.seed ?? String(Date.now() % 2 ** 31)),
    count: isBounded
      ? wholeNumber('--seeds', values.seeds ?? String(mutantSeedsMax))
      : Number.POSITIVE_INFINITY,
    actionCount: wholeNumber('--actions', values.actions ?? String(usual)),
    mutants: values.mutant ?? [],
  }
  return values.mutants ? killMutants(plan) : simulate(plan)
}

async function simulate(plan: Plan): Promise<number> {
  const totals = new Map<string, number>()
  const startedMs = performance.now()
  let reportedMs = startedMs
  let isStopped = false
  process.once('SIGINT', () => {
    isStopped = true
  })
  let done = 0
  for (; done < plan.count && !isStopped; done++) {
    const found = await runOne(plan, plan.first + done)
    if ('broken' in found) {
      showBroken(found.broken, plan, plan.first + done)
      return 1
    }
    addUp(totals, found)
    if (performance.now() - reportedMs < reportMs) continue
    reportedMs = performance.now()
    const perSecond = ((done + 1) / (reportedMs - startedMs)) * 1000
    console.log(
      `${done + 1} ${plan.kind} from seed ${plan.first}, ${perSecond.toFixed(1)} a second`,
    )
  }
  showCoverage(totals)
  const seconds = (performance.now() - startedMs) / 1000
  const rate = (done / seconds).toFixed(1)
  console.log(
    `${done} ${plan.kind} from seed ${plan.first} on in ${seconds.toFixed(1)} s (${rate} a second), no law broken`,
  )
  return 0
}

/** Each planted bug by itself, until it is found: a table. Without seeds that find it, it lives, and the checker proves nothing about it. */
async function killMutants(plan: Plan): Promise<number> {
  const chosen = pairMutants.filter(
    ({ name }) => plan.mutants.length === 0 || plan.mutants.includes(name),
  )
  let aliveCount = 0
  console.log('| mutant | breaks | schedules | found by |')
  console.log('|---|---|---|---|')
  for (const { name, breaks } of chosen) {
    const { count, broken } = await firstFinding({ ...plan, mutants: [name] })
    if (broken === undefined) aliveCount++
    const how = broken?.split('\n')[0]?.slice(0, 90) ?? 'nobody: it is alive'
    console.log(`| ${name} | ${breaks} | ${count} | ${how} |`)
  }
  console.log(`${chosen.length - aliveCount} of ${chosen.length} found`)
  return aliveCount > 0 ? 1 : 0
}

async function firstFinding(
  plan: Plan,
): Promise<{ readonly count: number; readonly broken: string | undefined }> {
  for (let done = 0; done < plan.count; done++) {
    const found = await runOne(plan, plan.first + done)
    if ('broken' in found) return { count: done + 1, broken: found.broken }
  }
  return { count: plan.count, broken: undefined }
}

function runOne(plan: Plan, seed: number): Promise<Finding<Plan['kind']>> {
  const { kind, subject, mutants, actionCount } = plan
  return runJob({ kind, subject, seed, mutants, count: 1, actionCount } as Extract<
    Job,
    { kind: Plan['kind'] }
  >)
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= 0) return value
  console.error(`simulate: ${name} wants a whole number, not "${text}"`)
  process.exit(2)
}

function addUp(totals: Map<string, number>, found: Finding<Plan['kind']>): void {
  if (!('report' in found)) return
  for (const [what, count] of Object.entries(found.report.counts)) {
    totals.set(what, (totals.get(what) ?? 0) + count)
  }
}

function showCoverage(totals: ReadonlyMap<string, number>): void {
  console.log('what happened, rarest first:')
  for (const [what, count] of [...totals].sort((a, b) => a[1] - b[1])) {
    console.log(`  ${String(count).padStart(9)}  ${what}`)
  }
}

function showBroken(broken: string, plan: Plan, seed: number): void {
  console.error(broken)
  const isUsual = plan.actionCount === (plan.kind === 'pairs' ? pairActionCount : lifeActionCount)
  const more = [
    ...(plan.kind === 'pairs' ? ['--pair'] : []),
    ...(plan.subject === 'naive' ? ['--naive'] : []),
    `--seeds 1 --seed ${seed}`,
    ...(isUsual ? [] : [`--actions ${plan.actionCount}`]),
    ...plan.mutants.map((name) => `--mutant ${name}`),
  ]
  console.error(`\nto repeat it: scripts/simulate ${more.join(' ')}`)
}

process.exitCode = await main()
