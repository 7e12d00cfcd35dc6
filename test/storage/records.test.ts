// Journal records: the exact bytes, the way back, and bytes that nobody wrote.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { LockstepError } from '../../src/core/errors.js'
import { RecordBuffer, visitRecords } from '../../src/storage/records.js'
import { thrownBy } from '../support/failure.js'

type Seen =
  | readonly ['set', number, number, number]
  | readonly ['unmap', number, number, number]
  | readonly ['event', unknown]
  | readonly [
      'dirty' | 'clean' | 'active' | 'inactive' | 'differs' | 'same',
      number,
      number,
      number,
    ]
  | readonly ['left', number, boolean]

function visit(payload: Buffer): Seen[] {
  const seen: Seen[] = []
  visitRecords(payload, {
    set: (storeId, chunk, place) => seen.push(['set', storeId, chunk, place]),
    unmap: (storeId, first, end) => seen.push(['unmap', storeId, first, end]),
    event: (event) => seen.push(['event', event]),
    dirty: (storeId, first, end) => seen.push(['dirty', storeId, first, end]),
    clean: (storeId, first, end) => seen.push(['clean', storeId, first, end]),
    active: (storeId, first, end) => seen.push(['active', storeId, first, end]),
    inactive: (storeId, first, end) => seen.push(['inactive', storeId, first, end]),
    left: (sequence, isHad) => seen.push(['left', sequence, isHad]),
    differs: (storeId, first, end) => seen.push(['differs', storeId, first, end]),
    same: (storeId, first, end) => seen.push(['same', storeId, first, end]),
  })
  return seen
}

t.test('records have the bytes that ON-DISK.md gives them', async (t) => {
  const records = new RecordBuffer()
  records.set(7, 0x01_0203_0405, 0x0a0b0c0d)
  records.unmap(8, 2 ** 40 + 1, 2 ** 40 + 4)
  records.event({ a: 1 })
  t.equal(records.lengthBytes, 64)
  t.equal(
    records.take().toString('hex'),
    '01010000' +
      '05040302' +
      '07000000' +
      '0d0c0b0a' +
      '02000100' +
      '01000000' +
      '08000000' +
      '03000000' +
      '03000000' +
      '00000000' +
      '00000000' +
      '07000000' +
      '7b2261223a317d' +
      '00'.repeat(9),
  )
  t.equal(records.lengthBytes, 0, 'the buffer is empty then')
})

t.test('records of tracking have the bytes that ON-DISK.md gives them', async (t) => {
  const records = new RecordBuffer()
  records.dirty(7, 2 ** 32 + 1, 2 ** 32 + 3)
  records.clean(7, 1, 2)
  records.active(8, 3, 5)
  records.inactive(8, 3, 4)
  records.left(2 ** 33 + 9, true)
  records.left(10, false)
  records.differs(7, 2 ** 32 + 1, 2 ** 32 + 17)
  records.same(7, 1, 2)
  const payload = records.take()
  t.equal(
    payload.toString('hex'),
    '04010000' +
      '01000000' +
      '07000000' +
      '02000000' +
      '05000000' +
      '01000000' +
      '07000000' +
      '01000000' +
      '06000000' +
      '03000000' +
      '08000000' +
      '02000000' +
      '07000000' +
      '03000000' +
      '08000000' +
      '01000000' +
      '08020000' +
      '09000000' +
      '01000000' +
      '00000000' +
      '08000000' +
      '0a000000' +
      '00000000' +
      '00000000' +
      '09010000' +
      '01000000' +
      '07000000' +
      '10000000' +
      '0a000000' +
      '01000000' +
      '07000000' +
      '01000000',
  )
  t.strictSame(visit(payload), [
    ['dirty', 7, 2 ** 32 + 1, 2 ** 32 + 3],
    ['clean', 7, 1, 2],
    ['active', 8, 3, 5],
    ['inactive', 8, 3, 4],
    ['left', 2 ** 33 + 9, true],
    ['left', 10, false],
    ['differs', 7, 2 ** 32 + 1, 2 ** 32 + 17],
    ['same', 7, 1, 2],
  ])
})

const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const chunks = fc.oneof(fc.integer({ min: 0, max: 2 ** 41 }), fc.constantFrom(0, 2 ** 32, 2 ** 41))
const anything = fc.oneof(
  fc.tuple(fc.constant('set' as const), u32, chunks, u32),
  fc
    .tuple(fc.constant('unmap' as const), u32, chunks, fc.integer({ min: 1, max: 2 ** 32 - 1 }))
    .map(([kind, id, first, count]) => [kind, id, first, first + count] as const),
  fc.tuple(
    fc.constant('event' as const),
    fc.dictionary(
      fc.string(),
      fc.string({ unit: fc.constantFrom('a', '"', '\\', '\n', '\0', 'é', '漢', '😀') }),
      { noNullPrototype: true },
    ),
  ),
)

