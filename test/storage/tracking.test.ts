// The state machine over entries that leave: law 3 line by line, order, bounds, and what a start makes of it. Whole lives with crashes: tracking-crash.test.ts.
import t from 'tap'
import type { Entry } from '../../src/core/entry.js'
import { limits } from '../../src/core/limits.js'
import type { Operation } from '../../src/core/operation.js'
import {
  type ByteRange,
  byteOffset,
  type Generation,
  KiB,
  MiB,
  type Sequence,
  type StoreId,
} from '../../src/core/units.js'
import type { OperationEvent } from '../../src/storage/apply-operation.js'
import { Tracking, type TrackingRecorder } from '../../src/storage/tracking.js'
import { thrownBy } from '../support/failure.js'
import { Group } from '../support/group.js'

const generation = 'g1' as Generation
const id = (value: number): StoreId => value as StoreId
const range = (offset: number, lengthBytes: number): ByteRange => ({
  offset: byteOffset(offset),
  lengthBytes,
})

/** Tracking of a group with volume 1 (1 MiB) and volume 2 (64 KiB), nothing dirty. */
class Bench implements TrackingRecorder {
  readonly tracking = new Tracking({ nodeId: 'b', acknowledged: undefined })
  readonly records: string[] = []
  sequence = 1
  roomCount = Number.POSITIVE_INFINITY
  roomBlockCount = Number.POSITIVE_INFINITY
  mayRecordLoss = true

  constructor() {
    const group = new Group()
    group.volume('v', MiB)
    group.volume('w', 64 * KiB)
    this.tracking.goLive(this, 0)
    const table = { group: 'g', generations: [], nextStoreId: 3, stores: [] }
    const event = this.event({ kind: 'reset', table }, 1)
    this.tracking.reset(event, group.state.stores.values(), 4096)
  }

  hasRoom(run?: { readonly first: number; readonly end: number }): boolean {
    if (run !== undefined && run.end - run.first > this.roomBlockCount) return false
    return this.records.length < this.roomCount
  }

  dirty(storeId: StoreId, run: { readonly first: number; readonly end: number }): void {
    this.records.push(`dirty ${storeId} ${run.first}-${run.end}`)
  }

  clean(storeId: StoreId, run: { readonly first: number; readonly end: number }): void {
    this.records.push(`clean ${storeId} ${run.first}-${run.end}`)
  }

  differs(storeId: StoreId, run: { readonly first: number; readonly end: number }): void {
    this.records.push(`differs ${storeId} ${run.first}-${run.end}`)
  }

  same(storeId: StoreId, run: { readonly first: number; readonly end: number }): void {
    this.records.push(`same ${storeId} ${run.first}-${run.end}`)
  }

  left(sequence: number, isHad: boolean): void {
    this.records.push(`left ${sequence} ${isHad ? 'had' : 'lacked'}`)
  }

  lost(): boolean {
    if (this.mayRecordLoss) this.records.push('lost')
    return this.mayRecordLoss
  }

  operationLeft(): void {}

  event(operation: Operation, sequence: number): OperationEvent {
    return { kind: 'operation', sequence: sequence as Sequence, at: 'now', operation }
  }

  write(storeId: number, offset: number, lengthBytes: number): Entry {
    const sequence = ++this.sequence as Sequence
    const place = { storeId: id(storeId), offset, lengthBytes }
    return { kind: 'write', sequence, ...place, fua: false, parts: [] }
  }

  operation(operation: Operation): OperationEvent {
    const event = this.event(operation, ++this.sequence)
    this.tracking.performed(event)
    return event
  }

  snapshot(storeId: number, sourceId: number): OperationEvent {
    const one = { storeId: id(storeId), sourceId: id(sourceId), name: `s${storeId}` }
    return this.operation({ kind: 'create-snapshots', snapshots: [one] })
  }

  copy(sourceId: number, targetId: number, part?: ByteRange): OperationEvent {
    const ends = { sourceId: id(sourceId), targetId: id(targetId), reason: 'sync' } as const
    return this.operation({ kind: 'copy', ...ends, ...(part === undefined ? {} : { range: part }) })
  }

  /** Blocks that verify found to differ, as `first-end`. */
  differing(storeId: number): string {
    const map = this.tracking.stores.get(id(storeId))?.differing
    const found: string[] = []
    for (let from = 0; ; ) {
      const run = map?.nextRun(from, 256)
      if (run === undefined) return found.join(' ')
      from = run.end
      found.push(`${run.first}-${run.end}`)
    }
  }

