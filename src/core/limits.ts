// Every limit of the storage and engine layers, each with its reason. The protocol's own are in nbd/limits.ts.
import { KiB, MiB } from './units.js'

export const limits = {
  /** A chunk has at least one block of difference tracking. */
  chunkBytesMin: 4 * KiB,
  /** Above this, copying a chunk on its first write after a snapshot is felt by clients. */
  chunkBytesMax: 1 * MiB,
  chunkBytesDefault: 64 * KiB,
  /** Chunk places are 32 bits, in the maps and in the journal. */
  chunkPlaceMax: 2 ** 32 - 1,
  /** A reference count has 16 bits and counts at most one map page of each store, plus the releases under way. */
  storeCountMax: 4096,
  /** Sizes and offsets are JavaScript numbers. */
  storeSizeBytesMax: 2 ** 53 - 1,
  /** The kernel's client and every file system need whole sectors. */
  storeSizeAlignment: 512,
  /** Volume and snapshot parts of a name together stay far below NBD's 4096. */
  nameBytesMax: 255,
  /** One batch is one journal record and one frame of the stream. */
  batchOperationCountMax: 256,
  /** One journal file; there are two. Holds 4 M map changes, which replay in about a second. */
  journalBytesDefault: 64 * MiB,
  journalBytesMin: 256 * KiB,
  /** Room at a journal's end that only deletes, flushes without map changes and the change of journal may use: a full pool can always be emptied. */
  journalReserveBytes: 64 * KiB,
  /** Map changes of writes nobody flushed: above this a commit starts by itself. */
  pendingMapChangesHigh: 64 * KiB,
  /** Above this, writes that would change a map wait for the commit under way. */
  pendingMapChangesMax: 256 * KiB,
  /** Map changes of unflushed writes are committed after this long at the latest, so that the space they freed returns. */
  commitIntervalMs: 5000,
  /** A sentence or two for the people on the other side; the link allows as much. */
  markMessageBytesMax: 4 * KiB,
  /** Snapshots that a replica keeps for itself: marks and what was there before a resync. Each refers to pages as a store does. */
  localStoreCountMax: 4096,
  /** Marks whose hook waits for the one that runs. Above, a hook is not run, and the mark says so. */
  hooksWaitingMax: 64,
  /** Results of marks kept for who asks later. */
  keptMarkResultsMax: 100,
  /** The end of what a hook said: with the names below it fits the frame that brings it back, however it is escaped. */
  hookOutputBytesMax: 4 * KiB,
  markSnapshotsToldMax: 64,
  /** Entries that change no map, after which a commit journals the position by itself: a start after a crash jumps ahead by far more, so that no sequence is used twice. */
  positionStep: 1024 * KiB,
  /** By how much sequences jump after an unclean stop of a primary with a peer: more than can be ordered between two journaled positions. */
  uncleanSequenceJump: 2 ** 32,
  /** A checkpoint that failed (the file system is full) is tried again after so many batches or so long: each try writes until it fails. */
  checkpointRetryBatchCount: 16,
  checkpointRetryMs: 1000,
  /** Pages of a dropped map returned to the allocator in one turn of the event loop: below a millisecond. */
  releasePagesPerTurn: 32,
  /** Places gathered from dropped maps before they are punched out: 128 KiB of numbers. Each punch keeps writers of the data file waiting, a few
   *  for long runs less often than one for each place. */
  punchGatherCount: 16384,
  /** The most that one punch takes: writers of the data file wait for it, and readers too. Measured on ext4: 10 to 33 ms for 32 MiB that were just written, 5 for this. */
  punchBytesMax: 4 * MiB,
  /** Writes and zeroings that wait for a range or an operation. Connections have their own limit of 128 requests; this bounds all of them. */
  queuedEntriesMax: 32768,
  /** Extents of 4 MiB that may be active at once: 16 GiB of writes in flight to the peer, which digests compare in a minute after a crash. Each is a record of 16 bytes. */
  activeExtentsMax: 4096,
  /** Extents made inactive together when the active set is full: one commit makes room for this many. */
  activeExtentsPerEviction: 64,
  /** An extent that no write has used for so long, or up to twice that, becomes inactive by itself: a crash of an idle node has little to compare. One that is written to again costs a commit. */
  activeExtentIdleMs: 30_000,
  /** A range of more extents than this is one item of the active set: a trim of a whole volume must not fill it. */
  activeExtentsPerItemMax: 64,
  /** Operations kept for a peer that is away: a snapshot made and one deleted each minute for three weeks. Above this it needs everything again. */
  opLogEntriesMax: 65536,
  /** The same in bytes of JSON: a batch can be long, and each checkpoint writes all of them. */
  opLogBytesMax: 64 * MiB,
  /** Map entries looked at for one answer (a few milliseconds) when the caller sets no bound of its own. Enough for a hole of 16 TiB. */
  extentStepsMax: 1024 * KiB,
  /** Zeroes that stay allocated are written: so much of a request at a time, some tens of milliseconds, and then of another. */
  zeroPieceBytes: 32 * MiB,
  /** Ranges that are read into memory for clients at a time: what is in memory already is only copied, and others wait for that. */
  readAheadCountMax: 2,
  /** Ranges that wait for it, of at most 32 MiB each: a second or two of reading. Above, the hint is not followed. */
  readAheadWaitingMax: 64,
} as const
