// What the second node may hold: everything that was asked of the primary, in its order, since the two were last known to be equal.
//
// Law 4 as a check: there is a point between two barriers (flushes and operations) such that everything before it is there, any subset of the sectors
// written behind it and before the next barrier, and nothing else. What was promised to be on both nodes lies before that point, or in the subset.
//
// A crash of the primary begins a new era: what it lost may still be on the second node, until a resync brings that into the new era.
import assert from 'node:assert/strict'
import { Catalog, Refusal } from '../model-catalog.js'
import {
  type FlushMark,
  type OperationEntry,
  Oracle,
  type StoreImage,
  type WriteEntry,
} from '../oracle.js'
import {
  type ColumnEvent,
  columnStates,
  describeColumn,
  isMatch,
  type StoreContent,
} from '../oracle-column.js'
import { sectorBytes } from '../sim-file.js'

/** A flush is a barrier for what was answered before it was asked for. Where it stands among the writes that were under way then, nobody knows. */
type Flush = { readonly kind: 'flush'; readonly open: ReadonlySet<WriteEntry> }

type Item = WriteEntry | OperationEntry | Flush

type Era = { readonly base: readonly StoreContent[]; readonly items: Item[] }

/** Ids of an operation's new stores: as the oracle gives them. */
const idsPerEntry = 512

export class Timeline {
  readonly #chunkBytes: number
  #eras: Era[] = []
  readonly #promised = new Set<WriteEntry>()

  constructor(chunkBytes: number) {
    this.#chunkBytes = chunkBytes
    this.#eras = [{ base: [], items: [] }]
  }

  get itemCount(): number {
    return this.#eras.reduce((sum, era) => sum + era.items.length, 0)
  }

  add(item: Item): void {
    this.#eras.at(-1)?.items.push(item)
  }

  /** Must be on the second node's medium from now on, whatever happens to the primary. */
  promise(write: WriteEntry): void {
    this.#promised.add(write)
  }

  /** The primary goes on from these contents. */
  beginEra(images: readonly StoreImage[], catalog: Catalog): void {
    this.#eras.push({ base: contentsOf(images, catalog), items: [] })
  }

  /** Both nodes have these contents durably: what was before does not matter any more. */
  restart(images: readonly StoreImage[], catalog: Catalog): void {
    this.#eras = [{ base: contentsOf(images, catalog), items: [] }]
    this.#promised.clear()
  }

  /** Undefined when the images are legal, or why no point of the history explains them. */
  judge(images: readonly StoreImage[]): string | undefined {
    const problem = this.#judgeEras(images, true)
    const hasFailed = this.#eras.some(({ items }) => items.some(isFailedOperation))
    return problem !== undefined && hasFailed ? this.#judgeEras(images, false) : problem
  }

  /** What failed on the primary, when its journal did, may have happened or not. */
  #judgeEras(images: readonly StoreImage[], withFailed: boolean): string | undefined {
    const problems: string[] = []
    for (let index = this.#eras.length - 1; index >= 0; index--) {
      const era = this.#eras[index]
      assert(era)
      const items = withFailed ? era.items : era.items.filter((item) => !isFailedOperation(item))
      const epochs = epochsOf(items)
      for (let epoch = epochs.length - 1; epoch >= 0; epoch--) {
        const problem = this.#judgeEpoch(images, era, epochs, epoch)
        if (problem === undefined) return undefined
        problems.push(`era ${index}, barrier ${epoch}: ${problem}`)
        // Nothing that was promised may lie behind the point.
        if (epochs[epoch]?.some((item) => this.#isPromised(item))) return shortened(problems)
      }
    }
    return shortened(problems)
  }

  /** Whether aligned bytes at this place were ever there in some store since the two were last known to be equal, or are zeroes. */
  explains(offset: number, word: Buffer): boolean {
    if (word.every((byte) => byte === 0)) return true
    const end = offset + word.length
    return this.#eras.some(
      (era) =>
        era.base.some(({ bytes }) => bytes.subarray(offset, end).equals(word)) ||
        era.items.some((item) => mayLeave(item, offset, word)),
    )
  }

  /** The history in words: for messages. */
  describe(): string {
    const lines: string[] = []
    for (const [index, era] of this.#eras.entries()) {
      lines.push(`  era ${index}, from ${era.base.map(({ store }) => store.id).join()}`)
      for (const item of era.items) lines.push(`    ${this.#describeItem(item)}`)
    }
    return lines.slice(-120).join('\n')
  }

