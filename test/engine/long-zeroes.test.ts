// Zeroes of many pieces: in turn, one at a time, no further than somebody waits for them.
import t from 'tap'
import { limits } from '../../src/core/limits.js'
import { type LongZero, LongZeroes } from '../../src/engine/long-zeroes.js'

const pieceBytes = limits.zeroPieceBytes

/** Zeroes whose pieces end when the test says so. */
class Pieces {
  readonly zeroes = new LongZeroes()
  readonly seen: string[] = []
  readonly #ends: ((error?: Error) => void)[] = []

  run(name: string, offset: number, lengthBytes: number, isWanted = () => true): Promise<void> {
    const write: LongZero['write'] = (piece, isLast) => {
      this.seen.push(`${name} ${piece.offset}+${piece.lengthBytes}${isLast ? ' last' : ''}`)
      return new Promise((resolve, reject) => {
        this.#ends.push((error) => (error === undefined ? resolve() : reject(error)))
      })
    }
    return this.zeroes.run({ offset, lengthBytes, write, isWanted })
  }

  /** Ends the one piece that is under way. */
  async end(error?: Error): Promise<void> {
    t.equal(this.#ends.length, 1, 'one piece is under way')
    this.#ends.shift()?.(error)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

t.test('requests take turns, a piece each, cut at multiples of its size', async (t) => {
  const pieces = new Pieces()
  const first = pieces.run('a', 512, 2 * pieceBytes)
  const second = pieces.run('b', 0, pieceBytes + 1)
  for (let count = 0; count < 5; count++) await pieces.end()
  await Promise.all([first, second])
  t.same(pieces.seen, [
    `a 512+${pieceBytes - 512}`,
    `b 0+${pieceBytes}`,
    `a ${pieceBytes}+${pieceBytes}`,
    `b ${pieceBytes}+1 last`,
    `a ${2 * pieceBytes}+512 last`,
  ])
  const third = pieces.run('c', 0, pieceBytes)
  await pieces.end()
  await third
  t.equal(pieces.seen.at(-1), `c 0+${pieceBytes} last`, 'it goes on after a pause')
})

t.test('who has gone gets no further piece, and a failure ends its request alone', async (t) => {
  const pieces = new Pieces()
  let isWanted = true
  const gone = pieces.run('gone', 0, 10 * pieceBytes, () => isWanted)
  const fails = pieces.run('fails', 0, 10 * pieceBytes)
  const stays = pieces.run('stays', 0, pieceBytes)
  isWanted = false
  await pieces.end()
  const refused = t.rejects(fails, { message: 'no space' })
  await pieces.end(new Error('no space'))
  await refused
  await pieces.end()
  await Promise.all([gone, stays])
  t.same(pieces.seen, [
    `gone 0+${pieceBytes}`,
    `fails 0+${pieceBytes}`,
    `stays 0+${pieceBytes} last`,
  ])
})
