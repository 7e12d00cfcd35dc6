// What the protocol asks of whatever it exports. The library knows this interface and nothing of volumes.
//
// Calls that can be answered at once return a value, not a promise: the hot path has no await. The session has checked flags,
// ranges and sizes against `sizeBytes` and `flags` before any call; a failure is a thrown or rejected RequestError.
import type { PartKeeper } from './bytes/part-keeper.js'
import type { ErrnoBeyondEnd } from './errors.js'

export type BlockSizes = {
  readonly minimum: number
  readonly preferred: number
  readonly maximum: number
}

/** How much an answer may still look at. Whoever looks counts it down, in steps of a few nanoseconds, and may go a little below zero. */
export type Look = { stepsLeft: number }

/** One run of equal status, in order and without gaps. `flags` are those of the meta context. */
export type Extent = { readonly lengthBytes: number; readonly flags: number }

export interface Export {
  readonly name: string
  readonly description: string
  /** May change while connections are open (resize); a session checks each request against the present value. */
  readonly sizeBytes: number
  readonly isReadOnly: boolean
  readonly blockSizes: BlockSizes
  /** Meta contexts that this export can answer now, `base:allocation` included, as `namespace:leaf` strings. */
  metaContexts(): readonly string[]

  /** Fills `target` from `offset` on. Returns undefined when that is done already. */
  read(request: { readonly offset: number; readonly target: Buffer }): Promise<void> | undefined
  /** `parts` together are the payload. The export may keep them until it settles; then their memory is used again for what comes next, unless `keeper` keeps it. */
  write(request: {
    readonly offset: number
    readonly lengthBytes: number
    readonly parts: readonly Buffer[]
    readonly fua: boolean
    readonly keeper?: PartKeeper
  }): Promise<void> | undefined
  /** The range reads as zeroes afterwards. `mayUnmap` false (NBD_CMD_FLAG_NO_HOLE): space stays allocated. `fastOnly`: throw ENOTSUP when it is not faster than writing. `errnoBeyondEnd` (ENOSPC unless said) is what it fails with when the export has become too small for the range while it waited. `isWanted` says false once nobody waits for it any more: it may end then. */
  zero(request: {
    readonly offset: number
    readonly lengthBytes: number
    readonly fua: boolean
    readonly mayUnmap: boolean
    readonly fastOnly: boolean
    readonly errnoBeyondEnd?: ErrnoBeyondEnd
    readonly isWanted?: () => boolean
  }): Promise<void> | undefined
  /** Settles when every write whose reply was sent before the call is on stable storage. */
  flush(): Promise<void> | undefined
  /** Brings a range into memory if that is cheap: a hint. `isWanted` says false once nobody waits for it any more. */
  cache(request: {
    readonly offset: number
    readonly lengthBytes: number
    readonly isWanted?: () => boolean
  }): Promise<void> | undefined
  /** Extents of one meta context from `offset` on: at least one, at most `extentCountMax`, together at most `lengthBytes` (they may end earlier). With `look`, which has a step at least, they end where its steps do. */
  blockStatus(request: {
    readonly context: string
    readonly offset: number
    readonly lengthBytes: number
    readonly extentCountMax: number
    readonly look?: Look
  }): readonly Extent[] | Promise<readonly Extent[]>
}

/** The exports of a server, as a handshake sees them. */
export interface ExportList {
  /** Names and descriptions in the order to be listed. */
  list(): readonly { readonly name: string; readonly description: string }[]
  /** The export of that name ('' is the default one), opened for a session, or undefined. Called by INFO as well as GO: must be cheap. */
  find(name: string): Export | undefined
  /** Why `find` has none of that name, where more can be said than that. A client reads it, cut to `messageBytesMax`. */
  explainMissing?(name: string): string | undefined
  /** A session began to use the export (after GO or EXPORT_NAME succeeded), or throws RequestError when it may not (too many). The answer is called once when the session ends. */
  attach(found: Export): () => void
}
