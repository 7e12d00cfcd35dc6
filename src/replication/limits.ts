// Every limit of the link between two nodes, each with its reason.
import { KiB, MiB } from '../core/units.js'

export const linkLimits = {
  /** A write of a client, whole: what the NBD side accepts. */
  writeBytesMax: 32 * MiB,
  /** A batch, or the table of 4096 stores with the longest names: 1.7 MiB. */
  operationBytesMax: 2 * MiB,
  /** 128 generation records and some names are 20 KiB. */
  greetingBytesMax: 64 * KiB,
  /** What a hook said, for the one who sent the mark. */
  resultBytesMax: 64 * KiB,
  /** A sentence and what to do. */
  reasonBytesMax: 4 * KiB,
  /** One compare entry covers one extent: 64 digests. A primary that asks about less wastes heads. */
  compareBytesMax: 4 * MiB,
  /** Read and digested in about 50 ms; the answer is 8 KiB. */
  digestBytesMax: 16 * MiB,
  /** One read for a repair: a few pieces. */
  readBytesMax: 1 * MiB,
  /** Numbers from here on are stores that a node keeps for itself: they never cross the link. */
  storeIdEnd: 2 ** 31,
  /** Generation records in a table, which is in one operation: one for each takeover or loss of the link. */
  generationCountMax: 1024,
  /** Texts of people in an operation: the message of a mark. */
  messageBytesMax: 4 * KiB,

  /** Views of what the socket read that one payload may consist of: 32 MiB in reads of 64 KiB. What comes in smaller pieces is gathered in one buffer. */
  payloadPartCountMax: 512,
  /** Pieces below this are copied together once a payload has `smallPartCountMax` parts. */
  smallPartBytes: 4 * KiB,
  smallPartCountMax: 16,

  /** Sent but not taken by the system: above this a sender waits. Enough to fill a fast link for a millisecond. */
  unsentBytesHigh: 1 * MiB,
  /** The same, for a peer that reads nothing while we must answer it: the connection ends. One largest frame fits. */
  unsentBytesMax: 64 * MiB,
  /** Given to the socket at a time: what the peer must take within `stallTimeoutMs`. */
  socketWriteBytesMax: 1 * MiB,
  /** Silence of ours after which we show that we are there. */
  pingAfterMs: 1_000,
  /** Silence of the peer's after which it is taken for dead: a few pings may be late, a takeover does not wait for long. */
  silenceTimeoutMs: 5_000,
  /** A peer that lives but takes nothing of what it is sent: its disk hangs. Clients wait no longer for it. */
  stallTimeoutMs: 20_000,
  /** For the last frame to leave and the peer to close its side. */
  farewellTimeoutMs: 1_000,

  /** Data and heads of entries that the peer has not made durable. About half a second of a fast disk, minutes of a slow line. */
  outboxBytesMax: 256 * MiB,
  /** What an entry costs in memory besides its bytes on the wire. */
  entryOverheadBytes: 256,
  /** Entries that leave the outbox as lacked in one turn of the event loop: a millisecond, or some at first. One that was full of writes of 4 KiB has 61,000, of single bytes 880,000. */
  lackedPerTurnMax: 512,
  /** The outbox's memory is taken and used again in pieces of this size. */
  blockBytes: 1 * MiB,
  /** Pieces kept for the next entries when there are none for long. */
  freeBlockCountMax: 32,
  /** Pieces kept for the next burst: all that the outbox may hold. Memory that the system hands out anew costs several times what it takes to fill it. */
  burstBlockCountMax: 256,
  /** Places of entries, kept likewise: of the outbox full of writes of 4 KiB, some 20 MiB. */
  spareSlotCountMax: 65_536,
  idleSlotCountMax: 4096,
  /** How long they are kept. */
  burstMs: 60_000,

  /** The first try to connect again: a restart of the peer takes longer. */
  reconnectMinMs: 100,
  /** The last: somebody who repaired the line does not wait long. */
  reconnectMaxMs: 10_000,
} as const
