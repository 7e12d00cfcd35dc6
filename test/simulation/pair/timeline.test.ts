// The timeline allows what a barrier allows on the second node, and nothing else.
import assert from 'node:assert/strict'
import t from 'tap'
import type { StoreImage } from '../oracle.js'
import { RecordingOracle, Timeline } from './timeline.js'

const sizeBytes = 4096

type Scene = { readonly timeline: Timeline; readonly oracle: RecordingOracle; readonly id: number }

/** One volume, and nothing written. */
function scene(): Scene {
  const timeline = new Timeline(4096)
  const oracle = new RecordingOracle(4096, timeline)
  const created = oracle.operation({ kind: 'volume.create', name: 'a', sizeBytes })
  oracle.settleOperation(created, 'acknowledged')
  const [store] = oracle.catalog.stores.values()
  assert(store)
  return { timeline, oracle, id: store.id }
}

/** Writes one sector; the data. */
function write({ oracle, id }: Scene, sector: number, fua = false): Buffer {
  const entry = oracle.write({
    storeId: id,
    offset: sector * 512,
    lengthBytes: 512,
    fua,
    zero: false,
  })
  oracle.settleWrite(entry, 'acknowledged')
  assert(entry.data)
  return entry.data
}

function flush({ oracle, id }: Scene): void {
  oracle.acknowledgeFlush(oracle.flush(id))
}

/** The volume with these sectors in it. */
function image(sectors: Readonly<Record<number, Buffer>>): readonly StoreImage[] {
  const bytes = Buffer.alloc(sizeBytes)
  for (const [sector, data] of Object.entries(sectors)) data.copy(bytes, Number(sector) * 512)
  return [{ name: 'a', bytes }]
}

t.test('between two barriers any subset is legal', async (t) => {
  const now = scene()
  const first = write(now, 0)
  const second = write(now, 1)
  for (const legal of [{}, { 0: first }, { 1: second }, { 0: first, 1: second }])
    t.equal(now.timeline.judge(image(legal)), undefined)
  t.equal(now.timeline.judge([]), undefined, 'before the volume was created')
})

t.test('behind a barrier nothing is there without all before it', async (t) => {
  const now = scene()
  const first = write(now, 0)
  flush(now)
  const second = write(now, 1)
  t.equal(now.timeline.judge(image({})), undefined)
  t.equal(now.timeline.judge(image({ 0: first, 1: second })), undefined)
  t.match(now.timeline.judge(image({ 1: second })), /sector 0|sector 1/)
})

t.test(
  'a flush is a barrier for what was answered before it, not for what was under way',
  async (t) => {
    const now = scene()
    const first = write(now, 0)
    const open = now.oracle.write({
      storeId: now.id,
      offset: 512,
      lengthBytes: 512,
      fua: false,
      zero: false,
    })
    assert(open.data)
    flush(now)
    now.oracle.settleWrite(open, 'acknowledged')
    const third = write(now, 2)
    t.equal(now.timeline.judge(image({ 0: first, 2: third })), undefined)
    t.equal(now.timeline.judge(image({ 0: first, 1: open.data, 2: third })), undefined)
    t.equal(now.timeline.judge(image({ 1: open.data })), undefined)
    t.type(
      now.timeline.judge(image({ 1: open.data, 2: third })),
      'string',
      'the answered one lacks',
    )
    flush(now)
    const fourth = write(now, 3)
    const all = { 0: first, 1: open.data, 2: third, 3: fourth }
    t.equal(now.timeline.judge(image(all)), undefined)
    t.type(now.timeline.judge(image({ 0: first, 2: third, 3: fourth })), 'string', 'answered since')
  },
)

t.test('every write before an operation is behind it, answered or not', async (t) => {
  const now = scene()
  const open = now.oracle.write({
    storeId: now.id,
    offset: 0,
    lengthBytes: 512,
    fua: false,
    zero: false,
  })
  assert(open.data)
  const request = { kind: 'volume.create', name: 'b', sizeBytes: 0 } as const
  now.oracle.settleOperation(now.oracle.operation(request), 'acknowledged')
  const other = { name: 'b', bytes: Buffer.alloc(0) }
  flush(now)
  const later = write(now, 1)
  t.equal(now.timeline.judge([...image({ 0: open.data, 1: later }), other]), undefined)
  t.type(now.timeline.judge([...image({ 1: later }), other]), 'string')
})

t.test('a byte that nobody wrote is illegal', async (t) => {
  const now = scene()
  write(now, 0)
  t.type(now.timeline.judge(image({ 3: Buffer.alloc(512, 7) })), 'string')
})

t.test('what was promised must be there', async (t) => {
  const now = scene()
  now.oracle.promiseToken = () => 1
  const first = write(now, 0)
  flush(now)
  t.type(now.timeline.judge(image({})), 'string')
  t.equal(now.timeline.judge(image({ 0: first })), undefined)
  const second = write(now, 1, true)
  t.type(now.timeline.judge(image({ 0: first })), 'string', 'FUA promises as well')
  t.equal(now.timeline.judge(image({ 0: first, 1: second })), undefined)
})

t.test('a link that broke between the flush and its answer promises nothing', async (t) => {
  const now = scene()
  write(now, 0)
  let token: number | undefined = 1
  now.oracle.promiseToken = () => token
  const mark = now.oracle.flush(now.id)
  token = 2
  now.oracle.acknowledgeFlush(mark)
  t.equal(now.timeline.judge(image({})), undefined)
})

t.test('an operation is a barrier', async (t) => {
  const now = scene()
  const first = write(now, 0)
  const request = { kind: 'snapshot.create', stores: ['a'], name: 's' } as const
  now.oracle.settleOperation(now.oracle.operation(request), 'acknowledged')
  const [volume] = image({ 0: first })
  const [empty] = image({})
  assert(volume)
  assert(empty)
  t.equal(now.timeline.judge([volume, { name: 'a@s', bytes: volume.bytes }]), undefined)
  t.type(now.timeline.judge([volume, { name: 'a@s', bytes: empty.bytes }]), 'string')
})

t.test('what a crashed primary lost may still be on the other node', async (t) => {
  const now = scene()
  const first = write(now, 0)
  const lost = write(now, 1)
  now.oracle.primaryEnded()
  now.timeline.beginEra(image({ 0: first }), now.oracle.catalog)
  t.equal(now.timeline.judge(image({ 0: first, 1: lost })), undefined)
  t.equal(now.timeline.judge(image({ 0: first })), undefined)
  now.timeline.restart(image({ 0: first }), now.oracle.catalog)
  t.type(now.timeline.judge(image({ 0: first, 1: lost })), 'string', 'until both are equal')
})
