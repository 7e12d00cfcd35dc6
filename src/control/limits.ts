// Every limit of the control socket, each with its reason. Each bounds what one client can make the daemon hold.
import { KiB, MiB } from '../core/units.js'

export const controlLimits = {
  /** A batch of 256 operations with the longest names is about 200 KiB. */
  lineBytesMax: 1 * MiB,
  /** Commands are short; more clients at once are a mistake or an attack. */
  connectionCountMax: 16,
  /** Clients above that, which are still being told so; further ones are closed at once. */
  turnedAwayCountMax: 16,
  /** Requests that one connection has under way; above, its socket is not read. */
  requestsInFlightMax: 64,
  /** Unread replies of one connection above which its requests are no longer read. */
  outputBytesHigh: 256 * KiB,
  /** Unread replies and events of one connection above which it is closed: a status of 4096 stores has about 1 MiB. */
  outputBytesMax: 8 * MiB,
  /** A client that takes nothing for this long while output waits for it is closed. */
  unreadTimeoutMs: 60_000,
  /** From the first byte of a line to its end: a half line does not hold a connection for ever. */
  lineTimeoutMs: 30_000,
  /** The reply repeats the id. */
  idBytesMax: 256,
  /** A retry's name: long enough for any UUID with a prefix. */
  requestIdBytesMax: 128,
  /** Names are checked by the engine; this only bounds what reaches it: two parts of 255 bytes and the sign between. */
  nameBytesMax: 512,
  /** A host's name has 253 bytes, a socket's path 107. */
  uriBytesMax: 512,
  /** Bytes a second of a resync: above, no limit is meant, which is 0. */
  rateBytesMax: 2 ** 40,
  /** Long enough for a resync over night; whoever waits longer asks again. */
  waitTimeoutMsMax: 24 * 60 * 60 * 1000,
  waitTimeoutMsDefault: 60_000,
  /** A hook has a minute by default, and waits for the one before it. */
  markTimeoutMsDefault: 120_000,
  /** Stores named in one request. */
  storeCountMax: 4096,
  /** Arrays and objects inside each other in one request; a batch with a range has 5. */
  nestingMax: 16,
  /** Cells of a picture: wider than any terminal. */
  cellCountMax: 1024,
  /** What an error repeats of the client's own text. */
  quotedBytesMax: 64,
  /** When the daemon stops, or a client is turned away, what is being said has this long to leave. */
  stopTimeoutMs: 2_000,
} as const
