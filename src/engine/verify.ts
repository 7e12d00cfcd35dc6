// Compares a store with the peer's copy while writes go on: both nodes keep it as it is at one position of the stream, then digests of every piece are compared.
//
// No false alarm is possible: the position is the same on both nodes, and nothing was dirty there when the peer had performed everything up to it.
import assert from 'node:assert/strict'
import { comparePieceBytes, digestBytes } from '../core/entry.js'
import { LockstepError } from '../core/errors.js'
import type { Operation } from '../core/operation.js'
import { byteOffset, MiB, type StoreId } from '../core/units.js'
import { isLocalId, type Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import type { VerifyProgress, VerifyReport } from './api.js'
import { differingPieces, digestsOf } from './digests.js'
import type { FrozenStores } from './frozen.js'

const requestBytes = 4 * MiB
/** Differences that are listed; all are counted and repaired. */
const listedRangesMax = 1000

export type VerifyHost = {
  readonly pool: Pool
  readonly frozen: FrozenStores
  /** Resolves when the peer has everything, and nothing is dirty. */
  readonly inSync: () => Promise<void>
  /** Performs an operation of the stream; resolves when it is durable on both nodes. */
  readonly say: (operation: Operation) => Promise<void>
  /** Digests of the peer's frozen store; empty when there is none. Rejects when the link is lost. */
  readonly digests: (request: {
    readonly frozenId: number
    readonly offset: number
    readonly lengthBytes: number
  }) => Promise<Buffer>
  readonly onProgress: (progress: VerifyProgress) => void
}

let lastFrozenId = 0

/** Verifies one store. With `repair`, what differs is dirty afterwards: the resync that follows copies it from here to the peer. */
export async function verifyStore(
  host: VerifyHost,
  store: { readonly id: StoreId; readonly name: string },
  options: { readonly isRepairing: boolean },
): Promise<VerifyReport> {
  await host.inSync()
  const frozenId = ++lastFrozenId
  await host.say({ kind: 'freeze', frozenId, storeId: store.id })
  try {
    return await compare(host, { ...store, frozenId }, options)
  } finally {
    await host.say({ kind: 'thaw', frozenId })
  }
}

async function compare(
  host: VerifyHost,
  store: { readonly id: StoreId; readonly name: string; readonly frozenId: number },
  options: { readonly isRepairing: boolean },
): Promise<VerifyReport> {
  const { pool, frozen, digests, onProgress } = host
  const kept = frozen.find(store.frozenId)
  assert(kept)
  const { sizeBytes } = kept
  const ranges: { offset: number; lengthBytes: number }[] = []
  let differingBytes = 0
  for (let offset = 0; offset < sizeBytes; offset += requestBytes) {
    const lengthBytes = Math.min(requestBytes, sizeBytes - offset)
    const asked = digests({ frozenId: store.frozenId, offset, lengthBytes })
    const bytes = Buffer.allocUnsafe(lengthBytes)
    const [theirs] = await Promise.all([asked, pool.read(kept, offset, bytes)])
    const ours = digestsOf(bytes)
    if (theirs.length !== ours.length) throw lostFrozen(store.name)
    const bits = differingPieces(ours, theirs)
    for (let piece = 0; piece * digestBytes < ours.length; piece++) {
      if ((((bits[piece >> 3] as number) >> (piece & 7)) & 1) === 0) continue
      const from = offset + piece * comparePieceBytes
      const pieceBytes = Math.min(comparePieceBytes, sizeBytes - from)
      differingBytes += pieceBytes
      if (options.isRepairing) {
        markSharers(pool, { storeId: store.id, kept }, from, pieceBytes)
      }
      const last = ranges.at(-1)
      if (last !== undefined && last.offset + last.lengthBytes === from)
        last.lengthBytes += pieceBytes
      else if (ranges.length < listedRangesMax)
        ranges.push({ offset: from, lengthBytes: pieceBytes })
    }
    onProgress({ store: store.name, doneBytes: offset + lengthBytes, totalBytes: sizeBytes })
  }
  if (options.isRepairing && differingBytes > 0) await pool.commit()
  return { store: store.name, comparedBytes: sizeBytes, differingBytes, ranges }
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
  const mark = (id: StoreId, from: number, end: number): void => {
    if (from < end) pool.tracking?.mark(id, { offset: byteOffset(from), lengthBytes: end - from })
  }
  const now = stores.get(storeId)
  if (now !== undefined) mark(storeId, offset, Math.min(offset + lengthBytes, now.sizeBytes))
  const end = Math.ceil((offset + lengthBytes) / chunkBytes)
  for (let chunk = Math.floor(offset / chunkBytes); chunk < end; chunk++) {
    const places = new Set([kept.map.get(chunk), now?.map.get(chunk) ?? 0])
    for (const store of stores.values()) {
      const place = store.map.get(chunk)
      if (isLocalId(store.id) || place === 0 || !places.has(place)) continue
      mark(store.id, chunk * chunkBytes, Math.min((chunk + 1) * chunkBytes, store.sizeBytes))
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
