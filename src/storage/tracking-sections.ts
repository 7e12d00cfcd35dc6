// What a checkpoint keeps of tracking: dirty maps with their shared pages once, active extents, operations that wait. ON-DISK.md, "Checkpoint".
//
//   5 tracking    JSON: isLost, the stores with their sizes, and how many of everything follow
//   6 dirty pages repeated: u32 count, count × u32 words (zeroes at the end left out). Numbered from 0 in the file's order
//   7 dirty map   u32 store id, u32 0 dirty, 1 suspects or 2 differing, then repeated: u32 page index, u32 page number (2^32-1: all bits set)
//   8 active      repeated: u32 store id, u32 first extent, u32 count
//   9 operations  JSON: [["pending" or "lacked", event], …]
import type { LockstepError } from '../core/errors.js'
import { MiB, type StoreId } from '../core/units.js'
import { type ActiveItem, ActiveSet } from './active-set.js'
import type { OperationEvent } from './apply-operation.js'
import { damaged } from './corrupt.js'
import { type DirtyMap, DirtyPage, dirtyPageWordCount, fullDirtyPage } from './dirty-map.js'
import type { PeerState } from './group-state.js'
import type { TrackedStore } from './tracked-stores.js'
import { Tracking } from './tracking.js'

export const TrackingType = { TRACKING: 5, PAGES: 6, MAP: 7, ACTIVE: 8, OPERATIONS: 9 } as const

const sectionBytesGoal = MiB
const fullPageNumber = 0xffffffff
const activeBytes = 12

type FrozenMap = { readonly storeId: StoreId; readonly which: number; readonly map: DirtyMap }
type LoggedOperation = readonly ['pending' | 'lacked', OperationEvent]
type ActiveRun = Pick<ActiveItem, 'storeId' | 'first' | 'end'>

/** What the peer may not have, as recovery finds it. */
export type TrackingState = { readonly tracking: Tracking; readonly active: ActiveSet }

/** Tracking at one instant. */
export type FrozenTracking = {
  readonly isLost: boolean
  /** There are maps of what verify found to differ. */
  readonly hasDiffering: boolean
  readonly sizes: readonly (readonly [StoreId, number])[]
  readonly maps: readonly FrozenMap[]
  readonly active: readonly ActiveRun[]
  readonly operations: readonly LoggedOperation[]
}

export type TrackingSection = { readonly type: number; readonly body: readonly Buffer[] }

/** Tracking as it is now; it goes on changing, and `thawTracking` lets go of what the view shares. */
export function freezeTracking(tracking: Tracking, active: readonly ActiveRun[]): FrozenTracking {
  const maps: FrozenMap[] = []
  const sizes: [StoreId, number][] = []
  for (const [storeId, store] of tracking.stores) {
    sizes.push([storeId, store.sizeBytes])
    for (const [which, map] of mapsOf(store).entries())
      if (map.dirtyBlockCount > 0) maps.push({ storeId, which, map: map.share() })
  }
  const operations = [
    ...tracking.pending.map((event) => ['pending', event] as const),
    ...tracking.opLog.map((event) => ['lacked', event] as const),
  ]
  const hasDiffering = maps.some(({ which }) => which === differingMap)
  return { isLost: tracking.isLost, hasDiffering, sizes, maps, active, operations }
}

export function thawTracking(frozen: FrozenTracking): void {
  for (const { map } of frozen.maps) map.clear()
}

/** The sections, in the order in which they are read. */
export function* trackingSections(frozen: FrozenTracking): Generator<TrackingSection> {
  const numbers = new Map<DirtyPage, number>([[fullDirtyPage, fullPageNumber]])
  const pages: DirtyPage[] = []
  for (const { map } of frozen.maps) {
    for (const page of map.pages.values()) {
      if (numbers.has(page)) continue
      numbers.set(page, pages.length)
      pages.push(page)
    }
  }
  const { isLost, sizes, active, operations } = frozen
  const counts = {
    pageCount: pages.length,
    mapCount: frozen.maps.length,
    activeCount: active.length,
    operationCount: operations.length,
  }
  const head = { isLost, sizes, ...counts }
  yield { type: TrackingType.TRACKING, body: [Buffer.from(JSON.stringify(head))] }
  for (const body of inPieces(pages.map(encodePage))) yield { type: TrackingType.PAGES, body }
  for (const { storeId, which, map } of frozen.maps) {
    // 65,536 pages are 8 TiB: a larger store has several sections.
    const entries = [...map.pages].map(([index, page]) => words(index, numbers.get(page) as number))
    for (let from = 0; from < entries.length; from += 65536)
      yield {
        type: TrackingType.MAP,
        body: [words(storeId, which), ...entries.slice(from, from + 65536)],
      }
  }
  const runs = active.map(({ storeId, first, end }) => words(storeId, first, end - first))
  for (const body of inPieces(runs)) yield { type: TrackingType.ACTIVE, body }
  const events = operations.map((operation) => Buffer.from(JSON.stringify(operation)))
  for (const body of inPieces(events)) {
    const separated = body.flatMap((one, index) => [Buffer.from(index === 0 ? '[' : ','), one])
    yield { type: TrackingType.OPERATIONS, body: [...separated, Buffer.from(']')] }
  }
}

