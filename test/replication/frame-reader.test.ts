// Frames out of bytes: at every cut the same frames, and whatever is not a frame is refused before anything is allocated for it.
import { crc32 } from 'node:zlib'
import t from 'tap'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { encodeFrame } from '../../src/replication/frame-encoder.js'
import { FrameHead, frameTable, headBytes } from '../../src/replication/frame-head.js'
import { FrameReader } from '../../src/replication/frame-reader.js'
import type { Frame } from '../../src/replication/frames.js'
import { linkLimits } from '../../src/replication/limits.js'
import { SeededRandom } from '../support/random.js'
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

/** A head with a right checksum, whatever it says. */
function head(values: {
  type: number
  flags?: number
  storeId?: number
  payloadBytes?: number
  sequence?: number
  offset?: number
  lengthBytes?: number
  payloadCrc?: number
}): Buffer {
  const bytes = FrameHead.encode({
    flags: 0,
    storeId: 0,
    payloadBytes: 0,
    sequence: 0,
    offset: 0,
    lengthBytes: 0,
    payloadCrc: 0,
    headCrc: 0,
    ...values,
  })
  bytes.writeUInt32BE(crc32(bytes.subarray(0, headBytes - 4)), headBytes - 4)
  return bytes
}

t.test('each kind is read as what was sent', async (t) => {
  for (const kind of kinds)
    t.same(readAll(senderOf(kind), [bytesOf(kind)]).map(whole), [whole(samples[kind])], kind)
})

t.test('a frame is the same wherever it is cut', async (t) => {
  for (const kind of kinds) {
    const bytes = bytesOf(kind)
    const expected = [whole(samples[kind])]
    for (let cut = 1; cut < bytes.length; cut++) {
      const reader = new FrameReader(senderOf(kind))
      reader.push(bytes.subarray(0, cut))
      if (reader.next() !== undefined) t.fail(`${kind} is whole after ${cut} bytes`)
      if (!reader.isInsideFrame) t.fail(`${kind} ends well after ${cut} bytes`)
      reader.push(bytes.subarray(cut))
      const frame = reader.next()
      t.strictSame(frame && [whole(frame)], expected, `${kind} cut at ${cut}`)
      t.notOk(reader.isInsideFrame)
    }
  }
})

t.test('a stream of all kinds is the same byte by byte and in one piece', async (t) => {
  for (const side of ['primary', 'secondary'] as const) {
    const own = kinds.filter((kind) => senderOf(kind) === side)
    const stream = Buffer.concat([...own, ...own].map(bytesOf))
    const bytewise = Array.from(stream, (_, at) => stream.subarray(at, at + 1))
    const expected = [...own, ...own].map((kind) => whole(samples[kind]))
    t.strictSame(readAll(side, [stream]).map(whole), expected)
    t.strictSame(readAll(side, bytewise).map(whole), expected)
  }
})

t.test('every flipped bit is noticed', async (t) => {
  for (const kind of kinds) {
    const good = bytesOf(kind)
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bad = Buffer.from(good)
      bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      try {
        // A flipped length is refused at once: nobody waits for bytes that never come.
        const frames = readAll(senderOf(kind), [bad])
        t.fail(`bit ${bit} of ${kind} gave ${JSON.stringify(frames)}`)
      } catch (error) {
        if (!(error instanceof ProtocolError)) t.fail(`bit ${bit} of ${kind}: ${String(error)}`)
      }
    }
  }
  t.pass('no flipped bit got through')
})

t.test('payload of a write stays in the pieces it came in', async (t) => {
  const data = Buffer.alloc(200_000, 5)
  const frame = { ...samples.write, lengthBytes: data.length, parts: [data] }
  const { head: headPart } = encodeFrame(frame)
  const stream = Buffer.concat([headPart, data])
  const pieces = [
    stream.subarray(0, 65536),
    stream.subarray(65536, 131072),
    stream.subarray(131072),
  ]
  const [read] = readAll('primary', pieces)
  t.ok(read?.kind === 'write')
  if (read?.kind !== 'write') return
  t.equal(read.parts.length, 3)
  for (const part of read.parts) t.equal(part.buffer, stream.buffer)
  t.ok(Buffer.concat(read.parts).equals(data))
})

