// Journal records: the bytes of a batch's payload, in the order in which the changes took effect.
//
//   offset 0  u8   kind: 1 set, 2 unmap, 3 event, …       set    one chunk now is at `argument`
//          1  u24  bits 32..55 of the chunk number        unmap  `argument` chunks from this one on are holes
//          4  u32  bits 0..31 of the chunk number         event  `argument` bytes of JSON follow, padded to 16; the rest of the head is 0
//          8  u32  store id
//         12  u32  argument                               All numbers are little-endian. ON-DISK.md, "Records".
//
// What tracking adds has the same shape: dirty and clean (4, 5: `argument` blocks from this one on), active and inactive (6, 7: `argument` extents),
// left (8: the operation with this sequence has left the outbox; in place of the store id 1 when the peer had it), differs and same (9, 10: `argument` blocks).
import assert from 'node:assert/strict'
import { LockstepError } from '../core/errors.js'

/** Of a record without a body. */
export const recordBytes = 16
const Kind = {
  SET: 1,
  UNMAP: 2,
  EVENT: 3,
  DIRTY: 4,
  CLEAN: 5,
  ACTIVE: 6,
  INACTIVE: 7,
  LEFT: 8,
  DIFFERS: 9,
  SAME: 10,
} as const
const u32Count = 2 ** 32

/** Of the records of a run of chunks or blocks: several where it is longer than a number of 32 bits. */
export function runRecordBytes({
  first,
  end,
}: {
  readonly first: number
  readonly end: number
}): number {
  return Math.ceil((end - first) / (u32Count - 1)) * recordBytes
}

/** An append-only buffer of records that is handed out whole and used again. */
export class RecordBuffer {
  #bytes = Buffer.allocUnsafe(4096)
  #lengthBytes = 0

  get lengthBytes(): number {
    return this.#lengthBytes
  }

  set(storeId: number, chunk: number, place: number): void {
    this.#head(Kind.SET, storeId, chunk, place)
  }

  unmap(storeId: number, first: number, end: number): void {
    this.#run(Kind.UNMAP, storeId, first, end)
  }

  /** Blocks that may differ from the peer's. */
  dirty(storeId: number, first: number, end: number): void {
    this.#run(Kind.DIRTY, storeId, first, end)
  }

  /** Blocks that are as the peer's. */
  clean(storeId: number, first: number, end: number): void {
    this.#run(Kind.CLEAN, storeId, first, end)
  }

  /** Blocks that verify found to differ from the peer's, and nobody repairs. */
  differs(storeId: number, first: number, end: number): void {
    this.#run(Kind.DIFFERS, storeId, first, end)
  }

  /** Blocks that verify found to be the same. */
  same(storeId: number, first: number, end: number): void {
    this.#run(Kind.SAME, storeId, first, end)
  }

  active(storeId: number, first: number, end: number): void {
    assert(end - first < u32Count)
    this.#head(Kind.ACTIVE, storeId, first, end - first)
  }

  inactive(storeId: number, first: number, end: number): void {
    assert(end - first < u32Count)
    this.#head(Kind.INACTIVE, storeId, first, end - first)
  }

  /** An operation has left the outbox. */
  left(sequence: number, isHad: boolean): void {
    this.#head(Kind.LEFT, isHad ? 1 : 0, sequence, 0)
  }

  event(event: object): void {
    const json = Buffer.from(JSON.stringify(event), 'utf8')
    this.#head(Kind.EVENT, 0, 0, json.length)
    const padded = Math.ceil(json.length / recordBytes) * recordBytes
    this.#reserve(padded)
    this.#bytes.fill(0, this.#lengthBytes, this.#lengthBytes + padded)
    json.copy(this.#bytes, this.#lengthBytes)
    this.#lengthBytes += padded
  }

  /** The records so far, and empties the buffer. The answer is good until the next `take` but one. */
  take(): Buffer {
    const taken = this.#bytes.subarray(0, this.#lengthBytes)
    this.#bytes = Buffer.allocUnsafe(Math.max(4096, Math.min(this.#bytes.length, 256 * 1024)))
    this.#lengthBytes = 0
    return taken
  }

  #run(kind: number, storeId: number, first: number, end: number): void {
    for (let from = first; from < end; from += u32Count - 1)
      this.#head(kind, storeId, from, Math.min(end - from, u32Count - 1))
  }