/** Takes a checkpoint's sections, and has the tracking that they describe. Throws CORRUPT. */
export class TrackingReader {
  readonly tracking: Tracking
  readonly active = new ActiveSet()
  readonly #pages: DirtyPage[] = []
  readonly #held = new Set<DirtyPage>()
  readonly #maps = new Set<DirtyMap>()
  #activeCount = 0
  #operationCount = 0
  #expected: readonly number[] = [0, 0, 0, 0]

  constructor(peer: PeerState) {
    this.tracking = new Tracking(peer)
  }

  /** False when the section is none of tracking's. */
  take(type: number, body: Buffer): boolean {
    if (type === TrackingType.TRACKING) this.#takeHead(body)
    else if (type === TrackingType.PAGES) this.#takePages(body)
    else if (type === TrackingType.MAP) this.#takeMap(body)
    else if (type === TrackingType.ACTIVE) this.#takeActive(body)
    else if (type === TrackingType.OPERATIONS) this.#takeOperations(body)
    else return false
    return true
  }

  /** All sections are there. */
  finish(): void {
    const found = [this.#pages.length, this.#maps.size, this.#activeCount, this.#operationCount]
    if (found.some((count, index) => count !== this.#expected[index]))
      throw corrupt('what it says of the peer is not all there')
  }

  #takeHead(body: Buffer): void {
    const head = JSON.parse(body.toString()) as {
      readonly isLost: boolean
      readonly sizes: readonly (readonly [StoreId, number])[]
      readonly pageCount: number
      readonly mapCount: number
      readonly activeCount: number
      readonly operationCount: number
    }
    this.#expected = [head.pageCount, head.mapCount, head.activeCount, head.operationCount]
    for (const [storeId, sizeBytes] of head.sizes) this.tracking.restoreStore(storeId, sizeBytes)
    if (!head.isLost) this.tracking.restored()
  }

  #takePages(body: Buffer): void {
    for (let at = 0; at + 4 <= body.length; ) {
      const count = body.readUInt32LE(at)
      at += 4
      if (count > dirtyPageWordCount || at + count * 4 > body.length)
        throw corrupt('a dirty page is cut')
      const found = new Uint32Array(dirtyPageWordCount)
      // A copy aligned to four bytes: the body may lie anywhere in the window.
      new Uint8Array(found.buffer).set(body.subarray(at, at + count * 4))
      this.#pages.push(new DirtyPage(found, bitCountOf(found)))
      at += count * 4
    }
  }

  #takeMap(body: Buffer): void {
    if (body.length % 8 !== 0 || body.length < 8) throw corrupt('a dirty map is cut')
    const store = this.tracking.stores.get(body.readUInt32LE(0) as StoreId)
    if (store === undefined) throw corrupt('a dirty map belongs to no store')
    const map = mapsOf(store)[body.readUInt32LE(4)]
    if (map === undefined) throw corrupt('there is a dirty map of an unknown kind')
    this.#maps.add(map)
    for (let at = 8; at < body.length; at += 8) {
      const number = body.readUInt32LE(at + 4)
      const page = number === fullPageNumber ? fullDirtyPage : this.#pages[number]
      if (page === undefined) throw corrupt('a dirty map names a page that is not there')
      if (this.#held.has(page)) page.holders++
      this.#held.add(page)
      map.adopt(body.readUInt32LE(at), page)
    }
  }

  #takeActive(body: Buffer): void {
    if (body.length % activeBytes !== 0) throw corrupt('an active extent is cut')
    for (let at = 0; at < body.length; at += activeBytes) {
      const first = body.readUInt32LE(at + 4)
      const run = { first, end: first + body.readUInt32LE(at + 8) }
      this.active.add(body.readUInt32LE(at) as StoreId, run, 'active')
      this.#activeCount++
    }
  }

  #takeOperations(body: Buffer): void {
    for (const [log, event] of JSON.parse(body.toString()) as readonly LoggedOperation[]) {
      this.tracking.restoreOperation(event, log === 'pending')
      this.#operationCount++
    }
  }
}

const differingMap = 2

/** By their numbers in a section. */
function mapsOf({ dirty, suspects, differing }: TrackedStore): readonly DirtyMap[] {
  return [dirty, suspects, differing]
}

function encodePage(page: DirtyPage): Buffer {
  let count = page.words.length
  while (count > 0 && page.words[count - 1] === 0) count--
  return words(count, ...page.words.subarray(0, count))
}

function words(...values: readonly number[]): Buffer {
  return Buffer.from(Uint32Array.from(values).buffer)
}

function* inPieces(parts: readonly Buffer[]): Generator<readonly Buffer[]> {
  let piece: Buffer[] = []
  let lengthBytes = 0
  for (const part of parts) {
    piece.push(part)
    lengthBytes += part.length
    if (lengthBytes < sectionBytesGoal) continue
    yield piece
    piece = []
    lengthBytes = 0
  }
  if (piece.length > 0) yield piece
}

function bitCountOf(found: Uint32Array): number {
  let count = 0
  for (const word of found)
    for (let rest = word; rest !== 0; rest = (rest & (rest - 1)) >>> 0) count++
  return count
}

function corrupt(what: string): LockstepError {
  return damaged(`the checkpoint is damaged: ${what}`)
}
