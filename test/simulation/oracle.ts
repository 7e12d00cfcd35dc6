// The judge: it knows every write and operation, what was acknowledged and what was flushed, and says whether the contents of
// all stores are a legal outcome.
//
// Legal after a crash: there is a number of operations to be performed, in order, that includes every acknowledged one and every
// one before a durable write; and for each 512-byte sector of each write that nobody flushed one answer to "did it happen", the
// same for every store that an operation carried the sector to; and from these follow exactly the stores and bytes found.
//
// Operations copy between equal offsets only, so each column (one sector number, over all stores) is judged by itself: the set
// of its possible contents is carried through the history.
import assert from 'node:assert/strict'
import type { OperationRequest } from '../../src/core/operation.js'
import { Catalog, type Effect, Refusal } from './model-catalog.js'
import {
  type ColumnEvent,
  columnStates,
  describeColumn,
  isMatch,
  type StoreContent,
} from './oracle-column.js'
import { sectorBytes } from './sim-file.js'
import { taggedBytes } from './tags.js'

export type WriteEntry = {
  readonly kind: 'write'
  readonly index: number
  readonly storeId: number
  readonly offset: number
  readonly end: number
  /** Undefined: zeroes. */
  readonly data: Buffer | undefined
  readonly fua: boolean
  /** `failed`: each sector old or new for ever. `refused`: changed nothing. */
  state: 'issued' | 'acknowledged' | 'failed' | 'refused'
  isDurable: boolean
}

export type OperationEntry = {
  readonly kind: 'operation'
  readonly index: number
  readonly request: OperationRequest
  /** What the model expects. */
  readonly expected: 'performed' | Refusal
  readonly effects: readonly Effect[]
  /** `failed`: it may have taken effect, and a restart may find it, as long as nothing became durable after it. */
  state: 'issued' | 'acknowledged' | 'failed' | 'refused'
  /** Index of the first entry that was issued after the failure. */
  failedBefore: number
}
export type Entry = WriteEntry | OperationEntry

/** The writes that a flush covers. */
export type FlushMark = { readonly issuedAt: number; readonly writes: readonly WriteEntry[] }

export type StoreImage = { readonly name: string; readonly bytes: Buffer }

/** `crash`: what nobody flushed may be lost. `live`: what was acknowledged is there. */
export type Judgement = 'crash' | 'live'

/** Ids of an entry's new stores start here. */
const idsPerEntry = 512

/** The first so many operations that are candidates were performed, without those that had no effect. */
type Outcome = { readonly performed: number; readonly refused: ReadonlySet<Entry> }

/** With more that failed only all or none are tried. */
const failedMax = 5
const problemsMax = 12

export class Oracle {
  #base: readonly StoreContent[] = []
  #entries: Entry[] = []
  #nextIndex: number
  /** With every operation that was not refused performed. */
  #catalog: Catalog
  /** Differs after everything that changes what is legal. */
  changeCount = 0

  /** What it is told first gets `firstIndex`: data of an earlier history looks like none of this one. */
  constructor(chunkBytes = 4096, firstIndex = 1) {
    this.#catalog = new Catalog([], chunkBytes)
    this.#nextIndex = firstIndex
  }

  get entries(): readonly Entry[] {
    return this.#entries
  }

  get catalog(): Catalog {
    return this.#catalog
  }

  /** The same knowledge, going its own way from here on. */
  fork(): Oracle {
    const copy = new Oracle()
    copy.#base = this.#base
    copy.#entries = this.#entries.map((entry) => ({ ...entry }))
    copy.#nextIndex = this.#nextIndex
    copy.#catalog = this.#catalog.clone()
    return copy
  }

  write(options: {
    readonly storeId: number
    readonly offset: number
    readonly lengthBytes: number
    readonly fua: boolean
    readonly zero: boolean
  }): WriteEntry {
    const index = this.#nextIndex++
    const entry: WriteEntry = {
      kind: 'write',
      index,
      storeId: options.storeId,
      offset: options.offset,
      end: options.offset + options.lengthBytes,
      data: options.zero ? undefined : taggedBytes(index, options.offset, options.lengthBytes),
      fua: options.fua,
      state: 'issued',
      isDurable: false,
    }
    this.#entries.push(entry)
    this.changeCount++
    return entry
  }

