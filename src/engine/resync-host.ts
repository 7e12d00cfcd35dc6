// A resync's hands: what is dirty and shared here, and its items as entries of the stream.
import type { Clock } from '../core/clock.js'
import { limits } from '../core/limits.js'
import type { DataOperation } from '../core/operation.js'
import type { StoreId } from '../core/units.js'
import type { ResyncHost } from '../replication/resync.js'
import type { ResyncItem, ResyncStore, ResyncView, ShareCopy } from '../replication/resync-plan.js'
import { isLocalId, type Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import { lacksBytes } from './lacks.js'
import { pieceStepsMax } from './move-bytes.js'
import type { PrimaryStream } from './primary-stream.js'
import type { DataEntry, Sequencer } from './sequencer.js'

export type ResyncHostOptions = {
  readonly pool: Pool
  readonly sequencer: Sequencer
  readonly stream: PrimaryStream
  readonly clock: Clock
  /** Longest piece of data in one entry. */
  readonly pieceBytesMax: number
  /** Performs operations of the stream at their place in the order; `choose` says which when everything before them took effect: none is fine. */
  readonly operate: (choose: () => readonly DataOperation[]) => Promise<void>
  readonly end: () => void
  readonly mutants: ReadonlySet<string>
}

export function resyncHost(options: ResyncHostOptions): ResyncHost {
  const { pool, sequencer, stream, clock } = options
  return {
    view: {
      ...resyncView(pool, options.pieceBytesMax),
      sharesUnsent: options.mutants.has('share-before-sent'),
    },
    clock,
    submit: (item, { isUrgent }) => submit(options, item, isUrgent),
    hurry: () => sequencer.takeFlush(),
    clientsWaiting: () => stream.clientsUnderWay > 0,
    dirtyBytes: () => pool.tracking?.totals.dirtyBytes ?? 0,
    bytesToMove: () => lacksBytes(pool, stream, { countsApplied: true, stepsMax: pieceStepsMax }),
    isDrained: () => stream.isCalm,
    drained: () => stream.drained(sequencer.lastSequence),
    end: options.end,
  }
}

function resyncView(pool: Pool, pieceBytesMax: number): ResyncView {
  const { state } = pool
  let stores: readonly ResyncStore[] = []
  const find = (id: StoreId): Store | undefined => state.stores.get(id)
  return {
    chunkBytes: state.chunkBytes,
    pieceBytesMax,
    stores: () => {
      const now = [...state.stores.values()].filter((store) => !isLocalId(store.id))
      if (!isSame(stores, now))
        stores = now.map(({ id, sizeBytes, volumeId }) => ({
          id,
          sizeBytes,
          isVolume: volumeId === undefined,
        }))
      return stores
    },
    nextDirty: (id, fromOffset, lengthBytesMax) => {
      const store = find(id)
      const run = pool.tracking?.nextDirty(id, fromOffset, lengthBytesMax)
      if (store === undefined || run === undefined || run.offset >= store.sizeBytes)
        return undefined
      // The map may be of a time when the store was larger.
      return {
        offset: run.offset,
        lengthBytes: Math.min(run.lengthBytes, store.sizeBytes - run.offset),
      }
    },
    isDirty: (id, offset, lengthBytes) => pool.tracking?.isDirty(id, offset, lengthBytes) ?? false,
    isSuspect: (id, offset) => pool.tracking?.isSuspect(id, offset) ?? false,
    place: (id, chunk) => find(id)?.map.get(chunk) ?? 0,
    holeEnd: (id, chunk, end, look) => find(id)?.map.runEnd(chunk, end, true, look) ?? end,
  }
}

function isSame(known: readonly ResyncStore[], now: readonly Store[]): boolean {
  return (
    known.length === now.length &&
    known.every((one, index) => one.id === now[index]?.id && one.sizeBytes === now[index].sizeBytes)
  )
}

async function submit(
  options: ResyncHostOptions,
  item: ResyncItem,
  isUrgent: boolean,
): Promise<void> {
  const { pool, sequencer } = options
  if (item.kind === 'share') return share(options, item.copies)
  const store = pool.state.stores.get(item.storeId)
  if (store === undefined) return
  // What was planned to be sent may be shared with another store behind the operation: sent, it would be a chunk of its own on the peer for good.
  if (item.kind === 'send' && sequencer.isHolding) return sequencer.whenOpen()
  let left: () => void = () => {}
  const leaves = new Promise<void>((resolve) => {
    left = resolve
  })
  const entry: DataEntry = {
    kind: item.kind === 'send' ? 'resend' : item.kind,
    store,
    offset: item.offset,
    lengthBytes: item.lengthBytes,
    parts: options.mutants.has('resync-over-newer-write')
      ? await staleParts(pool, store, item)
      : [],
    mayUnmap: true,
    fua: isUrgent,
    left,
  }
  // No await before this: what was planned is ordered in the same step.
  await sequencer.submit(entry)
  await leaves
}

/** Switchable bug: the bytes of a resync write are read before it gets its place in the order. */
async function staleParts(
  pool: Pool,
  store: Store,
  item: { readonly offset: number; readonly lengthBytes: number },
): Promise<readonly Buffer[]> {
  const bytes = Buffer.alloc(item.lengthBytes)
  await pool.read(store, item.offset, bytes)
  return [bytes]
}

/** Copies whose source and target still have the same chunks when everything before them took effect. On this node they change nothing. */
async function share(options: ResyncHostOptions, copies: readonly ShareCopy[]): Promise<void> {
  const { pool, stream, sequencer } = options
  await options.operate(() =>
    copies
      .filter((copy) => isShared(pool, copy))
      .slice(0, limits.batchOperationCountMax)
      .map((copy) => ({ kind: 'copy', reason: 'share', ...copy })),
  )
  await stream.drained(sequencer.lastSequence)
}

function isShared(pool: Pool, { sourceId, targetId, range }: ShareCopy): boolean {
  const { stores, chunkBytes } = pool.state
  const source = stores.get(sourceId)
  const target = stores.get(targetId)
  if (source === undefined || target === undefined) return false
  const end = range.offset + range.lengthBytes
  if (end > source.sizeBytes || end > target.sizeBytes) return false
  const look = { stepsLeft: Number.MAX_SAFE_INTEGER }
  const chunkEnd = Math.ceil(end / chunkBytes)
  const first = Math.floor(range.offset / chunkBytes)
  return (
    source.map.sameRunEnd(target.map, { chunk: first, end: chunkEnd, isSame: true }, look) >=
    chunkEnd
  )
}
