// The pull reader: any chunking gives the same bytes, memory is bounded, and every end is told.
import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import t from 'tap'
import { ByteReader } from '../../../nbd/bytes/byte-reader.js'
import { ConnectionEnded } from '../../../nbd/bytes/protocol-error.js'

/** Reads in one of three ways; what is skipped is taken to be right. */
async function take(
  reader: ByteReader,
  lengthBytes: number,
  way: number,
  skipped: Buffer,
): Promise<Buffer> {
  if (way === 0) return Buffer.concat(await reader.readParts(lengthBytes))
  if (way === 1) return reader.read(lengthBytes)
  await reader.skip(lengthBytes)
  return skipped
}

t.test('reads give the same bytes however they arrive', async (t) => {
  const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 20 })
  await fc.assert(
    fc.asyncProperty(sizes, sizes, async (pieceSizes, readSizes) => {
      const total = readSizes.reduce((sum, size) => sum + size, 0)
      const all = Buffer.from(Array.from({ length: total }, (_, index) => index & 0xff))
      const reader = new ByteReader({ bufferedBytesMax: 1000 })
      for (let at = 0, index = 0; at < total; index++) {
        const size = pieceSizes[index % pieceSizes.length] ?? 1
        reader.push(all.subarray(at, at + size))
        at += size
      }
      let at = 0
      for (const [index, size] of readSizes.entries()) {
        const found = await take(reader, size, index % 3, all.subarray(at, at + size))
        if (!found.equals(all.subarray(at, at + size))) throw new Error(`at ${at}`)
        at += size
      }
      if (reader.bufferedBytes !== 0) throw new Error('bytes are left')
    }),
    { seed: 1, numRuns: 300 },
  )
  t.pass('300 random chunkings')
})

t.test('a read waits for its last byte', async (t) => {
  const reader = new ByteReader({ bufferedBytesMax: 100 })
  let isDone = false
  const read = reader.read(4).then((found) => {
    isDone = true
    return found
  })
  reader.push(Buffer.from('abc'))
  await new Promise((resolve) => setImmediate(resolve))
  t.equal(isDone, false)
  reader.push(Buffer.from('de'))
  t.equal((await read).toString(), 'abcd')
  t.equal((await reader.read(1)).toString(), 'e')
})

t.test(
  'the end rejects what is awaited and what comes after, and says how much had come',
  async (t) => {
    const reader = new ByteReader({ bufferedBytesMax: 100 })
    const read = reader.read(4)
    reader.push(Buffer.from('ab'))
    reader.end()
    await t.rejects(read, new ConnectionEnded(2, 4))
    t.equal((await reader.read(2)).toString(), 'ab', 'what had come can still be read')
    await t.rejects(reader.read(1), { name: 'ConnectionEnded', receivedBytes: 0 })
    await t.rejects(reader.skip(1), { name: 'ConnectionEnded' })
  },
)

t.test("a stream's error is what the reader rejects with", async (t) => {
  const stream = new PassThrough()
  const reader = ByteReader.over(stream, { bufferedBytesMax: 100 })
  const read = reader.read(4)
  stream.destroy(new Error('broken'))
  await t.rejects(read, { message: 'broken' })
  await t.rejects(reader.read(1), { message: 'broken' })
})

t.test('the stream is paused above the limit and goes on when somebody reads', async (t) => {
  let pauses = 0
  let resumes = 0
  const reader = new ByteReader({
    bufferedBytesMax: 10,
    pause: () => void pauses++,
    resume: () => void resumes++,
  })
  reader.push(Buffer.alloc(10))
  t.equal(pauses, 0)
  reader.push(Buffer.alloc(1))
  reader.push(Buffer.alloc(1))
  t.equal(pauses, 1)
  await reader.read(5)
  t.equal(resumes, 0)
  await reader.read(5)
  t.equal(resumes, 1)
})

t.test('detach gives back what nobody read, and the stream is paused', async (t) => {
  const stream = new PassThrough()
  const reader = ByteReader.over(stream, { bufferedBytesMax: 100 })
  stream.write('abcdef')
  t.equal((await reader.read(2)).toString(), 'ab')
  t.equal(Buffer.concat(reader.detach()).toString(), 'cdef')
  t.equal(stream.isPaused(), true)
})
