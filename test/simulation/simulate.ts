// The program behind scripts/simulate: schedules of two nodes, or random lives of one, one after the other, until so many or for ever. A run that breaks a
// law is shown with the one command that repeats it. With --mutants each planted bug of replication is switched on in turn: every one must be found.
//
//   node out/test/simulation/simulate.js [--one] [--seeds N] [--seed S] [--actions N] [--plain] [--threads N] [--keep-going]
//     [--mutant NAME]... [--mutants] [--naive] [--into FILE]
import { parseArgs } from 'node:util'
import { findMutant } from './mutant-hunt.js'
import { pairMutants } from './pair/mutants.js'
import { coverageOf } from './pair/rare-states.js'
import { runSeeds, type SeedFinding } from './seed-pool.js'
import { singleNodeMutants } from './single-node-mutants.js'
import { readTotals, type Totals, writeTotals } from './totals-file.js'

const options = {
  seeds: { type: 'string' },
  seed: { type: 'string' },
  actions: { type: 'string' },
  mutant: { type: 'string', multiple: true },
  mutants: { type: 'boolean', default: false },
  one: { type: 'boolean', default: false },
  /** What is done without --one; for those who want to say so. */
  pair: { type: 'boolean', default: false },
  naive: { type: 'boolean', default: false },
  plain: { type: 'boolean', default: false },
  threads: { type: 'string', default: '2' },
  'keep-going': { type: 'boolean', default: false },
  into: { type: 'string' },
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
  /** Where what this run counts is added to what runs before it did. */
  readonly into: { readonly path: string; readonly before: Totals | undefined } | undefined
}

async function main(): Promise<number> {
  const values = wordsOf()
  const kind = values.one ? 'lives' : 'pairs'
  const usual = kind === 'pairs' ? pairActionCount : lifeActionCount
  const { into } = values
  const before = into === undefined ? undefined : readTotals(into, kind)
  const isBounded = values.seeds !== undefined || values.mutants
  const plan: Plan = {
    kind,
    subject: values.naive ? 'naive' : 'lockstep',
    first: wholeNumber('--seed', values.seed ?? String(before?.next ?? Date.now() % 2 ** 31)),
    count: isBounded
      ? wholeNumber('--seeds', values.seeds ?? String(mutantSeedsMax))
      : Number.POSITIVE_INFINITY,
    actionCount: wholeNumber('--actions', values.actions ?? String(usual)),
    mutants: values.mutant ?? [],
    isPlain: values.plain,
    threadCount: Math.max(1, wholeNumber('--threads', values.threads)),
    keepsGoing: values['keep-going'],
    into: into === undefined ? undefined : { path: into, before },
  }
  return values.mutants ? killMutants(plan) : simulate(plan)
}

/** The words of the command line, as far as they go together; ends the program when they do not. */
function wordsOf() {
  const { values } = parsed()
  const { one, pair, plain, mutants, mutant: chosen = [] } = values
  if (one && (pair || plain || mutants))
    wrongWords(
      '--one is a life of one node, and goes with neither --pair nor --plain nor --mutants',
    )
  const ofTwo = pairMutants.map(({ name }) => name)
  const known: readonly string[] = mutants ? ofTwo : [...singleNodeMutants, ...ofTwo]
  const strange = chosen.find((name) => !known.includes(name))
  if (strange !== undefined)
    wrongWords(`there is no planted bug "${strange}" here; there are ${known.join(', ')}`)
  return values
}

function parsed() {
  try {
    return parseArgs({ options })
  } catch (error) {
    return wrongWords(error instanceof Error ? error.message : String(error))
  }
}

function wrongWords(what: string): never {
  console.error(`simulate: ${what}`)
  process.exit(2)
}

async function simulate(plan: Plan): Promise<number> {
  const totals = new Map<string, number>(Object.entries(plan.into?.before?.counts ?? {}))
  const startedMs = performance.now()
  let reportedMs = startedMs
  let isStopped = false
  process.once('SIGINT', () => {
    isStopped = true
  })
  let done = 0
  const brokenSeeds: number[] = []
  await run(plan, (seed, found) => {
    done++
    addUp(totals, found)
    if ('broken' in found) {
      brokenSeeds.push(seed)
      showBroken(found.broken, plan, seed)
      return plan.keepsGoing && !isStopped
    }
    if (performance.now() - reportedMs < reportMs) return !isStopped
    reportedMs = performance.now()
    const perSecond = (done / (reportedMs - startedMs)) * 1000
    console.log(`${done} ${plan.kind} from seed ${plan.first}, ${perSecond.toFixed(1)} a second`)
    return !isStopped
  })
  if (brokenSeeds.length > 0 && !plan.keepsGoing) return 1
  showCoverage(totals)
  if (plan.kind === 'pairs') showRare(totals)
  const { kind, first, into } = plan
  const seconds = (performance.now() - startedMs) / 1000
  const mine = {
    kind,
    first,
    next: first + done,
    doneCount: done,
    seconds,
    brokenSeeds,
    counts: {},
  }
  console.log(summaryOf(mine))
  if (into !== undefined) addTo(into, mine, totals)
  return brokenSeeds.length > 0 ? 1 : 0
}

function summaryOf({ kind, first, doneCount, seconds, brokenSeeds }: Totals): string {
  const rate = (doneCount / seconds).toFixed(1)
  const brokenCount = brokenSeeds.length
  const laws = brokenCount === 0 ? 'no law broken' : `${brokenCount} of them broke a law`
  return `${doneCount} ${kind} from seed ${first} on in ${seconds.toFixed(1)} s (${rate} a second), ${laws}`
}

/** `counts` are those of the runs before as well. */
function addTo(
  { path, before }: NonNullable<Plan['into']>,
  mine: Totals,
  counts: ReadonlyMap<string, number>,
): void {
  const sum: Totals = {
    kind: mine.kind,
    first: before?.first ?? mine.first,
    next: mine.next,
    doneCount: (before?.doneCount ?? 0) + mine.doneCount,
    seconds: (before?.seconds ?? 0) + mine.seconds,
    brokenSeeds: [...(before?.brokenSeeds ?? []), ...mine.brokenSeeds],
    counts: Object.fromEntries(counts),
  }
  writeTotals(path, sum)
  console.log(`with the runs before: ${summaryOf(sum)}`)
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
  return wrongWords(`${name} wants a whole number, not "${text}"`)
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
    ...(plan.kind === 'lives' ? ['--one'] : []),
    ...(plan.subject === 'naive' ? ['--naive'] : []),
    ...(plan.isPlain ? ['--plain'] : []),
    `--seeds 1 --seed ${seed}`,
    ...(isUsual ? [] : [`--actions ${plan.actionCount}`]),
    ...plan.mutants.map((name) => `--mutant ${name}`),
  ]
  console.error(`\nto repeat it: scripts/simulate ${more.join(' ')}`)
}

process.exitCode = await main()
