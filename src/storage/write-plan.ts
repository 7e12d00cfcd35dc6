// What one write will do to the data file, as lists: runs that lie side by side in the file are one call.
import { sectorBytes } from '../core/disk.js'
import type { Store } from './group-state.js'

export type FileWrite = { offset: number; parts: readonly Buffer[]; lengthBytes: number }

/** A chunk that is written to a new place: `[from, end)` of it by `parts`, the rest from the old place `copyFrom` (0: the rest reads as zeroes there). */
export type FreshChunk = {
  readonly chunk: number
  readonly place: number
  readonly from: number
  readonly end: number
  readonly parts: readonly Buffer[]
  copyFrom: number
}

export type WritePlan = {
  readonly store: Store
  readonly fresh: FreshChunk[]
  readonly freshWrites: FileWrite[]
  readonly inPlaceWrites: FileWrite[]
  /** What the last sector of the last write in place holds behind the write: read, and written with it. */
  tail: { readonly offset: number; readonly lengthBytes: number }
}

/** The rest of the sector in which a write ends at `end`. */
export function tailBehind(end: number): WritePlan['tail'] {
  return { offset: end, lengthBytes: (sectorBytes - (end % sectorBytes)) % sectorBytes }
}

/** Adds a write, joined to the one before when it goes on where that ends. */
export function addPart(
  writes: FileWrite[],
  offset: number,
  parts: readonly Buffer[],
  lengthBytes: number,
): void {
  const last = writes.at(-1)
  if (last !== undefined && last.offset + last.lengthBytes === offset) {
    last.parts = [...last.parts, ...parts]
    last.lengthBytes += lengthBytes
  } else writes.push({ offset, parts, lengthBytes })
}
