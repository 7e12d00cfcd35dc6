// The program behind `scripts/simulate --pair-enumeration`: the crash enumeration and the sweep of failures of two nodes in all their length, on two threads.
import { parseArgs } from 'node:util'
import { inWorker } from '../in-worker.js'
import type { Finding, Job } from '../jobs.js'

const options = {
  'pair-enumeration': { type: 'boolean' },
  lengths: { type: 'string', default: '1,2,3' },
  workloads: { type: 'string' },
  stride: { type: 'string', default: '1' },
  seed: { type: 'string', default: '1' },
  from: { type: 'string', default: '1' },
  threads: { type: 'string', default: '2' },
  mutant: { type: 'string', multiple: true, default: [] as string[] },
  sweep: { type: 'boolean', default: false },
} as const

/** A shard is so small that progress can be seen. */
const shardsPerLength = [0, 16, 400, 800]

const { values } = parsed()
const threads = wholeNumber('--threads', values.threads)
const seed = wholeNumber('--seed', values.seed)
const stride = wholeNumber('--stride', values.stride)
/** The first shard: a run that was interrupted goes on where it was. */
const from = wholeNumber('--from', values.from)
const lengths = values.lengths.split(',').map((text) => wholeNumber('--lengths', text))
if (lengths.some((length) => length > 3)) usage('--lengths: workloads have one to three entries')

const totals: Record<string, number> = {}
let isBroken = false
const startedMs = performance.now()

type PairJob = Extract<Job, { kind: 'pair-enumerate' | 'pair-sweep' }>

function* jobs(): Generator<PairJob> {
  const common = { subject: 'lockstep', seed, mutants: values.mutant } as const
  if (values.sweep) {
    const shardCount = 32
    for (let shard = from - 1; shard < shardCount; shard++)
      yield { ...common, kind: 'pair-sweep', shard, shardCount, stride }
    return
  }
  for (const length of lengths) {
    const shardCount = values.workloads === undefined ? (shardsPerLength[length] ?? 1) : 1
    for (let shard = from - 1; shard < shardCount; shard++) {
      const only = values.workloads === undefined ? {} : { workloads: values.workloads }
      yield {
        ...common,
        ...only,
        ...{ kind: 'pair-enumerate', lengths: [length], shard, shardCount, pointStride: stride },
      }
    }
  }
}

async function work(): Promise<void> {
  while (!isBroken) {
    const { value: job } = source.next() as IteratorResult<PairJob, undefined>
    if (job === undefined) return
    const found = (await inWorker(job)) as Finding<'pair-enumerate' | 'pair-sweep'>
    if ('broken' in found) {
      isBroken = true
      console.error(found.broken)
      break
    }
    const report = 'runCounts' in found.report ? found.report.runCounts : found.report
    for (const [what, count] of Object.entries(report)) totals[what] = (totals[what] ?? 0) + count
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(0)
    console.log(`${seconds} s, shard ${job.shard + 1} of ${job.shardCount}: ${summary()}`)
  }
}

function summary(): string {
  const { workloadCount, pointCount, stateCount, healCount } = totals
  if (!values.sweep)
    return `${stateCount} crash states at ${pointCount} points of ${workloadCount} workloads, ${healCount} led to the end`
  const count = Object.values(totals).reduce((sum, one) => sum + one, 0)
  return `${count} runs with a failure`
}

function parsed() {
  try {
    return parseArgs({ options })
  } catch (error) {
    return usage(error instanceof Error ? error.message : String(error))
  }
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text)
  return Number.isSafeInteger(value) && value >= 1 ? value : usage(`${name} wants a number from 1`)
}

function usage(text: string): never {
  console.error(`simulate: ${text}`)
  process.exit(2)
}

// One source for all threads: a shard is done by whoever is free.
const source = jobs()
await Promise.all(Array.from({ length: threads }, work))
if (isBroken) process.exitCode = 1
else console.log(`no law broken: ${summary()}`)
