// The crash enumeration of two nodes: workloads of up to three entries from each starting state, a crash of either node or of both before each call of their
// disks and of the network between them. Cut into shards: a shard depends on nothing but its number.
import { SeededRandom } from '../random.js'
import { actionsOf, sequences } from '../workloads.js'
import { makePairBases, type PairBases, starts } from './pair-base.js'
import type { PairSubject } from './pair-subject.js'
import { PairTrial, type TrialOptions, type Workload } from './pair-trial.js'

export type PairEnumerationOptions = {
  readonly subject: PairSubject
  readonly seed: number
  readonly mutants?: ReadonlySet<string>
  /** Workloads of so many entries. */
  readonly lengths: readonly number[]
  readonly shard: number
  readonly shardCount: number
  /** One workload in so many. */
  readonly stride?: number
  /** One point in so many, from a place that differs by workload. */
  readonly pointStride?: number
  /** Only those of these entries, as a message names them. */
  readonly workloads?: string | undefined
}

export type PairEnumerationReport = {
  readonly workloadCount: number
  readonly pointCount: number
  /** Crashes that were judged: pairs of media, or a medium and the other node alive. */
  readonly stateCount: number
  /** Of those the ones that were led to the end: both nodes equal. */
  readonly healCount: number
}

/** What stands for each kind of entry. */
const pairAlphabet: readonly string[] = [
  ...['write', 'write two chunks', 'write FUA', 'write snapshot', 'trim', 'flush', 'snapshot'],
  ...['restore', 'restore range', 'refresh', 'sync', 'delete snapshot', 'delete volume'],
  ...['grow', 'shrink', 'batch', 'checkpoint'],
]

/** For the longest workloads. */
const shortPairAlphabet: readonly string[] = [
  ...['write', 'write two chunks', 'trim', 'flush', 'snapshot', 'restore range', 'sync'],
  'delete snapshot',
]

/** Throws LawBroken at the first illegal state. */
export async function enumeratePair(
  options: PairEnumerationOptions,
): Promise<PairEnumerationReport> {
  const bases = await makePairBases(options.subject, options.seed)
  const report = { workloadCount: 0, pointCount: 0, stateCount: 0, healCount: 0 }
  const { shard, shardCount, stride = 1 } = options
  let index = 0
  for (const workload of workloadsOf(options)) {
    const serial = index++
    if (serial % stride !== options.seed % stride) continue
    if (Math.floor(serial / stride) % shardCount !== shard) continue
    report.workloadCount++
    await enumerateOne(options, bases, workload, serial, report)
  }
  return report
}

/** The shortest first; each from every start, at once and one by one where that differs. */
function* workloadsOf(options: PairEnumerationOptions): Generator<Workload> {
  for (const length of options.lengths) {
    const alphabet = length < 3 ? pairAlphabet : shortPairAlphabet
    for (const names of sequences(length, alphabet)) {
      if (options.workloads !== undefined && options.workloads !== names.join(', ')) continue
      for (const start of starts) {
        const actions = actionsOf(names)
        yield { start, names, actions, isTogether: true }
        if (length > 1) yield { start, names, actions, isTogether: false }
      }
    }
  }
}

async function enumerateOne(
  options: PairEnumerationOptions,
  bases: PairBases,
  workload: Workload,
  serial: number,
  report: { pointCount: number; stateCount: number; healCount: number },
): Promise<void> {
  const { subject, mutants, seed, pointStride = 1 } = options
  const trialOptions: TrialOptions = {
    ...{ subject, workload },
    base: bases[workload.start],
    seed: new SeededRandom(seed).fork(`workload ${serial}`).bits(),
    ...(mutants ? { mutants } : {}),
    mediaPerNode: workload.names.length < 3 ? 5 : 4,
    again: 8,
  }
  const points = await new PairTrial(trialOptions).count()
  for (const [point, { victims }] of points.entries()) {
    if ((point + serial) % pointStride !== 0) continue
    report.pointCount++
    for (const who of victims) {
      const trial = new PairTrial(trialOptions, { who, point })
      await trial.run()
      report.stateCount += trial.stateCount
      report.healCount += trial.healCount
    }
  }
}
