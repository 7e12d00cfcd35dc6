// The program behind scripts/simulate: random lives, one after the other, until so many or for ever. A life that breaks a law is shown with
// the one command that repeats it.
//
//   node out/test/simulation/simulate.js [--seeds N] [--seed S] [--actions N] [--mutant NAME]...
import { parseArgs } from 'node:util'
import { type Finding, runJob } from './jobs.js'

const options = {
  seeds: { type: 'string' },
  seed: { type: 'string' },
  actions: { type: 'string', default: '150' },
  mutant: { type: 'string', multiple: true },
} as const

/** Between two lines of progress. */
const reportMs = 10_000

async function main(): Promise<number> {
  const { values } = parseArgs({ options })
  const first = wholeNumber('--seed', values.seed ?? String(Date.now() % 2 ** 31))
  const count =
    values.seeds === undefined ? Number.POSITIVE_INFINITY : wholeNumber('--seeds', values.seeds)
  const actionCount = wholeNumber('--actions', values.actions)
  const mutants = values.mutant ?? []
  const totals = new Map<string, number>()
  const startedMs = performance.now()
  let reportedMs = startedMs
  let isStopped = false
  process.once('SIGINT', () => {
    isStopped = true
  })
  let done = 0
  for (; done < count && !isStopped; done++) {
    const seed = first + done
    const found = await runJob<'lives'>({
      kind: 'lives',
      subject: 'lockstep',
      seed,
      mutants,
      count: 1,
      actionCount,
    })
    if ('broken' in found) {
      showBroken(found.broken, seed, actionCount, mutants)
      return 1
    }
    addUp(totals, found)
    if (performance.now() - reportedMs < reportMs) continue
    reportedMs = performance.now()
    const perSecond = ((done + 1) / (reportedMs - startedMs)) * 1000
    console.log(`${done + 1} lives from seed ${first} on, ${perSecond.toFixed(1)} a second`)
  }
  showCoverage(totals)
  const seconds = (performance.now() - startedMs) / 1000
  console.log(`${done} lives from seed ${first} on in ${seconds.toFixed(1)} s, no law broken`)
  return 0
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= 0) return value
  console.error(`simulate: ${name} wants a whole number, not "${text}"`)
  process.exit(2)
}

function addUp(totals: Map<string, number>, found: Finding<'lives'>): void {
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

function showBroken(
  broken: string,
  seed: number,
  actionCount: number,
  mutants: readonly string[],
): void {
  console.error(broken)
  const more = [
    ...(actionCount === 150 ? [] : [`--actions ${actionCount}`]),
    ...mutants.map((name) => `--mutant ${name}`),
  ]
  console.error(`\nto repeat it: ${['scripts/simulate --seeds 1 --seed', seed, ...more].join(' ')}`)
}

process.exitCode = await main()
