// What was queued leaves whole and in order, by the way past the stream as far as the system takes it, and through the stream behind that.
import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import t from 'tap'
import type { SendNow } from '../../nbd/bytes/send-now.js'
import { FrameWriter } from '../../src/replication/frame-writer.js'
import { SeededRandom } from '../support/random.js'

/** A socket of which both ways are seen in one order. */
function socket(takes: (parts: readonly Buffer[]) => number) {
  const stream = new PassThrough()
  const seen: Buffer[] = []
  const direct: number[] = []
  const sendNow: SendNow = (given, parts) => {
    assert.equal(given, stream)
    assert.equal(stream.writableLength, 0, 'the stream has nothing of its own to send')
    // What the stream had taken is in front.
    for (let piece = stream.read(); piece !== null; piece = stream.read()) seen.push(piece)
    const count = takes(parts)
    direct.push(count)
    seen.push(Buffer.concat(parts).subarray(0, count))
    return count
  }
  const all = (): Buffer => {
    for (let piece = stream.read(); piece !== null; piece = stream.read()) seen.push(piece)
    return Buffer.concat(seen)
  }
  return { stream, sendNow, all, direct }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))
const lengthOf = (parts: readonly Buffer[]) => parts.reduce((sum, { length }) => sum + length, 0)

function writerOf({ stream, sendNow }: Pick<ReturnType<typeof socket>, 'stream' | 'sendNow'>) {
  return new FrameWriter({ stream, sendNow, onTurnEnd: () => {}, onProgress: () => {} })
}

t.test('what the system takes at once never meets the stream', async (t) => {
  const there = socket(lengthOf)
  const writer = writerOf(there)
  writer.queue(Buffer.from('head'))
  writer.queue(Buffer.from('payload'))
  t.equal(writer.unsentBytes, 11)
  await turn()
  t.same(there.direct, [11])
  t.equal(there.stream.readableLength, 0)
  t.equal(writer.unsentBytes, 0)
  t.equal(writer.sentBytes, 11)
  t.equal(there.all().toString(), 'headpayload')
})

t.test('bytes are whole and in order, whatever part of them is taken at once', async (t) => {
  const random = new SeededRandom(4)
  for (let round = 0; round < 50; round++) {
    const there = socket((parts) => random.below(lengthOf(parts) + 1))
    const writer = writerOf(there)
    const queued: Buffer[] = []
    for (let count = 0; count < 30; count++) {
      const bytes = random.bytes(1 + random.below(count % 7 === 0 ? 20_000 : 100))
      queued.push(bytes)
      writer.queue(bytes)
      if (random.below(4) === 0) writer.flush()
      if (random.below(4) === 0) await turn()
    }
    for (let turns = 0; writer.unsentBytes > 0; turns++) {
      assert(turns < 100, 'all of it leaves')
      there.all()
      await turn()
    }
    assert.deepEqual(there.all(), Buffer.concat(queued))
    assert.equal(writer.sentBytes, lengthOf(queued))
  }
  t.pass()
})
