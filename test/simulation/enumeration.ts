// The crash enumeration of the real engine, cut into shards: a shard is a list of workloads that depends on nothing but its number.
import type { OperationRequest } from '../../src/core/operation.js'
import type { Action } from './client.js'
import {
  type CheckOptions,
  type ChoicePlan,
  CrashChecker,
  type Depth,
  thoroughDepth,
} from './crash-check.js'
import { actionsOf, makeBase, sequences, shortAlphabet } from './workloads.js'

export type EnumerationOptions = CheckOptions & {
  readonly journalBytes: number
  /** The data file ends within a sector. */
  readonly hasOddEnd: boolean
  /** For the shorter workloads; the longest ones get less. */
  readonly depth: Depth
  /** By the number of actions, less one. The shorter the workload, the more of its crash states. */
  readonly plans: readonly ChoicePlan[]
  readonly shard: number
  readonly shardCount: number
}

export type EnumerationReport = {
  readonly workloadCount: number
  readonly pointCount: number
  readonly stateCount: number
  readonly recoveryCount: number
}

export const fullPlans: readonly ChoicePlan[] = [
  { exhaustiveMax: 256, singles: true, randomCount: 16 },
  { exhaustiveMax: 16, singles: false, randomCount: 4 },
  { exhaustiveMax: 2, singles: false, randomCount: 1 },
]

/** There are so many of these that one in a few is enough. */
const longDepth: Depth = { again: 12, duringRecovery: 48, after: 16 }

/** Throws LawBroken at the first illegal state. */
export async function enumerate(options: EnumerationOptions): Promise<EnumerationReport> {
  const { plans, shard, shardCount, journalBytes, depth, hasOddEnd, mutants, ...rest } = options
  const base = await makeBase({ ...rest, hasOddEnd }, journalBytes)
  const checker = new CrashChecker(base, { ...rest, ...(mutants ? { mutants } : {}) })
  let index = 0
  let workloadCount = 0
  for (const [i, plan] of plans.entries()) {
    for (const names of sequences(i + 1, i < 2 ? undefined : shortAlphabet)) {
      if (index++ % shardCount !== shard) continue
      workloadCount++
      await checker.checkWorkload(actionsOf(names), plan, i < 2 ? depth : longDepth)
    }
  }
  const { pointCount, stateCount, recoveryCount } = checker
  return { workloadCount, pointCount, stateCount, recoveryCount }
}

/** Operations that fill both journal files several times, so that checkpoints let go of what is overwritten; then crashes around the last one. */
export async function fillJournal(
  options: CheckOptions & { readonly journalBytes: number },
): Promise<EnumerationReport> {
  const base = await makeBase(options, options.journalBytes)
  const checker = new CrashChecker(base, options)
  const plan = { exhaustiveMax: 16, singles: true, randomCount: 4 }
  for (let count = wrapCountMin; count < wrapCountMin + wrapWorkloads; count++) {
    const actions = Array.from({ length: count }, (_, i) => snapshotOnAndOff(i))
    await checker.checkWorkload(actions, plan, thoroughDepth)
  }
  const { pointCount, stateCount, recoveryCount } = checker
  return { workloadCount: wrapWorkloads, pointCount, stateCount, recoveryCount }
}

/** Each operation is a batch of 4 KiB at least; two journal files of 256 KiB are full after 128. */
const wrapCountMin = 190
const wrapWorkloads = 8

function snapshotOnAndOff(index: number): Action {
  const request: OperationRequest =
    index % 2 === 0
      ? { kind: 'snapshot.create', stores: ['vol0'], name: 't' }
      : { kind: 'snapshot.delete', store: 'vol0@t' }
  return { kind: 'perform', request }
}
