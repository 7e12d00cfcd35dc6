// Looks for a schedule that finds a planted bug: one that breaks a law with the bug, and none without it.
import { runSeeds, type SeedPoolOptions } from './seed-pool.js'

export type Hunt = Pick<SeedPoolOptions, 'first' | 'count' | 'threadCount'> & {
  readonly job: Omit<SeedPoolOptions['job'], 'mutants'>
  readonly mutants: readonly string[]
}

/** `count`: schedules that were run with the bug. */
export type Finding =
  | { readonly count: number; readonly seed: number; readonly broken: string }
  | { readonly count: number; readonly seed?: undefined; readonly broken?: undefined }

/** A schedule that breaks a law without the bug as well proves nothing about it: the next ones are tried. */
export async function findMutant(hunt: Hunt): Promise<Finding> {
  const end = hunt.first + hunt.count
  for (let first = hunt.first; first < end; ) {
    const found = await firstBroken({ ...hunt, first, count: end - first })
    if (found === undefined) break
    const { seed, broken } = found
    first = seed + 1
    const sound = await firstBroken({ ...hunt, first: seed, count: 1, mutants: [] })
    if (sound === undefined) return { count: first - hunt.first, seed, broken }
  }
  return { count: hunt.count }
}

async function firstBroken({ job, mutants, first, count, threadCount }: Hunt) {
  let broken: { readonly seed: number; readonly broken: string } | undefined
  await runSeeds({
    job: { ...job, mutants },
    first,
    count,
    threadCount,
    onFound: (seed, found) => {
      if ('broken' in found) broken = { seed, broken: found.broken }
      return broken === undefined
    },
  })
  return broken
}