t.test('payload in very many pieces is gathered: the number of parts is bounded', async (t) => {
  const data = new SeededRandom(1).bytes(300_000)
  const { head: headPart } = encodeFrame({
    ...samples.write,
    lengthBytes: data.length,
    parts: [data],
  })
  const pieces = [headPart]
  for (let at = 0; at < data.length; at += 100) pieces.push(data.subarray(at, at + 100))
  const [read] = readAll('primary', pieces)
  t.ok(read?.kind === 'write')
  if (read?.kind !== 'write') return
  t.ok(read.parts.length <= linkLimits.smallPartCountMax + 1, `${read.parts.length} parts`)
  t.ok(Buffer.concat(read.parts).equals(data))
})

t.test('lengths above the bound of their type are refused from the head alone', async (t) => {
  for (const row of frameTable.values()) {
    const sender = row.sender === 'secondary' ? 'secondary' : 'primary'
    for (const payloadBytes of [row.payloadBytesMax + 1, 2 ** 31, 2 ** 32 - 1]) {
      const bytes = head({ type: row.type, payloadBytes })
      t.throws(
        () => readAll(sender, [bytes]),
        { name: 'ProtocolError', message: /bytes of payload/ },
        row.name,
      )
    }
    if (row.payloadBytesMin === 0) continue
    const bytes = head({ type: row.type, payloadBytes: row.payloadBytesMin - 1 })
    t.throws(() => readAll(sender, [bytes]), { name: 'ProtocolError' }, row.name)
  }
})

t.test('a side says only what is its own', async (t) => {
  for (const row of frameTable.values()) {
    if (row.sender === 'both') continue
    const other = row.sender === 'primary' ? 'secondary' : 'primary'
    const bytes = head({ type: row.type, payloadBytes: row.payloadBytesMin })
    t.throws(() => readAll(other, [bytes]), { name: 'ProtocolError', message: /must not send/ })
  }
})

t.test('heads that say what their type does not are refused', async (t) => {
  const bad: readonly (readonly [string, Buffer])[] = [
    ['unknown type', head({ type: 999 })],
    ['flags of another type', head({ type: 18, sequence: 1, flags: 1 })],
    ['a number where there is none', head({ type: 18, sequence: 1, offset: 1 })],
    ['a store where there is none', head({ type: 18, sequence: 1, storeId: 1 })],
    ['a length where there is none', head({ type: 80, sequence: 1, lengthBytes: 1 })],
    ['a sequence where there is none', head({ type: 82, sequence: 1, payloadBytes: 2 })],
    ['a checksum of nothing', head({ type: 18, sequence: 1, payloadCrc: 1 })],
    ['sequence 0', head({ type: 18 })],
    ['an empty zeroing', head({ type: 17, storeId: 1, sequence: 1 })],
    [
      'a range beyond 2^53',
      head({ type: 17, storeId: 1, sequence: 1, offset: 2 ** 53 - 1, lengthBytes: 1 }),
    ],
    ['store 0', head({ type: 17, sequence: 1, lengthBytes: 1 })],
    [
      'a store of the node itself',
      head({ type: 17, storeId: 2 ** 31, sequence: 1, lengthBytes: 1 }),
    ],
    [
      'a write longer than its range',
      Buffer.concat([
        head({
          type: 16,
          storeId: 1,
          sequence: 1,
          lengthBytes: 2,
          payloadBytes: 1,
          payloadCrc: crc32(Buffer.from('a')),
        }),
        Buffer.from('a'),
      ]),
    ],
    [
      'too few digests',
      Buffer.concat([
        head({
          type: 19,
          storeId: 1,
          sequence: 1,
          lengthBytes: 65537,
          payloadBytes: 32,
          payloadCrc: crc32(Buffer.alloc(32)),
        }),
        Buffer.alloc(32),
      ]),
    ],
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n')],
    ['a TLS hello', Buffer.from(`160301020001000${'0'.repeat(97)}`, 'hex')],
  ]
  for (const [what, bytes] of bad)
    t.throws(() => readAll('primary', [bytes]), { name: 'ProtocolError' }, what)
})

