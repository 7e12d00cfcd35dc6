// A share of the schedules of two nodes that every test run has: several files have one each, so that they run side by side.
import type { Test } from 'tap'
import { runSeeds } from '../seed-pool.js'
import { coverageOf } from './rare-states.js'

const actionCount = 120

/** Runs `count` schedules from a seed on; their counts, or undefined when one of them broke a law, which is told. */
export async function checkSchedules(
  t: Test,
  options: { readonly first: number; readonly count: number; readonly isPlain?: boolean },
): Promise<ReadonlyMap<string, number> | undefined> {
  const totals = new Map<string, number>()
  let broken: string | undefined
  await runSeeds({
    job: { kind: 'pairs', subject: 'lockstep', actionCount, isPlain: options.isPlain ?? false },
    first: options.first,
    count: options.count,
    // tap runs two files at once.
    threadCount: 1,
    onFound: (_, found) => {
      if ('broken' in found) broken = found.broken
      else
        for (const [what, count] of Object.entries(found.report.counts))
          totals.set(what, (totals.get(what) ?? 0) + count)
      return broken === undefined
    },
  })
  t.equal(broken, undefined, `schedules from seed ${options.first} on break no law`)
  return broken === undefined ? totals : undefined
}

/** A share of the test run: so many fresh schedules, and the usual of what is rare has happened. */
export function testSchedules(
  t: Test,
  options: { readonly first: number; readonly count: number },
) {
  const { first, count } = options
  t.setTimeout(900_000)
  t.test(`${count} schedules from seed ${first} on break no law`, async (t) => {
    const totals = await checkSchedules(t, options)
    if (totals === undefined) return
    for (const state of coverageOf(totals)) t.comment(`${state.name}: ${state.count}`)
    const usual = coverageOf(totals).filter(({ isUsual }) => isUsual)
    t.strictSame(
      usual.filter(({ count }) => count === 0).map(({ name }) => name),
      [],
      'what is usual in so many has happened',
    )
  })
}
