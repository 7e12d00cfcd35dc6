// The checkpoint file: the whole state at the end of one journal batch. Sections of a head with checksum and a body:
//
//   head: u32 magic "LSCP", u32 type, u32 body length, u32 CRC-32 of the first 12 bytes and the body. All little-endian.
//   1 state  JSON                                       2 pages  repeated: u32 count, count × u32 entries (trailing holes left out)
//   3 map    u32 store id, then repeated: u32 page index, u32 page number (pages count from 0 in the file's order)
//   5 to 10  what the peer may not have: tracking-sections.ts, right behind the state
//   4 end    JSON with the counts. A file without it is unfinished.
// Written to a new name, synced, renamed: the one with the final name is always whole. ON-DISK.md, "Checkpoint".
import assert from 'node:assert/strict'
import { crc32 } from 'node:zlib'
import type { Disk, DiskFile } from '../core/disk.js'
import { LockstepError } from '../core/errors.js'
import type { RunRecord, Sighting } from '../core/node-runs.js'
import type { GenerationRecord, StoreDescription } from '../core/operation.js'
import { MiB, type StoreId } from '../core/units.js'
import { ChunkMap, ChunkPage, type PageKeeper, pageEntryCount } from './chunk-map.js'
import { damaged } from './corrupt.js'
import { ReadWindow, writeFully } from './disk-io.js'
import {
  describeStore,
  firstLocalId,
  type GroupState,
  type PeerState,
  Store,
} from './group-state.js'
import {
  type FrozenTracking,
  TrackingReader,
  type TrackingState,
  trackingSections,
} from './tracking-sections.js'

export const checkpointName = 'checkpoint'
export const checkpointTemporaryName = 'checkpoint.tmp'
export const checkpointVersion = 2
/** Of one that says what verify found to differ: programs that do not know of that refuse it. */
const differingVersion = 3
/** Of one in which dirty pages are runs (section 10): the same, whatever verify found. */
const fullRunsVersion = 4

const headBytes = 16
const magic = 0x5043534c // "LSCP"
const sectionBytesMax = 8 * MiB
const sectionBytesGoal = MiB
const Type = { STATE: 1, PAGES: 2, MAP: 3, END: 4 } as const

/** What a checkpoint holds besides the maps. */
export type CheckpointState = {
  readonly version: number
  readonly nodeId: string
  readonly group: string
  readonly node: string
  readonly role: 'primary' | 'secondary'
  readonly isWhole: boolean
  readonly chunkBytes: number
  readonly dataName: string
  readonly journalSalt: string
  readonly generations: readonly GenerationRecord[]
  readonly sequence: number
  readonly nextStoreId: number
  readonly nextLocalId?: number
  readonly peer?: PeerState
  readonly runs?: readonly RunRecord[]
  readonly primarySeen?: Sighting
  /** The journal batch up to which the maps are complete. */
  readonly batchNumber: number
  /** True when the node stopped in order and wrote nothing after this. */
  readonly isClean: boolean
  readonly stores: readonly StoreDescription[]
}

/** The state at one instant, with what is needed to write it while it goes on changing. */
export type FrozenState = {
  readonly state: CheckpointState
  readonly maps: readonly {
    readonly storeId: StoreId
    readonly pages: readonly (readonly [number, ChunkPage])[]
  }[]
  /** The entries that a page had at that instant; called once a page. */
  readonly entriesOf: (page: ChunkPage) => Uint32Array
  /** There when the state has a peer. */
  readonly tracking?: FrozenTracking
}

export function describeState(
  state: GroupState,
  options: { readonly batchNumber: number; readonly isClean: boolean },
  tracking?: FrozenTracking,
): CheckpointState {
  const { stores: all, peer, primarySeen, ...plain } = state
  const stores = [...all.values()].map(describeStore)
  return {
    version: versionFor(tracking),
    ...plain,
    // A copy: the state goes on while this is written.
    ...(peer === undefined ? {} : { peer: { ...peer } }),
    ...(primarySeen === undefined ? {} : { primarySeen }),
    ...options,
    stores,
  }
}

/** The lowest that says all there is, so that an older program reads it where it can. */
function versionFor(tracking: FrozenTracking | undefined): number {
  if (tracking?.hasFullRuns === true) return fullRunsVersion
  return tracking?.hasDiffering === true ? differingVersion : checkpointVersion
}

