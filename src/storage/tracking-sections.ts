// What a checkpoint keeps of tracking: dirty maps with their shared pages once, active extents, operations that wait. ON-DISK.md, "Checkpoint".
//
//   5 tracking    JSON: isLost, the stores with their sizes, and how many of everything follow
//   6 dirty pages repeated: u32 count, count × u32 words (zeroes at the end left out). Numbered from 0 in the file's order
//   7 dirty map   u32 store id, u32 0 dirty, 1 suspects or 2 differing, then repeated: u32 page index, u32 page number (2^32-1: all bits set)
//   8 active      repeated: u32 store id, u32 first extent, u32 count
//   9 operations  JSON: [["pending" or "lacked", event], …]
//  10 full pages  u32 store id, u32 as in 7, then repeated: u32 first page index, u32 count of pages whose bits are all set. Of a map with more than 8 TiB dirty, beside its others in 7
import type { LockstepError } from '../core/errors.js'
import { blockBytes, MiB, type StoreId } from '../core/units.js'
import { type ActiveItem, ActiveSet } from './active-set.js'
import type { OperationEvent } from './apply-operation.js'
import { damaged } from './corrupt.js'
import type { DirtyMap } from './dirty-map.js'
import { DirtyPage, dirtyPageBlockCount, dirtyPageWordCount, fullDirtyPage } from './dirty-page.js'
import type { PeerState } from './group-state.js'
import type { TrackedStore } from './tracked-stores.js'
import { Tracking } from './tracking.js'

export const TrackingType = {
  TRACKING: 5,
  PAGES: 6,
  MAP: 7,
  ACTIVE: 8,
  OPERATIONS: 9,
  FULL_PAGES: 10,
} as const

const sectionBytesGoal = MiB
const fullPageNumber = 0xffffffff
/** Full pages one by one are 8 bytes each, and every version reads them: up to half a MiB of a map. More of them would be in proportion to the store's size. */
const listedBlocksMax = 65536 * dirtyPageBlockCount
const storePageCountMax = 2 ** 53 / (dirtyPageBlockCount * blockBytes)
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
  /** There are maps whose full pages are written as runs. */
  readonly hasFullRuns: boolean
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
  const hasFullRuns = maps.some(({ map }) => hasLongRuns(map))
  return { isLost: tracking.isLost, hasDiffering, hasFullRuns, sizes, maps, active, operations }
}

export function thawTracking(frozen: FrozenTracking): void {
  for (const { map } of frozen.maps) map.clear()
}

/** The sections, in the order in which they are read. */
export function* trackingSections(frozen: FrozenTracking): Generator<TrackingSection> {
  const numbers = numbersOf(frozen.maps)
  const { isLost, sizes, active, operations } = frozen
  const counts = {
    pageCount: numbers.size,
    mapCount: frozen.maps.length,
    activeCount: active.length,
    operationCount: operations.length,
  }
  const entryCount = frozen.hasFullRuns ? { entryCount: entryCountOf(frozen.maps) } : {}
  const head = { isLost, sizes, ...counts, ...entryCount }
  yield { type: TrackingType.TRACKING, body: [Buffer.from(JSON.stringify(head))] }
  for (const body of inPieces(encodedPages(numbers.keys())))
    yield { type: TrackingType.PAGES, body }
  for (const one of frozen.maps) yield* mapSections(one, numbers)
  const runs = active.map(({ storeId, first, end }) => words(storeId, first, end - first))
  for (const body of inPieces(runs)) yield { type: TrackingType.ACTIVE, body }
  const events = operations.map((operation) => Buffer.from(JSON.stringify(operation)))
  for (const body of inPieces(events)) {
    const separated = body.flatMap((one, index) => [Buffer.from(index === 0 ? '[' : ','), one])
    yield { type: TrackingType.OPERATIONS, body: [...separated, Buffer.from(']')] }
  }
}

/** Pages that are not full, by their numbers, in the order in which they are written. */
function numbersOf(maps: readonly FrozenMap[]): ReadonlyMap<DirtyPage, number> {
  const numbers = new Map<DirtyPage, number>()
  for (const { map } of maps)
    for (const { page } of map.pageRuns())
      if (page !== fullDirtyPage && !numbers.has(page)) numbers.set(page, numbers.size)
  return numbers
}

/** At least one. */
function* mapSections(
  { storeId, which, map }: FrozenMap,
  numbers: ReadonlyMap<DirtyPage, number>,
): Generator<TrackingSection> {
  const head = words(storeId, which)
  const isListed = !hasLongRuns(map)
  for (const body of inPieces(pageEntries(map, numbers, { isListed })))
    yield { type: TrackingType.MAP, body: [head, ...body] }
  if (isListed) return
  for (const body of inPieces(fullRuns(map)))
    yield { type: TrackingType.FULL_PAGES, body: [head, ...body] }
}

