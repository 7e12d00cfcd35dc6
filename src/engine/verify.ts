// Compares a store with the peer's copy while writes go on: both nodes keep it as it is at one position of the stream, then digests of every piece are compared.
//
// No false alarm is possible: the position is the same on both nodes, and nothing was dirty there when the peer had performed everything up to it. What was
// found is kept by the tracking, block by block, until the peer has those blocks, or they are found to be the same.
import assert, { AssertionError } from 'node:assert/strict'
import { comparePieceBytes, digestBytes } from '../core/entry.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import type { Operation } from '../core/operation.js'
import { byteOffset, MiB, type Sequence, type StoreId } from '../core/units.js'
import { fullName, isLocalId, type Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import type { VerifyProgress, VerifyReport } from './api.js'
import { differingPieces, digestsOf } from './digests.js'
import type { FrozenStores } from './frozen.js'
import type { FrozenRange, QuestionKind } from './peer-questions.js'

const requestBytes = 4 * MiB
/** Differences that are listed; all are counted and repaired. */
const listedRangesMax = 1000
/** Stores that are named beside them; a repair finds all. */
const sharersToldMax = 64

export type VerifyHost = {
  readonly pool: Pool
  readonly frozen: FrozenStores
  /** Resolves when the peer has everything, and nothing is dirty. */
  readonly inSync: () => Promise<void>
  /** Performs an operation of the stream; resolves to its sequence when it is durable on both nodes. */
  readonly say: (operation: Operation) => Promise<Sequence>
  /** Digests, or bytes, of the peer's frozen store; empty when there is none. Rejects when the link is lost. */
  readonly ask: (kind: QuestionKind, range: FrozenRange) => Promise<Buffer>
  /** A write in the order of the clients', unless the store has changed there since it was kept: then false. */
  readonly overwrite: (write: Overwrite) => Promise<boolean>
  readonly onProgress: (progress: VerifyProgress) => void
}

/** `bytes` for `offset` of a store, which was kept as `kept`. */
export type Overwrite = {
  readonly storeId: StoreId
  readonly kept: Store
  readonly offset: number
  readonly bytes: Buffer
}

/** Whose bytes are right where they differ. */
export type Repair = 'self' | 'peer'

/**
 * Verifies one store. With `repairs: 'self'` what differs is dirty afterwards: the resync that follows copies it from here to the peer. With `'peer'` it is
 * written here, as an entry like a client's.
 */
export async function verifyStore(
  host: VerifyHost,
  store: { readonly id: StoreId; readonly name: string },
  options: { readonly repairs: Repair | undefined },
): Promise<VerifyReport> {
  await host.inSync()
  const frozenId = host.frozen.nextId()
  const sequence = await host.say({ kind: 'freeze', frozenId, storeId: store.id })
  try {
    const kept = host.frozen.find(frozenId)
    assert(kept)
    return await new Comparison(host, { ...store, frozenId, kept, sequence }, options.repairs).run()
  } finally {
    await host.say({ kind: 'thaw', frozenId })
  }
}

type Compared = {
  readonly id: StoreId
  readonly name: string
  readonly frozenId: number
  readonly kept: Store
  /** The position at which it was kept. */
  readonly sequence: Sequence
}

class Comparison {
  readonly #host: VerifyHost
  readonly #store: Compared
  readonly #repairs: Repair | undefined
  readonly #ranges: { offset: number; lengthBytes: number }[] = []
  #differingBytes = 0
  /** Other stores that share chunks where this one differs, as many as are told. */
  readonly #sharers = new Set<StoreId>()
  #skippedBytes = 0
  /** The chunk that was repaired last: a chunk may have several pieces. */
  #repairedChunk = -1

  constructor(host: VerifyHost, store: Compared, repairs: Repair | undefined) {
    this.#host = host
    this.#store = store
    this.#repairs = repairs
  }

  async run(): Promise<VerifyReport> {
    const { name, kept } = this.#store
    const { sizeBytes } = kept
    for (let offset = 0; offset < sizeBytes; offset += requestBytes) {
      const lengthBytes = Math.min(requestBytes, sizeBytes - offset)
      await this.#compare(offset, lengthBytes)
      const doneBytes = offset + lengthBytes
      this.#host.onProgress({ store: name, doneBytes, totalBytes: sizeBytes })
    }
    // Whoever has the answer, and perhaps does nothing, finds it in `status` after a crash.
    if (this.#differingBytes > 0) await this.#host.pool.commit()
    return {
      store: name,
      comparedBytes: sizeBytes,
      differingBytes: this.#differingBytes,
      ranges: this.#ranges,
      ...this.#sharedWith(),
      ...(this.#repairs === 'peer' ? { skippedBytes: this.#skippedBytes } : {}),
    }
  }

  async #compare(offset: number, lengthBytes: number): Promise<void> {
    const { frozenId, name, kept } = this.#store
    const asked = this.#host.ask('digest-request', { frozenId, offset, lengthBytes })
    const [theirs, bytes] = await Promise.all([asked, this.#read(offset, lengthBytes)])
    const ours = digestsOf(bytes)
    if (theirs.length !== ours.length) throw lostFrozen(name)
    const bits = differingPieces(ours, theirs)
    for (let piece = 0; piece * digestBytes < ours.length; piece++) {
      const from = offset + piece * comparePieceBytes
      const pieceBytes = Math.min(comparePieceBytes, kept.sizeBytes - from)
      const isEqual = (((bits[piece >> 3] as number) >> (piece & 7)) & 1) === 0
      if (isEqual) this.#isSame(from, pieceBytes)
      else await this.#differs(from, pieceBytes)
    }
  }

  async #read(offset: number, lengthBytes: number): Promise<Buffer> {
    const { kept, name } = this.#store
    const bytes = Buffer.allocUnsafe(lengthBytes)
    try {
      await this.#host.pool.read(kept, offset, bytes)
      return bytes
    } catch (error) {
      if (error instanceof AssertionError || error instanceof LockstepError) throw error
      throw new LockstepError(
        'IO_ERROR',
        `${name} cannot be read here between ${offset} and ${offset + lengthBytes}: ${errnoNameOf(error)}`,
        'check the disk of this node and its kernel log',
      )
    }
  }

  #isSame(offset: number, lengthBytes: number): void {
    const { id, sequence } = this.#store
    this.#host.pool.tracking?.same(id, { offset: byteOffset(offset), lengthBytes }, sequence)
  }

  async #differs(offset: number, lengthBytes: number): Promise<void> {
    const { id: storeId, kept } = this.#store
    const last = this.#ranges.at(-1)
    this.#differingBytes += lengthBytes
    if (last !== undefined && last.offset + last.lengthBytes === offset)
      last.lengthBytes += lengthBytes
    else if (this.#ranges.length < listedRangesMax) this.#ranges.push({ offset, lengthBytes })
    this.#noteSharers(offset, lengthBytes)
    const { pool } = this.#host
    if (this.#repairs === 'self') markSharers(pool, { storeId, kept }, offset, lengthBytes)
    else pool.tracking?.differs(storeId, { offset: byteOffset(offset), lengthBytes })
    if (this.#repairs === 'peer') await this.#fetch(offset, lengthBytes)
  }

  #noteSharers(offset: number, lengthBytes: number): void {
    const { id, kept } = this.#store
    const { chunkBytes, stores } = this.#host.pool.state
    const end = Math.ceil((offset + lengthBytes) / chunkBytes)
    for (let chunk = Math.floor(offset / chunkBytes); chunk < end; chunk++) {
      const place = kept.map.get(chunk)
      if (place === 0) continue
      for (const store of stores.values()) {
        if (this.#sharers.size === sharersToldMax) return
        if (store.id === id || isLocalId(store.id) || this.#sharers.has(store.id)) continue
        if (store.map.get(chunk) === place) this.#sharers.add(store.id)
      }
    }
  }

  #sharedWith(): Pick<VerifyReport, 'sharedWith'> {
    const { state } = this.#host.pool
    const sharedWith = [...this.#sharers].flatMap((id) => {
      const store = state.stores.get(id)
      return store === undefined ? [] : [fullName(state, store)]
    })
    return sharedWith.length === 0 ? {} : { sharedWith }
  }

  /** Chunk by chunk: whether one was written to since it was kept is known for whole chunks only. */
  async #fetch(offset: number, lengthBytes: number): Promise<void> {
    const { kept } = this.#store
    const { chunkBytes } = this.#host.pool.state
    const end = Math.ceil((offset + lengthBytes) / chunkBytes)
    for (let chunk = Math.floor(offset / chunkBytes); chunk < end; chunk++) {
      if (chunk === this.#repairedChunk) continue
      this.#repairedChunk = chunk
      const from = chunk * chunkBytes
      await this.#fetchChunk(from, Math.min(chunkBytes, kept.sizeBytes - from))
    }
  }

  async #fetchChunk(offset: number, lengthBytes: number): Promise<void> {
    const { id: storeId, frozenId, kept, name } = this.#store
    const asked = this.#host.ask('read-request', { frozenId, offset, lengthBytes })
    const [bytes, mine] = await Promise.all([asked, this.#read(offset, lengthBytes)])
    if (bytes.length !== lengthBytes) throw lostFrozen(name)
    if (bytes.equals(mine)) return this.#isSame(offset, lengthBytes)
    const isDone = await this.#host.overwrite({ storeId, kept, offset, bytes })
    if (!isDone) this.#skippedBytes += lengthBytes
  }
}

/**
 * A difference in one store is one in every store that shares the chunk here: the peer shares it as well, and a repair may not take it from there.
 * The store itself is marked even if its chunk has another place by now: what was written since lies beside the same old bytes.
 */
function markSharers(
  pool: Pool,
  { storeId, kept }: { readonly storeId: StoreId; readonly kept: Store },
  offset: number,
  lengthBytes: number,
): void {
  const { chunkBytes, stores } = pool.state
  const mark = (id: StoreId, from: number, storeEnd: number): void => {
    // One that was made since, and whose making is still in the outbox: its map will be that of what it was made from.
    const tracked = pool.tracking?.stores.get(id)
    const end = Math.min(storeEnd, tracked?.sizeBytes ?? 0)
    if (from < end) pool.tracking?.mark(id, { offset: byteOffset(from), lengthBytes: end - from })
  }
  const now = stores.get(storeId)
  if (now !== undefined) mark(storeId, offset, Math.min(offset + lengthBytes, now.sizeBytes))
  const end = Math.ceil((offset + lengthBytes) / chunkBytes)
  for (let chunk = Math.floor(offset / chunkBytes); chunk < end; chunk++) {
    const places = new Set([kept.map.get(chunk), now?.map.get(chunk) ?? 0])
    for (const store of stores.values()) {
      const place = store.map.get(chunk)
      if (isLocalId(store.id) || !places.has(place)) continue
      const from = chunk * chunkBytes
      // Nobody shares a hole: zeroes go over where it was found to differ as well, as in what that store is a snapshot of.
      if (place === 0 && pool.tracking?.isDiffering(store.id, from, chunkBytes) !== true) continue
      mark(store.id, from, Math.min(from + chunkBytes, store.sizeBytes))
    }
  }
}

function lostFrozen(name: string): LockstepError {
  return new LockstepError(
    'PEER_UNREACHABLE',
    `the peer started again while ${name} was compared`,
    'run the command again: lockstep verify',
  )
}
