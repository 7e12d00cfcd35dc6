// The outbox: entries leave in order, as had or as lacked, when they are ready and settled; what is sent are whole frames in order.
import assert from 'node:assert/strict'
import t from 'tap'
import type { Entry } from '../../src/core/entry.js'
import { linkLimits } from '../../src/replication/limits.js'
import { Outbox, type Outcome, type Slot } from '../../src/replication/outbox.js'
import { ManualClock } from '../support/manual-clock.js'
import { SpoilingKeeper } from '../support/spoiling-keeper.js'
import { readAll, sequence, store, whole } from './sample-frames.js'

export type Left = {
  readonly how: 'had' | 'lacked'
  readonly entry: Entry
  readonly outcome: Outcome
}

function newOutbox(
  options: {
    readonly bytesMax?: number
    readonly lackedPerTurnMax?: number
    readonly overflow?: (outbox: Outbox) => void
  } = {},
) {
  const left: Left[] = []
  const clock = new ManualClock()
  const counts = { sendable: 0, overflow: 0 }
  const outbox: Outbox = new Outbox({
    clock,
    lastSequence: sequence(0),
    ...(options.bytesMax !== undefined && { bytesMax: options.bytesMax }),
    ...(options.lackedPerTurnMax !== undefined && { lackedPerTurnMax: options.lackedPerTurnMax }),
    events: {
      had: (entry, outcome) => void left.push({ how: 'had', entry: { ...entry }, outcome }),
      lacked: (entry, outcome) => void left.push({ how: 'lacked', entry: { ...entry }, outcome }),
      sendable: () => void counts.sendable++,
      overflow: () => {
        counts.overflow++
        options.overflow?.(outbox)
      },
    },
  })
  return {
    outbox,
    left,
    clock,
    counts,
    summary: () => left.map(({ how, entry }) => `${how} ${entry.kind} ${entry.sequence}`),
  }
}

const write = (number: number, text: string): Entry => ({
  kind: 'write',
  sequence: sequence(number),
  storeId: store(1),
  offset: number * 4096,
  lengthBytes: text.length,
  fua: false,
  parts: [Buffer.from(text)],
})
const flush = (number: number): Entry => ({ kind: 'flush', sequence: sequence(number) })
const create = (number: number): Entry => ({
  kind: 'operation',
  sequence: sequence(number),
  at: '2024-05-06T07:08:09Z',
  operation: { kind: 'delete', storeId: store(9) },
})
const compare = (number: number, digests: Buffer): Entry => ({
  kind: 'compare',
  sequence: sequence(number),
  storeId: store(1),
  offset: 0,
  lengthBytes: 131_073,
  digests,
})

/** In the order of the stream, may be sent, took effect here. */
function complete(outbox: Outbox, entry: Entry): Slot {
  const slot = outbox.reserve(entry)
  outbox.ready(slot)
  if (entry.kind === 'write' || entry.kind === 'zero') outbox.settle(slot, { isFailed: false })
  return slot
}

const sent = (outbox: Outbox, lengthBytesMax = 1 << 20) => {
  const batch = outbox.take(lengthBytesMax)
  return batch === undefined ? [] : readAll('primary', batch.parts).map(whole)
}

t.test('without a link everything leaves as lacked, at once and in order', async (t) => {
  const { outbox, summary } = newOutbox()
  complete(outbox, write(1, 'a'))
  const late = outbox.reserve(write(2, 'b'))
  complete(outbox, flush(3))
  t.same(summary(), ['lacked write 1'])
  outbox.ready(late)
  t.same(summary(), ['lacked write 1'], 'it has not taken effect')
  outbox.settle(late, { isFailed: false })
  t.same(summary(), ['lacked write 1', 'lacked write 2', 'lacked flush 3'])
  t.equal(outbox.usedBytes, 0)
  t.equal(outbox.firstSequence, undefined)
  t.same(sent(outbox), [])
})

