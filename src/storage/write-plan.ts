// What one write will do to the data file, as lists: runs that lie side by side in the file are one call.
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
