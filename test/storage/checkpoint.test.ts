// The checkpoint file: exact bytes, the way back with its sharing, damage of every kind, and pages that change while it is written.
import { crc32 } from 'node:zlib'
import t, { type Test } from 'tap'
import { LockstepError } from '../../src/core/errors.js'
import {
  byteOffset,
  type Generation,
  type Sequence,
  type StoreId,
  TiB,
} from '../../src/core/units.js'
import {
  describeState,
  type FrozenState,
  readCheckpoint,
  writeCheckpoint,
} from '../../src/storage/checkpoint.js'
import { ChunkMap, type PageKeeper, pageEntryCount } from '../../src/storage/chunk-map.js'
import type { DirtyMap } from '../../src/storage/dirty-map.js'
import { firstLocalId, type GroupState, Store } from '../../src/storage/group-state.js'
import { PoolKeeper } from '../../src/storage/page-keeper.js'
import { Tracking } from '../../src/storage/tracking.js'
import { freezeTracking } from '../../src/storage/tracking-sections.js'
import { failureOf } from '../support/failure.js'
import { LooseKeeper } from '../support/loose-keeper.js'
import { MemoryFile } from '../support/memory-file.js'
import { SmallDisk } from '../support/small-node.js'

const generation = 'g'.repeat(32) as Generation

/** A volume with three pages, and a snapshot that shares two of them. */
function stateWith(keeper: PageKeeper): GroupState {
  const map = new ChunkMap(keeper)
  const base = { sizeBytes: 2 ** 40, createdAt: '2024-01-01T00:00:00.000Z' }
  const volume = new Store({ id: 1 as StoreId, name: 'v', map, ...base })
  for (const [chunk, place] of [
    [0, 7],
    [1, 8],
    [pageEntryCount * 2 + 5, 9],
  ] as const)
    map.set(chunk, place)
  const copy = new ChunkMap(keeper)
  copy.become(map)
  map.set(pageEntryCount * 9, 10)
  map.set(3, 11)
  const position = { generation, sequence: 4 as Sequence }
  const snapshot = { id: 3 as StoreId, name: 's', map: copy, volumeId: volume.id, position }
  return {
    nodeId: '0a'.repeat(16),
    isWhole: true,
    group: 'a group',
    node: 'a node',
    chunkBytes: 65536,
    dataName: 'data',
    journalSalt: '00'.repeat(8),
    role: 'primary',
    generations: [{ generation, forkSequence: 0 }],
    sequence: 12,
    nextStoreId: 4,
    nextLocalId: firstLocalId,
    runs: [],
    primarySeen: undefined,
    peer: undefined,
    stores: new Map([volume, new Store({ ...base, ...snapshot })].map((one) => [one.id, one])),
  }
}

function freeze(state: GroupState, entriesOf?: FrozenState['entriesOf']): FrozenState {
  return {
    state: describeState(state, { batchNumber: 21, isClean: true }),
    maps: [...state.stores.values()].map((store) => ({
      storeId: store.id,
      pages: [...store.map.pages],
    })),
    entriesOf: entriesOf ?? ((page) => page.entries),
  }
}

/** Maps as plain data, with the sharing between them. */
function plain(state: GroupState): unknown {
  const numbers = new Map<unknown, number>()
  return [...state.stores.values()].map((store) => ({
    id: store.id,
    name: store.name,
    sizeBytes: store.sizeBytes,
    volumeId: store.volumeId,
    position: store.position,
    createdAt: store.createdAt,
    allocatedCount: store.map.allocatedCount,
    pages: [...store.map.pages].map(([index, page]) => {
      if (!numbers.has(page)) numbers.set(page, numbers.size)
      const used = [...page.entries.entries()].filter(([, place]) => place !== 0)
      return { index, number: numbers.get(page), holders: page.holders, used }
    }),
  }))
}

function section(type: number, body: Buffer): Buffer {
  const head = Buffer.alloc(16)
  head.write('LSCP')
  head.writeUInt32LE(type, 4)
  head.writeUInt32LE(body.length, 8)
  head.writeUInt32LE(crc32(Buffer.concat([head.subarray(0, 12), body])), 12)
  return Buffer.concat([head, body])
}

function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4)
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, index * 4)
  return bytes
}

t.test('a checkpoint has the bytes that ON-DISK.md gives it', async (t) => {
  const file = new MemoryFile()
  const frozen = freeze(stateWith(new LooseKeeper()))
  await writeCheckpoint(file, frozen)
  const expected = Buffer.concat([
    section(1, Buffer.from(JSON.stringify(frozen.state))),
    section(
      2,
      Buffer.concat([
        words(4, 7, 8, 0, 11),
        words(6, 0, 0, 0, 0, 0, 9),
        words(1, 10),
        words(2, 7, 8),
      ]),
    ),
    section(3, words(1, 0, 0, 2, 1, 9, 2)),
    section(3, words(3, 0, 3, 2, 1)),
    section(4, Buffer.from('{"pageCount":4,"entryCount":5}')),
  ])
  t.equal(file.bytes.toString('hex'), expected.toString('hex'))
})

