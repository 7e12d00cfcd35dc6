// Replies leave whole, once, and in the order they were finished; arenas are used again only when nothing of them is needed.
import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import t from 'tap'
import { defaultLimits } from '../../nbd/limits.js'
import { SharedMemory } from '../../nbd/memory.js'
import { ReplyWriter, type Slot } from '../../nbd/reply-writer.js'
import { SeededRandom } from '../support/random.js'

const limits = { ...defaultLimits, arenaBytes: 16 * 1024, socketWriteBytesMax: 20_000 }

/** A stream that takes a write when the test says so, and remembers what it took. */
class SlowStream extends Duplex {
  readonly taken: Buffer[] = []
  writes = 0
  isOpen = true
  #waiting: (() => void) | undefined

  override _read(): void {}

  override _writev(chunks: { chunk: Buffer }[], callback: (error?: Error | null) => void): void {
    this.writes++
    const take = (): void => {
      for (const { chunk } of chunks) this.taken.push(Buffer.from(chunk))
      callback()
    }
    if (this.isOpen) take()
    else this.#waiting = take
  }

  /** Takes what waits. */
  takeWaiting(): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.()
  }
}

type Setup = { stream: SlowStream; writer: ReplyWriter; memory: SharedMemory }

/** With `takeNow` the system is given to at once first, and takes as much as the answer says, if the stream is open. */
function setUp(takeNow?: (lengthBytes: number) => number): Setup {
  const stream = new SlowStream()
  const memory = new SharedMemory(defaultLimits)
  const options = { stream, memory, limits, onProgress: () => {} }
  if (takeNow === undefined) return { stream, writer: new ReplyWriter(options), memory }
  const sendNow = (given: Duplex, parts: readonly Buffer[]): number => {
    assert.equal(given, stream)
    assert.equal(stream.writableLength, 0)
    const bytes = Buffer.concat(parts)
    const taken = Buffer.from(bytes.subarray(0, stream.isOpen ? takeNow(bytes.length) : 0))
    if (taken.length > 0) stream.taken.push(taken)
    return taken.length
  }
  return { stream, writer: new ReplyWriter({ ...options, sendNow }), memory }
}

function put(writer: ReplyWriter, text: string): void {
  const at = writer.reserve(text.length)
  writer.bytes.write(text, at, 'latin1')
  writer.commit(text.length)
}

t.test('all that one turn finishes leaves in one write', async (t) => {
  const { stream, writer, memory } = setUp()
  put(writer, 'one ')
  put(writer, 'two ')
  const at = writer.reserve(6)
  writer.bytes.write('three ', at)
  const slot = writer.detach(6)
  put(writer, 'four ')
  writer.flush()
  t.equal(stream.writes, 1)
  t.equal(Buffer.concat(stream.taken).toString(), 'one two four ')
  writer.send(slot, 6)
  writer.flush()
  t.equal(Buffer.concat(stream.taken).toString(), 'one two four three ')
  t.equal(writer.unsentBytes, 0)
  t.equal(memory.budget.usedBytes, 0, 'an idle connection holds nothing')
})

t.test('while the socket is full one write waits and the rest is kept in order', async (t) => {
  const { stream, writer, memory } = setUp()
  stream.isOpen = false
  put(writer, 'a')
  writer.flush()
  t.equal(writer.isBlocked, true)
  const before = writer.progressCount
  for (let index = 0; index < 1000; index++) {
    put(writer, `${index};`.padEnd(64))
    writer.flush()
  }
  t.equal(stream.writes, 1)
  t.equal(writer.unsentBytes, 64_001)
  t.ok(memory.budget.usedBytes >= 64_000)
  stream.isOpen = true
  stream.takeWaiting()
  await new Promise((resolve) => setImmediate(resolve))
  t.equal(writer.unsentBytes, 0)
  t.not(writer.progressCount, before)
  const expected = Array.from({ length: 1000 }, (_, index) => `${index};`.padEnd(64)).join('')
  t.equal(Buffer.concat(stream.taken).toString(), `a${expected}`)
  t.equal(memory.budget.usedBytes, 0)
})

