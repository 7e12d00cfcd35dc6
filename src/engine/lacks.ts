// What the peer lacks: the dirty maps, and what they would become if nothing of the outbox arrived that the peer has not applied yet. So people are told what
// would be missing if this node were lost now; the maps themselves know only of what has left the outbox.
//
// Invariants: looking changes nothing, and costs those who write nothing; the answer is that of one moment between its beginning and its end, of everything that
// was ordered when it began, and never too little for that.
import { type ByteRange, blockBytes, byteOffset, type StoreId } from '../core/units.js'
import type { Pool } from '../storage/pool.js'
import { changesMaps, type TrackedStore, type TrackedStores } from '../storage/tracked-stores.js'
import type { Tracking } from '../storage/tracking.js'
import { moveBytes } from './move-bytes.js'
import type { PrimaryStream } from './primary-stream.js'

/** Dirty maps for looking at, until they are disposed of. */
export type Lacked = {
  readonly stores: ReadonlyMap<StoreId, TrackedStore>
  /** Entries that were marked for it; those that only were passed by count a sixteenth. */
  readonly entryCount: number
  /** Stores whose maps were shared for it. */
  readonly sharedCount: number
  [Symbol.dispose](): void
}

export type LookOptions = {
  /** Of one store; else of all. */
  readonly storeId?: StoreId
  /** What lies outside of it may be missing in the answer, which costs less: operations bring dirt from one store to another, but never to another place. */
  readonly range?: { readonly offset: number; readonly lengthBytes: number }
  /** What the peer has applied, but not made durable, counts as lacked. */
  readonly countsApplied?: boolean
}

/** An outbox with more entries is looked at in pieces of so many, each in a turn of its own: a millisecond or so at first, then some tenths (1 to 0.2 µs an entry). */
export const entriesPerTurnMax = 1024

/** One look, in as many pieces as there shall be. What leaves the outbox before it was looked at is in the maps: then it begins anew behind that, with less to do. */
export class LackWalk {
  readonly #pool: Pool
  readonly #stream: PrimaryStream
  readonly #tracking: Tracking
  readonly #options: LookOptions
  /** Behind the newest entry that counts. */
  readonly #end: number
  /** The next entry to look at; what is before it is in the shared maps. */
  #next = 0
  #shared: TrackedStores | undefined
  #only: StoreId | undefined
  /** In bytes, whole blocks: a change beside the range may lie in a block that is partly in it. */
  readonly #firstByte: number
  readonly #endByte: number
  /** What the peer has applied, as of when the maps were shared. */
  #applied = 0
  #markedCount = 0
  #sharedCount = 0
  readonly #entryCount: number

  constructor(pool: Pool, stream: PrimaryStream, tracking: Tracking, options: LookOptions) {
    this.#pool = pool
    this.#stream = stream
    this.#tracking = tracking
    this.#options = options
    this.#end = stream.outbox.lastSequence + 1
    this.#entryCount = stream.outbox.entryCount
    const { offset, lengthBytes } = options.range ?? everywhere
    this.#firstByte = Math.floor(offset / blockBytes) * blockBytes
    this.#endByte = Math.ceil((offset + lengthBytes) / blockBytes) * blockBytes
  }