  /** Runs of dirty bytes as offset and end. */
  runs(storeId: number): readonly (readonly [number, number])[] {
    const found: (readonly [number, number])[] = []
    for (let from = 0; ; ) {
      const run = this.tracking.nextDirty(id(storeId), from)
      if (run === undefined) return found
      from = run.offset + run.lengthBytes
      found.push([run.offset, from])
    }
  }
}

t.test(
  'a write that the peer lacks makes what it touches dirty, one that it had cleans what it covers',
  async (t) => {
    const bench = new Bench()
    bench.tracking.lacked(bench.write(1, 4095, 4098))
    t.strictSame(bench.runs(1), [[0, 12288]])
    t.equal(bench.tracking.dirtyBytes(id(1)), 12288)
    bench.tracking.had(bench.write(1, 4095, 4098))
    t.strictSame(bench.runs(1), [
      [0, 4096],
      [8192, 12288],
    ])
    t.strictSame(bench.records, ['dirty 1 0-3', 'clean 1 1-2'])
    t.notOk(bench.tracking.isEmptyFor(id(1)))
    t.ok(bench.tracking.isEmptyFor(id(2)))
    t.ok(bench.tracking.isDirty(id(1), 4095, 1))
    t.notOk(bench.tracking.isDirty(id(1), 4096, 4096))
  },
)

t.test('what the peer had and what failed here differs', async (t) => {
  const bench = new Bench()
  bench.tracking.had(bench.write(1, 8192, 4096), { kind: 'failed' })
  t.strictSame(bench.runs(1), [[8192, 12288]])
})

t.test('a store that is clean costs a write nothing', async (t) => {
  const bench = new Bench()
  bench.tracking.had(bench.write(1, 0, 4096))
  bench.tracking.lacked({ kind: 'flush', sequence: ++bench.sequence as Sequence })
  bench.tracking.had({ kind: 'nothing', sequence: ++bench.sequence as Sequence })
  t.strictSame(bench.records, [])
})

t.test('the block that the end of a store cuts is whole', async (t) => {
  const bench = new Bench()
  bench.tracking.lacked(bench.operation({ kind: 'resize', storeId: id(2), sizeBytes: 5632 }))
  bench.tracking.lacked(bench.write(2, 5120, 512))
  t.strictSame(bench.runs(2), [[4096, 5632]])
  t.equal(bench.tracking.dirtyBytes(id(2)), 1536)
  bench.tracking.had(bench.write(2, 4096, 1024))
  t.strictSame(bench.runs(2), [[4096, 5632]], 'the rest of it is not covered')
  bench.tracking.had(bench.write(2, 4096, 1536))
  t.strictSame(bench.runs(2), [])
})

t.test('the size that counts is that at the place of the entry', async (t) => {
  const bench = new Bench()
  bench.tracking.lacked(bench.write(2, 0, 8192))
  const write = bench.write(2, 0, 1536)
  const shrink = bench.operation({ kind: 'resize', storeId: id(2), sizeBytes: 1536 })
  bench.tracking.had(write)
  t.strictSame(bench.runs(2), [[0, 8192]], 'the store went on behind it then')
  bench.tracking.had(shrink)
  t.strictSame(bench.runs(2), [[0, 1536]])
})

t.test('operations move what is dirty when they leave, whoever has them', async (t) => {
  for (const leave of ['had', 'lacked'] as const) {
    const bench = new Bench()
    const write = bench.write(1, 0, 4096)
    const snapshot = bench.snapshot(3, 1)
    const behind = bench.write(1, 8192, 4096)
    t.equal(bench.tracking.totals.pendingOperations, 1)
    bench.tracking.lacked(write)
    t.strictSame(bench.runs(3), [], 'not before it leaves')
    bench.tracking[leave](snapshot)
    bench.tracking.lacked(behind)
    t.strictSame(bench.runs(3), [[0, 4096]])
    const back = bench.copy(3, 1)
    bench.tracking[leave](back)
    t.strictSame(
      bench.runs(1),
      [[0, 4096]],
      'restored: what was dirty behind the snapshot is clean',
    )
    bench.tracking[leave](bench.operation({ kind: 'delete', storeId: id(3) }))
    t.equal(bench.tracking.stores.size, 2)
    t.equal(bench.tracking.totals.pendingOperations, 0)
    t.equal(bench.tracking.opLog.length, leave === 'had' ? 1 : 4)
    t.equal(bench.records.at(-1), `left ${bench.sequence} ${leave}`)
  }
})