  #describeItem(item: Item): string {
    if (item.kind === 'flush') return 'flush'
    if (item.kind === 'operation') {
      return `${item.index} ${JSON.stringify(item.request)} ${item.state}`
    }
    const promised = this.#isPromised(item) ? ', promised' : ''
    const what = item.data ? 'write' : 'zero'
    return `${item.index} ${what} store ${item.storeId} ${item.offset}..${item.end} ${item.state}${promised}`
  }

  /** A write failed on the primary in this sector: what each node has of it, and of what was copied from there, may differ until it is copied again. */
  readonly #isUncertain = (offset: number): boolean =>
    this.#eras.some(({ items }) =>
      items.some(
        (item) =>
          item.kind === 'write' &&
          item.state === 'failed' &&
          item.offset < offset + sectorBytes &&
          item.end > offset,
      ),
    )

  #isPromised(item: Item): boolean {
    return item.kind === 'write' && this.#promised.has(item)
  }

  #judgeEpoch(
    images: readonly StoreImage[],
    era: Era,
    epochs: readonly (readonly Item[])[],
    last: number,
  ): string | undefined {
    const catalog = new Catalog(
      era.base.map(({ store }) => store),
      this.#chunkBytes,
    )
    const events: ColumnEvent[] = []
    const isOpen = openAt(epochs, last)
    for (let epoch = 0; epoch <= last; epoch++) {
      for (const item of epochs[epoch] ?? []) {
        if (item.kind === 'flush') continue
        if (item.kind === 'operation') {
          const effects = performed(catalog, item)
          if (effects === undefined) return `operation ${item.index} cannot be performed here`
          for (const effect of effects) events.push({ kind: 'effect', effect })
          continue
        }
        const isBefore = epoch < last && !isOpen(item, epoch)
        const isCertain = item.state !== 'failed' && (isBefore || this.#isPromised(item))
        events.push({ kind: 'write', entry: item, isCertain })
      }
    }
    return matchAll(era.base, events, images, catalog, this.#isUncertain)
  }
}

/** An oracle that also writes the timeline, and knows which answers promised that the second node has what they cover. */
export class RecordingOracle extends Oracle {
  readonly #timeline: Timeline
  readonly #tokens = new WeakMap<WriteEntry | FlushMark, number>()
  #operationsUnderWay = 0
  /** A number while an answer promises both media, the same one as long as nothing has come between; else undefined. */
  promiseToken: () => number | undefined = () => undefined
  /** Called when an answer has promised that the second node has what it covers. */
  onPromise: () => void = () => {}

  constructor(chunkBytes: number, timeline: Timeline, firstIndex?: number) {
    super(chunkBytes, firstIndex)
    this.#timeline = timeline
  }

  override write(options: Parameters<Oracle['write']>[0]): WriteEntry {
    const entry = super.write(options)
    this.#timeline.add(entry)
    if (entry.fua) this.#remember(entry)
    return entry
  }

  override settleWrite(entry: WriteEntry, state: Parameters<Oracle['settleWrite']>[1]): void {
    super.settleWrite(entry, state)
    if (entry.isDurable && this.#holds(entry)) this.#promise([entry])
  }

  override flush(storeId: number): FlushMark {
    const mark = super.flush(storeId)
    // It goes before operations that wait, and before writes that wait behind them: where it stands is not known then.
    if (this.#operationsUnderWay === 0) {
      const open = new Set<WriteEntry>()
      for (const entry of this.entries)
        if (entry.kind === 'write' && entry.state === 'issued') open.add(entry)
      this.#timeline.add({ kind: 'flush', open })
    }
    this.#remember(mark)
    return mark
  }

  override acknowledgeFlush(mark: FlushMark): void {
    super.acknowledgeFlush(mark)
    if (this.#holds(mark)) this.#promise(mark.writes)
  }

  override operation(request: OperationEntry['request']): OperationEntry {
    const entry = super.operation(request)
    this.#operationsUnderWay++
    if (entry.expected === 'performed') this.#timeline.add(entry)
    return entry
  }

  override settleOperation(...settled: Parameters<Oracle['settleOperation']>): void {
    this.#operationsUnderWay--
    super.settleOperation(...settled)
  }

  /** The primary is gone, and what it had under way with it. */
  primaryEnded(): void {
    this.#operationsUnderWay = 0
  }

  #promise(writes: readonly WriteEntry[]): void {
    for (const write of writes) this.#timeline.promise(write)
    if (writes.length > 0) this.onPromise()
  }

  #remember(key: WriteEntry | FlushMark): void {
    const token = this.promiseToken()
    if (token !== undefined) this.#tokens.set(key, token)
  }

  #holds(key: WriteEntry | FlushMark): boolean {
    const token = this.#tokens.get(key)
    return token !== undefined && token === this.promiseToken()
  }
}

