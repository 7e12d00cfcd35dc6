// Cutting a read at its holes, and what errors become on the wire: both pure.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { RequestError, toRequestError } from '../../nbd/errors.js'
import { cutAtHoles } from '../../nbd/holes.js'

t.test('pieces cover the range in order, and only long enough zeroes are holes', async (t) => {
  const extents = fc.array(
    fc.record(
      { lengthBytes: fc.integer({ min: 1, max: 50 }), flags: fc.constantFrom(0, 1, 2, 3) },
      { noNullPrototype: true },
    ),
    { maxLength: 20 },
  )
  fc.assert(
    fc.property(
      fc.nat(1000),
      fc.integer({ min: 1, max: 300 }),
      extents,
      (offset, length, found) => {
        const pieces = cutAtHoles(offset, length, found, 10)
        let at = offset
        for (const [index, piece] of pieces.entries()) {
          assert.equal(piece.offset, at)
          assert(piece.lengthBytes > 0)
          if (piece.isHole) assert(piece.lengthBytes >= 10)
          else assert(index === 0 || pieces[index - 1]?.isHole, 'data is in one piece')
          at += piece.lengthBytes
        }
        assert.equal(at, offset + length)
        const isZero = (position: number): boolean => {
          let end = offset
          for (const extent of found) {
            end += extent.lengthBytes
            if (position < end) return (extent.flags & 2) !== 0
          }
          return false
        }
        for (const piece of pieces.filter(({ isHole }) => isHole)) {
          for (let p = piece.offset; p < piece.offset + piece.lengthBytes; p++) assert(isZero(p))
        }
      },
    ),
    { seed: 2, numRuns: 500 },
  )
  t.pass('500 random extents')
})

t.test('the wire knows few errors: what has no place there is EIO, never EINVAL', async (t) => {
  const known = new RequestError('ENOMEM', 'x')
  t.equal(toRequestError(known), known)
  const errnoOf = (code: unknown): string =>
    toRequestError(Object.assign(new Error(), { code })).errno
  for (const code of ['ENOSPC', 'EDQUOT', 'EFBIG']) t.equal(errnoOf(code), 'ENOSPC')
  for (const code of ['EROFS', 'EPERM']) t.equal(errnoOf(code), 'EPERM')
  for (const code of ['EIO', 'EINVAL', 'EBADF', undefined, 7]) t.equal(errnoOf(code), 'EIO')
  for (const thrown of [null, undefined, 'text', 3]) t.equal(toRequestError(thrown).errno, 'EIO')
})