t.test('what is read is what was written, sharing included', async (t) => {
  const file = new MemoryFile()
  const state = stateWith(new LooseKeeper())
  await writeCheckpoint(file, freeze(state))
  const { described, state: found } = await readCheckpoint(file, new LooseKeeper())
  t.strictSame(plain(found), plain(state))
  t.match(described, { batchNumber: 21, isClean: true, version: 2, sequence: 12 })
  const { stores: _, ...rest } = state
  t.match(found, rest)
})

const peer = { nodeId: 'b', acknowledged: undefined }

/** Written, and read again. */
async function wayBack(tracking: Tracking): Promise<{
  readonly version: number
  readonly tracking: Tracking
  readonly lengthBytes: number
}> {
  const state = stateWith(new LooseKeeper())
  const frozenTracking = freezeTracking(tracking, [])
  const described = { batchNumber: 21, isClean: true }
  const file = new MemoryFile()
  await writeCheckpoint(file, {
    ...freeze(state),
    state: describeState({ ...state, peer }, described, frozenTracking),
    tracking: frozenTracking,
  })
  const read = await readCheckpoint(file, new LooseKeeper())
  if (read.tracking === undefined) throw new Error('there is no tracking in it')
  return {
    version: read.described.version,
    tracking: read.tracking.tracking,
    lengthBytes: file.bytes.length,
  }
}

t.test('one that says what verify found to differ has a version of its own', async (t) => {
  const tracking = new Tracking(peer)
  tracking.restored()
  tracking.restoreStore(1 as StoreId, 65_536).differing.markBytes(4096, 8192)
  const read = await wayBack(tracking)
  t.equal(read.version, 3)
  t.equal(read.tracking.differingBytes(1 as StoreId), 8192)
  tracking.clean(1 as StoreId, { offset: byteOffset(0), lengthBytes: 65_536 })
  const before = await wayBack(tracking)
  t.equal(before.version, 2, 'without it programs from before can read it')
  t.equal(before.tracking.differingBytes(1 as StoreId), 0)
})

t.test('one of a very large store that is dirty has runs, and a version of its own', async (t) => {
  const id = 1 as StoreId
  const tracking = new Tracking(peer)
  tracking.restored()
  const { dirty, suspects, differing } = tracking.restoreStore(id, 2 ** 53 - 512)
  dirty.markBytes(0, 8 * TiB)
  const small = await wayBack(tracking)
  t.equal(small.version, 2, 'up to 8 TiB programs from before can read it')
  t.equal(small.tracking.dirtyBytes(id), 8 * TiB)
  dirty.markBytes(0, 2 ** 53 - 512)
  const whole = await wayBack(tracking)
  t.equal(whole.version, 4)
  t.equal(whole.tracking.dirtyBytes(id), 2 ** 53 - 512)
  t.ok(whole.lengthBytes < small.lengthBytes, `${whole.lengthBytes} bytes`)
  dirty.cleanBytes(2 ** 52, 4096)
  suspects.markBytes(2 ** 51, 2 ** 52)
  differing.markBytes(2 ** 52, 4096)
  const read = await wayBack(tracking)
  t.equal(read.version, 4, 'whatever verify found')
  t.ok(read.lengthBytes < 64 * 1024, `${read.lengthBytes} bytes`)
  const found = read.tracking.stores.get(id)
  for (const [now, then] of [
    [found?.dirty, dirty],
    [found?.suspects, suspects],
    [found?.differing, differing],
  ] as const) {
    const runs = (map: DirtyMap | undefined): unknown =>
      [...(map?.pageRuns() ?? [])].map(({ first, end, page }) => ({ first, end, ...page }))
    t.strictSame(runs(now), runs(then))
  }
  dirty.cleanBytes(0, 2 ** 53)
  suspects.clear()
  t.equal((await wayBack(tracking)).version, 3)
})

t.test('a map of many sections is read as a whole', async (t) => {
  const keeper = new LooseKeeper()
  const state = stateWith(keeper)
  const { map } = state.stores.get(1 as StoreId) as Store
  for (let page = 0; page < 200; page++)
    for (const entry of [0, 77, pageEntryCount - 1])
      map.set(page * pageEntryCount + entry, page * 7 + entry + 1)
  const file = new MemoryFile()
  await writeCheckpoint(file, freeze(state))
  t.ok((await file.sizeBytes()) > 3 * 1024 * 1024)
  t.strictSame(plain((await readCheckpoint(file, keeper)).state), plain(state))
})

