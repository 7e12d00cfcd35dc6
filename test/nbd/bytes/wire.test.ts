// Structs: sizes and offsets follow from the fields, what is written is read back, and constants are checked.
import t from 'tap'
import { ProtocolError } from '../../../nbd/bytes/protocol-error.js'
import {
  bytes,
  magic32,
  magic64,
  struct,
  u8,
  u16,
  u32,
  u53,
  u64,
  writeU64,
} from '../../../nbd/bytes/wire.js'

const Sample = struct('sample', {
  magic: magic32(0x01020304),
  small: u8,
  medium: u16,
  large: u32,
  huge: u64,
  offset: u53,
  raw: bytes(3),
  end: magic64(0x1122334455667788n),
})
const values = {
  small: 0xff,
  medium: 0xabcd,
  large: 0xdeadbeef,
  huge: 2n ** 64n - 1n,
  offset: 2 ** 53 - 1,
  raw: Buffer.from('abc'),
}
const encoded = `01020304ffabcddeadbeef${'f'.repeat(16)}001fffffffffffff6162631122334455667788`

t.test('size and offsets follow from the fields', async (t) => {
  t.equal(Sample.lengthBytes, 38)
  t.same(Sample.offsetOf, {
    magic: 0,
    small: 4,
    medium: 5,
    large: 7,
    huge: 11,
    offset: 19,
    raw: 27,
    end: 30,
  })
})

t.test('integers are big-endian, and what is written is read back', async (t) => {
  t.equal(Sample.encode(values).toString('hex'), encoded)
  t.same(Sample.decode(Buffer.from(encoded, 'hex')), values)
  const target = Buffer.alloc(50)
  t.equal(Sample.write(target, 5, values), 43)
  t.same(Sample.decode(target, 5), values)
})

t.test(
  'a wrong constant is a protocol error that names the struct and what was found',
  async (t) => {
    const wrong = Buffer.from(encoded, 'hex')
    wrong[0] = 9
    t.throws(
      () => Sample.decode(wrong),
      new ProtocolError('sample begins with 09020304, not 01020304'),
    )
  },
)

t.test(
  'a 64-bit number above 2^53 - 1 is a protocol error when it is to be a number',
  async (t) => {
    const wrong = Buffer.from(encoded, 'hex')
    wrong.writeBigUInt64BE(2n ** 53n, Sample.offsetOf.offset)
    t.throws(() => Sample.decode(wrong), ProtocolError)
  },
)

t.test('what does not fit, and what is no whole number, is an assertion', async (t) => {
  t.throws(() => Sample.decode(Buffer.alloc(37)), { name: 'AssertionError' })
  t.throws(() => Sample.write(Buffer.alloc(38), 1, values), { name: 'AssertionError' })
  t.throws(() => Sample.encode({ ...values, offset: -1 }), { name: 'AssertionError' })
  t.throws(() => Sample.encode({ ...values, offset: 0.5 }), { name: 'AssertionError' })
  t.throws(() => Sample.encode({ ...values, raw: Buffer.alloc(4) }), { name: 'AssertionError' })
})

t.test('numbers are written as 64 bits without a BigInt', async (t) => {
  for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, 123456789012345]) {
    const target = Buffer.alloc(8)
    writeU64(target, 0, value)
    t.equal(target.readBigUInt64BE(), BigInt(value))
  }
})
