// Dirty maps by store id, and what operations do to them: law 3. Sizes are kept here as well, because a store may have been resized or deleted since the
// entry that is leaving the outbox was ordered. What verify found to differ moves in the same way: who copies what differs has it too.
import assert from 'node:assert/strict'
import { unreachable } from '../core/errors.js'
import type { Operation } from '../core/operation.js'
import { type ByteRange, blockBytes, type StoreId } from '../core/units.js'
import { pageEntryCount } from './chunk-map.js'
import { type BlockRun, DirtyMap } from './dirty-map.js'
import { isLocalId, type Store } from './group-state.js'

/** A store as of the newest entry that has left. */
export type TrackedStore = {
  sizeBytes: number
  readonly dirty: DirtyMap
  /** Blocks that are dirty only because a crash came while they were active. Those that are not dirty mean nothing. */
  readonly suspects: DirtyMap
  /** Blocks that verify found to differ and that nobody repairs. What becomes dirty goes over anyhow: it leaves this map for that one. */
  readonly differing: DirtyMap
  /** Of the newest copy into it that has left in this run; 0 when there was none. */
  copiedSequence: number
}

export class TrackedStores {
  readonly #stores = new Map<StoreId, TrackedStore>()

  get stores(): ReadonlyMap<StoreId, TrackedStore> {
    return this.#stores
  }

  get(storeId: StoreId): TrackedStore | undefined {
    return this.#stores.get(storeId)
  }

  /** A new store, nothing of it dirty. */
  add(storeId: StoreId, sizeBytes: number): TrackedStore {
    assert(!this.#stores.has(storeId))
    const maps = { dirty: new DirtyMap(), suspects: new DirtyMap(), differing: new DirtyMap() }
    const store = { sizeBytes, ...maps, copiedSequence: 0 }
    this.#stores.set(storeId, store)
    return store
  }

  /** As they are now, of all stores or of some, to look further from: what is the same is shared until one of both changes it. The caller clears it. Without what is suspect. */
  share(storeIds: Iterable<StoreId> = this.#stores.keys()): TrackedStores {
    const shared = new TrackedStores()
    for (const storeId of storeIds) {
      const store = this.#stores.get(storeId)
      if (store === undefined) continue
      const view = shared.add(storeId, store.sizeBytes)
      view.dirty.become(store.dirty)
      view.differing.become(store.differing)
    }
    return shared
  }

  clear(): void {
    for (const storeId of this.#stores.keys()) this.#remove(storeId)
  }

  /** Everything that has a place differs from a peer that has nothing. */
  reset(stores: Iterable<Store>, chunkBytes: number): void {
    this.clear()
    for (const store of stores)
      if (!isLocalId(store.id))
        markAllocated(this.add(store.id, store.sizeBytes), store, chunkBytes)
  }

  /** Marks a range; the answer is the run that changed. */
  mark(storeId: StoreId, range: ByteRange): BlockRun | undefined {
    const store = this.#tracked(storeId)
    const changed = store.dirty.markBytes(range.offset, range.lengthBytes)
    if (changed !== undefined) store.differing.cleanBlocks(changed.first, changed.end)
    return changed
  }

  /** Cleans the blocks wholly inside the range, of which the last may be cut by the store's end: they are equal. The answer is a run with all that changed, of blocks that are equal now. */
  clean(storeId: StoreId, range: ByteRange): BlockRun | undefined {
    const store = this.#tracked(storeId)
    const lengthBytes = wholeLength(range, [store])
    if (store.suspects.dirtyBlockCount > 0) store.suspects.cleanBytes(range.offset, lengthBytes)
    const wasDirty = store.dirty.cleanBytes(range.offset, lengthBytes)
    return hullOf(wasDirty, store.differing.cleanBytes(range.offset, lengthBytes))
  }

  /** Blocks that the range touches, and that are not dirty, differ. The answer are the runs that changed. */
  differ(storeId: StoreId, range: ByteRange): readonly BlockRun[] {
    const { dirty, differing, sizeBytes } = this.#tracked(storeId)
    const end = Math.ceil(Math.min(range.offset + range.lengthBytes, sizeBytes) / blockBytes)
    const runs: BlockRun[] = []
    for (let at = Math.floor(range.offset / blockBytes); at < end; ) {
      const known = dirty.nextRun(at, end)
      const changed = differing.markBlocks(at, known?.first ?? end)
      if (changed !== undefined) runs.push(changed)
      at = known?.end ?? end
    }
    return runs
  }

  /** The blocks wholly inside the range do not differ, but for those that are dirty. The answer is the run that changed. */
  same(storeId: StoreId, range: ByteRange): BlockRun | undefined {
    const store = this.#tracked(storeId)
    return store.differing.cleanBytes(range.offset, wholeLength(range, [store]))
  }

  /** What an operation that leaves does to the maps (law 3). */
  leave(operation: Operation, sequence = 0): void {
    switch (operation.kind) {
      case 'create-volume':
        this.add(operation.storeId, operation.sizeBytes)
        return
      case 'create-snapshots':
        for (const { storeId, sourceId } of operation.snapshots) {
          const source = this.#tracked(sourceId)
          become(this.add(storeId, source.sizeBytes), source)
        }
        return
      case 'delete':
        this.#tracked(operation.storeId)
        this.#remove(operation.storeId)
        return
      case 'resize': {
        const store = this.#tracked(operation.storeId)
        store.sizeBytes = operation.sizeBytes
        store.dirty.cut(operation.sizeBytes)
        store.suspects.cut(operation.sizeBytes)
        store.differing.cut(operation.sizeBytes)
        return
      }
      case 'copy':
        this.#copy(operation, sequence)
        return
      case 'batch':
        for (const one of operation.operations) this.leave(one, sequence)
        return
      case 'rename':
      case 'new-generation':
      case 'reset':
      case 'resync-end':
      case 'mark':
      case 'freeze':
      case 'thaw':
        return
      default:
        unreachable(operation)
    }
  }

  #copy(copy: Extract<Operation, { kind: 'copy' }>, sequence: number): void {
    const source = this.#tracked(copy.sourceId)
    const target = this.#tracked(copy.targetId)
    const { range } = copy
    target.copiedSequence = sequence
    if (range === undefined) {
      target.sizeBytes = source.sizeBytes
      become(target, source)
      return
    }
    const lengthBytes = wholeLength(range, [source, target])
    target.dirty.copyRange(source.dirty, range.offset, lengthBytes)
    target.suspects.copyRange(source.suspects, range.offset, lengthBytes)
    target.differing.copyRange(source.differing, range.offset, lengthBytes)
  }

  #tracked(storeId: StoreId): TrackedStore {
    const store = this.#stores.get(storeId)
    assert(store, `store ${storeId} is tracked`)
    return store
  }

