// Whole reads and writes over calls that do a part, and lists of buffers cut anywhere.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { wouldBlock } from '../../src/core/disk.js'
import {
  ReadWindow,
  readAtOnce,
  readFully,
  skipBytes,
  sliceBytes,
  totalBytes,
  writeFully,
} from '../../src/storage/disk-io.js'
import { MemoryFile } from '../support/memory-file.js'
import { SeededRandom } from '../support/random.js'

/** Does at most `lengthMax` bytes a call. */
class SlowFile extends MemoryFile {
  readonly #lengthMax: number
  callCount = 0
  blocksAt = Number.POSITIVE_INFINITY

  constructor(bytes: Buffer, lengthMax: number) {
    super(bytes)
    this.#lengthMax = lengthMax
  }

  override readNow(target: Buffer, offset: number): number {
    this.callCount++
    if (offset >= this.blocksAt) return wouldBlock
    return super.readNow(target.subarray(0, this.#lengthMax), offset)
  }

  override async write(parts: readonly Buffer[], offset: number): Promise<number> {
    this.callCount++
    return this.writeNow(sliceBytes(parts, 0, this.#lengthMax), offset)
  }
}

const random = new SeededRandom(1)
const content = random.bytes(1000)

t.test('a read is filled piece by piece, with zeroes behind the end of the file', async (t) => {
  const file = new SlowFile(content, 300)
  const target = Buffer.alloc(500, 0xee)
  await readFully(file, target, 700)
  t.ok(target.equals(Buffer.concat([content.subarray(700), Buffer.alloc(200)])))
  target.fill(0xee)
  t.equal(readAtOnce(file, target, 700), 500)
  t.ok(target.equals(Buffer.concat([content.subarray(700), Buffer.alloc(200)])))
})

t.test('a read at once ends where the medium is needed', async (t) => {
  const file = new SlowFile(content, 300)
  file.blocksAt = 600
  const target = Buffer.alloc(900, 0xee)
  t.equal(readAtOnce(file, target, 100), 600)
  t.ok(target.subarray(0, 600).equals(content.subarray(100, 700)))
  t.ok(target.subarray(600).equals(Buffer.alloc(300, 0xee)), 'the rest is not touched')
  t.equal(readAtOnce(file, target, 600), 0)
})

t.test('a write is done piece by piece, across its parts', async (t) => {
  const file = new SlowFile(Buffer.alloc(0), 7)
  await writeFully(file, [content.subarray(0, 3), Buffer.alloc(0), content.subarray(3, 100)], 5)
  t.ok(file.bytes.equals(Buffer.concat([Buffer.alloc(5), content.subarray(0, 100)])))
  t.equal(file.callCount, 15)
  await writeFully(file, [], 0)
  t.equal(file.callCount, 15, 'nothing is no call')
})

t.test('slices of a list are those of the joined bytes, and share its memory', async () => {
  const lists = fc.array(fc.nat(5), { maxLength: 6 })
  const property = fc.property(lists, fc.nat(20), fc.nat(20), (lengths, from, lengthBytes) => {
    let at = 0
    const parts = lengths.map((length) => {
      at += length
      return content.subarray(at - length, at)
    })
    const joined = Buffer.concat(parts)
    assert.equal(totalBytes(parts), joined.length)
    const slice = sliceBytes(parts, from, from + lengthBytes)
    assert(Buffer.concat(slice).equals(joined.subarray(from, from + lengthBytes)))
    assert(slice.every((part) => part.length > 0 && part.buffer === content.buffer))
    assert(Buffer.concat(skipBytes(parts, from)).equals(joined.subarray(from)))
  })
  fc.assert(property, { seed: 1, numRuns: 500 })
})

t.test('a window reads a file in large pieces', async (t) => {
  const file = new SlowFile(content, 10_000)
  const window = new ReadWindow(file, content.length)
  for (let at = 0; at < content.length; at += 10)
    t.ok((await window.get(at, 10)).equals(content.subarray(at, at + 10)))
  t.equal(file.callCount, 1)
  t.ok(window.peek(990, 10)?.equals(content.subarray(990)))
  t.equal(window.peek(991, 10), undefined)
  await t.rejects(window.get(991, 10), { name: 'AssertionError' }, 'behind the end')
})

t.test('a window takes pieces larger than itself, and goes back', async (t) => {
  const large = random.bytes(6 * 1024 * 1024)
  const window = new ReadWindow(new MemoryFile(large), large.length)
  t.ok((await window.get(100, 5 * 1024 * 1024)).equals(large.subarray(100, 100 + 5 * 1024 * 1024)))
  t.ok((await window.get(0, 50)).equals(large.subarray(0, 50)))
  t.ok((await window.get(large.length - 1, 1)).equals(large.subarray(-1)))
})
