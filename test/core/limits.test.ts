// What the limits say of each other.
import t from 'tap'
import { limits } from '../../src/core/limits.js'
import { blockBytes, MiB } from '../../src/core/units.js'

t.test('sizes are whole blocks, and the default lies between the bounds', async (t) => {
  for (const bytes of [limits.chunkBytesMin, limits.chunkBytesDefault, limits.chunkBytesMax])
    t.equal(Math.log2(bytes) % 1, 0, `${bytes} is a power of two`)
  t.ok(limits.chunkBytesMin >= blockBytes)
  t.ok(limits.chunkBytesMin <= limits.chunkBytesDefault)
  t.ok(limits.chunkBytesDefault <= limits.chunkBytesMax)
  for (const bytes of [limits.journalBytesMin, limits.journalBytesDefault])
    t.equal(bytes % blockBytes, 0)
})

t.test('the smallest journal holds its reserve and more', async (t) => {
  t.ok(limits.journalBytesMin >= 4 * limits.journalReserveBytes)
})

t.test('a place in the largest chunks is a whole number of bytes', async (t) => {
  t.ok(Number.isSafeInteger(limits.chunkPlaceMax * MiB))
})

t.test('a reference count of 16 bits holds one page of each store', async (t) => {
  t.ok(limits.storeCountMax * 2 < 65535)
})
