// What one write will do to the data file, as lists: runs that lie side by side in the file are one call. What is still to be read joins when it is there;
// what is written leaves at the front.
//
// Invariant: the lists hold exactly what is known and not written yet, in the order in which it is written.
import assert from 'node:assert/strict'
import { sectorBytes } from '../core/disk.js'
import { skipBytes } from './disk-io.js'
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

/** A new chunk that was written in part takes the rest from `old`, its bytes at the old place. */
export function joinCopy(plan: WritePlan, fresh: FreshChunk, old: Buffer): void {
  const parts = [old.subarray(0, fresh.from), ...fresh.parts, old.subarray(fresh.end)].filter(
    (part) => part.length > 0,
  )
  addPart(plan.freshWrites, fresh.place * old.length, parts, old.length)
  fresh.copyFrom = 0
}

/** The last write in place goes on to the end of its sector. */
export function joinTail(plan: WritePlan, bytes: Buffer): void {
  addPart(plan.inPlaceWrites, plan.tail.offset, [bytes], bytes.length)
  plan.tail = tailBehind(0)
}

/** A new chunk whose bytes are all known. */
export function addFresh(plan: WritePlan, fresh: FreshChunk, chunkBytes: number): void {
  addPart(
    plan.freshWrites,
    fresh.place * chunkBytes + fresh.from,
    fresh.parts,
    fresh.end - fresh.from,
  )
}

/** Takes `count` written bytes off the front. */
export function advance(writes: FileWrite[], count: number): void {
  const write = writes[0]
  assert(write)
  assert(count > 0)
  if (count === write.lengthBytes) {
    writes.shift()
    return
  }
  write.offset += count
  write.lengthBytes -= count
  write.parts = skipBytes(write.parts, count)
}
