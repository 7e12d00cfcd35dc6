// Tracking in a checkpoint: the way back with its sharing, a view that stays as it was, and sections that do not belong together.
import t from 'tap'
import { MiB, type Sequence, type StoreId, TiB } from '../../src/core/units.js'
import type { OperationEvent } from '../../src/storage/apply-operation.js'
import type { DirtyMap } from '../../src/storage/dirty-map.js'
import { type DirtyPage, fullDirtyPage } from '../../src/storage/dirty-page.js'
import { Tracking } from '../../src/storage/tracking.js'
import {
  freezeTracking,
  TrackingReader,
  type TrackingSection,
  thawTracking,
  trackingSections,
} from '../../src/storage/tracking-sections.js'
import { thrownBy } from '../support/failure.js'

const peer = { nodeId: 'b', acknowledged: undefined }
const volume = 1 as StoreId
const snapshot = 7 as StoreId

function event(sequence: number): OperationEvent {
  const operation = { kind: 'resync-end' } as const
  return { kind: 'operation', sequence: sequence as Sequence, at: 'now', operation }
}

/** A volume of a terabyte that is dirty as a whole but for a block, and a snapshot that shares its pages. */
function tracking(sizeBytes = TiB): Tracking {
  const made = new Tracking(peer)
  made.restored()
  const store = made.restoreStore(volume, sizeBytes)
  store.dirty.markBytes(0, sizeBytes)
  store.dirty.cleanBytes(8192, 4096)
  store.suspects.markBytes(4096, 1)
  made.restoreStore(snapshot, sizeBytes - 512).dirty.become(store.dirty)
  store.differing.markBytes(8192, 4096)
  made.restoreStore(9 as StoreId, 512).differing.markBytes(0, 1)
  made.restoreOperation(event(4), false)
  made.restoreOperation(event(9), true)
  return made
}

const active = [
  { storeId: volume, first: 3, end: 4 },
  { storeId: snapshot, first: 0, end: 100 },
]

function sections(made: Tracking): readonly TrackingSection[] {
  return [...trackingSections(freezeTracking(made, active))]
}

function read(found: readonly TrackingSection[]): TrackingReader {
  const reader = new TrackingReader(peer)
  for (const { type, body } of found) t.ok(reader.take(type, Buffer.concat(body)))
  reader.finish()
  return reader
}

/** Each page by itself, by its index. */
function pagesOf(map: DirtyMap | undefined): Map<number, DirtyPage> {
  const pages = new Map<number, DirtyPage>()
  for (const { first, end, page } of map?.pageRuns() ?? [])
    for (let index = first; index < end; index++) pages.set(index, page)
  return pages
}

/** Tracking as text, with what is shared. */
function plain(made: Tracking): string {
  const numbers = new Map<unknown, number>([[fullDirtyPage, -1]])
  const pages = (map: Iterable<readonly [number, { readonly words: Uint32Array }]>): unknown =>
    [...map].map(([index, page]) => {
      if (!numbers.has(page)) numbers.set(page, numbers.size)
      const first = [...page.words.subarray(0, 2)]
      return [index, numbers.get(page), first]
    })
  const stores = [...made.stores].map(([id, store]) => ({
    id,
    sizeBytes: store.sizeBytes,
    counts: [store.dirty, store.suspects, store.differing].map((map) => map.dirtyBlockCount),
    dirty: pages(pagesOf(store.dirty)),
    suspects: pages(pagesOf(store.suspects)),
    differing: pages(pagesOf(store.differing)),
  }))
  const { isLost, opLog, pending, totals } = made
  return JSON.stringify({ stores, isLost, opLog, pending, totals })
}

t.test('what is read is what was written, sharing included', async (t) => {
  const made = tracking()
  const written = sections(made)
  const bytes = written.flatMap((one) => one.body).reduce((sum, part) => sum + part.length, 0)
  t.ok(bytes < MiB, `${bytes} bytes: what is full and what is shared costs nothing`)
  const { tracking: found, active: set } = read(written)
  t.equal(plain(found), plain(made))
  t.strictSame(
    [...set.items()].map(({ storeId, first, end, state }) => ({ storeId, first, end, state })),
    active.map((one) => ({ ...one, state: 'active' })),
  )
  const shared = pagesOf(found.stores.get(volume)?.dirty).get(0)
  t.equal(shared?.holders, 2)
  found.stores.get(volume)?.dirty.markBytes(8192, 1)
  t.notOk(found.stores.get(snapshot)?.dirty.isDirty(2), 'a shared page is copied when it changes')
})

