// Every limit of greeting and resync, each with its reason. The frames' and the link's own are in limits.ts.
import { KiB, MiB } from '../core/units.js'

export const resyncLimits = {
  /** The newest generations that a hello names. A node that is behind by more takeovers and losses of the link than this gets everything. */
  helloGenerationCountMax: 128,
  /** Names of nodes; init allows 63. */
  nodeNameBytesMax: 255,
  /** Reason and action of a decision, as sentences. */
  sentenceBytesMax: 2 * KiB,

  /** One write of a resync: large enough for full speed, small enough that a client's write behind it does not wait for long. */
  pieceBytesMax: 256 * KiB,
  /** A range of zeroes costs a head on the wire, so it may be long: 1 TiB of chunks of 64 KiB, and the largest store is some thousand of them. The peer gives their space back in one
   *  step, 4096 pages of its map in some milliseconds; and one is left out when a write in flight touches it, so a whole store at once might never go. */
  zeroChunkCountMax: 16 * 1024 * KiB,
  /** One compare entry: one extent of the active set, 64 digests. */
  compareBytesMax: 4 * MiB,
  /** Shared ranges in one batch, as operations of a batch elsewhere. */
  shareCountMax: 256,
  /** Entries of chunk maps that the planner looks at before it lets others run: about a millisecond. */
  lookupsPerStepMax: 16 * KiB,

  /** Sent and not yet on the peer's disk. A disk of 500 MB/s has a quarter of it written in 30 ms, and is not left without work meanwhile. */
  bytesInFlightMax: 64 * MiB,
  /** The same while clients have requests waiting: the resync goes on, slowly. */
  bytesInFlightMin: 512 * KiB,
  /** What may be under way is made durable in this many parts or more: one is written to the medium while the others are on their way. */
  durablePartsMin: 4,
  /** Zeroes, shared ranges and compares have few bytes: a bound by number too. */
  itemsInFlightMax: 512,
  /** What an item without data counts for. */
  itemOverheadBytes: 4 * KiB,
  /** Items given to the host before others run. */
  itemsPerTurnMax: 32,
  /** A block that cannot be read here stays dirty: it is tried again after this long, until somebody mends the disk. */
  retryMs: 5_000,
  /** The rate that people see is over about so long. */
  rateWindowMs: 5_000,
} as const
