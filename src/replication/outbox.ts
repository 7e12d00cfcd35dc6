// Entries that the peer has not made durable, in sequence order, as the bytes of their frames. Every entry of the stream passes
// through here, with a link and without, and leaves at the front, in order, in one of two ways: the peer has it, or the peer lacks it.
// (Bodies follow.)
//
// An entry is *ready* when it may go on the wire (its extents are active, its bytes are there, its record is durable) and *settled* when
// its change took effect here or failed here. It leaves when it is both and all before it have left: as had when the peer's durable
// position covers it; as lacked when it was folded, or reserved while nothing is collected. Only collected entries have bytes here.
import type { Clock } from '../core/clock.js'
import type { Entry } from '../core/entry.js'
import type { Sequence } from '../core/units.js'

/** What became of an entry's change on this node, and, of a compare, what the peer found. */
export type Outcome = {
  /** The change failed here: whatever is in the range now differs from the peer's. */
  readonly isFailed: boolean
  /** Of a compare that was answered: bit n is set when piece n differs. Absent: nobody knows. */
  readonly differing?: Buffer
}

export interface OutboxEvents {
  /** The peer has the entry on stable storage. `entry` has no bytes any more (empty `parts`; a compare keeps its digests' count only). */
  had(entry: Entry, outcome: Outcome): void
  /** The peer may lack the entry. */
  lacked(entry: Entry, outcome: Outcome): void
  /** `take` has something again, after it had nothing. */
  sendable(): void
  /** The bound is exceeded by the entry just reserved. Called once until `fold`, or until there is room again. May call `fold`. */
  overflow(): void
}

/** An entry's place in the order. */
export declare class Slot {
  readonly sequence: Sequence
}

/** Bytes of whole frames, in order. They stay as they are until the entries have left as had, or for ever. */
export type Batch = {
  readonly parts: readonly Buffer[]
  readonly lengthBytes: number
  readonly frameCount: number
  readonly lastSequence: Sequence
}

export declare class Outbox {
  constructor(options: {
    readonly events: OutboxEvents
    readonly clock: Clock
    /** The sequence before the first that is reserved. Begins not collecting. */
    readonly lastSequence: Sequence
    readonly bytesMax?: number
  })

  /** Between `collect` and `fold`: entries are kept for the peer. Otherwise they leave as lacked. */
  readonly isCollecting: boolean
  /** Entries that have not left. */
  readonly entryCount: number
  /** Bytes kept for the peer, and an overhead for each entry. */
  readonly usedBytes: number
  readonly isFull: boolean
  /** The oldest sequence that is kept for the peer; the next one to be reserved when none is. Undefined while not collecting. */
  readonly firstSequence: Sequence | undefined
  /** The newest sequence that was taken for the present connection, or the peer's position from which it began. */
  readonly sentSequence: Sequence
  /** When the oldest kept entry was reserved, on the clock's monotonic time. */
  readonly oldestAtMs: number | undefined

  /**
   * Takes the place of the next sequence (there are no gaps), in the synchronous step that orders it. Copies the bytes of a write into memory of its
   * own when collecting. A write or compare that comes without bytes gets them by `fill`.
   */
  reserve(entry: Entry): Slot
  /** The bytes of a resync write, or the digests of a compare, that were read since. */
  fill(slot: Slot, parts: readonly Buffer[]): void
  /** It may go on the wire. Entries that change no bytes of a store (all but write and zero) are settled by this. */
  ready(slot: Slot): void
  /** A write or zeroing took effect here, or failed here after it may have been sent. */
  settle(slot: Slot, options: { readonly isFailed: boolean }): void
  /** It was refused before it was ready: a nothing takes its place. */
  cancel(slot: Slot): void

  /** Bytes of the next ready entries, at least one entry and else at most `lengthBytesMax`; undefined when the next one is not ready. */
  take(lengthBytesMax: number): Batch | undefined
  /** The peer's outcome of a compare. Throws ProtocolError when there is none at this sequence, or its length is another. */
  compared(sequence: Sequence, lengthBytes: number, differing: Buffer): void
  /** Everything up to here is on the peer's stable storage. Throws ProtocolError for what was never sent. */
  acknowledge(durable: Sequence): void

  /** From the next reserved entry on, entries are kept. All operations must have left. Answers the first sequence that will be kept. */
  collect(): Sequence
  /** A new connection, whose peer has everything up to `durable`: what follows is taken again. Asserts that it is kept. */
  rewind(durable: Sequence): void
  /** Everything leaves as lacked, in order, at once as far as it is ready and settled; what follows too, until `collect`. */
  fold(): void
  /** Resolves when it is not full any more, or folded; undefined when that is so now. */
  whenRoom(): Promise<void> | undefined
}
