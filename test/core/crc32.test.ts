// Two ways to one sum: whatever computes it, frames of one node are read by the other.
import assert from 'node:assert/strict'
import { crc32 as zlibCrc32 } from 'node:zlib'
import t from 'tap'
import { agrees, crc32, crc32Support, loadFastCrc32 } from '../../src/core/crc32.js'
import { SeededRandom } from '../support/random.js'

t.test('the sum is that of zlib, at any length, address and seed', async (t) => {
  const random = new SeededRandom(20)
  const memory = random.bytes(300_000)
  for (let round = 0; round < 2000; round++) {
    const start = random.below(64)
    const lengthBytes = random.below(round % 10 === 0 ? 290_000 : 5_000)
    const bytes = memory.subarray(start, start + lengthBytes)
    const seed = round % 3 === 0 ? 0 : random.below(2 ** 32)
    if (crc32(bytes, seed) !== zlibCrc32(bytes, seed))
      t.fail(`${lengthBytes} bytes at ${start} with seed ${seed}`)
  }
  t.equal(crc32(Buffer.from('123456789')), 0xcbf43926, 'the check value of the CRC catalogue')
})

t.test('a sum may be taken in pieces', async (t) => {
  const bytes = Buffer.alloc(100_000, 'pieces')
  for (const cut of [0, 1, 31, 32, 33, 4096, 99_999, 100_000])
    t.equal(crc32(bytes.subarray(cut), crc32(bytes.subarray(0, cut))), zlibCrc32(bytes))
})

const loaded = loadFastCrc32()
const skip =
  typeof loaded === 'string' && process.env['CI'] !== 'true' && `install libisal2: ${loaded}`

t.test('the fast library is used where it is installed', { skip }, async (t) => {
  assert(typeof loaded !== 'string', `${loaded}`)
  t.same(crc32Support, { isFast: true })
  t.ok(agrees(loaded))
})

t.test('without the library there is a reason, and the sum is that of zlib', async (t) => {
  t.match(loadFastCrc32('libnone.so.1'), /libnone/)
  t.ok(agrees(zlibCrc32))
})

t.test('a library that computes something else is found out', async (t) => {
  t.notOk(agrees((bytes, seed) => (zlibCrc32(bytes, seed) ^ 1) >>> 0))
  t.notOk(agrees((bytes, seed) => zlibCrc32(bytes, bytes.length > 65_536 ? 0 : seed)))
})