t.test(
  'with a link entries leave as had when the peer has them and they took effect here',
  async (t) => {
    const { outbox, left, summary } = newOutbox()
    t.equal(outbox.collect(), 1)
    complete(outbox, write(1, 'a'))
    const late = outbox.reserve(write(2, 'bb'))
    outbox.ready(late)
    complete(outbox, create(3))
    t.same(sent(outbox), [write(1, 'a'), write(2, 'bb'), create(3)])
    t.equal(outbox.sentSequence, 3)
    outbox.acknowledge(sequence(3))
    t.same(summary(), ['had write 1'])
    outbox.settle(late, { isFailed: true })
    t.same(summary(), ['had write 1', 'had write 2', 'had operation 3'])
    t.same(
      left.map(({ outcome }) => outcome.isFailed),
      [false, true, false],
    )
    t.match(left[0]?.entry, { parts: [] }, 'without its bytes')
    t.equal(outbox.usedBytes, 0)
    t.equal(outbox.firstSequence, 4)
  },
)

t.test(
  'an entry that is not ready holds back those behind it, and the sender is told when it may go on',
  async (t) => {
    const { outbox, counts } = newOutbox()
    outbox.collect()
    const first = outbox.reserve(write(1, 'a'))
    const second = outbox.reserve(write(2, 'b'))
    t.same(sent(outbox), [])
    outbox.ready(second)
    t.equal(counts.sendable, 0)
    t.same(sent(outbox), [])
    outbox.ready(first)
    t.equal(counts.sendable, 1)
    t.same(sent(outbox), [write(1, 'a'), write(2, 'b')])
    complete(outbox, flush(3))
    t.equal(counts.sendable, 2, 'the batch before had reached the end')
    t.same(sent(outbox), [flush(3)])
    t.same(sent(outbox), [])
    complete(outbox, flush(4))
    complete(outbox, flush(5))
    t.equal(counts.sendable, 3, 'once is enough')
  },
)

t.test('the memory of a write is free again when its place is taken', async (t) => {
  const { outbox } = newOutbox()
  outbox.collect()
  const data = Buffer.from('first')
  const slot = outbox.reserve({ ...write(1, 'first'), parts: [data] } as Entry)
  data.fill('x')
  outbox.ready(slot)
  t.same(sent(outbox), [write(1, 'first')])
})

t.test('a resync write gets its bytes later, and a refused one becomes a nothing', async (t) => {
  const { outbox, summary } = newOutbox()
  outbox.collect()
  const empty = { ...write(1, 'later'), parts: [] } as Entry
  const slot = outbox.reserve(empty)
  const refused = outbox.reserve({ ...write(2, 'never'), parts: [] } as Entry)
  complete(outbox, write(3, 'c'))
  t.throws(() => outbox.ready(slot), { name: 'AssertionError' }, 'without its bytes')
  outbox.fill(slot, [Buffer.from('la'), Buffer.from('ter')])
  outbox.ready(slot)
  outbox.settle(slot, { isFailed: false })
  outbox.cancel(refused)
  t.same(sent(outbox), [write(1, 'later'), { kind: 'nothing', sequence: 2 }, write(3, 'c')])
  outbox.acknowledge(sequence(3))
  t.same(summary(), ['had write 1', 'had nothing 2', 'had write 3'])
})

t.test('a compare leaves with what the peer found, or with the worst', async (t) => {
  const { outbox, left } = newOutbox()
  outbox.collect()
  complete(outbox, compare(1, Buffer.alloc(96, 1)))
  const slot = outbox.reserve(compare(2, Buffer.alloc(0)))
  outbox.fill(slot, [Buffer.alloc(96, 2)])
  outbox.ready(slot)
  t.same(sent(outbox), [compare(1, Buffer.alloc(96, 1)), compare(2, Buffer.alloc(96, 2))])
  outbox.compared(sequence(1), 131_073, Buffer.from([4]))
  t.throws(() => outbox.compared(sequence(2), 5, Buffer.from([0])), { name: 'ProtocolError' })
  t.throws(() => outbox.compared(sequence(3), 131_073, Buffer.from([0])), { name: 'ProtocolError' })
  outbox.acknowledge(sequence(2))
  t.same(
    left.map(({ outcome }) => outcome.differing),
    [Buffer.from([4]), Buffer.from([7])],
  )
  outbox.compared(sequence(1), 131_073, Buffer.from([4]))
  t.equal(left.length, 2, 'an outcome that comes too late changes nothing')
})