t.test('a copied range takes whole blocks and adds to the others', async (t) => {
  const bench = new Bench()
  bench.tracking.lacked(bench.write(1, 0, 4096))
  bench.tracking.lacked(bench.write(2, 8192, 8192))
  bench.tracking.had(bench.copy(1, 2, range(100, 12288)))
  t.strictSame(bench.runs(2), [
    [0, 4096],
    [12288, 16384],
  ])
})

t.test('a batch is its operations, and what moves no bytes moves nothing', async (t) => {
  const bench = new Bench()
  bench.tracking.lacked(bench.write(1, 0, 4096))
  const storeId = id(3)
  bench.tracking.lacked(
    bench.operation({
      kind: 'batch',
      operations: [
        { kind: 'create-volume', storeId, name: 'x', sizeBytes: 512 },
        { kind: 'copy', reason: 'sync', sourceId: id(1), targetId: id(2) },
      ],
    }),
  )
  t.strictSame(bench.runs(2), [[0, 4096]])
  for (const operation of [
    { kind: 'rename', storeId, name: 'y' },
    { kind: 'resync-end' },
    { kind: 'mark', name: 'm' },
    { kind: 'freeze', frozenId: 1, storeId },
    { kind: 'thaw', frozenId: 1 },
    { kind: 'new-generation', record: { generation, forkSequence: 3 } },
  ] as const)
    bench.tracking.lacked(bench.operation(operation))
  t.equal(bench.tracking.totals.dirtyBytes, 8192)
  t.equal(bench.tracking.totals.opLogEntries, 8)
})

t.test('the op log ends where the peer has performed it', async (t) => {
  const bench = new Bench()
  for (const storeId of [3, 4, 5]) bench.tracking.lacked(bench.snapshot(storeId, 1))
  t.strictSame(
    bench.tracking.opLog.map((event) => event.sequence),
    [1, 2, 3, 4],
  )
  bench.tracking.acknowledged({ generation, sequence: 3 as Sequence })
  t.strictSame(
    bench.tracking.opLog.map((event) => event.sequence),
    [4],
  )
  bench.tracking.acknowledged({ generation, sequence: 2 as Sequence })
  t.equal(bench.tracking.acknowledgedPosition?.sequence, 3, 'it never goes back')
  bench.tracking.acknowledged({ generation, sequence: 9 as Sequence })
  t.strictSame(bench.tracking.opLog, [])
})

t.test('entries leave in order, operations too', async (t) => {
  const bench = new Bench()
  const first = bench.write(1, 0, 512)
  const second = bench.write(1, 0, 512)
  t.throws(() => bench.tracking.had(second), { name: 'AssertionError' })
  bench.tracking.had(first)
  t.throws(() => bench.tracking.lacked(first), { name: 'AssertionError' })
  const other = new Bench()
  const event = other.event({ kind: 'resync-end' }, ++other.sequence)
  t.throws(() => other.tracking.had(event), { name: 'AssertionError' }, 'never performed')
})

t.test('a compared range is clean where it was equal, and known where it was not', async (t) => {
  const bench = new Bench()
  bench.tracking.recover([{ storeId: id(1), first: 0, end: 9 }])
  t.strictSame(bench.runs(1), [[0, MiB]])
  t.ok(bench.tracking.isSuspect(id(1), 300 * KiB))
  t.equal(bench.tracking.totals.suspectBytes, MiB)
  const sequence = ++bench.sequence as Sequence
  const digests = Buffer.alloc(0)
  const place = { storeId: id(1), offset: 0, lengthBytes: 200 * KiB }
  const differing = Uint8Array.from([0b0010])
  bench.tracking.had(
    { kind: 'compare', sequence, ...place, digests },
    { kind: 'compared', differing },
  )
  t.strictSame(bench.runs(1), [
    [64 * KiB, 128 * KiB],
    [200 * KiB, MiB],
  ])
  t.notOk(bench.tracking.isSuspect(id(1), 64 * KiB), 'it is sent without another look')
  t.ok(bench.tracking.isSuspect(id(1), 200 * KiB))
  bench.tracking.had(bench.write(1, 200 * KiB, 4 * KiB))
  t.notOk(bench.tracking.isSuspect(id(1), 200 * KiB))
})

