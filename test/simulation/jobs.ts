// The long checks as jobs that a worker thread can run: plain data in, plain data out. In a thread of its own a check is free of the
// test runner's hooks on every promise, which cost more than the check itself.

import { naiveSubject } from '../support/naive-engine.js'
import { naivePair } from '../support/naive-pair.js'
import { thoroughDepth, usualDepth } from './crash-check.js'
import { type DamageReport, Damager } from './damage.js'
import { type EnumerationReport, enumerate, fillJournal, fullPlans } from './enumeration.js'
import { failureKinds, Sweeper, sweepWorkloads } from './failure-sweep.js'
import { type FullDiskReport, fillDisk } from './full-disk.js'
import { checkInit, type InitReport } from './init-crash.js'
import { describe, withRejectionsCaught } from './laws.js'
import {
  enumeratePair,
  type PairEnumerationOptions,
  type PairEnumerationReport,
} from './pair/pair-enumeration.js'
import { pairRun } from './pair/pair-run.js'
import { type PairSweepOptions, type PairSweepReport, sweepPair } from './pair/pair-sweep.js'
import { realPair } from './pair/real-pair.js'
import { randomRun } from './random-run.js'
import { type ForgottenCall, realSubject, withoutSyncs } from './real-engine.js'
import type { Subject } from './subject.js'
import { alphabet, makeBase } from './workloads.js'

export type SubjectName = 'lockstep' | 'naive' | ForgottenCall

type Common = {
  readonly subject: SubjectName
  readonly seed: number
  readonly mutants?: readonly string[]
}

export type Job = Common &
  (
    | {
        readonly kind: 'enumerate'
        /** Workloads of up to so many actions. */
        readonly lengthMax: number
        readonly shard: number
        readonly shardCount: number
        readonly canPunch?: boolean
        readonly hasOddEnd?: boolean
        /** Whether the costlier checks run in every state. */
        readonly isThorough?: boolean
      }
    | { readonly kind: 'sweep' }
    /** Lives with the seeds from `seed` on. */
    | { readonly kind: 'lives'; readonly count: number; readonly actionCount: number }
    /** Schedules of two nodes with the seeds from `seed` on. */
    | {
        readonly kind: 'pairs'
        readonly count: number
        readonly actionCount: number
        /** Crashes and a bad network only. */
        readonly isPlain?: boolean
      }
    /** Crashes of two nodes before each call. */
    | ({ readonly kind: 'pair-enumerate' } & Pick<
        PairEnumerationOptions,
        'lengths' | 'shard' | 'shardCount' | 'stride' | 'pointStride' | 'workloads'
      >)
    /** Failures of each disk call of two nodes. */
    | ({ readonly kind: 'pair-sweep' } & Pick<PairSweepOptions, 'shard' | 'shardCount' | 'stride'>)
    | { readonly kind: 'full-disk'; readonly count: number }
    | { readonly kind: 'damage' }
    | { readonly kind: 'init' }
    | { readonly kind: 'wrap' }
  )

type RunsReport = {
  /** One a run: equal for equal runs. */
  readonly traces: readonly number[]
  /** How often what is rare happened, in all of them. */
  readonly counts: Readonly<Record<string, number>>
}

export type JobResults = {
  enumerate: EnumerationReport
  sweep: { readonly runCounts: Readonly<Record<string, number>> }
  lives: RunsReport
  pairs: RunsReport
  'pair-enumerate': PairEnumerationReport
  'pair-sweep': PairSweepReport
  'full-disk': FullDiskReport
  damage: DamageReport
  init: InitReport
  wrap: EnumerationReport
}

/** What a job found: its report, or the law that was broken, in words. */
export type Finding<Kind extends Job['kind']> =
  | { readonly report: JobResults[Kind] }
  | { readonly broken: string }

export const journalBytes = 256 * 1024

const subjects: Readonly<Record<SubjectName, Subject>> = {
  lockstep: realSubject,
  naive: naiveSubject,
  'without directory syncs': withoutSyncs('without directory syncs'),
  'without checkpoint syncs': withoutSyncs('without checkpoint syncs'),
}

export async function runJob<Kind extends Job['kind']>(
  job: Extract<Job, { kind: Kind }>,
): Promise<Finding<Kind>> {
  try {
    const report = await withRejectionsCaught(() => perform(job))
    return { report: report as JobResults[Kind] }
  } catch (error) {
    return { broken: describe(error) }
  }
}

function perform(job: Job): Promise<JobResults[Job['kind']]> {
  const subject = subjects[job.subject]
  const mutants = new Set(job.mutants)
  const common = { subject, seed: job.seed, mutants }
  switch (job.kind) {
    case 'enumerate':
      return enumerate({
        ...common,
        journalBytes,
        plans: fullPlans.slice(0, job.lengthMax),
        shard: job.shard,
        shardCount: job.shardCount,
        disk: { canPunch: job.canPunch ?? true },
        hasOddEnd: job.hasOddEnd ?? false,
        depth: job.isThorough ? thoroughDepth : usualDepth,
      })
    case 'sweep':
      return sweepAll(common)
    case 'lives':
      return runAll(job, (seed) => randomRun({ ...common, seed, actionCount: job.actionCount }))
    case 'pairs':
      return runAll(job, (seed) =>
        pairRun({
          subject: job.subject === 'naive' ? naivePair : realPair,
          seed,
          mutants,
          actionCount: job.actionCount,
          isPlain: job.isPlain ?? false,
        }),
      )
    case 'pair-enumerate':
      return enumeratePair({ ...job, subject: realPair, mutants })
    case 'pair-sweep':
      return sweepPair({ ...job, subject: realPair, mutants })
    case 'full-disk':
      return fillDisk({ ...common, count: job.count })
    case 'damage':
      return makeBase(common, journalBytes).then((base) => new Damager(common).run(base))
    case 'init':
      return checkInit(common)
    case 'wrap':
      return fillJournal({ ...common, journalBytes })
  }
}

async function sweepAll(options: {
  readonly subject: Subject
  readonly seed: number
  readonly mutants: ReadonlySet<string>
}): Promise<JobResults['sweep']> {
  const { subject, seed } = options
  const base = await makeBase({ subject, seed }, journalBytes)
  const runCounts: Record<string, number> = {}
  for (const kind of failureKinds) {
    const sweeper = new Sweeper({ ...options, base, kind })
    for (const workload of sweepWorkloads(Object.keys(alphabet))) await sweeper.sweep(workload)
    runCounts[kind.name] = sweeper.runCount
  }
  return { runCounts }
}

async function runAll(
  job: { readonly seed: number; readonly count: number },
  run: (
    seed: number,
  ) => Promise<{ readonly trace: number; readonly counts: ReadonlyMap<string, number> }>,
): Promise<RunsReport> {
  const traces: number[] = []
  const totals: Record<string, number> = {}
  for (let i = 0; i < job.count; i++) {
    const { trace, counts } = await run(job.seed + i)
    traces.push(trace)
    for (const [what, count] of counts) totals[what] = (totals[what] ?? 0) + count
  }
  return { traces, counts: totals }
}
