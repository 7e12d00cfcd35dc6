// Digests of pieces: what is the same and what differs, to the last short piece.
import { createHash } from 'node:crypto'
import t from 'tap'
import { comparePieceBytes, digestBytes } from '../../src/core/entry.js'
import { differingPieces, digestsOf } from '../../src/engine/digests.js'

t.test('there is one digest a piece, and the last piece may be short', async (t) => {
  const bytes = Buffer.alloc(2 * comparePieceBytes + 100, 7)
  const digests = digestsOf(bytes)
  t.equal(digests.length, 3 * digestBytes)
  const last = createHash('sha256').update(Buffer.alloc(100, 7)).digest()
  t.same(digests.subarray(2 * digestBytes), last)
  t.same(digests.subarray(0, digestBytes), digests.subarray(digestBytes, 2 * digestBytes))
  t.equal(digestsOf(Buffer.alloc(0)).length, 0)
})

t.test('one bit for each piece that differs, the first in the lowest', async (t) => {
  const pieces = 19
  const mine = Buffer.alloc(pieces * comparePieceBytes)
  const other = Buffer.from(mine)
  for (const piece of [0, 8, 18]) other[piece * comparePieceBytes + 5] = 1
  t.same([...differingPieces(digestsOf(mine), digestsOf(other))], [1, 1, 4])
  t.same([...differingPieces(digestsOf(mine), digestsOf(mine))], [0, 0, 0])
  t.same([...differingPieces(digestsOf(mine), digestsOf(other), (at) => at === 1)], [3, 1, 4])
})
