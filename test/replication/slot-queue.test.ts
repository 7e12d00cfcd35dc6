// The queue of slots: first in, first out, found by number, whatever was taken away before.
import t from 'tap'
import { SlotQueue } from '../../src/replication/slot-queue.js'

t.test('items leave in order and are found by their number', async (t) => {
  const queue = new SlotQueue<{ readonly sequence: number }>()
  t.equal(queue.first, undefined)
  t.equal(queue.at(1), undefined)
  let next = 5
  let first = 5
  // Grows and shrinks over every bound of the tidying.
  for (const [pushes, shifts] of [
    [10, 3],
    [9000, 5000],
    [1, 4000],
    [20_000, 20_008],
    [3, 3],
    [2, 0],
  ] as const) {
    for (let count = 0; count < pushes; count++) queue.push({ sequence: next++ })
    for (let count = 0; count < shifts; count++) {
      if (queue.first?.sequence !== first) t.fail(`not ${first} at the front`)
      queue.shift()
      first++
    }
    t.equal(queue.length, next - first)
    t.equal(queue.at(first - 1), undefined)
    t.equal(queue.at(next), undefined)
    if (next > first) {
      t.equal(queue.at(first)?.sequence, first)
      t.equal(queue.at(next - 1)?.sequence, next - 1)
    }
    t.same(
      [...queue].map(({ sequence }) => sequence),
      Array.from({ length: next - first }, (_, index) => first + index),
    )
  }
})

t.test('a gap is a fault', async (t) => {
  const queue = new SlotQueue<{ readonly sequence: number }>()
  queue.push({ sequence: 1 })
  t.throws(() => queue.push({ sequence: 3 }), { name: 'AssertionError' })
  queue.shift()
  t.throws(() => queue.shift(), { name: 'AssertionError' })
  queue.push({ sequence: 7 })
  t.equal(queue.first?.sequence, 7)
})