/** `isListed`: the full ones too, each for itself. */
function* pageEntries(
  map: DirtyMap,
  numbers: ReadonlyMap<DirtyPage, number>,
  { isListed }: { readonly isListed: boolean },
): Generator<Buffer> {
  for (const { first, end, page } of map.pageRuns()) {
    if (page !== fullDirtyPage) yield words(first, numbers.get(page) as number)
    else if (isListed)
      for (let index = first; index < end; index++) yield words(index, fullPageNumber)
  }
}

function* fullRuns(map: DirtyMap): Generator<Buffer> {
  for (const { first, end, page } of map.pageRuns())
    if (page === fullDirtyPage) yield words(first, end - first)
}

/** Of the sections of maps: one of them may be of two types then. */
function entryCountOf(maps: readonly FrozenMap[]): number {
  let count = 0
  for (const { map } of maps) {
    const isListed = !hasLongRuns(map)
    for (const { first, end } of map.pageRuns()) count += isListed ? end - first : 1
  }
  return count
}

function hasLongRuns(map: DirtyMap): boolean {
  return map.dirtyBlockCount > listedBlocksMax
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
  #entryCount = 0
  #expected: readonly number[] = [0, 0, 0, 0]
  #entryCountExpected: number | undefined

  constructor(peer: PeerState) {
    this.tracking = new Tracking(peer)
  }

  /** False when the section is none of tracking's. */
  take(type: number, body: Buffer): boolean {
    if (type === TrackingType.TRACKING) this.#takeHead(body)
    else if (type === TrackingType.PAGES) this.#takePages(body)
    else if (type === TrackingType.MAP) this.#takeMap(body)
    else if (type === TrackingType.FULL_PAGES) this.#takeFullPages(body)
    else if (type === TrackingType.ACTIVE) this.#takeActive(body)
    else if (type === TrackingType.OPERATIONS) this.#takeOperations(body)
    else return false
    return true
  }

  /** All sections are there. */
  finish(): void {
    const found = [this.#pages.length, this.#maps.size, this.#activeCount, this.#operationCount]
    const isCut = this.#entryCount !== (this.#entryCountExpected ?? this.#entryCount)
    if (isCut || found.some((count, index) => count !== this.#expected[index]))
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
      readonly entryCount?: number
    }
    this.#expected = [head.pageCount, head.mapCount, head.activeCount, head.operationCount]
    this.#entryCountExpected = head.entryCount
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
      this.#pages.push(pageOf(found))
      at += count * 4
    }
  }

  #takeMap(body: Buffer): void {
    const map = this.#mapOf(body)
    for (let at = 8; at < body.length; at += 8) {
      const number = body.readUInt32LE(at + 4)
      const page = number === fullPageNumber ? fullDirtyPage : this.#pages[number]
      if (page === undefined) throw corrupt('a dirty map names a page that is not there')
      const index = body.readUInt32LE(at)
      if (index >= storePageCountMax) throw pagesBehindEnd()
      if (this.#held.has(page)) page.holders++
      this.#held.add(page)
      map.adopt(index, page)
    }
  }

  #takeFullPages(body: Buffer): void {
    const map = this.#mapOf(body)
    for (let at = 8; at < body.length; at += 8) {
      const first = body.readUInt32LE(at)
      const end = first + body.readUInt32LE(at + 4)
      if (end > storePageCountMax) throw pagesBehindEnd()
      map.markBlocks(first * dirtyPageBlockCount, end * dirtyPageBlockCount)
    }
  }

  /** Of a section that begins with a store and a kind of map; entries of 8 bytes follow. */
  #mapOf(body: Buffer): DirtyMap {
    if (body.length % 8 !== 0 || body.length < 8) throw corrupt('a dirty map is cut')
    const store = this.tracking.stores.get(body.readUInt32LE(0) as StoreId)
    if (store === undefined) throw corrupt('a dirty map belongs to no store')
    const map = mapsOf(store)[body.readUInt32LE(4)]
    if (map === undefined) throw corrupt('there is a dirty map of an unknown kind')
    this.#maps.add(map)
    this.#entryCount += body.length / 8 - 1
    return map
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

function* encodedPages(pages: Iterable<DirtyPage>): Generator<Buffer> {
  for (const page of pages) {
    let count = page.words.length
    while (count > 0 && page.words[count - 1] === 0) count--
    yield words(count, ...page.words.subarray(0, count))
  }
}

function words(...values: readonly number[]): Buffer {
  return Buffer.from(Uint32Array.from(values).buffer)
}

function* inPieces(parts: Iterable<Buffer>): Generator<readonly Buffer[]> {
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

function pageOf(found: Uint32Array): DirtyPage {
  const page = new DirtyPage(found, 0)
  page.setCount = page.countIn(0, dirtyPageBlockCount)
  return page.setCount === dirtyPageBlockCount ? fullDirtyPage : page
}

function pagesBehindEnd(): LockstepError {
  return corrupt('a dirty map has pages behind the largest store')
}

function corrupt(what: string): LockstepError {
  return damaged(`the checkpoint is damaged: ${what}`)
}
