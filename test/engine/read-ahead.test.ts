// Reading ahead beside others: how many pieces a turn, how many ranges at a time, how many in line, and into how much memory.
import t from 'tap'
import { limits } from '../../src/core/limits.js'
import { ReadAhead } from '../../src/engine/read-ahead.js'
import { ManualClock } from '../support/manual-clock.js'
import { chunkBytes, filled, SmallNode } from '../support/small-node.js'

const MiB = 1024 * 1024

/** Lets every microtask run out. */
async function settled(): Promise<void> {
  for (let step = 0; step < 50; step++) await Promise.resolve()
}

class Bench {
  readonly clock = new ManualClock()
  readonly readAhead = new ReadAhead(this.clock)
  readonly scratches = new Set<ArrayBufferLike>()
  readonly reads: string[] = []
  readonly finished: string[] = []
  readonly unwanted = new Set<string>()

  /** A range of so many pieces, each there at once. False when it was not taken. */
  add(name: string, pieceCount: number, fail?: () => void): boolean {
    let left = pieceCount
    const done = this.readAhead.run({
      isOver: () => left === 0 || this.unwanted.has(name),
      readPiece: (scratch) => {
        left--
        this.scratches.add(scratch.buffer)
        this.reads.push(name)
        fail?.()
        return undefined
      },
    })
    done?.then(
      () => this.finished.push(name),
      () => this.finished.push(`${name} failed`),
    )
    return done !== undefined
  }

  /** One turn of the event loop: what was read in it. */
  async turn(): Promise<string> {
    this.reads.length = 0
    this.clock.runDeferred()
    await settled()
    return this.reads.join(' ')
  }
}

t.test('two ranges at a time, a piece of each a turn, the others in order', async (t) => {
  const bench = new Bench()
  for (const [name, count] of [
    ['a', 3],
    ['b', 1],
    ['c', 2],
    ['d', 1],
  ] as const)
    t.ok(bench.add(name, count))
  await settled()
  t.equal(bench.reads.join(' '), 'a b')
  t.same(bench.finished, ['b'], 'answered as soon as it is read')
  t.equal(await bench.turn(), 'a c')
  t.equal(await bench.turn(), 'a c')
  t.same(bench.finished, ['b', 'a', 'c'])
  t.equal(await bench.turn(), 'd')
  t.same(bench.finished, ['b', 'a', 'c', 'd'])
  t.equal(bench.scratches.size, 1, 'one buffer')
  t.equal(await bench.turn(), '')
  t.equal(await bench.turn(), '')
})

t.test('ranges that come one behind the other wait for the next turn all the same', async (t) => {
  const bench = new Bench()
  for (let index = 0; index < 10; index++) {
    bench.add(`r${index}`, 1)
    await settled()
  }
  t.equal(bench.reads.length, limits.readAheadCountMax)
  t.equal(await bench.turn(), 'r2 r3')
})

t.test('when too many wait the hint is not followed, until there is room again', async (t) => {
  const bench = new Bench()
  const takenMax = limits.readAheadCountMax + limits.readAheadWaitingMax
  let takenCount = 0
  for (let index = 0; index < 500; index++) if (bench.add(`r${index}`, 1)) takenCount++
  t.equal(takenCount, takenMax)
  for (let turn = 0; turn < takenMax; turn++) await bench.turn()
  t.equal(bench.finished.length, takenMax)
  t.ok(bench.add('late', 1))
})

t.test(
  'a range that nobody wants any more, or cannot be read, makes room for others',
  async (t) => {
    const bench = new Bench()
    bench.add('gone', 1000)
    bench.add('broken', 1000, () => {
      throw new Error('the disk failed')
    })
    bench.add('good', 2)
    await settled()
    t.same(bench.finished, ['broken failed'])
    bench.unwanted.add('gone')
    t.equal(await bench.turn(), 'good')
    t.equal(await bench.turn(), 'good')
    t.same(bench.finished, ['broken failed', 'gone', 'good'])
  },
)

t.test('all exports of a node share it, and what is read stays right', async (t) => {
  const node = await SmallNode.start({ chunkBytes: 65536 })
  for (const name of ['v', 'w']) {
    await node.create(name, 4 * MiB)
    for (let at = 0; at < 4; at++) await node.write(name, at * MiB, filled(at + 1, MiB))
  }
  const range = { offset: 0, lengthBytes: 4 * MiB }
  let before = node.calls.length
  const readBytes = () =>
    node.calls.slice(before).reduce((sum, call) => sum + (call.lengthBytes ?? 0), 0)
  const caching = ['v', 'w', 'v', 'w'].map((name) => node.export(name).cache(range))
  await settled()
  t.equal(readBytes(), limits.readAheadCountMax * MiB, 'no more in one turn')
  await node.run(Promise.all(caching))
  t.equal(readBytes(), 16 * MiB)
  t.ok((await node.read('w', 3 * MiB, chunkBytes)).equals(filled(4)))
  before = node.calls.length
  await node.run(node.export('v').cache({ ...range, isWanted: () => false }))
  t.equal(readBytes(), 0, 'a client that is gone is not served')
})