  #head(kind: number, storeId: number, chunk: number, argument: number): void {
    this.#reserve(recordBytes)
    const at = this.#lengthBytes
    const bytes = this.#bytes
    bytes.writeUInt32LE(kind + Math.floor(chunk / u32Count) * 256, at)
    bytes.writeUInt32LE(chunk % u32Count, at + 4)
    bytes.writeUInt32LE(storeId, at + 8)
    bytes.writeUInt32LE(argument, at + 12)
    this.#lengthBytes = at + recordBytes
  }

  #reserve(lengthBytes: number): void {
    if (this.#lengthBytes + lengthBytes <= this.#bytes.length) return
    const grown = Buffer.allocUnsafe(
      Math.max(this.#bytes.length * 2, this.#lengthBytes + lengthBytes),
    )
    this.#bytes.copy(grown, 0, 0, this.#lengthBytes)
    this.#bytes = grown
  }
}

export interface RecordVisitor {
  set(storeId: number, chunk: number, place: number): void
  unmap(storeId: number, first: number, end: number): void
  event(event: unknown): void
  dirty(storeId: number, first: number, end: number): void
  clean(storeId: number, first: number, end: number): void
  active(storeId: number, first: number, end: number): void
  inactive(storeId: number, first: number, end: number): void
  left(sequence: number, isHad: boolean): void
  differs(storeId: number, first: number, end: number): void
  same(storeId: number, first: number, end: number): void
}

/** Calls the visitor for each record of a batch. Throws CORRUPT for bytes that no version of this program wrote. */
export function visitRecords(payload: Buffer, visitor: RecordVisitor): void {
  let at = 0
  while (at < payload.length) {
    if (payload.length - at < recordBytes) throw corruptRecord('a record is cut')
    const first = payload.readUInt32LE(at)
    const chunk = Math.floor(first / 256) * u32Count + payload.readUInt32LE(at + 4)
    const storeId = payload.readUInt32LE(at + 8)
    const argument = payload.readUInt32LE(at + 12)
    at += recordBytes
    if (first % 256 !== Kind.EVENT) {
      visitRun(visitor, first % 256, { storeId, first: chunk, count: argument })
      continue
    }
    if (argument > payload.length - at) throw corruptRecord('an event is longer than its batch')
    visitor.event(parseEvent(payload.subarray(at, at + argument)))
    at += Math.ceil(argument / recordBytes) * recordBytes
  }
  if (at !== payload.length) throw corruptRecord('an event ends behind its batch')
}

/** A record that is a head only. */
function visitRun(
  visitor: RecordVisitor,
  kind: number,
  run: { readonly storeId: number; readonly first: number; readonly count: number },
): void {
  const { storeId, first, count } = run
  switch (kind) {
    case Kind.SET:
      visitor.set(storeId, first, count)
      return
    case Kind.UNMAP:
      visitor.unmap(storeId, first, first + count)
      return
    case Kind.DIRTY:
      visitor.dirty(storeId, first, first + count)
      return
    case Kind.CLEAN:
      visitor.clean(storeId, first, first + count)
      return
    case Kind.ACTIVE:
      visitor.active(storeId, first, first + count)
      return
    case Kind.INACTIVE:
      visitor.inactive(storeId, first, first + count)
      return
    case Kind.LEFT:
      visitor.left(first, storeId === 1)
      return
    case Kind.DIFFERS:
      visitor.differs(storeId, first, first + count)
      return
    case Kind.SAME:
      visitor.same(storeId, first, first + count)
      return
    default:
      throw corruptRecord(`unknown record kind ${kind}`)
  }
}

function parseEvent(json: Buffer): unknown {
  try {
    return JSON.parse(json.toString('utf8'))
  } catch {
    throw corruptRecord('an event is not JSON')
  }
}

function corruptRecord(what: string): LockstepError {
  return new LockstepError(
    'CORRUPT',
    `the journal has a valid checksum but ${what}`,
    'this data directory was written by another version or program: start it with the version that wrote it, or restore the directory from a copy',
  )
}