t.test('a peer that has what it was never sent is refused', async (t) => {
  const { outbox, summary } = newOutbox()
  outbox.collect()
  complete(outbox, write(1, 'a'))
  t.throws(() => outbox.acknowledge(sequence(1)), { name: 'ProtocolError' })
  t.same(summary(), [])
  sent(outbox)
  outbox.acknowledge(sequence(1))
  t.same(summary(), ['had write 1'])
  t.throws(() => outbox.rewind(sequence(2)), { name: 'ProtocolError' })
})

t.test('a new connection gets what the peer does not have, the same bytes again', async (t) => {
  const { outbox, summary } = newOutbox()
  outbox.collect()
  for (const number of [1, 2, 3, 4]) complete(outbox, write(number, `text ${number}`))
  const before = outbox.take(1 << 20)
  outbox.acknowledge(sequence(1))
  outbox.rewind(sequence(2))
  t.same(summary(), ['had write 1', 'had write 2'])
  t.equal(outbox.sentSequence, 2)
  t.throws(
    () => outbox.acknowledge(sequence(3)),
    { name: 'ProtocolError' },
    'not on this connection',
  )
  t.same(sent(outbox), [write(3, 'text 3'), write(4, 'text 4')])
  t.same(readAll('primary', before?.parts ?? []).map(whole).length, 4, 'the old batch is as it was')
})

t.test('folding lets everything go in order, and what is not ready when it is', async (t) => {
  const { outbox, summary } = newOutbox()
  outbox.collect()
  complete(outbox, write(1, 'a'))
  const late = outbox.reserve(create(2))
  complete(outbox, write(3, 'c'))
  const batch = outbox.take(1 << 20)
  outbox.fold()
  t.same(summary(), ['lacked write 1'])
  complete(outbox, write(4, 'd'))
  t.same(outbox.take(1 << 20), undefined)
  outbox.acknowledge(sequence(1))
  outbox.ready(late)
  t.same(summary(), ['lacked write 1', 'lacked operation 2', 'lacked write 3', 'lacked write 4'])
  t.equal(outbox.usedBytes, 0)
  for (let number = 5; number < 300; number++) complete(outbox, write(number, 'x'.repeat(10_000)))
  t.same(
    readAll('primary', batch?.parts ?? []).map(whole),
    [write(1, 'a')],
    'sent bytes stay as they are',
  )
})

t.test('of many entries that are folded some leave in a turn, in order', async (t) => {
  const { outbox, summary, clock } = newOutbox({ lackedPerTurnMax: 2 })
  outbox.collect()
  for (let number = 1; number <= 7; number++) complete(outbox, write(number, 'a'))
  outbox.fold()
  const upTo = (last: number, how = 'lacked'): string[] =>
    Array.from({ length: last }, (_, index) => `${how} write ${index + 1}`)
  t.same(summary(), upTo(2))
  t.equal(outbox.entryCount, 5)
  t.equal(outbox.usedBytes, 5 * linkLimits.entryOverheadBytes, 'no bytes are kept for them')
  t.ok(outbox.isLeavingLater)
  t.ok(outbox.holdsLacked)
  outbox.look(1, 99, (entry, isKept) => t.notOk(isKept, `${entry.sequence}`))
  clock.runDeferred()
  t.same(summary(), upTo(4))
  complete(outbox, write(8, 'b'))
  t.same(summary(), upTo(8), 'one that comes lets four others go: more leave than come')
  t.equal(outbox.entryCount, 0)
  for (let number = 9; number <= 20; number++) complete(outbox, write(number, 'c'))
  t.same(summary(), upTo(20), 'one at a time there is nothing to wait for')
  outbox.collect()
  for (let number = 21; number <= 30; number++) complete(outbox, write(number, 'd'))
  outbox.fold()
  t.equal(outbox.collect(), 31, 'what follows is kept, although they have not all left')
  complete(outbox, write(31, 'e'))
  t.same(sent(outbox), [write(31, 'e')])
  t.equal(outbox.firstSequence, 31)
  outbox.acknowledge(sequence(31))
  while (outbox.isLeavingLater) clock.runDeferred()
  t.same(summary(), [...upTo(30), 'had write 31'])
  t.equal(outbox.usedBytes, 0)
  for (let number = 32; number <= 40; number++) complete(outbox, write(number, 'f'))
  outbox.fold()
  outbox.leaveAll()
  t.equal(outbox.entryCount, 0, 'all at once where nobody else has to have a turn')
})

