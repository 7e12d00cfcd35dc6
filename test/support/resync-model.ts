// Two nodes as arrays of numbers, one a block, with the chunks that stores share: what a resync is planned from and what it has to bring about.
// Everything goes over in order, through a queue, as through the outbox; whatever leaves it is had, or lacked when the queue is dropped.
import assert from 'node:assert/strict'
import { blockBytes, type StoreId } from '../../src/core/units.js'
import type { ResyncItem, ResyncStore, ResyncView } from '../../src/replication/resync-plan.js'

export const blocksPerChunk = 4
export const modelChunkBytes = blocksPerChunk * blockBytes

/** One node's stores: chunk places, and what is at each place. */
class Side {
  readonly maps = new Map<number, number[]>()
  readonly #contents = new Map<number, number[]>()
  #nextPlace = 1

  get(store: number, block: number): number {
    const place = this.place(store, Math.floor(block / blocksPerChunk))
    return place === 0 ? 0 : (this.#contents.get(place)?.[block % blocksPerChunk] ?? 0)
  }

  place(store: number, chunk: number): number {
    return this.maps.get(store)?.[chunk] ?? 0
  }

  set(store: number, block: number, value: number): void {
    const chunk = Math.floor(block / blocksPerChunk)
    const map = this.#map(store)
    const before = map[chunk] ?? 0
    const isShared = [...this.maps].some(([id, other]) => id !== store && other[chunk] === before)
    if (before === 0 || isShared) {
      this.#contents.set(this.#nextPlace, [...(this.#contents.get(before) ?? [0, 0, 0, 0])])
      map[chunk] = this.#nextPlace++
    }
    const content = this.#contents.get(map[chunk] ?? 0)
    assert(content)
    content[block % blocksPerChunk] = value
  }

  /** Whole chunks become holes. */
  zero(store: number, first: number, end: number): void {
    for (let block = first; block < end; block++) {
      const chunk = Math.floor(block / blocksPerChunk)
      const isWhole = first <= chunk * blocksPerChunk && end >= (chunk + 1) * blocksPerChunk
      if (isWhole) this.#map(store)[chunk] = 0
      else if (this.place(store, chunk) !== 0) this.set(store, block, 0)
    }
  }

  /** Whole chunks are shared. */
  copy(source: number, target: number, firstChunk: number, endChunk: number): void {
    for (let chunk = firstChunk; chunk < endChunk; chunk++)
      this.#map(target)[chunk] = this.place(source, chunk)
  }

  #map(store: number): number[] {
    const map = this.maps.get(store) ?? []
    this.maps.set(store, map)
    return map
  }
}

type Queued = {
  readonly isOperation: boolean
  readonly onPeer: () => void
  readonly had: () => void
  readonly lacked: () => void
  readonly settle: () => void
}

export class ResyncModel implements ResyncView {
  readonly chunkBytes = modelChunkBytes
  readonly here = new Side()
  readonly peer = new Side()
  readonly dirty = new Map<number, Set<number>>()
  readonly suspects = new Set<string>()
  /** Blocks of whole chunks that went over, by the place they were at here. */
  readonly sent: string[] = []
  #stores: readonly ResyncStore[] = []
  #queue: Queued[] = []
  #nextId = 1

  stores(): readonly ResyncStore[] {
    return this.#stores
  }

  get queuedCount(): number {
    return this.#queue.length
  }

