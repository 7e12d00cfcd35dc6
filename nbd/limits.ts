// Every limit of the protocol, each with its reason. All are options of a server, so that tests can shrink them.

const KiB = 1024
const MiB = 1024 * KiB

export const defaultLimits = {
  /** Sockets, and memory for each: see `processBytesMax`. */
  connectionCountMax: 256,
  /** A handshake costs a client nothing: few at a time, so that they cannot take the places of real clients. */
  handshakeCountMax: 16,
  /** A client needs milliseconds: from here on its handshake gives way to a new one when there are too many. */
  handshakePatienceMs: 1000,
  /** From the first byte to transmission, however many options. */
  handshakeTimeoutMs: 10_000,
  /** More for each export that the client was told of by LIST: over TCP libnbd takes 0.2 s to ask for one, because it corks a query that has no end. */
  handshakePerExportMs: 1000,
  /** A client needs about eight; the rest is for probing. */
  optionCountMax: 32,
  /** More for each export that the client was told of by LIST: INFO, LIST_META_CONTEXT, SET_META_CONTEXT, and one to spare. */
  optionsPerExportMax: 4,
  /** Bodies above this are no option that anybody sends. */
  optionBytesMax: 64 * KiB,
  /** proto.md, "Conventions": a string is at most 4096 bytes. */
  nameBytesMax: 4096,
  /** Every query is compared with every context. */
  contextQueryCountMax: 64,
  /** Each selected context is a chunk in every block status reply. */
  contextCountMax: 32,
  /** An error text is for a log line; a client's own long name must not make it longer. */
  messageBytesMax: 256,
  /** proto.md, "Block size constraints": less than this SHOULD NOT be refused. Advertised. */
  payloadBytesMax: 32 * MiB,
  /** Requests a connection may have under way; more wait in the socket. Twice the depth of the kernel's client. */
  requestCountMax: 128,
  /** Data of those requests, payload or reply, with the socket buffers that they keep: the largest, and as much again of others. */
  inFlightBytesMax: 64 * MiB,
  /** Replies that the client has not taken: above this no further request is read. */
  unreadBytesHigh: 8 * MiB,
  /** Replies that the client has not taken. A request waits in the socket while its reply could exceed this beside those of the requests
   *  in flight; a client that has more nevertheless is closed. */
  unreadBytesMax: 64 * MiB,
  /** A client that takes nothing of a reply for this long is gone. */
  unreadTimeoutMs: 60_000,
  /** A payload of which the first bytes came is whole after this: it holds memory that others wait for. */
  payloadTimeoutMs: 60_000,
  /** Buffers of all connections together: payload being gathered or written, replies being read or sent. When it is used up, requests wait.
   *  What is on top of it is bounded by `besideBudgetBytesMax`: clients cost at most 256 MiB beside the program itself. */
  processBytesMax: 160 * MiB,
  /** Payload that the export looks at behind its request, to send it on: as much as a replication's outbox takes unless it is configured otherwise. Beyond it the export copies. */
  keptBytesMax: 256 * MiB,
  /** Payload below this is not kept but copied: that costs less than the slab that would be kept for it. */
  keptPayloadBytesMin: 32 * KiB,
  /** Small replies of one turn are laid out in one buffer of this size. */
  arenaBytes: 64 * KiB,
  /** Reads above this get a buffer of their own. */
  arenaReadBytesMax: 32 * KiB,
  /** Free buffers that are kept for the next reply instead of given back to the system. */
  pooledBytesMax: 16 * MiB,
  /** Large replies leave when they are this much together, not at the end of the turn: they are still in the processor's cache, and the client
   *  takes them while the next ones are read. */
  replyBatchBytes: 512 * KiB,
  /** Given to the socket at a time: what a client must take within `unreadTimeoutMs`. */
  socketWriteBytesMax: 1 * MiB,
  /** proto.md, NBD_CMD_BLOCK_STATUS: at most 2^20; this makes a reply of 128 KiB. */
  extentCountMax: 8192,
  /** What the export may look at for one block status, all contexts together, and what all connections together may in one turn of the event
   *  loop (the last request of a turn may go beyond it): a few milliseconds, for which others wait. Clients ask again for the rest. */
  statusStepsMax: 512 * KiB,
  /** What a request counts as of `statusStepsMax` when many come at once: about a thousand of them in a turn of the event loop, some ten milliseconds. */
  requestSteps: 512,
  /** A read above this is done a slice of this size at a time, and others are served in between: a slice takes half a millisecond when the page
   *  cache has it, and a few when it lies in pieces. The kernel's client and the usual copying tools ask for less. */
  readSliceBytes: 2 * MiB,
  /** What a slice counts as of `statusStepsMax`: two of them in a turn of the event loop, of all connections together. Measured, 4 KiB reads beside four
   *  clients that read 32 MiB sixteen at a time, in pieces of 4 KiB: at worst 24 ms, in one go 700. */
  readSliceSteps: 256 * KiB,
  /** Structured reads at least this long look for holes: below, sending zeroes is cheaper than asking. */
  holeReadBytesMin: 64 * KiB,
  /** A hole at least this long is worth a chunk of its own. */
  holeBytesMin: 32 * KiB,
  /** Pieces a read is cut into at holes. */
  readPieceCountMax: 64,
  /** After everything was sent: time for the client to close its side before the socket is destroyed. */
  lingerTimeoutMs: 1_000,
  /** `stop()`: time for requests under way; then the connections are cut. With the lingering it stays below 10 s. */
  stopTimeoutMs: 5_000,
  /** The event loop turns this long for what comes next before it sleeps, where that pays off: a local client's own part of a round trip
   *  takes 20 to 30 µs, a read of a fast disk 40 to 60 µs. 0: it always sleeps. */
  pollUsMax: 100,
  /** Notices peers that vanished without a word. */
  keepAliveDelayMs: 60_000,
} as const

/** What 256 connections may hold beside the budget: each up to 64 KiB of arena and 132 KiB to read into, 16 of them 260 KiB, 51 MiB
 *  together, and the collector's and the allocator's slack: 45 MiB, seen on a loaded machine. The bench and a test hold the process to it. */
export const besideBudgetBytesMax = 96 * MiB

export type Limits = { readonly [K in keyof typeof defaultLimits]: number }