/** Undefined when the model refuses it: one before it did not happen. */
function performed(catalog: Catalog, { request, index }: OperationEntry) {
  try {
    return catalog.perform(request, index * idsPerEntry)
  } catch (error) {
    if (error instanceof Refusal) return undefined
    throw error
  }
}

function isFailedOperation(item: Item): boolean {
  return item.kind === 'operation' && item.state === 'failed'
}

/** Whether a write leaves these bytes there, or a change covers a part of them only: then nobody knows. */
function mayLeave(item: Item, offset: number, word: Buffer): boolean {
  const end = offset + word.length
  if (item.kind === 'flush') return false
  if (item.kind === 'operation') return isOdd(item.request)
  if (item.offset >= end || item.end <= offset) return false
  if (item.offset > offset || item.end < end) return true
  return item.data?.subarray(offset - item.offset, end - item.offset).equals(word) === true
}

/** Copies of ranges that begin or end within a word. */
function isOdd(request: OperationEntry['request']): boolean {
  if (request.kind === 'batch') return request.operations.some(isOdd)
  if (!('range' in request) || request.range === undefined) return false
  return request.range.offset % 8 !== 0 || request.range.lengthBytes % 8 !== 0
}

/** The runs between barriers. An operation opens the run behind it; refused changes are none. */
function epochsOf(items: readonly Item[]): readonly (readonly Item[])[] {
  const epochs: Item[][] = [[]]
  for (const item of items) {
    if (item.kind !== 'flush' && item.state === 'refused') continue
    if (item.kind !== 'write') epochs.push([])
    epochs.at(-1)?.push(item)
  }
  return epochs
}

/** Which of the writes before the barrier that opens a run may stand behind it all the same. Every write before an operation is done before it. */
function openAt(
  epochs: readonly (readonly Item[])[],
  last: number,
): (write: WriteEntry, epoch: number) => boolean {
  const barrier = epochs[last]?.[0]
  if (barrier?.kind !== 'flush' || barrier.open.size === 0) return () => false
  let first = last
  while (first > 0 && epochs[first]?.[0]?.kind !== 'operation') first--
  return (write, epoch) => epoch >= first && barrier.open.has(write)
}

function contentsOf(images: readonly StoreImage[], catalog: Catalog): readonly StoreContent[] {
  return [...catalog.stores.values()].map((store) => {
    const image = images.find(({ name }) => name === catalog.fullName(store))
    assert(image)
    return { store, bytes: Buffer.from(image.bytes) }
  })
}

function matchAll(
  base: readonly StoreContent[],
  events: readonly ColumnEvent[],
  images: readonly StoreImage[],
  catalog: Catalog,
  isUncertain: (offset: number) => boolean,
): string | undefined {
  const names = images.map(({ name }) => name).sort()
  if (names.join() !== catalog.names().join()) {
    return `stores are ${names.join()}, not ${catalog.names().join()}`
  }
  const found: StoreContent[] = []
  let sizeMax = 0
  for (const { name, bytes } of images) {
    const store = catalog.find(name)
    assert(store)
    if (bytes.length !== store.sizeBytes) {
      return `${name} has ${bytes.length} bytes, not ${store.sizeBytes}`
    }
    found.push({ store, bytes })
    sizeMax = Math.max(sizeMax, bytes.length)
  }
  for (let offset = 0; offset < sizeMax; offset += sectorBytes) {
    if (isUncertain(offset)) continue
    const states = columnStates(base, events, offset)
    if (!states.some((state) => isMatch(state, found, offset))) {
      return describeColumn(states, found, offset)
    }
  }
  return undefined
}

/** The points nearest to the present, which are the likely ones. */
function shortened(problems: readonly string[]): string {
  return [...problems.slice(0, 6), `(${problems.length} points tried)`].join('\n')
}