t.test('a full outbox of any entries leaves in short turns', async (t) => {
  const { outbox, left, clock } = newOutbox()
  outbox.collect()
  for (let number = 1; number <= 5000; number++) complete(outbox, write(number, 'a'))
  outbox.fold()
  let before = 0
  for (; outbox.isLeavingLater; clock.runDeferred()) {
    t.ok(left.length - before <= linkLimits.lackedPerTurnMax)
    before = left.length
  }
  t.equal(left.length, 5000)
})

t.test('collecting begins behind what is still leaving', async (t) => {
  const { outbox, summary } = newOutbox()
  const late = outbox.reserve(write(1, 'a'))
  t.equal(outbox.collect(), 2)
  t.equal(outbox.sentSequence, 1)
  complete(outbox, write(2, 'b'))
  t.same(sent(outbox), [write(2, 'b')])
  outbox.acknowledge(sequence(2))
  t.same(summary(), [], 'in order')
  outbox.ready(late)
  outbox.settle(late, { isFailed: false })
  t.same(summary(), ['lacked write 1', 'had write 2'])
  outbox.fold()
  outbox.reserve(create(3))
  t.throws(() => outbox.collect(), { name: 'AssertionError' }, 'an operation would be lost')
})

t.test('above the bound it says so once, and again after there was room', async (t) => {
  const frameBytes = 48 + 1000 + linkLimits.entryOverheadBytes
  const { outbox, counts } = newOutbox({ bytesMax: 3 * frameBytes })
  outbox.collect()
  for (const number of [1, 2, 3]) complete(outbox, write(number, 'x'.repeat(1000)))
  t.equal(outbox.usedBytes, 3 * frameBytes)
  t.notOk(outbox.isFull)
  t.equal(outbox.whenRoom(), undefined)
  for (const number of [4, 5]) complete(outbox, write(number, 'x'.repeat(1000)))
  t.ok(outbox.isFull)
  t.equal(counts.overflow, 1)
  const room = outbox.whenRoom()
  t.equal(outbox.whenRoom(), room, 'one promise for all')
  sent(outbox)
  outbox.acknowledge(sequence(1))
  t.ok(outbox.isFull)
  outbox.acknowledge(sequence(2))
  await room
  t.notOk(outbox.isFull)
  complete(outbox, write(6, 'x'.repeat(1000)))
  t.equal(counts.overflow, 2)
})

t.test(
  'an overflow that folds: the entry being reserved is lacked too, and those who wait go on',
  async (t) => {
    const { outbox, counts, summary } = newOutbox({ bytesMax: 2000, overflow: (one) => one.fold() })
    outbox.collect()
    complete(outbox, write(1, 'x'.repeat(1000)))
    const slot = outbox.reserve(write(2, 'x'.repeat(1000)))
    t.equal(counts.overflow, 1)
    t.notOk(outbox.isCollecting)
    t.same(summary(), ['lacked write 1'])
    outbox.ready(slot)
    outbox.settle(slot, { isFailed: false })
    t.same(summary(), ['lacked write 1', 'lacked write 2'])
    t.notOk(outbox.isFull)
  },
)

t.test('an event may change the outbox: what leaves is still in order', async (t) => {
  const seen: string[] = []
  const outbox: Outbox = new Outbox({
    clock: new ManualClock(),
    lastSequence: sequence(0),
    events: {
      had: (entry) => {
        seen.push(`had ${entry.sequence}`)
        if (entry.sequence === 2) outbox.fold()
      },
      lacked: (entry) => {
        seen.push(`lacked ${entry.sequence}`)
        if (entry.sequence === 4) complete(outbox, flush(6))
      },
      sendable: () => {},
      overflow: () => {},
    },
  })
  outbox.collect()
  for (const number of [1, 2, 3, 4, 5]) complete(outbox, flush(number))
  sent(outbox)
  outbox.acknowledge(sequence(5))
  t.same(seen, ['had 1', 'had 2', 'lacked 3', 'lacked 4', 'lacked 5', 'lacked 6'])
})

