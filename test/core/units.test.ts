// Sizes as people write and read them.
import fc from 'fast-check'
import t from 'tap'
import { byteOffset, formatBytes, GiB, KiB, MiB, parseSize, TiB } from '../../src/core/units.js'

t.test('sizes are read as people write them', async (t) => {
  const sizes: Readonly<Record<string, number>> = {
    '0': 0,
    '512': 512,
    '64K': 64 * KiB,
    '64k': 64 * KiB,
    '64KiB': 64 * KiB,
    '64kb': 64 * KiB,
    '10G': 10 * GiB,
    '1.5T': 1.5 * TiB,
    '0.5M': 512 * KiB,
    ' 1T ': TiB,
    '7P': 7 * 1024 * TiB,
    '9007199254740991': 2 ** 53 - 1,
    '8191.875T': 8191.875 * TiB,
  }
  for (const [text, bytes] of Object.entries(sizes)) t.equal(parseSize(text), bytes, text)
})

t.test('what names no whole number of bytes is no size', async (t) => {
  const texts = ['', ' ', 'K', '-1', '+1', '1e3', '0x10', '1.5', '1.', '.5K', '1..5K', '1,5K']
  const more = ['1 K', '1KK', '10X', '1.0001K', '1.001K', 'NaN', '9007199254740992', '8P', '99999P']
  for (const text of [...texts, ...more, '١K', '1'.repeat(400)])
    t.equal(parseSize(text), undefined, text.slice(0, 20))
})

t.test('bytes are shown rounded, in the unit that people would choose', async (t) => {
  const shown: readonly (readonly [number, string])[] = [
    [0, '0 bytes'],
    [1, '1 bytes'],
    [1023, '1023 bytes'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [1.5 * GiB, '1.5 GiB'],
    [1.25 * MiB, '1.25 MiB'],
    [12.34 * MiB, '12.3 MiB'],
    [MiB - 1, '1 MiB'],
    [GiB - 1, '1 GiB'],
    [1023.9 * MiB, '1023.9 MiB'],
    [2 ** 53 - 512, '8 PiB'],
    [2 ** 60, '1024 PiB'],
  ]
  for (const [bytes, text] of shown) t.equal(formatBytes(bytes), text)
})

t.test('a whole size that is shown is read back', async () => {
  const property = fc.property(fc.integer({ min: 1, max: 1023 }), fc.nat(4), (count, unit) => {
    const bytes = count * 1024 ** unit
    return parseSize(formatBytes(bytes).replace(' bytes', '').replace(' ', '')) === bytes
  })
  fc.assert(property, { seed: 1 })
})

t.test('an offset is a whole number from 0 to 2^53 - 1', async (t) => {
  for (const value of [0, 1, 2 ** 53 - 1]) t.equal(byteOffset(value), value)
  for (const value of [-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY])
    t.throws(() => byteOffset(value), { name: 'AssertionError' })
})