/** Writes a checkpoint into an empty file, in pieces, and syncs it. The caller renames it. */
export async function writeCheckpoint(file: DiskFile, frozen: FrozenState): Promise<void> {
  let offset = 0
  const writeSection = async (type: number, body: readonly Buffer[]): Promise<void> => {
    const head = Buffer.alloc(headBytes)
    const lengthBytes = body.reduce((sum, part) => sum + part.length, 0)
    assert(lengthBytes <= sectionBytesMax)
    head.writeUInt32LE(magic, 0)
    head.writeUInt32LE(type, 4)
    head.writeUInt32LE(lengthBytes, 8)
    head.writeUInt32LE(
      body.reduce((crc, part) => crc32(part, crc), crc32(head.subarray(0, 12))),
      12,
    )
    await writeFully(file, [head, ...body], offset)
    offset += headBytes + lengthBytes
  }
  await writeSection(Type.STATE, [Buffer.from(JSON.stringify(frozen.state))])
  if (frozen.tracking !== undefined)
    for (const { type, body } of trackingSections(frozen.tracking)) await writeSection(type, body)
  const numbers = new Map<ChunkPage, number>()
  let body: Buffer[] = []
  let bodyBytes = 0
  for (const map of frozen.maps) {
    for (const [, page] of map.pages) {
      if (numbers.has(page)) continue
      numbers.set(page, numbers.size)
      const encoded = encodePage(frozen.entriesOf(page))
      body.push(encoded)
      bodyBytes += encoded.length
      if (bodyBytes < sectionBytesGoal) continue
      await writeSection(Type.PAGES, body)
      body = []
      bodyBytes = 0
    }
  }
  if (body.length > 0) await writeSection(Type.PAGES, body)
  let entryCount = 0
  for (const map of frozen.maps) {
    for (let from = 0; from < map.pages.length; from += 65536) {
      const pages = map.pages.slice(from, from + 65536)
      entryCount += pages.length
      await writeSection(Type.MAP, [encodeMap(map.storeId, pages, numbers)])
    }
  }
  await writeSection(Type.END, [
    Buffer.from(JSON.stringify({ pageCount: numbers.size, entryCount })),
  ])
  await file.sync()
}

function encodePage(entries: Uint32Array): Buffer {
  let count = entries.length
  while (count > 0 && entries[count - 1] === 0) count--
  const words = new Uint32Array(count + 1)
  words[0] = count
  words.set(entries.subarray(0, count), 1)
  return Buffer.from(words.buffer)
}

function encodeMap(
  storeId: number,
  pages: readonly (readonly [number, ChunkPage])[],
  numbers: ReadonlyMap<ChunkPage, number>,
): Buffer {
  const words = new Uint32Array(1 + pages.length * 2)
  words[0] = storeId
  for (const [index, [pageIndex, page]] of pages.entries()) {
    words[1 + index * 2] = pageIndex
    words[2 + index * 2] = numbers.get(page) as number
  }
  return Buffer.from(words.buffer)
}

export type LoadedCheckpoint = {
  readonly described: CheckpointState
  readonly state: GroupState
  /** There when the state has a peer. */
  readonly tracking: TrackingState | undefined
}

/** Reads a checkpoint: the state it describes, its stores and maps in it. Throws CORRUPT or WRONG_VERSION. */
export async function readCheckpoint(
  file: DiskFile,
  keeper: PageKeeper,
): Promise<LoadedCheckpoint> {
  const window = new ReadWindow(file, await file.sizeBytes())
  const pages: ChunkPage[] = []
  const held = new Set<ChunkPage>()
  let described: CheckpointState | undefined
  let state: GroupState | undefined
  let entryCount = 0
  let reader: TrackingReader | undefined
  for (let offset = 0; ; ) {
    const section = await readSection(window, offset)
    offset += headBytes + section.body.length
    if (section.type === Type.STATE) {
      described = parseState(section.body)
      state = restoreState(described, keeper)
      if (state.peer !== undefined) reader = new TrackingReader(state.peer)
    } else if (section.type === Type.PAGES) {
      decodePages(section.body, pages, keeper)
    } else if (section.type === Type.MAP && state !== undefined) {
      entryCount += decodeMap(section.body, state, pages, held)
    } else if (section.type === Type.END && state !== undefined && described !== undefined) {
      const counts = parseObject(section.body) as { pageCount: number; entryCount: number }
      if (counts.pageCount !== pages.length || counts.entryCount !== entryCount)
        throw corrupt('its counts do not agree')
      reader?.finish()
      return { described, state, tracking: reader }
    } else if (reader?.take(section.type, section.body) !== true)
      throw corrupt('its sections are out of order')
  }
}

