// Frames as bytes: each kind against bytes that another program made, and nothing leaves that our own reader would refuse.
import assert from 'node:assert/strict'
import t from 'tap'
import { encodeFrame } from '../../src/replication/frame-encoder.js'
import { FrameType } from '../../src/replication/frame-head.js'
import type { Frame } from '../../src/replication/frames.js'
import { linkLimits } from '../../src/replication/limits.js'
import {
  bytesOf,
  kinds,
  readAll,
  samples,
  senderOf,
  sequence,
  store,
  whole,
} from './sample-frames.js'

const encoded = (frame: Frame): Buffer => {
  const { head, parts, lengthBytes } = encodeFrame(frame)
  const bytes = Buffer.concat([head, ...parts])
  assert.equal(bytes.length, lengthBytes)
  return bytes
}

t.test('there is a sample and a vector of every type', async (t) => {
  t.equal(kinds.length, Object.keys(FrameType).length)
  for (const kind of kinds) t.ok(bytesOf(kind).length >= 48, kind)
})

t.test('each kind is laid out as another program lays it out', async (t) => {
  for (const kind of kinds)
    t.equal(encoded(samples[kind]).toString('hex'), bytesOf(kind).toString('hex'), kind)
})

t.test('the payload of a write is the memory it came in', async (t) => {
  const { parts } = encodeFrame(samples.write)
  t.equal(parts[0], samples.write.parts[0])
  t.equal(parts[1], samples.write.parts[1])
})

t.test('heads of two frames are memory of their own', async (t) => {
  const first = encodeFrame(samples.ping)
  const before = first.head.toString('hex')
  encodeFrame(samples.answer)
  t.equal(first.head.toString('hex'), before)
})

t.test('long and odd texts for people are cut to what a frame may hold', async (t) => {
  for (const text of [
    '\u0001'.repeat(10_000),
    '"'.repeat(10_000),
    '€'.repeat(10_000),
    '\ud800'.repeat(9000),
  ]) {
    const [refusal] = readAll('primary', [
      encoded({ kind: 'refuse', code: text, message: text, action: text }),
    ])
    t.match(refusal, { kind: 'refuse' })
    const [bye] = readAll('secondary', [encoded({ kind: 'bye', reason: text })])
    t.match(bye, { kind: 'bye' })
  }
})

t.test('the largest of each kind passes our own reader', async (t) => {
  const piece = Buffer.alloc(linkLimits.writeBytesMax, 7)
  const range = { storeId: store(2 ** 31 - 1), offset: 0 }
  const largest: readonly Frame[] = [
    {
      kind: 'write',
      sequence: sequence(1),
      ...range,
      lengthBytes: piece.length,
      fua: false,
      parts: [piece],
    },
    {
      kind: 'zero',
      sequence: sequence(1),
      ...range,
      lengthBytes: 2 ** 53 - 1,
      fua: false,
      mayUnmap: false,
    },
    {
      kind: 'compare',
      sequence: sequence(1),
      ...range,
      lengthBytes: linkLimits.compareBytesMax,
      digests: Buffer.alloc(64 * 32),
    },
  ]
  for (const frame of largest)
    t.same(readAll('primary', [encoded(frame)]).map(whole), [frame], frame.kind)
})

t.test('what nobody may send is an assertion, not a frame', async (t) => {
  const empty = { ...samples.write, parts: [] }
  t.throws(() => encodeFrame(empty), { name: 'AssertionError' })
  const tooLong = {
    kind: 'hello',
    body: { text: 'x'.repeat(linkLimits.greetingBytesMax) },
  } as const
  t.throws(() => encodeFrame(tooLong), { name: 'AssertionError' })
  t.equal(senderOf('answer'), 'secondary')
})