t.test('a start lets operations leave as lacked before what is active becomes dirty', async (t) => {
  const bench = new Bench()
  bench.tracking.lacked(bench.write(1, 0, 4096))
  bench.snapshot(3, 1)
  bench.tracking.recover([{ storeId: id(2), first: 0, end: 1 }])
  t.strictSame(bench.runs(3), [[0, 4096]])
  t.strictSame(bench.runs(2), [[0, 64 * KiB]])
  t.strictSame(bench.records, ['dirty 1 0-1', 'left 3 lacked', 'dirty 2 0-16'])
  bench.tracking.recover([{ storeId: id(99), first: 0, end: 1 }])
  t.pass('of a store that is gone nothing is active')
})

t.test('above its bound the op log is given up, and with it all that is known', async (t) => {
  const bench = new Bench()
  for (let count = 1; count < limits.opLogEntriesMax; count++)
    bench.tracking.lacked(bench.operation({ kind: 'resync-end' }))
  t.equal(bench.tracking.isLost, false)
  bench.tracking.lacked(bench.operation({ kind: 'resync-end' }))
  t.equal(bench.tracking.isLost, true)
  t.equal(bench.records.at(-1), 'lost')
  bench.tracking.lacked(bench.write(1, 0, 512))
  bench.tracking.had(bench.event({ kind: 'resync-end' }, ++bench.sequence))
  t.equal(bench.tracking.leftSequence, bench.sequence, 'entries go on leaving')
  t.strictSame(bench.tracking.totals, {
    dirtyBytes: 0,
    suspectBytes: 0,
    opLogEntries: 0,
    pendingOperations: 0,
  })
})

t.test(
  'a difference that the journal has no room for is lost at once, one that is gone is not',
  async (t) => {
    const bench = new Bench()
    bench.tracking.lacked(bench.write(1, 0, 8192))
    bench.roomCount = 1
    bench.tracking.had(bench.write(1, 0, 4096))
    t.equal(bench.tracking.isLost, false)
    t.strictSame(bench.runs(1), [[4096, 8192]])
    t.match(
      thrownBy(() => bench.tracking.mark(id(1), range(0, 512))),
      { code: 'NO_SPACE', action: /room/ },
    )
    bench.mayRecordLoss = false
    bench.tracking.lacked(bench.write(1, 0, 4096))
    t.equal(bench.tracking.isLost, true)
    t.equal(bench.tracking.isLossRecorded, false)
    bench.mayRecordLoss = true
    bench.tracking.recordLoss()
    t.equal(bench.tracking.isLossRecorded, true)
  },
)

t.test('marking and cleaning by hand', async (t) => {
  const bench = new Bench()
  bench.tracking.mark(id(2), range(1, 1))
  t.strictSame(bench.runs(2), [[0, 4096]])
  t.strictSame(bench.tracking.nextDirty(id(2), 100, 50), { offset: 100, lengthBytes: 50 })
  bench.tracking.clean(id(2), range(0, 4096))
  t.strictSame(bench.runs(2), [])
})

t.test(
  'what verify found differs until the peer has it, or it is found to be the same',
  async (t) => {
    const bench = new Bench()
    const { tracking } = bench
    tracking.lacked(bench.write(1, 4096, 4096))
    tracking.differs(id(1), range(0, 64 * KiB))
    t.equal(bench.differing(1), '0-1 2-16', 'what is dirty goes over anyhow')
    t.equal(tracking.differingBytes(id(1)), 60 * KiB)
    t.equal(tracking.dirtyBytes(id(1)), 4096, 'looking makes nothing dirty')
    tracking.had(bench.write(1, 8192, 4096 + 512))
    t.equal(bench.differing(1), '0-1 3-16', 'a part of a block proves nothing of it')
    tracking.had(bench.write(1, 16_384, 4096), { kind: 'failed' })
    t.equal(bench.differing(1), '0-1 3-4 5-16', 'what failed here is dirty')
    tracking.mark(id(1), range(20_480, 4096))
    t.equal(bench.differing(1), '0-1 3-4 6-16', 'it is repaired')
    t.strictSame(bench.runs(1), [
      [4096, 8192],
      [16_384, 24_576],
    ])
    tracking.same(id(1), range(0, 32 * KiB), bench.sequence)
    t.equal(bench.differing(1), '8-16')
    t.equal(tracking.dirtyBytes(id(1)), 12_288, 'and stays dirty: it may have been written since')
    tracking.clean(id(1), range(0, 64 * KiB))
    t.equal(bench.differing(1), '')
    t.equal(tracking.differingBytes(id(9)), 0)
    t.strictSame(bench.records, [
      'dirty 1 1-2',
      'differs 1 0-1',
      'differs 1 2-16',
      'clean 1 2-3',
      'dirty 1 4-5',
      'dirty 1 5-6',
      'same 1 0-8',
      'clean 1 1-16',
    ])
  },
)

