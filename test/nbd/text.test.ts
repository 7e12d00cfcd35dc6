// Text from and for clients: cut at characters, refused when it is not text.
import t from 'tap'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { clipUtf8, decodeString, quoted } from '../../nbd/text.js'

t.test('a text is cut at a whole character', async (t) => {
  t.equal(clipUtf8('abc', 3).toString(), 'abc')
  t.equal(clipUtf8('abc', 2).toString(), 'ab')
  for (let bytesMax = 0; bytesMax < 14; bytesMax++) {
    const clipped = clipUtf8('é☃😀é☃', bytesMax)
    t.ok(clipped.length <= bytesMax)
    t.ok(!clipped.toString().includes('\ufffd'), `${bytesMax}`)
  }
})

t.test('a string is UTF-8 without NUL, up to its last byte', async (t) => {
  t.equal(decodeString(Buffer.from('vol0@é☃😀')), 'vol0@é☃😀')
  t.equal(decodeString(Buffer.from('\ufeffx')), '\ufeffx', 'a byte order mark is part of the name')
  t.equal(decodeString(Buffer.alloc(0)), '')
  const bad = ['00', '6100', 'ff', 'c3', 'c0af', 'eda080', 'f8888080', '61e298']
  for (const hex of bad) t.throws(() => decodeString(Buffer.from(hex, 'hex')), ProtocolError)
})

t.test('a name in a message is short and without control characters', async (t) => {
  t.equal(quoted('vol0'), '"vol0"')
  t.equal(quoted('a\n\u001b[2J"'), '"a\\n\\u001b[2J\\""')
  t.equal(quoted('x'.repeat(4096)), `"${'x'.repeat(40)}…" (4096 letters)`)
})
