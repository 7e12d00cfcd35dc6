// The runs of a node, from one start to the next, and how its peer sees that the disk it has begun on is an old copy.
//
// A primary tells its peer how many batches its journal holds durably, before each entry that relies on them; the peer keeps the newest number with its own
// position. A disk that was copied before a batch cannot show it: either the run in which it was written is missing from the list, or it ended earlier.

export type RunRecord = {
  /** Random: two starts from copies of one disk are two runs. */
  readonly runId: string
  /** Number of the newest batch in the journal when the run began. */
  readonly startBatch: number
}

/** What a node was told by another that was its primary then. */
export type Sighting = {
  readonly nodeId: string
  readonly runId: string
  /** The newest batch that was durable there. */
  readonly batchNumber: number
}

/** Kept, and told in a greeting: a node that comes back after more starts of its primary needs everything. */
export const runCountMax = 128

export function withRun(runs: readonly RunRecord[], run: RunRecord): readonly RunRecord[] {
  return [...runs, run].slice(-runCountMax)
}

/**
 * Whether a node still has what it was seen to have: `gone` means that its disk is an older copy, `unknown` that its list does not go back so far.
 * `batchNumber` is the newest batch that it has now.
 */
export function judgeSighting(
  runs: readonly RunRecord[],
  batchNumber: number,
  sighting: Sighting,
): 'there' | 'gone' | 'unknown' {
  const index = runs.findIndex((run) => run.runId === sighting.runId)
  if (index < 0) {
    const isTooOld = runs.length === 0 || (runs.length >= runCountMax && isBefore(runs, sighting))
    return isTooOld ? 'unknown' : 'gone'
  }
  const end = runs[index + 1]?.startBatch ?? batchNumber
  return sighting.batchNumber <= end ? 'there' : 'gone'
}

function isBefore(runs: readonly RunRecord[], { batchNumber }: Sighting): boolean {
  return batchNumber <= (runs[0]?.startBatch ?? 0)
}