t.test('what differs moves with what is copied', async (t) => {
  const bench = new Bench()
  const { tracking } = bench
  tracking.differs(id(2), range(0, 8192))
  const keptAt = bench.sequence
  tracking.had(bench.snapshot(3, 2))
  t.equal(bench.differing(3), '0-2', 'a snapshot of it differs too')
  tracking.had(bench.copy(2, 1, range(100, 12_288)))
  t.equal(bench.differing(1), '0-2')
  tracking.same(id(1), range(0, 8192), keptAt)
  t.equal(bench.differing(1), '0-2', 'it was the same before the copy: that says nothing of it now')
  tracking.same(id(1), range(0, 8192), bench.sequence)
  t.equal(bench.differing(1), '')
  tracking.had(bench.copy(1, 2))
  t.equal(bench.differing(2), '', 'restored from what is the same')
  tracking.had(bench.operation({ kind: 'resize', storeId: id(3), sizeBytes: 4096 + 512 }))
  t.equal(tracking.differingBytes(id(3)), 4096 + 512)
  tracking.had(bench.operation({ kind: 'resize', storeId: id(3), sizeBytes: 4096 }))
  t.equal(bench.differing(3), '0-1', 'what was cut off is gone')
  tracking.differs(id(3), range(0, 8192))
  t.equal(bench.differing(3), '0-1', 'nothing differs behind its end')
  tracking.had(bench.operation({ kind: 'delete', storeId: id(3) }))
  t.equal(tracking.differingBytes(id(3)), 0)
})

t.test('a difference that the journal has no room for is known until a start', async (t) => {
  const bench = new Bench()
  bench.roomCount = 0
  t.match(
    thrownBy(() => bench.tracking.differs(id(1), range(0, 4096))),
    { code: 'NO_SPACE', action: /room/ },
  )
  t.equal(bench.differing(1), '0-1')
  bench.tracking.same(id(1), range(0, 4096), bench.sequence)
  t.equal(bench.differing(1), '')
  t.strictSame(bench.records, [])
  t.equal(bench.tracking.isLost, false)
})

t.test('a long run needs room for all of its records', async (t) => {
  const bench = new Bench()
  bench.roomBlockCount = 10
  const { tracking } = bench
  tracking.differs(id(1), range(0, 10 * 4096))
  t.match(
    thrownBy(() => tracking.differs(id(1), range(20 * 4096, 11 * 4096))),
    { code: 'NO_SPACE' },
  )
  tracking.same(id(1), range(0, MiB), bench.sequence)
  t.strictSame(bench.records, ['differs 1 0-10'])
  tracking.lacked(bench.write(1, 0, 10 * 4096))
  tracking.lacked(bench.write(1, 20 * 4096, 10 * 4096))
  tracking.had(bench.write(1, 0, MiB))
  t.strictSame(bench.records.slice(1), ['dirty 1 0-10', 'dirty 1 20-30'])
  t.equal(tracking.isLost, false)
  tracking.lacked(bench.write(1, 0, 11 * 4096))
  t.equal(tracking.isLost, true, 'what cannot be noted is unknown')
})

t.test('a reset makes dirty what is allocated, a full page of the map at once', async (t) => {
  const group = new Group()
  const volume = group.volume('v', 4096 * 4096 * 2 + 512)
  for (let chunk = 0; chunk < 4096; chunk++) volume.map.set(chunk, 1)
  for (const chunk of [4096, 4097, 4100, 8192]) volume.map.set(chunk, 1)
  const bench = new Bench()
  const event = bench.event(
    { kind: 'reset', table: { group: 'g', generations: [], nextStoreId: 3, stores: [] } },
    ++bench.sequence,
  )
  bench.tracking.reset(event, group.state.stores.values(), 4096)
  t.strictSame(bench.runs(1), [
    [0, 4098 * 4096],
    [4100 * 4096, 4101 * 4096],
    [8192 * 4096, 8192 * 4096 + 512],
  ])
  t.equal(bench.tracking.opLog[0], event)
  t.equal(bench.tracking.stores.size, 1)
})
