// The program behind scripts/simulate: random lives of one node, or schedules of two, one after the other, until so many or for ever. A run that breaks a
// law is shown with the one command that repeats it. With --mutants each planted bug of replication is switched on in turn: every one must be found.
//
//   node out/test/simulation/simulate.js [--pair] [--seeds N] [--seed S] [--actions N] [--plain] [--threads N] [--keep-going]
//     [--mutant NAME]... [--mutants] [--naive]
import { parseArgs } from 'node:util'
import { findMutant } from './mutant-hunt.js'
import { pairMutants } from './pair/mutants.js'
import { coverageOf } from './pair/rare-states.js'
import { runSeeds, type SeedFinding } from './seed-pool.js'

const options = {
  seeds: { type: 'string' },
  seed: { type: 'string' },
  actions: { type: 'string' },
  mutant: { type: 'string', multiple: true },
  mutants: { type: 'boolean', default: false },
  pair: { type: 'boolean', default: false },
  naive: { type: 'boolean', default: false },
  plain: { type: 'boolean', default: false },
  threads: { type: 'string', default: '2' },
  'keep-going': { type: 'boolean', default: false },
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
  readonly isPlain: boolean
  readonly threadCount: number
  /** Not only the first schedule that breaks a law is shown. */
  readonly keepsGoing: boolean
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
    isPlain: values.plain,
    threadCount: Math.max(1, wholeNumber('--threads', values.threads)),
    keepsGoing: values['keep-going'],
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
  let brokenCount = 0
  await run(plan, (seed, found) => {
    done++
    addUp(totals, found)
    if ('broken' in found) {
      brokenCount++
      showBroken(found.broken, plan, seed)
      return plan.keepsGoing && !isStopped
    }
    if (performance.now() - reportedMs < reportMs) return !isStopped
    reportedMs = performance.now()
    const perSecond = (done / (reportedMs - startedMs)) * 1000
    console.log(`${done} ${plan.kind} from seed ${plan.first}, ${perSecond.toFixed(1)} a second`)
    return !isStopped
  })
  if (brokenCount > 0 && !plan.keepsGoing) return 1
  showCoverage(totals)
  if (plan.kind === 'pairs') showRare(totals)
  const seconds = (performance.now() - startedMs) / 1000
  const rate = (done / seconds).toFixed(1)
  const laws = brokenCount === 0 ? 'no law broken' : `${brokenCount} of them broke a law`
  console.log(
    `${done} ${plan.kind} from seed ${plan.first} on in ${seconds.toFixed(1)} s (${rate} a second), ${laws}`,
  )
  return brokenCount > 0 ? 1 : 0
}

/** Each planted bug by itself, until it is found: a table. Without seeds that find it, it lives, and the checker proves nothing about it. */
async function killMutants(plan: Plan): Promise<number> {
  const chosen = pairMutants.filter(
    ({ name }) => plan.mutants.length === 0 || plan.mutants.includes(name),
  )
  let aliveCount = 0
  console.log('| planted bug | breaks | schedules | seed | found by |')
  console.log('|---|---|---|---|---|')
  const { kind, subject, actionCount, isPlain, first, count: countMax, threadCount } = plan
  const job = { kind, subject, actionCount, isPlain }
  for (const { name, breaks } of chosen) {
    const found = await findMutant({ job, first, count: countMax, threadCount, mutants: [name] })
    const { count, seed = '', broken } = found
    if (broken === undefined) aliveCount++
    const how = broken?.split('\n')[0]?.replaceAll('LawBroken: ', '').slice(0, 90)
    console.log(`| ${name} | ${breaks} | ${count} | ${seed} | ${how ?? 'nobody: it is alive'} |`)
  }
  console.log(`${chosen.length - aliveCount} of ${chosen.length} found`)
  return aliveCount > 0 ? 1 : 0
}

function run(plan: Plan, onFound: (seed: number, found: SeedFinding) => boolean): Promise<void> {
  const { kind, subject, mutants, actionCount, isPlain, first, count, threadCount } = plan
  const job = { kind, subject, mutants, actionCount, isPlain }
  return runSeeds({ job, first, count, threadCount, onFound })
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= 0) return value
  console.error(`simulate: ${name} wants a whole number, not "${text}"`)
  process.exit(2)
}

function addUp(totals: Map<string, number>, found: SeedFinding): void {
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

/** What has to happen for the schedules to prove anything: how often it did. */
function showRare(totals: ReadonlyMap<string, number>): void {
  const coverage = coverageOf(totals)
  console.log('rare states:')
  for (const { name, count } of coverage) console.log(`  ${String(count).padStart(9)}  ${name}`)
  const missing = coverage.filter(({ count }) => count === 0).map(({ name }) => name)
  if (missing.length > 0) console.log(`never: ${missing.join('; ')}`)
}

function showBroken(broken: string, plan: Plan, seed: number): void {
  console.error(broken)
  const isUsual = plan.actionCount === (plan.kind === 'pairs' ? pairActionCount : lifeActionCount)
  const more = [
    ...(plan.kind === 'pairs' ? ['--pair'] : []),
    ...(plan.subject === 'naive' ? ['--naive'] : []),
    ...(plan.isPlain ? ['--plain'] : []),
    `--seeds 1 --seed ${seed}`,
    ...(isUsual ? [] : [`--actions ${plan.actionCount}`]),
    ...plan.mutants.map((name) => `--mutant ${name}`),
  ]
  console.error(`\nto repeat it: scripts/simulate ${more.join(' ')}`)
}

process.exitCode = await main()