t.test('any mix of replies, late ones and dropped ones leaves each byte once', async (t) => {
  for (let seed = 0; seed < 30; seed++) {
    const random = new SeededRandom(seed)
    const { stream, writer, memory } =
      seed % 2 === 0 ? setUp() : setUp((lengthBytes) => random.below(lengthBytes + 1))
    const slots: { readonly slot: Slot; readonly text: string }[] = []
    const expected = new Map<string, number>()
    const expect = (text: string): void => void expected.set(text, (expected.get(text) ?? 0) + 1)
    for (let step = 0; step < 400; step++) {
      const text = `<${seed}.${step}.${'x'.repeat(random.below(3000))}>`
      switch (random.below(6)) {
        case 0: {
          const at = writer.reserve(text.length)
          writer.bytes.write(text, at, 'latin1')
          slots.push({ slot: writer.detach(text.length), text })
          break
        }
        case 1: {
          const [late] = slots.splice(random.below(slots.length + 1), 1)
          if (!late) break
          if (random.below(4) === 0) writer.drop(late.slot)
          else {
            writer.send(late.slot, late.text.length)
            expect(late.text)
          }
          break
        }
        case 2:
          writer.flush()
          break
        case 3:
          stream.isOpen = random.below(2) === 0
          stream.takeWaiting()
          await new Promise((resolve) => setImmediate(resolve))
          break
        default:
          put(writer, text)
          expect(text)
      }
    }
    for (const { slot } of slots) writer.drop(slot)
    stream.isOpen = true
    for (let turn = 0; turn < 200 && (writer.unsentBytes > 0 || turn < 2); turn++) {
      writer.flush()
      stream.takeWaiting()
      await new Promise((resolve) => setImmediate(resolve))
    }
    const found = new Map<string, number>()
    for (const text of Buffer.concat(stream.taken)
      .toString('latin1')
      .match(/<[^>]*>/g) ?? []) {
      found.set(text, (found.get(text) ?? 0) + 1)
    }
    t.strictSame([...found].sort(), [...expected].sort(), `seed ${seed}`)
    t.equal(memory.budget.usedBytes, 0)
  }
})

t.test('what the system takes at once does not go through the stream', async (t) => {
  const { stream, writer, memory } = setUp((lengthBytes) => lengthBytes)
  put(writer, 'at once')
  writer.flush()
  t.equal(Buffer.concat(stream.taken).toString(), 'at once')
  t.equal(stream.writes, 0)
  t.equal(writer.isBlocked, false)
  t.equal(memory.budget.usedBytes, 0)
})

t.test('what the system leaves of a reply goes through the stream', async (t) => {
  const { stream, writer, memory } = setUp(() => 5)
  put(writer, 'one two ')
  const at = writer.reserve(6)
  writer.bytes.write('three ', at)
  writer.send(writer.detach(6), 6)
  writer.flush()
  t.equal(stream.writes, 1)
  t.equal(Buffer.concat(stream.taken).toString(), 'one two three ')
  t.equal(writer.unsentBytes, 0)
  t.equal(memory.budget.usedBytes, 0)
})

t.test('closing gives everything back, and what is finished later goes nowhere', async (t) => {
  const { stream, writer, memory } = setUp()
  stream.isOpen = false
  put(writer, 'a')
  writer.flush()
  put(writer, 'b')
  const at = writer.reserve(3)
  writer.bytes.write('cde', at)
  const slot = writer.detach(3)
  writer.close()
  t.equal(writer.unsentBytes, 0)
  t.ok(memory.budget.usedBytes > 0, 'a slot is still out')
  writer.send(slot, 3)
  t.equal(memory.budget.usedBytes, 0)
  stream.takeWaiting()
  t.equal(stream.taken.length, 1)
})
