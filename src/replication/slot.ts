// What the outbox knows of one entry, from the step that ordered it until it leaves.
import type { PartKeeper } from '../../nbd/bytes/part-keeper.js'
import { comparePieceBytes, type Entry } from '../core/entry.js'
import type { Sequence } from '../core/units.js'
import { bitmapBytesOf, digestsBytesOf } from './frame-encoder.js'
import { linkLimits } from './limits.js'

const nothing = Buffer.alloc(0)
const none: readonly Buffer[] = []
const done: Outcome = { isFailed: false }
const failed: Outcome = { isFailed: true }

/** What became of an entry's change on this node, and, of a compare, what the peer found. */
export type Outcome = {
  /** The change failed here: whatever is in the range now differs from the peer's. */
  readonly isFailed: boolean
  /** Of a compare: bit n is set when piece n differs. All are set when nobody knows. */
  readonly differing?: Uint8Array
}

/** An entry's place in the order. Its fields are the outbox's. */
export class Slot {
  readonly sequence: Sequence
  /** Without its bytes. */
  entry: Entry
  readonly atMs: number
  /** Kept for the peer; otherwise it leaves as lacked. */
  isKept: boolean
  /** Its bytes are here, or it has none. */
  isFilled: boolean
  isReady = false
  isSettled = false
  isFailed = false
  differing: Uint8Array | undefined
  /** Where its frame lies, how long that is, and where its room ends. */
  place = 0
  frameBytes = 0
  end = 0
  /** How much of the frame lies there: all of it, or the head. */
  logBytes = 0
  /** Payload that stays where the client's bytes came in; `keeper` keeps it there. */
  parts: readonly Buffer[] = none
  keeper: PartKeeper | undefined
  /** What it counts for against the bound. */
  usedBytes = linkLimits.entryOverheadBytes

  constructor(entry: Entry, options: { readonly atMs: number; readonly isKept: boolean }) {
    this.sequence = entry.sequence
    this.entry = withoutBytes(entry)
    this.atMs = options.atMs
    this.isKept = options.isKept
    this.isFilled = hasBytes(entry)
  }
}

/** An entry that keeps no memory of others alive. */
function withoutBytes(entry: Entry): Entry {
  switch (entry.kind) {
    case 'write': {
      const { sequence, storeId, offset, lengthBytes, fua } = entry
      return { kind: 'write', sequence, storeId, offset, lengthBytes, fua, parts: none }
    }
    case 'compare':
      return { ...entry, digests: nothing }
    default:
      return entry
  }
}

/** Bytes of payload that the entry's frame has, whether they are there yet or not. */
export function payloadBytesOf(entry: Entry, payload: readonly Buffer[]): number {
  switch (entry.kind) {
    case 'write':
      return entry.lengthBytes
    case 'compare':
      return digestsBytesOf(entry.lengthBytes)
    default: {
      let lengthBytes = 0
      for (const part of payload) lengthBytes += part.length
      return lengthBytes
    }
  }
}

export function outcomeOf(slot: Slot): Outcome {
  if (slot.entry.kind === 'compare') {
    return { isFailed: false, differing: slot.differing ?? allDiffering(slot.entry.lengthBytes) }
  }
  return slot.isFailed ? failed : done
}

function hasBytes(entry: Entry): boolean {
  if (entry.kind === 'write') return entry.parts.length > 0
  return entry.kind !== 'compare' || entry.digests.length > 0
}

function allDiffering(lengthBytes: number): Buffer {
  const bitmap = Buffer.alloc(bitmapBytesOf(lengthBytes), 0xff)
  const behind = bitmap.length * 8 - Math.ceil(lengthBytes / comparePieceBytes)
  bitmap[bitmap.length - 1] = 0xff >> behind
  return bitmap
}