  /** Looks at up to `entryCountMax` further entries. True when it is over. */
  go(entryCountMax: number): boolean {
    if (this.#isUnknown) {
      this.#shared?.clear()
      return true
    }
    const { outbox } = this.#stream
    if (this.#shared === undefined || outbox.oldestSequence > this.#next) this.#begin()
    const shared = this.#shared as TrackedStores
    const end = Math.min(this.#end, this.#next + entryCountMax)
    outbox.look(this.#next, end, (entry, isKept) => {
      if (entry.kind === 'operation') shared.leave(entry.operation)
      if (entry.kind !== 'write' && entry.kind !== 'zero') return
      if (this.#only !== undefined && entry.storeId !== this.#only) return
      // Behind the operation that deleted its store or made it smaller: it is refused when its turn comes.
      const entryEnd = entry.offset + entry.lengthBytes
      if (entryEnd > (shared.get(entry.storeId)?.sizeBytes ?? 0)) return
      if (entry.offset >= this.#endByte || entryEnd <= this.#firstByte) return
      this.#markedCount++
      // As it leaves one day: had or lacked.
      if (isKept && entry.sequence <= this.#applied) shared.clean(entry.storeId, rangeOf(entry))
      else shared.mark(entry.storeId, rangeOf(entry))
    })
    this.#next = Math.max(this.#next, end)
    return this.#next >= this.#end
  }

  /** When it is over. Undefined when nothing is known any more: the peer lacks everything. */
  get lacked(): Lacked | undefined {
    const shared = this.#shared
    if (this.#isUnknown || shared === undefined) return undefined
    return {
      stores: shared.stores,
      entryCount: this.#markedCount + Math.ceil(this.#entryCount / 16),
      sharedCount: this.#sharedCount,
      [Symbol.dispose]: () => shared.clear(),
    }
  }

  get #isUnknown(): boolean {
    return this.#pool.tracking !== this.#tracking || this.#tracking.isLost
  }

  #begin(): void {
    const { storeId, countsApplied } = this.#options
    const { progress, outbox } = this.#stream
    const tracking = this.#tracking
    // An operation may bring another store's dirt here.
    const mayMove = tracking.pending.some(({ operation }) => changesMaps(operation))
    this.#only = mayMove ? undefined : storeId
    this.#shared?.clear()
    const shared = tracking.share(this.#only === undefined ? undefined : [this.#only])
    this.#shared = shared
    this.#sharedCount += shared.stores.size
    this.#applied = progress.isWaiting && countsApplied !== true ? progress.applied : 0
    this.#next = outbox.oldestSequence
  }
}

/** A look that is over at once, however long it takes. Undefined when nothing is known: the peer lacks everything. */
export function lackedNow(
  pool: Pool,
  stream: PrimaryStream | undefined,
  options: LookOptions = {},
): Lacked | undefined {
  const { tracking } = pool
  if (tracking === undefined || tracking.isLost) return undefined
  if (stream === undefined || stream.outbox.entryCount === 0)
    return {
      stores: tracking.stores,
      entryCount: 0,
      sharedCount: 0,
      [Symbol.dispose]: () => {},
    }
  const walk = new LackWalk(pool, stream, tracking, options)
  walk.go(Number.POSITIVE_INFINITY)
  return walk.lacked
}

/** Few enough entries to be looked at in one turn. */
export function isShort(stream: PrimaryStream | undefined, entryCountMax: number): boolean {
  return (stream?.outbox.entryCount ?? 0) <= entryCountMax
}

/**
 * Bytes of data that the peer lacks, at most: each chunk once, however many stores share it. With `countsApplied` what a resync would move. At once: of an outbox with many
 * entries each counts for itself.
 */
export function lacksBytes(
  pool: Pool,
  stream: PrimaryStream | undefined,
  options: Pick<LookOptions, 'countsApplied'> & { readonly stepsMax?: number } = {},
): number {
  const { tracking, state, usage } = pool
  const { stepsMax } = options
  if (!isShort(stream, entriesPerTurnMax)) {
    if (tracking === undefined || tracking.isLost) return usage.usedBytes
    const changedBytes = stream?.outbox.changedBytes ?? 0
    return Math.min(changedBytes + moveBytes(state, tracking.stores, stepsMax), usage.usedBytes)
  }
  using lacked = lackedNow(pool, stream, options)
  if (lacked === undefined) return usage.usedBytes
  return Math.min(moveBytes(state, lacked.stores, stepsMax), usage.usedBytes)
}

const everywhere = { offset: 0, lengthBytes: Number.POSITIVE_INFINITY }

function rangeOf(entry: { readonly offset: number; readonly lengthBytes: number }): ByteRange {
  return { offset: byteOffset(entry.offset), lengthBytes: entry.lengthBytes }
}