async function isRefused(t: Test, bytes: Buffer, label: string): Promise<boolean> {
  const read = readCheckpoint(new MemoryFile(bytes), new LooseKeeper())
  const error = await read.then(
    () => undefined,
    (cause: unknown) => cause,
  )
  if (error !== undefined && !(error instanceof LockstepError && error.code === 'CORRUPT'))
    t.fail(`${label}: ${String(error)}`)
  return error !== undefined
}

t.test('a checkpoint cut anywhere is CORRUPT', async (t) => {
  const file = new MemoryFile()
  await writeCheckpoint(file, freeze(stateWith(new LooseKeeper())))
  const { bytes } = file
  for (let lengthBytes = 0; lengthBytes < bytes.length; lengthBytes++)
    if (!(await isRefused(t, bytes.subarray(0, lengthBytes), `${lengthBytes}`)))
      t.fail(`cut at ${lengthBytes}`)
  t.notOk(await isRefused(t, bytes, 'whole'))
})

t.test('any flipped bit of a checkpoint makes it CORRUPT', async (t) => {
  const file = new MemoryFile()
  await writeCheckpoint(file, freeze(stateWith(new LooseKeeper())))
  const { bytes } = file
  for (let at = 0; at < bytes.length; at++) {
    const flipped = Buffer.from(bytes)
    flipped[at] = (flipped[at] as number) ^ (1 << (at % 8))
    if (!(await isRefused(t, flipped, `byte ${at}`))) t.fail(`byte ${at} was not noticed`)
  }
})

t.test('sections with right checksums that do not belong together are refused', async (t) => {
  const { state } = freeze(stateWith(new LooseKeeper()))
  const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))
  const head = section(1, json(state))
  const pages = section(2, words(1, 7))
  const counts = { pageCount: 1, entryCount: 1 }
  const end = section(4, json(counts))
  const map = section(3, words(1, 0, 0))
  t.notOk(await isRefused(t, Buffer.concat([head, pages, map, end]), 'whole'))
  const cases: Readonly<Record<string, readonly Buffer[]>> = {
    'no end': [head, pages, map],
    'a map before the state': [map, head, pages, end],
    'a map of no store': [head, pages, section(3, words(99, 0, 0)), end],
    'a map of no page': [head, pages, section(3, words(1, 0, 1)), end],
    'a map that is cut': [head, pages, section(3, words(1, 0)), end],
    'a page twice in a map': [head, pages, section(3, words(1, 0, 0, 0, 0)), end],
    'a page too long': [head, section(2, words(pageEntryCount + 1)), map, end],
    'a page that is cut': [head, section(2, words(2, 7)), map, end],
    'other counts': [head, pages, map, section(4, json({ ...counts, pageCount: 2 }))],
    'an end that is no JSON': [head, pages, map, section(4, Buffer.from('{'))],
    'a state that is no JSON': [section(1, Buffer.from('{')), pages, map, end],
    'a state that is null': [section(1, Buffer.from('null')), pages, map, end],
    'an unknown section': [head, section(5, Buffer.alloc(0)), pages, map, end],
    'only an end': [end],
  }
  for (const [label, sections] of Object.entries(cases))
    t.ok(await isRefused(t, Buffer.concat(sections), label), label)
})

t.test('another version is named', async (t) => {
  const { state } = freeze(stateWith(new LooseKeeper()))
  const bytes = section(1, Buffer.from(JSON.stringify({ ...state, version: 5 })))
  const error = await failureOf(readCheckpoint(new MemoryFile(bytes), new LooseKeeper()))
  t.match(error, { code: 'WRONG_VERSION', message: /version 5.*versions 2 to 4/, action: /./ })
})

t.test('pages that change while a checkpoint is written are in it as they were', async (t) => {
  const keeper = new PoolKeeper()
  const state = stateWith(keeper)
  const volume = state.stores.get(1 as StoreId) as Store
  const snapshot = state.stores.get(3 as StoreId) as Store
  const before = plain(state)
  const node = new SmallDisk({ completion: 'scheduled' })
  const file = await node.run(node.disk.open('checkpoint.tmp', { create: true }))
  const work = writeCheckpoint(file, freeze(state, keeper.freeze()))
  volume.map.set(0, 100)
  volume.map.set(pageEntryCount * 9 + 1, 101)
  snapshot.map.unmap(0, 2 ** 30)
  volume.map.clear()
  await node.run(work)
  keeper.thaw()
  const { state: found } = await node.run(readCheckpoint(file, new LooseKeeper()))
  t.strictSame(plain(found), before)
})
