// Makes extents active before anything is written in them, and inactive again when nothing in flight refers to them, because there are many, or nobody has used them for long: the waiting
// around the active set.
//
// Who waits for whom: a change waits until its extents are durably active (`hold`); activations of one turn share one journal batch. When the set is full, it
// waits for room, in order: items without references leave, least recently used first, some dozens with one commit, because the record that ends an item
// may only be in a batch that comes after a sync of its data. When everything is referenced, it waits for `drop`.
// Invariants: an item is referenced from `hold` to `drop`, and from an operation that made it stand for another store's writes until that operation leaves;
// only items without references leave; whoever needs an item that is leaving waits until it is gone.
import type { Clock, Timer } from '../core/clock.js'
import { LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import type { Operation } from '../core/operation.js'
import { extentBytes, type StoreId } from '../core/units.js'
import {
  type ActiveItem,
  type ActiveSet,
  blocksOf,
  type ExtentRun,
  isLongRun,
} from './active-set.js'
import { recordBytes, runRecordBytes } from './records.js'

/** What the set needs of the journal. */
export interface ActiveJournal {
  /** Adds records to the next batch that makes extents active. */
  active(item: ActiveItem): void
  /** Resolves when the `active` records so far are durable. Rejects with FAILED_STOP. */
  activate(): Promise<void>
  /** Adds records to the next commit. */
  inactive(item: ActiveItem): void
  commit(): Promise<void>
  /** True when there is room for so many more bytes of records. */
  hasRoom(lengthBytes: number): boolean
  /** Makes room as far as possible: a checkpoint. */
  reclaim(): Promise<void>
  /** False while the journal does not tell all that has left the outbox: then the set may only grow. */
  mayEnd(): boolean
  /** Blocks of the item are dirty because a crash came while they were active, and nobody has compared them yet: another crash would take them for different. */
  isSuspect(item: ActiveItem): boolean
}

type Request = {
  readonly storeId: StoreId
  readonly run: ExtentRun
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

export type ActiveExtentsOptions = {
  readonly set: ActiveSet
  readonly journal: ActiveJournal
  readonly clock: Clock
  readonly itemsMax?: number
  readonly itemsPerEviction?: number
  readonly idleMs?: number
  /** Everything is referred to by changes in flight, and somebody waits: only changes that leave make room. */
  readonly onFull: () => void
  /** Switchable bug: an extent counts as active before its record is durable. */
  readonly skipsActivation?: boolean
  /** Switchable bug: an extent becomes inactive although changes in flight refer to it. */
  readonly ignoresReferences?: boolean
}

export class ActiveExtents {
  readonly #set: ActiveSet
  readonly #journal: ActiveJournal
  readonly #itemsMax: number
  readonly #itemsPerEviction: number
  readonly #clock: Clock
  readonly #idleMs: number
  readonly #onFull: () => void
  readonly #skipsActivation: boolean
  readonly #ignoresReferences: boolean
  readonly #waiting: Request[] = []
  /** Items that operations in the outbox keep, by their sequence. */
  readonly #derived = new Map<number, readonly ActiveItem[]>()
  #evicting: Promise<void> | undefined
  #reclaiming: Promise<void> | undefined
  #useCount = 0
  #sweepTimer: Timer | undefined
  /** Uses up to here were there when the last sweep came. */
  #useCountAtSweep = 0
  #heldRecordBytes = 0
  #isClosed = false
  /** The journal has failed: no extent becomes active any more. */
  #failure: Error | undefined

  constructor(options: ActiveExtentsOptions) {
    this.#set = options.set
    this.#journal = options.journal
    this.#itemsMax = options.itemsMax ?? limits.activeExtentsMax
    this.#itemsPerEviction = options.itemsPerEviction ?? limits.activeExtentsPerEviction
    this.#clock = options.clock
    this.#idleMs = options.idleMs ?? limits.activeExtentIdleMs
    this.#onFull = options.onFull
    this.#skipsActivation = options.skipsActivation ?? false
    this.#ignoresReferences = options.ignoresReferences ?? false
  }

  /** Bytes of records that the changes in flight which hold references may need yet: that their blocks are dirty. */
  get heldRecordBytes(): number {
    return this.#heldRecordBytes
  }

  get waitingCount(): number {
    return this.#waiting.length
  }

  /** Takes a reference on each extent of the range; undefined when all are durably active. A rejection (ENOSPC, FAILED_STOP) takes none. */
  hold(storeId: StoreId, offset: number, lengthBytes: number): Promise<void> | undefined {
    const extent = Math.floor(offset / extentBytes)
    // Nobody overtakes those who wait: entries leave the outbox in order, and one behind would keep the extent that one before it waits for.
    const mayTake = this.#waiting.length === 0
    if (mayTake && offset + lengthBytes <= (extent + 1) * extentBytes) {
      const item = this.#set.get(storeId, extent)
      if (item?.state === 'active') {
        this.#refer(item)
        this.#heldRecordBytes += recordBytes
        return undefined
      }
    }
    const run = { first: extent, end: Math.ceil((offset + lengthBytes) / extentBytes) }
    if (mayTake && this.#takeActive(storeId, run)) return undefined
    return new Promise((resolve, reject) => {
      this.#waiting.push({ storeId, run, resolve, reject })
      this.#pump()
    })
  }

  /** Gives back what `hold` took. The change has left the outbox, and is done here. */
  drop(storeId: StoreId, offset: number, lengthBytes: number): void {
    // Extents of a store that was deleted meanwhile are gone.
    const first = Math.floor(offset / extentBytes)
    if (offset + lengthBytes <= (first + 1) * extentBytes) {
      this.#heldRecordBytes = Math.max(0, this.#heldRecordBytes - recordBytes)
      const item = this.#set.get(storeId, first)
      if (item !== undefined && item.references > 0) item.references--
    } else {
      const run = { first, end: Math.ceil((offset + lengthBytes) / extentBytes) }
      this.#heldRecordBytes = Math.max(0, this.#heldRecordBytes - dirtyRecordBytes(run))
      for (const item of this.#itemsOf(storeId, run)) if (item.references > 0) item.references--
    }
    if (this.#waiting.length > 0) this.#pump()
  }

  /** An operation is performed. What it makes active keeps a reference until it has left. */
  performed(sequence: number, operation: Operation): void {
    const derived: ActiveItem[] = []
    this.#set.perform(operation, (item) => {
      this.#refer(item)
      derived.push(item)
    })
    if (derived.length > 0) this.#derived.set(sequence, derived)
    this.#sweepLater()
  }

  operationLeft(sequence: number): void {
    const derived = this.#derived.get(sequence)
    if (derived === undefined) return
    this.#derived.delete(sequence)
    for (const item of derived) item.references--
    if (this.#waiting.length > 0) this.#pump()
  }

  /** What a checkpoint must hold: everything but what has its end in the records taken so far. In a clean stop only what is still referred to. */
  describe(options: { readonly isClean: boolean }): readonly ActiveItem[] {
    return [...this.#set.items()].filter(
      (item) => item.state !== 'leaving' && (!options.isClean || item.references > 0),
    )
  }

  /** What was active when the node ended is dirty now: before that it must not leave. */
  recovered(): void {
    this.#sweepLater()
  }

  /** What may end has changed: `mayEnd`, or room in the journal. */
  resume(): void {
    this.#pump()
  }

  /** The journal has failed: what was leaving never leaves, what was queued never becomes active, and nobody may wait for either. */
  failed(error: Error): void {
    this.#failure = error
    this.stop()
    this.#fail(error)
  }

  /** No extent becomes inactive by itself any more. */
  stop(): void {
    this.#sweepTimer?.cancel()
    this.#sweepTimer = undefined
  }

  /** Tracking ends: whoever waits goes on. */
  close(): void {
    this.#isClosed = true
    this.stop()
    this.#set.clear()
    for (const request of this.#waiting.splice(0)) request.resolve()
  }

  #refer(item: ActiveItem): void {
    item.references++
    item.lastUse = ++this.#useCount
  }

  /** The items of a run that are there. */
  #itemsOf(storeId: StoreId, run: ExtentRun): readonly ActiveItem[] {
    const items: ActiveItem[] = []
    if (isLongRun(run)) {
      const item = this.#set.getLong(storeId, run)
      return item === undefined ? items : [item]
    }
    for (let extent = run.first; extent < run.end; extent++) {
      const item = this.#set.get(storeId, extent)
      if (item !== undefined) items.push(item)
    }
    return items
  }

  #takeActive(storeId: StoreId, run: ExtentRun): boolean {
    const items = this.#itemsOf(storeId, run)
    const count = isLongRun(run) ? 1 : run.end - run.first
    if (items.length < count || items.some((item) => item.state !== 'active')) return false
    for (const item of items) this.#refer(item)
    this.#heldRecordBytes += dirtyRecordBytes(run)
    return true
  }

  /** Admits those who wait, in order, as long as there is room. */
  #pump(): void {
    while (!this.#isClosed && this.#reclaiming === undefined) {
      const head = this.#waiting[0]
      if (head === undefined) return
      if (this.#failure !== undefined) {
        this.#fail(this.#failure)
        return
      }
      const items = this.#itemsOf(head.storeId, head.run)
      if (items.some((item) => item.state === 'leaving')) return
      const missingCount = (isLongRun(head.run) ? 1 : head.run.end - head.run.first) - items.length
      const itemCount = this.#set.itemCount + missingCount
      // An empty set takes anything, so that no bound is too small for a request.
      if (missingCount > 0 && itemCount > this.#itemsMax && this.#set.itemCount > 0) {
        this.#evict()
        return
      }
      const activeBytes = (missingCount + items.length) * recordBytes
      if (!this.#journal.hasRoom(activeBytes + dirtyRecordBytes(head.run))) {
        this.#reclaim()
        return
      }
      this.#waiting.shift()
      this.#admit(head)
      // Room is made before it is missing: the next one need not wait for a commit.
      if (itemCount > this.#itemsMax - this.#itemsPerEviction) this.#evict()
    }
  }

  #admit(request: Request): void {
    const items: ActiveItem[] = []
    this.#set.add(request.storeId, request.run, 'queued', (item, isNew) => {
      // A derived one needs a record of its own: the operation's may not be durable yet.
      if (isNew || item.state === 'derived') {
        item.state = 'queued'
        this.#journal.active(item)
      }
      this.#refer(item)
      items.push(item)
    })
    this.#heldRecordBytes += dirtyRecordBytes(request.run)
    this.#sweepLater()
    const done = (): void => {
      for (const item of items) if (item.state === 'queued') item.state = 'active'
      request.resolve()
    }
    if (this.#skipsActivation || items.every((item) => item.state === 'active')) {
      done()
      return
    }
    this.#journal.activate().then(done, (error: Error) => {
      for (const item of items) item.references--
      this.#heldRecordBytes -= dirtyRecordBytes(request.run)
      request.reject(error)
      this.failed(error)
    })
  }

  #evict(): void {
    if (this.#evicting !== undefined || !this.#journal.mayEnd()) return
    const leaving = this.#unused()
      .sort((a, b) => a.lastUse - b.lastUse)
      .slice(0, this.#itemsPerEviction)
    if (leaving.length === 0) {
      if (this.#waiting.length > 0) this.#onFull()
      return
    }
    if (!this.#journal.hasRoom(leaving.length * recordBytes)) {
      this.#reclaim()
      return
    }
    this.#end(leaving)
  }

  /** While there are items: those that nobody has used since the sweep before become inactive. */
  #sweepLater(): void {
    if (this.#sweepTimer !== undefined || this.#set.itemCount === 0) return
    if (this.#isClosed || this.#failure !== undefined) return
    this.#sweepTimer = this.#clock.setTimer(this.#idleMs, () => {
      this.#sweepTimer = undefined
      this.#sweep()
      this.#sweepLater()
    })
  }

  #sweep(): void {
    const useCountBefore = this.#useCountAtSweep
    this.#useCountAtSweep = this.#useCount
    if (this.#evicting !== undefined || this.#reclaiming !== undefined) return
    if (!this.#journal.mayEnd()) return
    const idle = this.#unused().filter(
      (item) => item.lastUse <= useCountBefore && !this.#journal.isSuspect(item),
    )
    // Nobody waits for it: the room that others need when the journal fills up is not for this.
    const { journalReserveBytes } = limits
    let count = idle.length
    while (count > 0 && !this.#journal.hasRoom(count * recordBytes + journalReserveBytes))
      count >>>= 1
    if (count > 0) this.#end(idle.slice(0, count))
  }

  /** Nothing in flight refers to them. */
  #unused(): ActiveItem[] {
    return [...this.#set.items()].filter(
      (item) =>
        (item.references === 0 || this.#ignoresReferences) &&
        (item.state === 'active' || item.state === 'derived'),
    )
  }

  #end(leaving: readonly ActiveItem[]): void {
    for (const item of leaving) {
      item.state = 'leaving'
      this.#journal.inactive(item)
    }
    this.#evicting = this.#journal.commit().then(
      () => {
        for (const item of leaving) this.#set.remove(item)
        this.#evicting = undefined
        this.#pump()
      },
      (error: Error) => this.failed(error),
    )
  }

  /** The journal is full: once more after a checkpoint, and then those who need a record are refused. */
  #reclaim(): void {
    this.#reclaiming ??= this.#journal
      .reclaim()
      .then(
        () => {
          const [head] = this.#waiting
          const dirtyBytes = head === undefined ? 0 : dirtyRecordBytes(head.run)
          const activeBytes = limits.activeExtentsPerItemMax * recordBytes
          if (!this.#journal.hasRoom(activeBytes + dirtyBytes)) this.#refuse(noRoom())
        },
        (error: Error) => this.#fail(error),
      )
      .then(() => {
        this.#reclaiming = undefined
        this.#pump()
      })
  }

  #fail(error: Error): void {
    if (!(error instanceof LockstepError)) throw error
    this.#refuse(error)
  }

  #refuse(error: Error): void {
    for (const request of this.#waiting.splice(0)) request.reject(error)
  }
}

/** What a change needs when its blocks become dirty: one record, unless it is very long. */
function dirtyRecordBytes(run: ExtentRun): number {
  return isLongRun(run) ? runRecordBytes(blocksOf(run)) : recordBytes
}

function noRoom(): LockstepError {
  return new LockstepError(
    'NO_SPACE',
    'the journal has no room to note what is being written',
    'make room in the file system of the data directory',
  )
}
