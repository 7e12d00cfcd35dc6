// Bytes that arrived: any cut into pieces gives the same headers and payload, and each piece is released once.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { Input } from '../../nbd/input.js'

t.test(
  'headers, payload and skipped bytes are the same in any pieces, and all is released',
  async (t) => {
    const plan = fc.array(
      fc.tuple(fc.constantFrom('header', 'parts', 'skip'), fc.integer({ min: 1, max: 60 })),
      {
        minLength: 1,
        maxLength: 20,
      },
    )
    const sizes = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 10 })
    fc.assert(
      fc.property(plan, sizes, (steps, pieceSizes) => {
        const takes = steps.map(([kind, size]) => [kind, kind === 'header' ? 28 : size] as const)
        const total = takes.reduce((sum, [, size]) => sum + size, 0)
        const all = Buffer.from(Array.from({ length: total }, (_, index) => (index * 7) & 0xff))
        const held = new Map<number, number>()
        const count = (view: Buffer, by: number): void => {
          const key = view.byteOffset
          held.set(key, (held.get(key) ?? 0) + by)
        }
        const input = new Input(32, {
          hold: (view) => count(view, 1),
          release: (view) => count(view, -1),
        })
        let pushed = 0
        let turn = 0
        const more = (): void => {
          const size = pieceSizes[turn++ % pieceSizes.length] ?? 1
          const piece = all.subarray(pushed, pushed + size)
          assert(piece.length > 0)
          count(piece, 1)
          input.push(piece)
          pushed += size
        }
        let at = 0
        for (const [kind, size] of takes) {
          const expected = all.subarray(at, at + size)
          if (kind === 'header') {
            while (!input.takeHeader(size)) more()
            const { headerPiece, headerAt } = input
            assert(headerPiece.subarray(headerAt, headerAt + size).equals(expected))
          } else {
            const parts: Buffer[] = []
            for (let left = size; left > 0; ) {
              const taken = kind === 'parts' ? input.takeParts(left, parts) : input.skip(left)
              left -= taken
              if (left > 0) more()
            }
            if (kind === 'parts') assert(Buffer.concat(parts).equals(expected))
            for (const part of parts) count(part, -1)
          }
          at += size
        }
        input.clear()
        for (const [key, holds] of held) assert.equal(holds, 0, `piece at ${key}`)
      }),
      { seed: 3, numRuns: 400 },
    )
    t.pass('400 random cuts')
  },
)

t.test('a header that is not whole is kept for later', async (t) => {
  const input = new Input(32)
  input.push(Buffer.from('abc'))
  t.equal(input.takeHeader(4), false)
  t.equal(input.isInsideHeader, true)
  input.push(Buffer.from('def'))
  t.equal(input.takeHeader(4), true)
  t.equal(input.headerPiece.toString('latin1', input.headerAt, input.headerAt + 4), 'abcd')
  t.equal(input.isInsideHeader, false)
  t.equal(input.hasInOnePiece(2), true)
  t.equal(input.hasInOnePiece(3), false)
})
