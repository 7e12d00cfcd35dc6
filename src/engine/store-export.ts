// One store as the NBD library sees it. Turns requests into entries for the sequencer, and the causes of failures into the errno that the wire knows.
import assert, { AssertionError } from 'node:assert/strict'
import type { PartKeeper } from '../../nbd/bytes/part-keeper.js'
import { type ErrnoBeyondEnd, RequestError } from '../../nbd/errors.js'
import type { BlockSizes, Export, Extent, Look } from '../../nbd/export.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import type { FailureLog } from '../core/failure-log.js'
import { limits } from '../core/limits.js'
import { blockBytes, formatBytes, MiB, type Sequence } from '../core/units.js'
import { dirtyPageBlockCount } from '../storage/dirty-page.js'
import { allocatedRuns, changedRuns, type RunQuery } from '../storage/extents.js'
import { fullName, isLocalId, type Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import { nextDifferentIn } from '../storage/tracked-stores.js'
import type { LackLooks } from './lack-looks.js'
import type { Lacked } from './lacks.js'
import { isMarkSnapshot, snapshotPart, sourceName } from './local-stores.js'
import type { LongZeroes } from './long-zeroes.js'
import type { PrimaryStream } from './primary-stream.js'
import type { ReadAhead } from './read-ahead.js'
import { checkRange, notPrimary } from './refusals.js'
import type { DataEntry, Sequencer } from './sequencer.js'

export const baseAllocation = 'base:allocation'
/** Bytes that the peer may not have. */
export const dirtyContext = 'x-lockstep:dirty'
export const changedSincePrefix = 'x-lockstep:changed-since:'

const blockSizes: BlockSizes = { minimum: 1, preferred: blockBytes, maximum: 32 * MiB }
/** proto.md, "base:allocation": NBD_STATE_HOLE and NBD_STATE_ZERO. */
const holeAndZero = 3
/** A store that is passed over in the search for another. */
const storeSteps = 4
const dirtyRunSteps = 32
/** An entry of the outbox that is looked at. */
const lackedEntrySteps = 8
/** A store whose map is shared for a look. */
const lackedStoreSteps = 8
/** Bits of the map that are looked at together. */
const blocksPerStep = 32
/** Of a run: its ends may lie in the middle of a page each, the pages between them are one. */
const runStepsMax = (2 * dirtyPageBlockCount) / blocksPerStep

/** What an export needs to know of the other node. */
export type ExportPort = {
  /** A secondary's stores change by the stream only. */
  readonly isReadOnly: boolean
  /** Absent while no peer is tracked. */
  readonly stream: PrimaryStream | undefined
  readonly looks: LackLooks
}

export type ExportOptions = {
  readonly store: Store
  readonly port: ExportPort
  readonly pool: Pool
  readonly sequencer: Sequencer
  /** One for all exports. */
  readonly readAhead: ReadAhead
  readonly longZeroes: LongZeroes
  readonly failures: FailureLog
}

export class StoreExport implements Export {
  readonly store: Store
  readonly #pool: Pool
  readonly #sequencer: Sequencer
  readonly #readAhead: ReadAhead
  readonly #longZeroes: LongZeroes
  readonly #failures: FailureLog
  readonly #port: ExportPort
  readonly blockSizes = blockSizes
  /** Sessions that use it. */
  connectionCount = 0

  constructor(options: ExportOptions) {
    this.store = options.store
    this.#pool = options.pool
    this.#port = options.port
    this.#sequencer = options.sequencer
    this.#readAhead = options.readAhead
    this.#longZeroes = options.longZeroes
    this.#failures = options.failures
  }

  get isReadOnly(): boolean {
    return this.#port.isReadOnly || isLocalId(this.store.id)
  }

  get name(): string {
    return fullName(this.#pool.state, this.store)
  }

  get description(): string {
    const isSnapshot = this.store.volumeId !== undefined || isLocalId(this.store.id)
    return `${isSnapshot ? 'snapshot' : 'volume'}, ${formatBytes(this.store.sizeBytes)}`
  }

  get sizeBytes(): number {
    return this.store.sizeBytes
  }

  metaContexts(): readonly string[] {
    return [
      baseAllocation,
      ...(this.#pool.tracking === undefined ? [] : [dirtyContext]),
      ...this.#siblings().map((store) => `${changedSincePrefix}${snapshotPart(store)}`),
    ]
  }

  read(request: { readonly offset: number; readonly target: Buffer }): Promise<void> | undefined {
    const { offset, target } = request
    checkRange(this.store, { offset, lengthBytes: target.length }, 'EINVAL')
    try {
      const done = this.#pool.read(this.store, offset, target)
      return done === undefined ? undefined : this.#explain(done)
    } catch (error) {
      throw this.#requestError(error)
    }
  }

  write(request: {
    readonly offset: number
    readonly lengthBytes: number
    readonly parts: readonly Buffer[]
    readonly fua: boolean
    readonly keeper?: PartKeeper
  }): Promise<void> | undefined {
    const { offset, lengthBytes, parts, fua, keeper } = request
    return this.#submit({
      kind: 'write',
      store: this.store,
      offset,
      lengthBytes,
      parts,
      keeper,
      mayUnmap: false,
      fua,
    })
  }

  zero(request: {
    readonly offset: number
    readonly lengthBytes: number
    readonly fua: boolean
    readonly mayUnmap: boolean
    readonly fastOnly: boolean
    readonly errnoBeyondEnd?: ErrnoBeyondEnd
    readonly isWanted?: () => boolean
  }): Promise<void> | undefined {
    const { offset, lengthBytes, mayUnmap, fua, errnoBeyondEnd, isWanted = () => true } = request
    if (request.fastOnly && !mayUnmap)
      throw new RequestError(
        'ENOTSUP',
        'zeroes that stay allocated are written, which is not faster than a write',
      )
    const { store } = this
    const common = { kind: 'zero', store, parts: [], mayUnmap, errnoBeyondEnd } as const
    if (mayUnmap || lengthBytes <= limits.zeroPieceBytes)
      return this.#submit({ ...common, offset, lengthBytes, fua })
    checkRange(this.store, request, 'ENOSPC')
    // What is before the last piece is durable with it.
    return this.#longZeroes.run({
      offset,
      lengthBytes,
      isWanted,
      write: (piece, isLast) => this.#submit({ ...common, ...piece, fua: fua && isLast }),
    })
  }

  flush(): Promise<void> | undefined {
    const { stream, isReadOnly } = this.#port
    // A secondary's order is its primary's: what a reader flushes here is no entry.
    if (isReadOnly) return this.#explain(this.#pool.commit())
    if (stream !== undefined) return this.#explain(this.#flushBoth(stream))
    this.#sequencer.takeFlush()
    if (this.#pool.isDurable()) return undefined
    return this.#explain(this.#pool.commit())
  }

  cache(request: {
    readonly offset: number
    readonly lengthBytes: number
    readonly isWanted?: () => boolean
  }): Promise<void> | undefined {
    checkRange(this.store, request, 'EINVAL')
    let at = request.offset
    // The store may become smaller between two pieces.
    const endNow = (): number =>
      Math.min(request.offset + request.lengthBytes, this.store.sizeBytes)
    return this.#readAhead.run({
      isOver: () => at >= endNow() || request.isWanted?.() === false,
      readPiece: (scratch) => {
        const target = scratch.subarray(0, endNow() - at)
        const offset = at
        at += target.length
        return this.read({ offset, target })
      },
    })
  }

  blockStatus(request: {
    readonly context: string
    readonly offset: number
    readonly lengthBytes: number
    readonly extentCountMax: number
    readonly look?: Look
  }): readonly Extent[] | Promise<readonly Extent[]> {
    const { offset, lengthBytes, look = { stepsLeft: limits.extentStepsMax } } = request
    const query = {
      offset,
      lengthBytes,
      look,
      chunkBytes: this.#pool.state.chunkBytes,
      runCountMax: request.extentCountMax,
    }
    if (request.context === baseAllocation) {
      return allocatedRuns(this.store, query).map((run) => ({
        lengthBytes: run.lengthBytes,
        flags: run.isSet ? 0 : holeAndZero,
      }))
    }
    if (request.context === dirtyContext) return this.#dirtyExtents(query, look)
    const runs = changedRuns(this.store, this.#since(request.context), query)
    look.stepsLeft -= this.#pool.state.stores.size * storeSteps
    return runs.map((run) => ({ lengthBytes: run.lengthBytes, flags: run.isSet ? 1 : 0 }))
  }

  /** The snapshot that a context compares with. */
  #since(context: string): Store {
    const { state } = this.#pool
    const volume = sourceName(state, this.store)
    for (const store of state.stores.values()) {
      // Most are others: this costs less than their names.
      if (!context.endsWith(snapshotPart(store))) continue
      if (`${changedSincePrefix}${snapshotPart(store)}` !== context) continue
      if (this.#isSibling(store, volume)) return store
    }
    throw new RequestError('EINVAL', `there is no ${context.slice(0, 200)} any more`)
  }

  /** With a long outbox by and by, with the others who ask. */
  #dirtyExtents(query: RunQuery, look: Look): readonly Extent[] | Promise<readonly Extent[]> {
    if (this.#pool.tracking === undefined)
      throw new RequestError(
        'EINVAL',
        'x-lockstep:dirty is known on a primary only, as long as it keeps in mind what a peer lacks',
      )
    const options = { storeId: this.store.id, range: query }
    return this.#port.looks.look(options, (lacked) => this.#lackedExtents(lacked, query, look))
  }

  #lackedExtents(lacked: Lacked | undefined, query: RunQuery, look: Look): readonly Extent[] {
    // Nothing is known: the peer lacks everything.
    if (lacked === undefined)
      return allocatedRuns(this.store, query).map(({ lengthBytes, isSet }) => ({
        lengthBytes,
        flags: isSet ? 1 : 0,
      }))
    const known = lacked.stores.get(this.store.id)
    // Half of what may be looked at is for the answer: a short one would be asked for again, with the same walk before it.
    const lookedAt = lacked.entryCount * lackedEntrySteps + lacked.sharedCount * lackedStoreSteps
    look.stepsLeft -= Math.min(look.stepsLeft >>> 1, lookedAt)
    const end = query.offset + query.lengthBytes
    const extents: Extent[] = []
    const add = (until: number, at: number, flags: number): number => {
      if (until <= at) return at
      const last = extents.at(-1)
      if (last?.flags === flags) extents.pop()
      const before = last?.flags === flags ? last.lengthBytes : 0
      extents.push({ lengthBytes: before + until - at, flags })
      return until
    }
    let at = query.offset
    while (at < end && extents.length < query.runCountMax && look.stepsLeft > 0) {
      const run = known && nextDifferentIn(known, at, end - at)
      const wordCount = Math.ceil((run?.lengthBytes ?? 0) / blockBytes / blocksPerStep)
      look.stepsLeft -= dirtyRunSteps + Math.min(wordCount, runStepsMax)
      at = add(Math.min(end, run?.offset ?? end), at, 0)
      if (run !== undefined && at < end && extents.length < query.runCountMax)
        at = add(Math.min(end, run.offset + run.lengthBytes), at, 1)
    }
    return extents
  }

  async #flushBoth(stream: PrimaryStream): Promise<void> {
    // Behind the writes that wait for room, as it was asked.
    const room = stream.whenRoom()
    if (room !== undefined) await room
    const sequence = this.#sequencer.takeFlush()
    await this.#pool.commit()
    await stream.replicated(sequence, true)
  }

  /** A change with a peer to think of: in this order nothing is acknowledged that could be lost with either node (by mode). */
  #submitReplicated(stream: PrimaryStream, entry: DataEntry): Promise<void> | undefined {
    const wait = stream.admit()
    if (wait !== undefined || entry.fua === true)
      return this.#explain(this.#submitSlowly(stream, entry, wait))
    // The usual case without a promise of its own: the pool does it at once, and what is left to wait for is the peer.
    try {
      const applied = this.#sequencer.submit(entry)
      if (applied !== undefined)
        return this.#explain(this.#finishReplicated(stream, entry, applied))
      const replicated = this.#replicated(stream, entry)
      if (replicated === undefined) return undefined
      stream.clientsUnderWay++
      return replicated.then(
        () => {
          stream.clientsUnderWay--
        },
        (error: unknown) => {
          stream.clientsUnderWay--
          throw this.#requestError(error)
        },
      )
    } catch (error) {
      throw this.#requestError(error)
    }
  }

  async #submitSlowly(
    stream: PrimaryStream,
    entry: DataEntry,
    firstWait: Promise<void> | undefined,
  ): Promise<void> {
    stream.clientsUnderWay++
    try {
      for (let wait = firstWait; wait !== undefined; wait = stream.admit()) await wait
      const applied = this.#sequencer.submit(entry)
      if (applied !== undefined) await applied
      if (entry.fua === true) await this.#pool.commit()
      await this.#replicated(stream, entry)
    } finally {
      stream.clientsUnderWay--
    }
  }

  async #finishReplicated(
    stream: PrimaryStream,
    entry: DataEntry,
    applied: Promise<void>,
  ): Promise<void> {
    stream.clientsUnderWay++
    try {
      await applied
      await this.#replicated(stream, entry)
    } finally {
      stream.clientsUnderWay--
    }
  }

  #replicated(stream: PrimaryStream, { sequence, fua }: DataEntry): Promise<void> | undefined {
    assert(sequence !== undefined)
    return stream.replicated(sequence as Sequence, fua ?? false)
  }

  /** The snapshots that this store can be compared with: its own volume's, those that this node keeps for itself among them. */
  #siblings(): readonly Store[] {
    const { state } = this.#pool
    const volume = sourceName(state, this.store)
    return [...state.stores.values()].filter((store) => this.#isSibling(store, volume))
  }

  #isSibling(store: Store, volume: string): boolean {
    return (
      store !== this.store &&
      (store.volumeId !== undefined || isMarkSnapshot(store)) &&
      sourceName(this.#pool.state, store) === volume
    )
  }

  #submit(entry: DataEntry): Promise<void> | undefined {
    const { fua } = entry
    if (this.store.isDeleted) throw new RequestError('EIO', 'the store was deleted')
    if (this.isReadOnly) throw notPrimary()
    const { stream } = this.#port
    if (stream !== undefined) return this.#submitReplicated(stream, entry)
    if (fua && this.#pool.failure !== undefined) throw this.#requestError(this.#pool.failure)
    try {
      const applied = this.#sequencer.submit(entry)
      if (applied === undefined) return fua ? this.#explain(this.#pool.commit()) : undefined
      return this.#explain(fua ? applied.then(() => this.#pool.commit()) : applied)
    } catch (error) {
      throw this.#requestError(error)
    }
  }

  async #explain(done: Promise<void>): Promise<void> {
    try {
      await done
    } catch (error) {
      throw this.#requestError(error)
    }
  }

  /** The wire keeps a few values; the log keeps the truth. */
  #requestError(error: unknown): unknown {
    if (error instanceof RequestError || error instanceof AssertionError) return error
    const errno = errnoNameOf(error)
    // A full disk needs no stack: whoever answers the client logs it.
    if (error instanceof LockstepError && error.code === 'NO_SPACE')
      return new RequestError('ENOSPC', error.message)
    if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EFBIG')
      return new RequestError('ENOSPC', `no space left for the data file (${errno})`)
    // Each request's own line, without a stack, is the business of whoever answers it.
    this.#failures.failed(error, { store: this.name })
    if (error instanceof LockstepError) return new RequestError('EIO', error.message)
    if (errno === 'EPERM' || errno === 'EROFS' || errno === 'EACCES')
      return new RequestError('EPERM', 'the data file may not be written')
    return new RequestError('EIO', `the data file failed (${errno})`)
  }
}
