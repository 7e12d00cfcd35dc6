// What several runs of the simulator counted together, in a file between them: many schedules can be run in pieces, each behind the one before.
//
// Invariant: the file is written when a run has ended, as a whole; a run that is interrupted leaves it as it was.
import { readFileSync, renameSync, writeFileSync } from 'node:fs'

export type Totals = {
  readonly kind: 'lives' | 'pairs'
  readonly first: number
  /** The seed behind the last one that was run. */
  readonly next: number
  readonly doneCount: number
  readonly seconds: number
  readonly brokenSeeds: readonly number[]
  /** How often what happened. */
  readonly counts: Readonly<Record<string, number>>
}

/** Throws when there is a file that is none of these, or of the other kind. */
export function readTotals(path: string, kind: Totals['kind']): Totals | undefined {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  const found = JSON.parse(text) as Partial<Totals>
  if (found.kind !== kind || typeof found.next !== 'number' || found.counts === undefined)
    throw new Error(`${path} has no totals of ${kind}: name another file`)
  return found as Totals
}

export function writeTotals(path: string, totals: Totals): void {
  writeFileSync(`${path}.new`, `${JSON.stringify(totals, null, 1)}\n`)
  renameSync(`${path}.new`, path)
}
