// Which 4 MiB extents of which stores have writes that may not be durable on both nodes: the set as plain data, and what operations do to it.
//
// Invariant: an operation only ever adds to the set, and a deletion takes away the store's own: the journal may have an activation earlier than it happened
// (activations do not wait for operations that are on their way), and replayed in that order the set must not become smaller.

import { limits } from '../core/limits.js'
import type { Operation } from '../core/operation.js'
import { type ByteRange, blockBytes, extentBytes, type StoreId } from '../core/units.js'

/**
 * `queued`: its record is on the way. `active`: durably so. `derived`: an operation made it, and is perhaps not durable. `leaving`: the record that ends it is
 * on its way; whoever needs it waits.
 */
export type ActiveState = 'queued' | 'active' | 'derived' | 'leaving'

/** One extent, or a long run of them that was changed at once. */
export class ActiveItem {
  readonly storeId: StoreId
  readonly first: number
  readonly end: number
  state: ActiveState
  /** Changes in flight, and operations that derived it and have not left. */
  references = 0
  lastUse = 0

  constructor(storeId: StoreId, run: ExtentRun, state: ActiveState) {
    this.storeId = storeId
    this.first = run.first
    this.end = run.end
    this.state = state
  }

  get isLong(): boolean {
    return isLongRun(this)
  }
}

export type ExtentRun = { readonly first: number; readonly end: number }

export function isLongRun(run: ExtentRun): boolean {
  return run.end - run.first > limits.activeExtentsPerItemMax
}

/** Its blocks. */
export function blocksOf({ first, end }: ExtentRun): ExtentRun {
  return { first: first * blocksPerExtent, end: end * blocksPerExtent }
}

/** The extents that a range touches. */
export function extentsOf(range: ByteRange): ExtentRun {
  return {
    first: Math.floor(range.offset / extentBytes),
    end: Math.ceil((range.offset + range.lengthBytes) / extentBytes),
  }
}

const blocksPerExtent = extentBytes / blockBytes

type VisitItem = (item: ActiveItem, isNew: boolean) => void
type OfStore = { readonly extents: Map<number, ActiveItem>; readonly long: Map<string, ActiveItem> }

export class ActiveSet {
  readonly #stores = new Map<StoreId, OfStore>()
  #itemCount = 0
  /** Switchable bug: a snapshot begins with nothing active. */
  forgetsSnapshots = false

  get itemCount(): number {
    return this.#itemCount
  }

  get(storeId: StoreId, extent: number): ActiveItem | undefined {
    return this.#stores.get(storeId)?.extents.get(extent)
  }

  getLong(storeId: StoreId, run: ExtentRun): ActiveItem | undefined {
    return this.#stores.get(storeId)?.long.get(keyOf(run))
  }

  *items(): Generator<ActiveItem> {
    for (const { extents, long } of this.#stores.values()) {
      yield* extents.values()
      yield* long.values()
    }
  }

  /** Makes sure that the extents of a run are there: new items get `state`. Calls `visit` for each item of the run, new or not. */
  add(storeId: StoreId, run: ExtentRun, state: ActiveState, visit?: VisitItem): void {
    if (run.end <= run.first) return
    const { extents, long } = this.#ofStore(storeId)
    if (isLongRun(run)) {
      this.#addTo(long, keyOf(run), () => new ActiveItem(storeId, run, state), visit)
      return
    }
    for (let extent = run.first; extent < run.end; extent++) {
      const one = { first: extent, end: extent + 1 }
      this.#addTo(extents, extent, () => new ActiveItem(storeId, one, state), visit)
    }
  }

  /** The counterpart of `add`, for the record that ends items. */
  removeRun(storeId: StoreId, run: ExtentRun): void {
    const ofStore = this.#stores.get(storeId)
    if (ofStore === undefined) return
    if (isLongRun(run)) {
      if (ofStore.long.delete(keyOf(run))) this.#itemCount--
      return
    }
    for (let extent = run.first; extent < run.end; extent++)
      if (ofStore.extents.delete(extent)) this.#itemCount--
  }

  /** Takes the item away, unless another one has taken its place. */
  remove(item: ActiveItem): void {
    const { storeId } = item
    const present = item.isLong ? this.getLong(storeId, item) : this.get(storeId, item.first)
    if (present === item) this.removeRun(storeId, item)
  }

  removeStore(storeId: StoreId): void {
    const ofStore = this.#stores.get(storeId)
    if (ofStore === undefined) return
    this.#itemCount -= ofStore.extents.size + ofStore.long.size
    this.#stores.delete(storeId)
  }

  clear(): void {
    this.#stores.clear()
    this.#itemCount = 0
  }

  /** An operation is performed: what is active in a source is active in its target (law 3). Calls `visit` for each item that now stands for somebody else's writes. */
  perform(operation: Operation, visit?: VisitItem): void {
    switch (operation.kind) {
      case 'create-snapshots':
        if (this.forgetsSnapshots) return
        for (const { sourceId, storeId } of operation.snapshots)
          this.#derive(sourceId, storeId, undefined, visit)
        return
      case 'copy':
        this.#derive(operation.sourceId, operation.targetId, operation.range, visit)
        return
      case 'delete':
        this.removeStore(operation.storeId)
        return
      case 'batch':
        for (const one of operation.operations) this.perform(one, visit)
        return
      default:
        // Nothing else moves bytes. Extents behind the new end of a store stay: a record of theirs may come later.
        return
    }
  }

  #derive(
    sourceId: StoreId,
    targetId: StoreId,
    range: ByteRange | undefined,
    visit: VisitItem | undefined,
  ): void {
    const source = this.#stores.get(sourceId)
    if (source === undefined) return
    const within = range === undefined ? undefined : extentsOf(range)
    for (const item of [...source.extents.values(), ...source.long.values()]) {
      if (item.state === 'leaving') continue
      const first = Math.max(item.first, within?.first ?? 0)
      const end = Math.min(item.end, within?.end ?? item.end)
      this.add(targetId, { first, end }, 'derived', visit)
    }
  }

  #ofStore(storeId: StoreId): OfStore {
    const found = this.#stores.get(storeId)
    if (found !== undefined) return found
    const made = { extents: new Map<number, ActiveItem>(), long: new Map<string, ActiveItem>() }
    this.#stores.set(storeId, made)
    return made
  }

  #addTo<Key>(
    items: Map<Key, ActiveItem>,
    key: Key,
    make: () => ActiveItem,
    visit: VisitItem | undefined,
  ): void {
    const found = items.get(key)
    const isNew = found === undefined || found.state === 'leaving'
    const item = isNew ? make() : found
    if (found === undefined) this.#itemCount++
    if (isNew) items.set(key, item)
    visit?.(item, isNew)
  }
}

function keyOf(run: ExtentRun): string {
  return `${run.first}-${run.end}`
}
