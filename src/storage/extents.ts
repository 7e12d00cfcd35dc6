// Runs of equal status in a store: allocated or not, changed since a snapshot or not. Answered from the maps, without reading data.
import assert from 'node:assert/strict'
import { limits } from '../core/limits.js'
import { type ChunkPage, type Look, pageEntryCount } from './chunk-map.js'
import type { Store } from './group-state.js'

export type Run = { readonly lengthBytes: number; readonly isSet: boolean }
export type RunQuery = {
  readonly offset: number
  readonly lengthBytes: number
  readonly chunkBytes: number
  readonly runCountMax: number
  /** Shared with other answers; without it this one has `extentStepsMax` for itself. */
  readonly look?: Look
}

/** A run costs more than the entries of it. */
const runSteps = 32

/** Runs from `offset` on, set where the store has data: at least one, together at most `lengthBytes`. */
export function allocatedRuns(store: Store, query: RunQuery): readonly Run[] {
  return collectRuns(query, (chunk, end, look) => {
    const isHole = store.map.get(chunk) === 0
    return { end: store.map.runEnd(chunk, end, isHole, look), isSet: !isHole }
  })
}

/** Runs from `offset` on, set where the store may differ from `since`: whole chunks, never too few. */
export function changedRuns(store: Store, since: Store, query: RunQuery): readonly Run[] {
  return collectRuns(query, (chunk, end, look) => {
    const isSame = store.map.get(chunk) === since.map.get(chunk)
    return { end: store.map.sameRunEnd(since.map, { chunk, end, isSame }, look), isSet: !isSame }
  })
}

/** Bytes that may differ from `since`, in all and in each of `cellCount` equal slices of the store (0 to 1). */
export function changedPicture(
  store: Store,
  since: Store | undefined,
  options: { readonly chunkBytes: number; readonly cellCount: number },
): { readonly dirtyBytes: number; readonly picture: readonly number[] } {
  const { chunkBytes, cellCount } = options
  const cells = new Array<number>(cellCount).fill(0)
  const cellBytes = store.sizeBytes / cellCount
  let dirtyBytes = 0
  for (const pageIndex of new Set([
    ...store.map.pages.keys(),
    ...(since?.map.pages.keys() ?? []),
  ])) {
    const ours = store.map.pages.get(pageIndex)
    const theirs = since?.map.pages.get(pageIndex)
    for (const [first, end] of changedEntries(ours, theirs)) {
      const from = (pageIndex * pageEntryCount + first) * chunkBytes
      const to = Math.min((pageIndex * pageEntryCount + end) * chunkBytes, store.sizeBytes)
      if (from >= to) continue
      dirtyBytes += to - from
      paint(cells, cellBytes, from, to)
    }
  }
  return { dirtyBytes, picture: cells.map((bytes) => Math.min(1, bytes / cellBytes)) }
}

/** Runs of entries that differ, as first and exclusive end. A full page beside none is one run, without looking. */
function changedEntries(
  ours: ChunkPage | undefined,
  theirs: ChunkPage | undefined,
): readonly (readonly [number, number])[] {
  if (ours === theirs) return []
  if (theirs === undefined && ours?.usedCount === pageEntryCount) return [[0, pageEntryCount]]
  const runs: (readonly [number, number])[] = []
  let first = -1
  for (let entry = 0; entry < pageEntryCount; entry++) {
    const isChanged = (ours?.entries[entry] ?? 0) !== (theirs?.entries[entry] ?? 0)
    if (isChanged && first < 0) first = entry
    if (isChanged || first < 0) continue
    runs.push([first, entry])
    first = -1
  }
  if (first >= 0) runs.push([first, pageEntryCount])
  return runs
}

/** Adds the bytes of `[from, to)` to the cells they lie in. */
function paint(cells: number[], cellBytes: number, from: number, to: number): void {
  for (
    let cell = Math.floor(from / cellBytes);
    cell < cells.length && cell * cellBytes < to;
    cell++
  ) {
    const inCell = Math.min(to, (cell + 1) * cellBytes) - Math.max(from, cell * cellBytes)
    // The bounds of a cell are no whole numbers, and may be a little off.
    cells[cell] = (cells[cell] as number) + Math.max(0, inCell)
  }
}

function collectRuns(
  query: RunQuery,
  runAt: (
    chunk: number,
    end: number,
    look: Look,
  ) => { readonly end: number; readonly isSet: boolean },
): readonly Run[] {
  const { offset, lengthBytes, chunkBytes, runCountMax } = query
  const rangeEnd = offset + lengthBytes
  const endChunk = Math.ceil(rangeEnd / chunkBytes)
  const runs: Run[] = []
  let at = offset
  // Bounded work: a long look ends the answer early, and the client asks again from there.
  const look = query.look ?? { stepsLeft: limits.extentStepsMax }
  assert(look.stepsLeft > 0)
  while (at < rangeEnd && runs.length < runCountMax && look.stepsLeft > 0) {
    const run = runAt(Math.floor(at / chunkBytes), endChunk, look)
    const runEnd = Math.min(rangeEnd, run.end * chunkBytes)
    const last = runs.at(-1)
    if (last !== undefined && last.isSet === run.isSet)
      runs[runs.length - 1] = { lengthBytes: last.lengthBytes + runEnd - at, isSet: run.isSet }
    else runs.push({ lengthBytes: runEnd - at, isSet: run.isSet })
    at = runEnd
    look.stepsLeft -= runSteps
  }
  return runs
}