t.test('age and size of what is kept can be seen', async (t) => {
  const { outbox, clock } = newOutbox()
  outbox.collect()
  t.equal(outbox.oldestAtMs, undefined)
  complete(outbox, flush(1))
  const since = clock.nowMs()
  clock.advance(500)
  complete(outbox, flush(2))
  t.equal(outbox.oldestAtMs, since)
  t.equal(outbox.entryCount, 2)
  sent(outbox)
  outbox.acknowledge(sequence(1))
  t.equal(outbox.oldestAtMs, since + 500)
})

t.test('batches are cut between frames', async (t) => {
  const { outbox } = newOutbox()
  outbox.collect()
  for (let number = 1; number <= 10; number++) complete(outbox, write(number, 'x'.repeat(52)))
  const sizes: number[] = []
  for (let batch = outbox.take(250); batch !== undefined; batch = outbox.take(250))
    sizes.push(batch.frameCount)
  t.same(sizes, [2, 2, 2, 2, 2])
  outbox.rewind(sequence(0))
  t.equal(outbox.take(1)?.frameCount, 1, 'at least one')
  const rest = outbox.take(1 << 20)
  t.equal(rest?.frameCount, 9)
  t.equal(rest?.parts.length, 1, 'what lies together leaves together')
})

t.test('what our own code must not do is a fault', async (t) => {
  const { outbox } = newOutbox()
  t.throws(() => outbox.reserve(flush(2)), { name: 'AssertionError' }, 'a gap')
  const slot = complete(outbox, flush(1))
  t.throws(() => outbox.ready(slot), { name: 'AssertionError' }, 'twice')
  outbox.collect()
  t.throws(() => outbox.collect(), { name: 'AssertionError' })
  complete(outbox, flush(2))
  sent(outbox)
  outbox.acknowledge(sequence(2))
  t.throws(() => outbox.rewind(sequence(1)), { name: 'AssertionError' }, 'it is gone')
})

t.test('a write is sent from where it came in, and lets go of that when it has left', async (t) => {
  const { outbox } = newOutbox()
  outbox.collect()
  const keeper = new SpoilingKeeper()
  const bytes = Buffer.alloc(100_000, 5)
  const parts = [bytes.subarray(0, 30_000), bytes.subarray(30_000)]
  const small = write(1, 'x')
  assert(small.kind === 'write')
  const entry: Entry = { ...small, lengthBytes: bytes.length, parts }
  const slot = outbox.reserve(entry, keeper)
  keeper.settled(parts)
  outbox.ready(slot)
  outbox.settle(slot, { isFailed: false })
  const batch = outbox.take(1)
  t.ok(
    parts.every((part) => batch?.parts.includes(part)),
    'not a copy',
  )
  t.same(readAll('primary', batch?.parts ?? []).map(whole), [whole(entry)])
  outbox.acknowledge(sequence(1))
  t.equal(keeper.viewCount, 0)
  t.notOk(bytes.equals(Buffer.alloc(100_000, 5)), 'its memory is used again')
})

t.test('what somebody may still send stays as it is, though it has left', async (t) => {
  for (const leave of [
    (outbox: Outbox) => {
      outbox.seal()
      outbox.acknowledge(sequence(1))
    },
    (outbox: Outbox) => outbox.fold(),
    (outbox: Outbox) => outbox.rewind(sequence(1)),
  ]) {
    const { outbox } = newOutbox()
    outbox.collect()
    const keeper = new SpoilingKeeper()
    const entry = write(1, 'still on its way')
    assert(entry.kind === 'write')
    const slot = outbox.reserve(entry, keeper)
    keeper.settled(entry.parts)
    outbox.ready(slot)
    outbox.settle(slot, { isFailed: false })
    const batch = outbox.take(1)
    leave(outbox)
    t.equal(keeper.viewCount, 0)
    t.same(readAll('primary', batch?.parts ?? []).map(whole), [whole(entry)])
  }
})

t.test('a write that is refused lets go of its bytes', async (t) => {
  const { outbox } = newOutbox()
  outbox.collect()
  const keeper = new SpoilingKeeper()
  const slot = outbox.reserve(write(1, 'refused'), keeper)
  t.equal(keeper.viewCount, 1)
  outbox.cancel(slot)
  t.equal(keeper.viewCount, 0)
  t.same(
    readAll('primary', outbox.take(1)?.parts ?? []).map(({ kind }) => kind),
    ['nothing'],
  )
})
