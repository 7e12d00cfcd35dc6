// The log under the outbox, against a plain array: what lies between its front and its end is always what was written there.
import t from 'tap'
import { ByteLog } from '../../src/replication/byte-log.js'
import { linkLimits } from '../../src/replication/limits.js'
import { SeededRandom } from '../support/random.js'

const { blockBytes, burstBlockCountMax, freeBlockCountMax } = linkLimits
const read = (log: ByteLog, place: number, end: number): Buffer => {
  const parts: Buffer[] = []
  log.view(place, end, parts)
  return Buffer.concat(parts)
}

t.test('bytes stay where they were written until they are released', async (t) => {
  const random = new SeededRandom(3)
  const log = new ByteLog()
  const kept: { readonly place: number; readonly bytes: Buffer }[] = []
  for (let round = 0; round < 400; round++) {
    const lengthBytes = 1 + random.below(random.pick([50, 5000, 700_000]))
    const place = log.append(lengthBytes)
    const bytes = Buffer.alloc(lengthBytes, round)
    log.write(place, bytes)
    kept.push({ place, bytes })
    if (random.below(20) === 0) {
      log.forget()
      kept.length = 0
    }
    while (kept.length > 0 && random.below(2) === 0) {
      const first = kept.shift()
      if (first) log.release(first.place + first.bytes.length)
    }
    for (const { place: at, bytes: expected } of kept)
      if (!read(log, at, at + expected.length).equals(expected))
        t.fail(`round ${round}, place ${at}`)
  }
  t.pass('nothing was overwritten')
})

t.test('memory is used again, and no more is kept than the bound', async (t) => {
  const log = new ByteLog()
  const seen = new Set<ArrayBufferLike>()
  const lengthBytes = blockBytes / 4
  for (let round = 0; round < 100; round++) {
    const place = log.append(lengthBytes)
    const parts: Buffer[] = []
    log.view(place, place + lengthBytes, parts)
    for (const part of parts) seen.add(part.buffer)
    log.release(place + lengthBytes)
  }
  t.ok(seen.size <= 2, `${seen.size} blocks for 25 MiB, one after the other`)
  const place = log.append(100 * blockBytes)
  t.ok(log.memoryBytes >= 100 * blockBytes)
  log.release(place + 100 * blockBytes)
  t.ok(log.isAmple, 'for the next burst')
  t.ok(log.memoryBytes <= (burstBlockCountMax + 1) * blockBytes)
  log.trim()
  t.notOk(log.isAmple)
  t.ok(log.memoryBytes <= (freeBlockCountMax + 1) * blockBytes)
})

t.test('what somebody may still look at is not used again', async (t) => {
  for (const keep of ['seal', 'forget'] as const) {
    const log = new ByteLog()
    const place = log.append(blockBytes)
    log.write(place, Buffer.alloc(blockBytes, 1))
    const parts: Buffer[] = []
    log.view(place, place + blockBytes, parts)
    log[keep]()
    if (keep === 'seal') log.release(place + blockBytes)
    for (let round = 0; round < 5; round++) {
      const next = log.append(blockBytes)
      log.write(next, Buffer.alloc(blockBytes, 2))
    }
    t.ok(Buffer.concat(parts).equals(Buffer.alloc(blockBytes, 1)), keep)
  }
})

t.test('places outside are a fault', async (t) => {
  const log = new ByteLog()
  const place = log.append(10)
  t.throws(() => log.write(place + 5, Buffer.alloc(6)), { name: 'AssertionError' })
  t.throws(() => read(log, place, 11), { name: 'AssertionError' })
  log.release(5)
  t.throws(() => read(log, 0, 5), { name: 'AssertionError' })
  t.throws(() => log.release(4), { name: 'AssertionError' })
  t.throws(() => log.release(11), { name: 'AssertionError' })
})
