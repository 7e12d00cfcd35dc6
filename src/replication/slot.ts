// What the outbox knows of one entry, from the step that ordered it until it leaves.
import type { PartKeeper } from '../../nbd/bytes/part-keeper.js'
import { comparePieceBytes, type Entry, type WriteEntry } from '../core/entry.js'
import type { Sequence, StoreId } from '../core/units.js'
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

/** An entry's place in the order. Its fields are the outbox's, which uses it again for another entry when it has left. */
export class Slot {
  /** The entry that most slots have: a write, without its bytes. */
  readonly #write = emptyWrite()
  sequence = 0 as Sequence
  /** Without its bytes. */
  entry: Entry = this.#write
  atMs = 0
  /** Its bytes are here, or it has none. */
  isFilled = false
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
  usedBytes = 0

  constructor(entry: Entry, atMs: number) {
    this.begin(entry, atMs)
  }

  /** For this entry from now on: nothing of the one before is left. */
  begin(entry: Entry, atMs: number): this {
    this.sequence = entry.sequence
    this.entry = this.#withoutBytes(entry)
    this.atMs = atMs
    this.isFilled = hasBytes(entry)
    this.isReady = false
    this.isSettled = false
    this.isFailed = false
    this.differing = undefined
    this.place = 0
    this.frameBytes = 0
    this.end = 0
    this.logBytes = 0
    this.parts = none
    this.keeper = undefined
    this.usedBytes = linkLimits.entryOverheadBytes
    return this
  }

  /** An entry that keeps no memory of others alive. */
  #withoutBytes(entry: Entry): Entry {
    if (entry.kind === 'compare') return { ...entry, digests: nothing }
    if (entry.kind !== 'write') return entry
    const write = this.#write
    write.sequence = entry.sequence
    write.storeId = entry.storeId
    write.offset = entry.offset
    write.lengthBytes = entry.lengthBytes
    write.fua = entry.fua
    return write
  }
}

type OwnWrite = { -readonly [Key in keyof WriteEntry]: WriteEntry[Key] }

function emptyWrite(): OwnWrite {
  const [sequence, storeId] = [0 as Sequence, 0 as StoreId]
  return { kind: 'write', sequence, storeId, offset: 0, lengthBytes: 0, fua: false, parts: none }
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
