// Writes that lie side by side in the file are one call, and end with a whole sector; what is read joins them, what is written leaves them.
import t from 'tap'
import type { Store } from '../../src/storage/group-state.js'
import {
  addPart,
  advance,
  type FileWrite,
  type FreshChunk,
  joinCopy,
  joinTail,
  tailBehind,
  type WritePlan,
} from '../../src/storage/write-plan.js'

/** Of a store that nobody asks. */
const planOf = (...fresh: FreshChunk[]): WritePlan => ({
  store: {} as Store,
  fresh,
  freshWrites: [],
  inPlaceWrites: [],
  tail: tailBehind(0),
})

t.test('a write that goes on where the last one ends is joined to it', async (t) => {
  const writes: FileWrite[] = []
  const [a, b, c, d] = ['aa', 'bbb', 'c', 'd'].map((text) => Buffer.from(text)) as [
    Buffer,
    Buffer,
    Buffer,
    Buffer,
  ]
  addPart(writes, 10, [a], 2)
  addPart(writes, 12, [b, c], 4)
  addPart(writes, 17, [d], 1)
  addPart(writes, 10, [d], 1)
  t.strictSame(writes, [
    { offset: 10, parts: [a, b, c], lengthBytes: 6 },
    { offset: 17, parts: [d], lengthBytes: 1 },
    { offset: 10, parts: [d], lengthBytes: 1 },
  ])
})

t.test('the tail of a write is the rest of its last sector', async (t) => {
  t.strictSame(tailBehind(0), { offset: 0, lengthBytes: 0 })
  t.strictSame(tailBehind(1), { offset: 1, lengthBytes: 511 })
  t.strictSame(tailBehind(4607), { offset: 4607, lengthBytes: 1 })
  t.strictSame(tailBehind(4608), { offset: 4608, lengthBytes: 0 })
})

t.test('what is written leaves at the front, also when a call did a part', async (t) => {
  const writes: FileWrite[] = []
  const [a, b] = [Buffer.from('aaa'), Buffer.from('bb')] as [Buffer, Buffer]
  addPart(writes, 10, [a, b], 5)
  addPart(writes, 100, [b], 2)
  advance(writes, 4)
  t.strictSame(writes[0], { offset: 14, parts: [b.subarray(1)], lengthBytes: 1 })
  advance(writes, 1)
  t.strictSame(writes, [{ offset: 100, parts: [b], lengthBytes: 2 }])
  advance(writes, 2)
  t.strictSame(writes, [])
})

t.test('a new chunk that is written in part takes the rest from its old place', async (t) => {
  const fresh = { chunk: 3, place: 7, from: 1, end: 3, parts: [Buffer.from('NN')], copyFrom: 5 }
  const plan = planOf(fresh)
  joinCopy(plan, fresh, Buffer.from('oooo'))
  const [write] = plan.freshWrites
  t.equal(write?.offset, 7 * 4)
  t.equal(Buffer.concat([...(write?.parts ?? [])]).toString(), 'oNNo')
  t.equal(fresh.copyFrom, 0, 'nothing is left to read')
})

t.test('the rest of the last sector is one write with what it goes on', async (t) => {
  const plan = planOf()
  addPart(plan.inPlaceWrites, 510, [Buffer.alloc(1)], 1)
  plan.tail = tailBehind(511)
  joinTail(plan, Buffer.alloc(plan.tail.lengthBytes))
  t.strictSame(
    plan.inPlaceWrites.map(({ offset, lengthBytes }) => [offset, lengthBytes]),
    [[510, 2]],
  )
  t.equal(plan.tail.lengthBytes, 0)
})