  settleWrite(entry: WriteEntry, state: 'acknowledged' | 'failed' | 'refused'): void {
    assert.equal(entry.state, 'issued')
    entry.state = state
    entry.isDurable = state === 'acknowledged' && entry.fua
    if (entry.isDurable) this.#excludeFailed(entry.index)
    this.changeCount++
  }

  /** A flush of one store: it covers the writes whose replies were sent before. */
  flush(storeId: number): FlushMark {
    const writes = this.#entries.filter(
      (entry) =>
        entry.kind === 'write' && entry.storeId === storeId && entry.state === 'acknowledged',
    ) as WriteEntry[]
    return { issuedAt: this.#nextIndex, writes }
  }

  acknowledgeFlush(mark: FlushMark): void {
    for (const entry of mark.writes) entry.isDurable = true
    this.#excludeFailed(mark.issuedAt)
    this.changeCount++
  }

  operation(request: OperationRequest): OperationEntry {
    const index = this.#nextIndex++
    let expected: OperationEntry['expected'] = 'performed'
    let effects: readonly Effect[] = []
    try {
      effects = this.#catalog.perform(request, index * idsPerEntry)
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      expected = error
    }
    const entry: OperationEntry = {
      kind: 'operation',
      index,
      request,
      expected,
      effects,
      state: 'issued',
      failedBefore: 0,
    }
    this.#entries.push(entry)
    this.changeCount++
    return entry
  }

  /** `isVisible`: a failed one shows all the same. */
  settleOperation(
    entry: OperationEntry,
    state: 'acknowledged' | 'failed' | 'refused',
    isVisible = false,
  ): void {
    assert.equal(entry.state, 'issued')
    entry.state = state
    this.changeCount++
    // One more: a flush that was asked for before the failure has the index of then, and proves nothing.
    if (state === 'failed') this.#nextIndex++
    entry.failedBefore = this.#nextIndex
    if (state === 'acknowledged') {
      assert.equal(entry.expected, 'performed')
      this.#excludeFailed(entry.index)
    } else if (entry.expected === 'performed' && !isVisible) this.#catalog = this.#catalogWithout()
  }