  #remove(storeId: StoreId): void {
    const store = this.#stores.get(storeId)
    store?.dirty.clear()
    store?.suspects.clear()
    store?.differing.clear()
    this.#stores.delete(storeId)
  }
}

/** False for what leaves every map as it is. */
export function changesMaps({ kind }: Operation): boolean {
  return !mapless.has(kind)
}

const mapless: ReadonlySet<Operation['kind']> = new Set([
  'rename',
  'new-generation',
  'reset',
  'resync-end',
  'mark',
  'freeze',
  'thaw',
])

/** Bytes of the store that are dirty, or set in another of its maps: the last block may reach behind its end. */
export function dirtyBytesOf(store: TrackedStore, map: DirtyMap = store.dirty): number {
  const tailBytes = store.sizeBytes % blockBytes
  const isTailDirty = tailBytes > 0 && map.isDirty(Math.floor(store.sizeBytes / blockBytes))
  return map.dirtyBlockCount * blockBytes - (isTailDirty ? blockBytes - tailBytes : 0)
}

/** As `nextDirtyIn`, of what is dirty or was found to differ: one run may follow right behind another. */
export function nextDifferentIn(
  store: TrackedStore,
  fromOffset: number,
  lengthBytesMax: number,
): { readonly offset: number; readonly lengthBytes: number } | undefined {
  const dirty = nextDirtyIn(store, fromOffset, lengthBytesMax)
  if (store.differing.dirtyBlockCount === 0) return dirty
  const found = nextDirtyIn(store, fromOffset, lengthBytesMax, store.differing)
  if (dirty === undefined || found === undefined) return dirty ?? found
  return found.offset < dirty.offset ? found : dirty
}

/** The next run of dirty bytes that ends behind `fromOffset`, from `fromOffset` at the earliest, in whole blocks (the last one is cut at the store's end); at most `lengthBytesMax`. */
export function nextDirtyIn(
  store: TrackedStore,
  fromOffset: number,
  lengthBytesMax: number,
  map: DirtyMap = store.dirty,
): { readonly offset: number; readonly lengthBytes: number } | undefined {
  const from = Math.floor(fromOffset / blockBytes)
  // The first block may begin before `fromOffset`.
  const blockCountMax = Math.ceil(lengthBytesMax / blockBytes) + 1
  const run = map.nextRun(from, Math.ceil(store.sizeBytes / blockBytes), blockCountMax)
  if (run === undefined) return undefined
  const offset = Math.max(fromOffset, run.first * blockBytes)
  const end = Math.min(run.end * blockBytes, store.sizeBytes)
  return offset < end ? { offset, lengthBytes: Math.min(end - offset, lengthBytesMax) } : undefined
}

function become(target: TrackedStore, source: TrackedStore): void {
  target.dirty.become(source.dirty)
  target.suspects.become(source.suspects)
  target.differing.become(source.differing)
}

/** The smallest run with both. */
function hullOf(one: BlockRun | undefined, other: BlockRun | undefined): BlockRun | undefined {
  if (one === undefined || other === undefined) return one ?? other
  return { first: Math.min(one.first, other.first), end: Math.max(one.end, other.end) }
}

/** The length of a range, with the rest of its last block when there is nothing of the stores behind the range. */
function wholeLength(range: ByteRange, stores: readonly TrackedStore[]): number {
  const end = range.offset + range.lengthBytes
  if (stores.some((store) => store.sizeBytes !== end)) return range.lengthBytes
  return Math.ceil(end / blockBytes) * blockBytes - range.offset
}

/** Marks every chunk that has a place; pages of the chunk map that are full, at once. */
function markAllocated(tracked: TrackedStore, store: Store, chunkBytes: number): void {
  const mark = (firstChunk: number, endChunk: number): void => {
    const offset = firstChunk * chunkBytes
    const end = Math.min(endChunk * chunkBytes, store.sizeBytes)
    if (offset < end) tracked.dirty.markBytes(offset, end - offset)
  }
  for (const [pageIndex, page] of store.map.pages) {
    const base = pageIndex * pageEntryCount
    if (page.usedCount === pageEntryCount) {
      mark(base, base + pageEntryCount)
      continue
    }
    for (let first = 0; first < pageEntryCount; first++) {
      if (page.entries[first] === 0) continue
      let end = first + 1
      while (end < pageEntryCount && page.entries[end] !== 0) end++
      mark(base + first, base + end)
      first = end
    }
  }
}