t.test('answers and outcomes must be right in themselves', async (t) => {
  const bitmap = (lengthBytes: number, bits: number) =>
    Buffer.concat([
      head({
        type: 49,
        sequence: 1,
        lengthBytes,
        payloadBytes: 1,
        payloadCrc: crc32(Buffer.from([bits])),
      }),
      Buffer.from([bits]),
    ])
  const bad: readonly (readonly [string, Buffer])[] = [
    ['applied before received', head({ type: 48, sequence: 1, offset: 2, lengthBytes: 1 })],
    ['durable before applied', head({ type: 48, sequence: 3, offset: 2, lengthBytes: 3 })],
    ['a bit behind the last piece', bitmap(65536, 2)],
    ['an outcome of nothing', bitmap(0, 0)],
    ['an outcome of too much', bitmap(2 ** 40, 1)],
    [
      'half a digest',
      Buffer.concat([
        head({ type: 65, sequence: 1, payloadBytes: 31, payloadCrc: crc32(Buffer.alloc(31)) }),
        Buffer.alloc(31),
      ]),
    ],
  ]
  for (const [what, bytes] of bad)
    t.throws(() => readAll('secondary', [bytes]), { name: 'ProtocolError' }, what)
})

t.test('after an error nothing is read any more', async (t) => {
  const reader = new FrameReader('primary')
  reader.push(head({ type: 999 }))
  t.throws(() => reader.next(), ProtocolError)
  t.throws(() => reader.next(), { name: 'AssertionError' })
})

t.test(
  'without the checksum a spoilt payload would get through: the switch for a planted bug works',
  async (t) => {
    const bytes = Buffer.from(bytesOf('write'))
    bytes[bytes.length - 1] = 0
    t.throws(() => readAll('primary', [bytes]), { message: /checksum of a payload/ })
    const reader = new FrameReader('primary', { skipsCrc: true })
    reader.push(bytes)
    t.match(reader.next(), { kind: 'write', sequence: sequence(5), storeId: store(3) })
  },
)

/** Memory that is spoilt as soon as nobody holds it. */
class SpoilingKeeper {
  readonly #holds = new Map<ArrayBufferLike, number>()

  get heldCount(): number {
    return this.#holds.size
  }

  /** A piece in memory of its own, held once. */
  piece(bytes: Buffer): Buffer {
    const piece = Buffer.from(new Uint8Array(bytes).buffer)
    this.#holds.set(piece.buffer, 1)
    return piece
  }

  hold(view: Buffer): void {
    const holds = this.#holds.get(view.buffer)
    if (holds !== undefined) this.#holds.set(view.buffer, holds + 1)
  }

  release(view: Buffer): void {
    const holds = this.#holds.get(view.buffer)
    if (holds === undefined) return
    if (holds > 1) this.#holds.set(view.buffer, holds - 1)
    else {
      this.#holds.delete(view.buffer)
      Buffer.from(view.buffer).fill(0xee)
    }
  }
}

t.test('what is in a frame outlives the memory that it came in', async (t) => {
  const random = new SeededRandom(7)
  for (let round = 0; round < 40; round++) {
    for (const side of ['primary', 'secondary'] as const) {
      const sent = kinds.filter((kind) => senderOf(kind) === side)
      const bytes = Buffer.concat(sent.map(bytesOf))
      const keeper = new SpoilingKeeper()
      const reader = new FrameReader(side, { keeper })
      const received: Frame[] = []
      for (let at = 0; at < bytes.length; ) {
        const end = Math.min(bytes.length, at + 1 + random.below(round % 2 === 0 ? 8 : 300))
        reader.push(keeper.piece(bytes.subarray(at, end)))
        at = end
        for (let frame = reader.next(); frame !== undefined; frame = reader.next())
          received.push(frame)
      }
      t.same(
        received.map(whole),
        sent.map((kind) => whole(samples[kind])),
      )
      for (const frame of received)
        if (frame.kind === 'write') for (const part of frame.parts) keeper.release(part)
      reader.close()
      t.equal(keeper.heldCount, 0, 'everything was released, once')
    }
  }
})

t.test('a reader that is closed within a frame holds nothing', async (t) => {
  const keeper = new SpoilingKeeper()
  const reader = new FrameReader('primary', { keeper })
  const bytes = bytesOf('write')
  reader.push(keeper.piece(bytes.subarray(0, headBytes + 1)))
  t.equal(reader.next(), undefined)
  reader.push(keeper.piece(bytes.subarray(headBytes + 1, headBytes + 3)))
  reader.push(keeper.piece(bytes.subarray(headBytes + 3, headBytes + 4)))
  t.equal(reader.next(), undefined)
  reader.push(keeper.piece(bytes.subarray(headBytes + 4)))
  reader.close()
  t.equal(keeper.heldCount, 0)
})