  /** From here on these are the contents, durable and certain. */
  rebase(images: readonly StoreImage[], catalog: Catalog): void {
    this.#base = [...catalog.stores.values()].map((store) => {
      const image = images.find(({ name }) => name === catalog.fullName(store))
      assert(image)
      return { store, bytes: Buffer.from(image.bytes) }
    })
    this.#catalog = catalog.clone()
    this.#entries = []
    this.changeCount++
  }

  /** The catalog that explains `images`, or a description of why nothing does. */
  judge(images: readonly StoreImage[], judgement: Judgement): Catalog | string {
    const problems: string[] = []
    for (const refused of this.#refusals()) {
      const { first, last } = this.#prefixes(refused)
      for (let performed = last; performed >= first; performed--) {
        const found = this.#judgeWith(images, judgement, { performed, refused })
        if (typeof found !== 'string') return found
        const without = refused.size === 0 ? '' : `, ${refused.size} failed ones not among them`
        problems.push(`with ${performed} operations${without}: ${found}`)
      }
    }
    return problems.slice(0, problemsMax).join('\n')
  }

  /** Which of the failed operations had no effect: each by itself, whatever took effect behind it. */
  #refusals(): readonly ReadonlySet<OperationEntry>[] {
    const failed = this.#entries.filter(
      (entry): entry is OperationEntry => entry.kind === 'operation' && entry.state === 'failed',
    )
    if (failed.length > failedMax) return [new Set(), new Set(failed)]
    return Array.from(
      { length: 2 ** failed.length },
      (_, choice) => new Set(failed.filter((_, index) => (choice >> index) & 1)),
    )
  }

  /** The history, in words: for messages. */
  describe(): string {
    return this.#entries.map((entry) => this.#describeEntry(entry)).join('\n')
  }

  /** Something issued after the failure of an operation is durable: the operation never happened. */
  #excludeFailed(issuedAt: number): void {
    for (const entry of this.#entries) {
      if (entry.kind !== 'operation' || entry.state !== 'failed') continue
      if (entry.failedBefore <= issuedAt) entry.state = 'refused'
    }
  }

  #describeEntry(entry: Entry): string {
    if (entry.kind === 'operation') {
      return `  ${entry.index} ${JSON.stringify(entry.request)} ${entry.state}`
    }
    const what = entry.data ? 'write' : 'zero'
    const durable = entry.isDurable ? ', durable' : ''
    const range = `${entry.offset}..${entry.end}`
    return `  ${entry.index} ${what} store ${entry.storeId} ${range} ${entry.state}${durable}`
  }

  /** How many of the operations that were not refused can have been performed. */
  #prefixes(refused: ReadonlySet<Entry>): { first: number; last: number } {
    let count = 0
    let first = 0
    for (const entry of this.#entries) {
      if (entry.kind === 'write') {
        if (entry.isDurable) first = count
        continue
      }
      if (!isCandidate(entry) || refused.has(entry)) continue
      count++
      if (entry.state === 'acknowledged') first = count
    }
    return { first, last: count }
  }

  #baseCatalog(): Catalog {
    const stores = this.#base.map(({ store }) => store)
    return new Catalog(stores, this.#catalog.chunkBytes)
  }

  #catalogWithout(): Catalog {
    const catalog = this.#baseCatalog()
    for (const entry of this.#entries) {
      if (entry.kind !== 'operation' || entry.expected !== 'performed') continue
      if (entry.state !== 'issued' && entry.state !== 'acknowledged') continue
      catalog.perform(entry.request, entry.index * idsPerEntry)
    }
    return catalog
  }

  #judgeWith(
    images: readonly StoreImage[],
    judgement: Judgement,
    outcome: Outcome,
  ): Catalog | string {
    const catalog = this.#baseCatalog()
    const events = this.#events(catalog, judgement, outcome)
    if (events === undefined) return 'one of them cannot be performed without one that failed'
    const names = images.map(({ name }) => name).sort()
    if (names.join() !== catalog.names().join()) {
      return `stores are ${names.join()}, not ${catalog.names().join()}`
    }
    const found = [...catalog.stores.values()].map((store) => {
      const image = images.find(({ name }) => name === catalog.fullName(store))
      assert(image)
      return { store, bytes: image.bytes }
    })
    let columns = 0
    for (const { store, bytes } of found) {
      if (bytes.length !== store.sizeBytes) {
        return `${catalog.fullName(store)} has ${bytes.length} bytes, not ${store.sizeBytes}`
      }
      columns = Math.max(columns, Math.ceil(bytes.length / sectorBytes))
    }
    for (let column = 0; column < columns; column++) {
      const states = columnStates(this.#base, events, column * sectorBytes)
      if (states.some((state) => isMatch(state, found, column * sectorBytes))) continue
      return describeColumn(states, found, column * sectorBytes)
    }
    return catalog
  }

  #events(
    catalog: Catalog,
    judgement: Judgement,
    { performed, refused }: Outcome,
  ): readonly ColumnEvent[] | undefined {
    const events: ColumnEvent[] = []
    let count = 0
    for (const entry of this.#entries) {
      if (entry.kind === 'write') {
        if (entry.state === 'refused') continue
        const isCertain = judgement === 'live' ? entry.state === 'acknowledged' : entry.isDurable
        events.push({ kind: 'write', entry, isCertain })
        continue
      }
      if (!isCandidate(entry) || refused.has(entry) || count === performed) continue
      count++
      const effects = performedBy(catalog, entry)
      // Of operations that failed each may have happened or not, but not every choice of them is possible: a range is restored that a lost resize had cut off.
      if (effects === undefined && this.#entries.some(isFailed)) return undefined
      assert(effects)
      for (const effect of effects) events.push({ kind: 'effect', effect })
    }
    return events
  }
}

/** Undefined when the model refuses it. */
function performedBy(catalog: Catalog, entry: OperationEntry): readonly Effect[] | undefined {
  try {
    return catalog.perform(entry.request, entry.index * idsPerEntry)
  } catch (error) {
    if (error instanceof Refusal) return undefined
    throw error
  }
}

function isFailed(entry: Entry): boolean {
  return entry.kind === 'operation' && entry.state === 'failed'
}

function isCandidate(entry: OperationEntry): boolean {
  return entry.state !== 'refused' && entry.expected === 'performed'
}