function put(records: RecordBuffer, one: Seen): void {
  if (one[0] === 'set') records.set(one[1], one[2], one[3])
  else if (one[0] === 'unmap') records.unmap(one[1], one[2], one[3])
  else records.event(one[1] as object)
}

t.test('what was put in comes out, in order', async () => {
  const property = fc.property(fc.array(anything, { maxLength: 100 }), (all) => {
    const records = new RecordBuffer()
    for (const one of all) put(records, one as Seen)
    const { lengthBytes } = records
    const payload = records.take()
    assert.equal(payload.length, lengthBytes)
    assert.deepEqual(visit(payload), JSON.parse(JSON.stringify(all)))
  })
  fc.assert(property, { seed: 1, numRuns: 60 })
})

t.test('what was taken stays as it is while further records come', async (t) => {
  const records = new RecordBuffer()
  records.set(1, 2, 3)
  const first = records.take()
  const copy = Buffer.from(first)
  for (let chunk = 0; chunk < 1000; chunk++) records.set(9, chunk, 9)
  const second = records.take()
  records.set(8, 8, 8)
  t.ok(first.equals(copy))
  t.equal(visit(second).length, 1000)
})

t.test('an event may be longer than everything before it', async (t) => {
  const records = new RecordBuffer()
  records.set(1, 2, 3)
  const event = { text: 'x'.repeat(100_000) }
  records.event(event)
  records.set(4, 5, 6)
  t.strictSame(visit(records.take()), [
    ['set', 1, 2, 3],
    ['event', event],
    ['set', 4, 5, 6],
  ])
})

t.test('a range of any length is unmapped in few records', async (t) => {
  const records = new RecordBuffer()
  records.unmap(1, 5, 2 ** 41)
  t.ok(records.lengthBytes <= 16 * 513, `${records.lengthBytes} bytes`)
  let at = 5
  for (const [kind, id, first, end] of visit(records.take()) as [
    'unmap',
    number,
    number,
    number,
  ][]) {
    assert.deepEqual([kind, id, first], ['unmap', 1, at])
    at = end
  }
  t.equal(at, 2 ** 41, 'without a gap, up to the end')
})

t.test('bytes that nobody wrote are CORRUPT, whatever they are', async () => {
  const property = fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    try {
      visit(Buffer.from(bytes))
    } catch (error) {
      assert(error instanceof LockstepError)
      assert.equal(error.code, 'CORRUPT')
    }
  })
  fc.assert(property, { seed: 2, numRuns: 2000 })
})

t.test('a batch with one bit flipped is read or refused, and nothing else', async (t) => {
  const records = new RecordBuffer()
  records.set(1, 2, 3)
  records.event({ kind: 'open', text: 'some text of a length' })
  records.unmap(1, 2, 30)
  const payload = records.take()
  let refusedCount = 0
  for (let bit = 0; bit < payload.length * 8; bit++) {
    const flipped = Buffer.from(payload)
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7))
    try {
      visit(flipped)
    } catch (error) {
      assert(error instanceof LockstepError)
      refusedCount++
    }
  }
  t.ok(refusedCount > 50, `${refusedCount} were refused`)
})

t.test('each way to be cut has its sentence', async (t) => {
  const head = (kind: number, argument: number): Buffer => {
    const bytes = Buffer.alloc(16)
    bytes.writeUInt8(kind, 0)
    bytes.writeUInt32LE(argument, 12)
    return bytes
  }
  const cases: readonly (readonly [Buffer, RegExp])[] = [
    [Buffer.alloc(15), /cut/],
    [head(0, 0), /unknown record kind 0/],
    [head(11, 0), /unknown record kind 11/],
    [head(3, 1), /longer than its batch/],
    [head(3, 2 ** 32 - 1), /longer than its batch/],
    [Buffer.concat([head(3, 3), Buffer.from('{} ')]), /ends behind/],
    [Buffer.concat([head(3, 16), Buffer.from('{"a":1'.padEnd(16))]), /not JSON/],
  ]
  for (const [bytes, message] of cases)
    t.match(
      thrownBy(() => visit(bytes)),
      { code: 'CORRUPT', message, action: /./ },
    )
})
