// What the peer lacks at this moment: the dirty maps, and what they would become if nothing of the outbox arrived that the peer has not applied yet. So people are told
// what would be missing if this node were lost now; the maps themselves know only of what has left the outbox.
//
// Invariants: looking changes nothing, and costs those who write nothing; the answer is never too little.
import type { Clock } from '../core/clock.js'
import { type ByteRange, blockBytes, byteOffset, type StoreId } from '../core/units.js'
import { type BlockRun, dirtyPageBlockCount } from '../storage/dirty-map.js'
import type { Pool } from '../storage/pool.js'
import { changesMaps, type TrackedStore } from '../storage/tracked-stores.js'
import { moveBytes } from './move-bytes.js'
import type { PrimaryStream } from './primary-stream.js'

/** Dirty maps for looking at, until they are disposed of. */
export type Lacked = {
  readonly stores: ReadonlyMap<StoreId, TrackedStore>
  /** Entries that were marked for it; those that only were passed by count a sixteenth. */
  readonly entryCount: number
  /** Stores, and pages of dirty maps, that were shared for it. */
  readonly sharedCount: number
  /** Where the answer ends, in bytes, when it was asked for with `pageCountMax`. */
  readonly end: number
  [Symbol.dispose](): void
}

/**
 * Of one store or of all; undefined when nothing is known: the peer lacks everything. Takes time in proportion to the entries in the outbox, as folding them would.
 * `countsApplied`: what the peer has applied, but not made durable, counts as lacked. `range`: what lies outside of it may be missing in the answer, which costs less:
 * operations bring dirt from one store to another, but never to another place. `pageCountMax`: the answer may end before the range does, but not at its beginning.
 */
export function lackedNow(
  pool: Pool,
  stream: PrimaryStream | undefined,
  options: {
    readonly storeId?: StoreId
    readonly range?: { readonly offset: number; readonly lengthBytes: number }
    readonly pageCountMax?: number
    readonly countsApplied?: boolean
  } = {},
): Lacked | undefined {
  const { tracking } = pool
  if (tracking === undefined || tracking.isLost) return undefined
  const outbox = stream?.outbox
  if (outbox === undefined || outbox.entryCount === 0)
    return {
      stores: tracking.stores,
      entryCount: 0,
      sharedCount: 0,
      end: Number.POSITIVE_INFINITY,
      [Symbol.dispose]: () => {},
    }
  // An operation may bring another store's dirt here.
  const mayMove = tracking.pending.some(({ operation }) => changesMaps(operation))
  const only = mayMove ? undefined : options.storeId
  const pagesEach = (options.pageCountMax ?? Infinity) / (mayMove ? tracking.stores.size : 1)
  const blocks = blocksAround(options.range, Math.max(1, Math.floor(pagesEach)))
  const shared = tracking.share(only === undefined ? undefined : [only], blocks)
  const { progress } = stream as PrimaryStream
  const applied = progress.isWaiting && options.countsApplied !== true ? progress.applied : 0
  const first = (blocks?.first ?? 0) * blockBytes
  const end = (blocks?.end ?? Number.POSITIVE_INFINITY) * blockBytes
  let sharedCount = shared.stores.size
  for (const { dirty } of shared.stores.values()) sharedCount += dirty.pages.size
  let markedCount = 0
  outbox.look((entry, isKept) => {
    if (entry.kind === 'operation') shared.leave(entry.operation)
    if (entry.kind !== 'write' && entry.kind !== 'zero') return
    if (only !== undefined && entry.storeId !== only) return
    // Behind the operation that deleted its store or made it smaller: it is refused when its turn comes.
    const sizeBytes = shared.get(entry.storeId)?.sizeBytes ?? 0
    if (entry.offset + entry.lengthBytes > sizeBytes) return
    if (entry.offset >= end || entry.offset + entry.lengthBytes <= first) return
    markedCount++
    // As it leaves one day: had or lacked.
    if (isKept && entry.sequence <= applied) shared.clean(entry.storeId, rangeOf(entry))
    else shared.mark(entry.storeId, rangeOf(entry))
  })
  return {
    stores: shared.stores,
    entryCount: markedCount + Math.ceil(outbox.entryCount / 16),
    sharedCount,
    end,
    [Symbol.dispose]: () => shared.clear(),
  }
}

/** Bytes of data that the peer lacks, at most: each chunk once, however many stores share it. With `countsApplied` what a resync would move. */
export function lacksBytes(
  pool: Pool,
  stream: PrimaryStream | undefined,
  options: { readonly countsApplied?: boolean } = {},
): number {
  using lacked = lackedNow(pool, stream, options)
  const { usedBytes } = pool.usage
  if (lacked === undefined) return usedBytes
  return Math.min(moveBytes(pool.state, lacked.stores), usedBytes)
}

/** An answer that took longer than this is not found anew each time somebody asks. */
const costlyMs = 5
/** The part of the time that may go into answers: one in twenty. */
const restFactor = 20

/** `lacksBytes` for who asks again and again: where it is a lot of work it is as it was a moment ago. */
export class LacksMeter {
  readonly #clock: Clock
  readonly #options: { readonly countsApplied?: boolean }
  #bytes = 0
  #validUntilMs = 0

  constructor(clock: Clock, options: { readonly countsApplied?: boolean } = {}) {
    this.#clock = clock
    this.#options = options
  }

  bytes(pool: Pool, stream: PrimaryStream | undefined): number {
    const beganMs = this.#clock.nowMs()
    const totals = pool.tracking?.totals
    const isCalm = pool.tracking?.isLost === false && totals?.dirtyBytes === 0
    if (isCalm && (stream?.outbox.entryCount ?? 0) === 0) return 0
    if (beganMs < this.#validUntilMs) return this.#bytes
    this.#bytes = lacksBytes(pool, stream, this.#options)
    const tookMs = this.#clock.nowMs() - beganMs
    this.#validUntilMs = tookMs < costlyMs ? 0 : beganMs + tookMs * restFactor
    return this.#bytes
  }
}

/** Whole blocks: a change beside the range may lie in a block that is partly in it. No more than so many pages. */
function blocksAround(
  range: { readonly offset: number; readonly lengthBytes: number } | undefined,
  pageCountMax: number,
): BlockRun | undefined {
  if (range === undefined) return undefined
  const first = Math.floor(range.offset / blockBytes)
  const end = Math.ceil((range.offset + range.lengthBytes) / blockBytes)
  const firstPage = Math.floor(first / dirtyPageBlockCount)
  return { first, end: Math.min(end, (firstPage + pageCountMax) * dirtyPageBlockCount) }
}

function rangeOf(entry: { readonly offset: number; readonly lengthBytes: number }): ByteRange {
  return { offset: byteOffset(entry.offset), lengthBytes: entry.lengthBytes }
}