  dirtyBlocks(): number {
    let count = 0
    for (const { id } of this.#stores) count += this.#dirtyOf(id).size
    return count
  }

  nextDirty(
    storeId: StoreId,
    fromOffset: number,
    lengthBytesMax: number,
  ): { readonly offset: number; readonly lengthBytes: number } | undefined {
    const blocks = [...this.#dirtyOf(storeId)].filter((one) => (one + 1) * blockBytes > fromOffset)
    if (blocks.length === 0) return undefined
    const first = Math.min(...blocks)
    let end = first
    while (this.#dirtyOf(storeId).has(end)) end++
    const offset = Math.max(first * blockBytes, fromOffset)
    return { offset, lengthBytes: Math.min(end * blockBytes - offset, lengthBytesMax) }
  }

  isDirty(storeId: StoreId, offset: number, lengthBytes: number): boolean {
    return [...this.#dirtyOf(storeId)].some(
      (block) => block * blockBytes < offset + lengthBytes && (block + 1) * blockBytes > offset,
    )
  }

  isSuspect(storeId: StoreId, offset: number): boolean {
    return this.suspects.has(`${storeId}:${Math.floor(offset / blockBytes)}`)
  }

  place(storeId: StoreId, chunk: number): number {
    return this.here.place(storeId, chunk)
  }

  holeEnd(storeId: StoreId, chunk: number, end: number): number {
    let at = chunk
    while (at < end && this.place(storeId, at) === 0) at++
    return at
  }

  addVolume(blockCount: number): number {
    return this.#operation(this.#add(blockCount, true), () => {})
  }

  snapshot(source: number): number {
    const store = this.#find(source)
    const id = this.#add(store.sizeBytes / blockBytes, false)
    return this.#operation(
      id,
      (side) => side.copy(source, id, 0, chunksOf(store)),
      () => {
        this.dirty.set(id, new Set(this.#dirtyOf(source)))
        for (let block = 0; block < store.sizeBytes / blockBytes; block++)
          if (this.suspects.has(`${source}:${block}`)) this.suspects.add(`${id}:${block}`)
      },
    )
  }

  /** The target becomes the source, its size included. */
  restore(source: number, target: number): void {
    const store = this.#find(source)
    this.#change(target, { sizeBytes: store.sizeBytes })
    const count = Math.max(chunksOf(store), this.here.maps.get(target)?.length ?? 0)
    this.#operation(
      target,
      (side) => side.copy(source, target, 0, count),
      () => {
        this.dirty.set(target, new Set(this.#dirtyOf(source)))
      },
    )
  }

  resize(target: number, blockCount: number): void {
    const before = this.#find(target).sizeBytes / blockBytes
    this.#change(target, { sizeBytes: blockCount * blockBytes })
    const end = Math.ceil(before / blocksPerChunk) * blocksPerChunk
    this.#operation(
      target,
      (side) => side.zero(target, blockCount, end),
      () => {
        const dirty = this.#dirtyOf(target)
        for (const block of [...dirty]) if (block >= blockCount) dirty.delete(block)
      },
    )
  }

  remove(id: number): void {
    this.#stores = this.#stores.filter((store) => store.id !== id)
    this.#operation(
      id,
      (side) => side.maps.delete(id),
      () => this.dirty.delete(id),
    )
  }

  /** A client's write (or zeroes) into the stream. */
  write(store: number, first: number, end: number, value: number): void {
    const change = (side: Side): void => {
      if (value === 0) side.zero(store, first, end)
      else for (let block = first; block < end; block++) side.set(store, block, value)
    }
    change(this.here)
    this.#enqueue({
      isOperation: false,
      onPeer: () => change(this.peer),
      had: () => this.#clean(store, first, end),
      lacked: () => this.#mark(store, first, end),
      settle: () => {},
    })
  }

  /** Blocks that may differ, for a reason outside the stream. `isSuspect`: a crash. */
  doubt(store: number, first: number, end: number, isSuspect: boolean): void {
    this.#mark(store, first, end)
    if (!isSuspect) return
    for (let block = first; block < end; block++) this.suspects.add(`${store}:${block}`)
  }

  submit(item: ResyncItem, settle: () => void = () => {}): void {
    if (item.kind === 'share') {
      for (const copy of item.copies) this.#submitShare(copy)
      this.whenEmpty(settle)
      return
    }
    const first = item.offset / blockBytes
    const end = (item.offset + item.lengthBytes) / blockBytes
    const values: number[] = []
    for (let block = first; block < end; block++) values.push(this.here.get(item.storeId, block))
    if (item.kind === 'compare') {
      this.#submitCompare(item.storeId, first, values, settle)
      return
    }
    if (item.kind === 'zero') assert(values.every((value) => value === 0))
    else this.#note(item.storeId, first, end)
    this.#enqueue({
      isOperation: false,
      onPeer: () => {
        if (item.kind === 'zero')
          this.peer.zero(item.storeId, first, wholeEnd(end, item, this.#stores))
        else
          for (const [at, value] of values.entries()) this.peer.set(item.storeId, first + at, value)
      },
      had: () => this.#clean(item.storeId, first, end),
      lacked: () => this.#mark(item.storeId, first, end),
      settle,
    })
  }

  /** The oldest entries leave as had. */
  deliver(count: number): void {
    for (const entry of this.#queue.splice(0, count)) {
      entry.onPeer()
      entry.had()
      entry.settle()
    }
  }

  /** Behind everything that is in the queue now. */
  whenEmpty(settle: () => void): void {
    this.#enqueue({ isOperation: false, onPeer: () => {}, had: () => {}, lacked: () => {}, settle })
  }

  /** The link is lost: everything leaves as lacked, and the peer performs the op log when it is back. */
  lose(): void {
    const queue = this.#queue.splice(0)
    for (const entry of queue) entry.lacked()
    for (const entry of queue) if (entry.isOperation) entry.onPeer()
  }

  /** Law 2, once the queue is empty: equal outside the dirty map. */
  check(): void {
    for (const { id, sizeBytes } of this.#stores)
      for (let block = 0; block < sizeBytes / blockBytes; block++)
        if (!this.#dirtyOf(id).has(block))
          assert.equal(this.peer.get(id, block), this.here.get(id, block), `${id}, block ${block}`)
  }

  /** The peer uses no more chunks: who shares one here shares it there, and holes are holes. Last chunks of stores of different sizes are nobody's promise. */
  checkSharing(): void {
    for (const one of this.#stores)
      for (const other of this.#stores)
        for (let chunk = 0; chunk < chunksOf(one); chunk++) {
          const isTail = (chunk + 1) * modelChunkBytes > Math.min(one.sizeBytes, other.sizeBytes)
          if (isTail && one.sizeBytes !== other.sizeBytes) continue
          const place = this.here.place(one.id, chunk)
          if (place !== this.here.place(other.id, chunk)) continue
          const there = this.peer.place(one.id, chunk)
          assert.equal(
            this.peer.place(other.id, chunk),
            there,
            `${chunk} of ${one.id}, ${other.id}`,
          )
          if (place === 0) assert.equal(there, 0)
        }
  }

  #submitShare(copy: Extract<ResyncItem, { kind: 'share' }>['copies'][number]): void {
    const { sourceId, targetId, range } = copy
    const rangeEnd = range.offset + range.lengthBytes
    const { sizeBytes } = this.#find(sourceId)
    // Parts of chunks would be copied, not shared.
    assert(rangeEnd % modelChunkBytes === 0 || rangeEnd === sizeBytes)
    assert(rangeEnd % modelChunkBytes === 0 || rangeEnd === this.#find(targetId).sizeBytes)
    const first = range.offset / modelChunkBytes
    const end = Math.ceil((range.offset + range.lengthBytes) / modelChunkBytes)
    for (let chunk = first; chunk < end; chunk++)
      assert.equal(this.here.place(sourceId, chunk), this.here.place(targetId, chunk))
    this.#operation(
      targetId,
      (side) => side.copy(sourceId, targetId, first, end),
      () => {
        const firstBlock = first * blocksPerChunk
        for (let block = firstBlock; block < end * blocksPerChunk; block++)
          if (this.#dirtyOf(sourceId).has(block)) this.#dirtyOf(targetId).add(block)
          else this.#dirtyOf(targetId).delete(block)
      },
    )
  }

  #note(storeId: StoreId, first: number, end: number): void {
    const { sizeBytes } = this.#find(storeId)
    for (let block = first; block < end; block++) {
      const chunk = Math.floor(block / blocksPerChunk)
      if ((chunk + 1) * modelChunkBytes > sizeBytes) continue
      this.sent.push(`${this.here.place(storeId, chunk)}:${block}`)
    }
  }

  #submitCompare(store: number, first: number, values: number[], settle: () => void): void {
    const equal: number[] = []
    this.#enqueue({
      isOperation: false,
      onPeer: () => {
        for (const [at, value] of values.entries())
          if (this.peer.get(store, first + at) === value) equal.push(first + at)
      },
      had: () => {
        for (const block of equal) this.#clean(store, block, block + 1)
        for (const at of values.keys()) this.suspects.delete(`${store}:${first + at}`)
      },
      lacked: () => {},
      settle,
    })
  }

  #operation(id: number, change: (side: Side) => void, algebra: () => void = () => {}): number {
    change(this.here)
    this.#enqueue({
      isOperation: true,
      onPeer: () => change(this.peer),
      had: algebra,
      lacked: algebra,
      settle: () => {},
    })
    return id
  }

  #enqueue(entry: Queued): void {
    this.#queue.push(entry)
  }

  #add(blockCount: number, isVolume: boolean): number {
    const id = this.#nextId++
    const sizeBytes = blockCount * blockBytes
    this.#stores = [...this.#stores, { id: id as StoreId, sizeBytes, isVolume }]
    return id
  }

  #change(id: number, change: { readonly sizeBytes: number }): void {
    this.#stores = this.#stores.map((store) => (store.id === id ? { ...store, ...change } : store))
  }

  #find(id: number): ResyncStore {
    const store = this.#stores.find((one) => one.id === id)
    assert(store)
    return store
  }

  #dirtyOf(id: number): Set<number> {
    const dirty = this.dirty.get(id) ?? new Set<number>()
    this.dirty.set(id, dirty)
    return dirty
  }

  #mark(store: number, first: number, end: number): void {
    for (let block = first; block < end; block++) this.#dirtyOf(store).add(block)
  }

  #clean(store: number, first: number, end: number): void {
    for (let block = first; block < end; block++) this.#dirtyOf(store).delete(block)
  }
}

/** Zeroes up to the end of a store zero its last chunk as a whole. */
function wholeEnd(
  end: number,
  item: { readonly storeId: StoreId },
  stores: readonly ResyncStore[],
): number {
  const store = stores.find((one) => one.id === item.storeId)
  return store !== undefined && end * blockBytes === store.sizeBytes
    ? chunksOf(store) * blocksPerChunk
    : end
}

function chunksOf(store: ResyncStore): number {
  return Math.ceil(store.sizeBytes / modelChunkBytes)
}