async function readSection(
  window: ReadWindow,
  offset: number,
): Promise<{ readonly type: number; readonly body: Buffer }> {
  if (offset + headBytes > window.sizeBytes) throw corrupt('it ends too early')
  const head = Buffer.from(await window.get(offset, headBytes))
  if (head.readUInt32LE(0) !== magic) throw corrupt(`there is no section at byte ${offset}`)
  const lengthBytes = head.readUInt32LE(8)
  if (lengthBytes > sectionBytesMax || offset + headBytes + lengthBytes > window.sizeBytes)
    throw corrupt('it ends too early')
  const body = await window.get(offset + headBytes, lengthBytes)
  if (crc32(body, crc32(head.subarray(0, 12))) !== head.readUInt32LE(12))
    throw corrupt(`the checksum at byte ${offset} is wrong`)
  return { type: head.readUInt32LE(4), body }
}

/** The checksum is right, so only another program can have written anything else. */
function parseObject(body: Buffer): unknown {
  let value: unknown
  try {
    value = JSON.parse(body.toString())
  } catch {
    throw corrupt('a section is not JSON')
  }
  if (typeof value !== 'object' || value === null) throw corrupt('a section is not an object')
  return value
}

function parseState(body: Buffer): CheckpointState {
  const described = parseObject(body) as CheckpointState
  const { version } = described
  if (!Number.isInteger(version) || version < checkpointVersion || version > fullRunsVersion) {
    throw new LockstepError(
      'WRONG_VERSION',
      `the checkpoint has version ${version}, this program reads versions ${checkpointVersion} to ${fullRunsVersion}`,
      'start this data directory with the program that wrote it',
    )
  }
  return described
}

function restoreState(described: CheckpointState, keeper: PageKeeper): GroupState {
  const { version, batchNumber, isClean, peer, runs, nextLocalId, primarySeen, ...plain } =
    described
  const stores = described.stores.map((one) => new Store({ ...one, map: new ChunkMap(keeper) }))
  return {
    ...plain,
    nextLocalId: nextLocalId ?? firstLocalId,
    peer: peer && { nodeId: peer.nodeId, acknowledged: peer.acknowledged },
    runs: runs ?? [],
    primarySeen,
    stores: new Map(stores.map((store) => [store.id, store])),
  }
}

function decodePages(body: Buffer, pages: ChunkPage[], keeper: PageKeeper): void {
  let at = 0
  while (at + 4 <= body.length) {
    const count = body.readUInt32LE(at)
    at += 4
    if (count > pageEntryCount || at + count * 4 > body.length) throw corrupt('a map page is cut')
    const page = new ChunkPage(keeper.checkpointNumber)
    // A copy aligned to four bytes: the body may lie anywhere in the window.
    new Uint8Array(page.entries.buffer).set(body.subarray(at, at + count * 4))
    for (let entry = 0; entry < count; entry++) if (page.entries[entry] !== 0) page.usedCount++
    pages.push(page)
    at += count * 4
  }
}

function decodeMap(
  body: Buffer,
  state: GroupState,
  pages: readonly ChunkPage[],
  held: Set<ChunkPage>,
): number {
  const store = body.length >= 4 ? state.stores.get(body.readUInt32LE(0) as StoreId) : undefined
  if (store === undefined || body.length % 8 !== 4) throw corrupt('a map belongs to no store')
  for (let at = 4; at < body.length; at += 8) {
    const page = pages[body.readUInt32LE(at + 4)]
    if (page === undefined) throw corrupt('a map names a page that is not there')
    const pageIndex = body.readUInt32LE(at)
    if (store.map.pages.has(pageIndex)) throw corrupt('a map has a page twice')
    if (held.has(page)) page.holders++
    held.add(page)
    store.map.adopt(pageIndex, page)
  }
  return (body.length - 4) / 8
}

function corrupt(what: string): LockstepError {
  return damaged(`the file "${checkpointName}" is damaged: ${what}`)
}

/** Writes a checkpoint under its temporary name and puts it in the place of the old one. */
export async function saveCheckpoint(
  disk: Disk,
  frozen: Parameters<typeof writeCheckpoint>[1],
): Promise<void> {
  const file = await disk.open(checkpointTemporaryName, { create: true })
  try {
    await file.truncate(0)
    await writeCheckpoint(file, frozen)
  } catch (error) {
    // The unfinished file would keep space that somebody else may need more.
    await file.truncate(0).catch(() => {})
    throw error
  } finally {
    await file.close()
  }
  await disk.rename(checkpointTemporaryName, checkpointName)
  await disk.syncDirectory()
}
