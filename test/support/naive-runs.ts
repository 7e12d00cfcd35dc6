// A set of whole numbers as a sorted list of runs, done again from the beginning for each change: slow, and too simple to be wrong.
export type NaiveRun = { readonly first: number; readonly end: number }

export class NaiveRuns {
  runs: readonly NaiveRun[]

  constructor(runs: readonly NaiveRun[] = []) {
    this.runs = runs
  }

  get count(): number {
    return this.runs.reduce((sum, { first, end }) => sum + end - first, 0)
  }

  /** What of `[first, end)` is in the set. */
  within(first: number, end: number): NaiveRuns {
    const cut = this.runs.map((run) => ({
      first: Math.max(run.first, first),
      end: Math.min(run.end, end),
    }))
    return new NaiveRuns(cut.filter((run) => run.first < run.end))
  }

  /** What of `[first, end)` is not in the set. */
  gaps(first: number, end: number): NaiveRuns {
    const gaps: NaiveRun[] = []
    let at = first
    for (const run of this.within(first, end).runs) {
      if (at < run.first) gaps.push({ first: at, end: run.first })
      at = run.end
    }
    if (at < end) gaps.push({ first: at, end })
    return new NaiveRuns(gaps)
  }

  /** The smallest run with all of them. */
  get hull(): NaiveRun | undefined {
    const first = this.runs[0]
    const last = this.runs.at(-1)
    return first === undefined || last === undefined
      ? undefined
      : { first: first.first, end: last.end }
  }

  without(first: number, end: number): NaiveRuns {
    return joined([...this.within(0, first).runs, ...this.within(end, Infinity).runs])
  }

  with(first: number, end: number): NaiveRuns {
    if (first >= end) return this
    const { runs } = this.without(first, end)
    return joined([...runs, { first, end }].sort((a, b) => a.first - b.first))
  }

  /** As `other` in `[first, end)`. */
  replaced(other: NaiveRuns, first: number, end: number): NaiveRuns {
    const { runs } = other.within(first, end)
    return runs.reduce(
      (all: NaiveRuns, run) => all.with(run.first, run.end),
      this.without(first, end),
    )
  }
}

/** Runs that touch are one. */
function joined(runs: readonly NaiveRun[]): NaiveRuns {
  const all: NaiveRun[] = []
  for (const run of runs) {
    const last = all.at(-1)
    if (last?.end === run.first) all[all.length - 1] = { first: last.first, end: run.end }
    else all.push(run)
  }
  return new NaiveRuns(all)
}