t.test('a view stays as it was until it is let go of', async (t) => {
  const made = tracking()
  const before = plain(made)
  const frozen = freezeTracking(made, active)
  made.stores.get(volume)?.dirty.cleanBytes(0, MiB)
  made.stores.get(snapshot)?.dirty.clear()
  made.acknowledged({ generation: 'g' as never, sequence: 5 as Sequence })
  t.equal(plain(read([...trackingSections(frozen)]).tracking), before)
  thawTracking(frozen)
  const page = pagesOf(made.stores.get(volume)?.dirty).get(0)
  t.equal(page?.holders, 1)
})

t.test('tracking that is lost is lost after a start, too', async (t) => {
  const { tracking: found } = read([...trackingSections(freezeTracking(new Tracking(peer), []))])
  t.equal(found.isLost, true)
})

t.test('many pages, extents and operations are several sections', async (t) => {
  const made = tracking()
  const store = made.stores.get(volume)
  for (let offset = 0; offset < TiB; offset += 128 * MiB) store?.dirty.cleanBytes(offset, 4096)
  for (let sequence = 10; sequence < 30_000; sequence++)
    made.restoreOperation(event(sequence), false)
  const written = sections(made)
  t.ok(written.length > 30)
  for (const { body } of written) t.ok(body.reduce((sum, part) => sum + part.length, 0) < 8 * MiB)
  t.equal(plain(read(written).tracking), plain(made))
})

t.test('more full pages than are written one by one are read all the same', async (t) => {
  // As a store of 16 TiB was written before there were runs.
  const head = { isLost: false, sizes: [[volume, 16 * TiB]], pageCount: 0, mapCount: 1 }
  const counts = { activeCount: 0, operationCount: 0 }
  const map = Uint32Array.from(
    [volume, 0, ...Array.from({ length: 131_072 }, (_, at) => [at, -1])].flat(),
  )
  const found = read([
    { type: 5, body: [Buffer.from(JSON.stringify({ ...head, ...counts }))] },
    { type: 7, body: [Buffer.from(map.buffer)] },
  ]).tracking.stores.get(volume)?.dirty
  t.strictSame([...(found?.pageRuns() ?? [])], [{ first: 0, end: 131_072, page: fullDirtyPage }])
})

t.test('pages behind the largest store are CORRUPT', async (t) => {
  const [head] = sections(tracking())
  for (const [type, ...entry] of [
    [7, 2 ** 26, 0xffffffff],
    [10, 2 ** 26 - 1, 2],
    [10, 0xffffffff, 0xffffffff],
  ] as const)
    t.match(
      thrownBy(() =>
        read([
          head as TrackingSection,
          { type, body: [Buffer.from(Uint32Array.of(volume, 0, ...entry).buffer)] },
        ]),
      ),
      { code: 'CORRUPT', message: /behind the largest store/ },
    )
})

t.test('a section that is missing or cut is CORRUPT', async (t) => {
  const whole = sections(tracking(20 * TiB))
  for (let missing = 1; missing < whole.length; missing++)
    t.match(
      thrownBy(() => read(whole.toSpliced(missing, 1))),
      { code: 'CORRUPT', action: /./ },
      `without section ${missing}`,
    )
  const types = new Set<number>()
  for (const [index, { type, body }] of whole.entries()) {
    if (type === 5 || type === 9 || types.has(type)) continue
    types.add(type)
    const cut = Buffer.concat(body).subarray(0, -1)
    t.match(
      thrownBy(() => read(whole.with(index, { type, body: [cut] }))),
      { code: 'CORRUPT' },
      `section type ${type} cut`,
    )
  }
  t.equal(types.size, 4)
  const body = [Buffer.from(Uint32Array.of(volume, 3).buffer)]
  t.match(
    thrownBy(() => read([whole[0] as TrackingSection, { type: 7, body }])),
    { code: 'CORRUPT', message: /unknown kind/ },
  )
  t.notOk(new TrackingReader(peer).take(2, Buffer.alloc(0)), 'others are not its business')
})
