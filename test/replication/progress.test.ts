// Who waits for the peer's positions goes on when an answer covers it, in order, or when nobody waits any more; a peer that goes back or ahead is refused.
import t from 'tap'
import { PeerProgress } from '../../src/replication/progress.js'
import { SeededRandom } from '../support/random.js'
import { sequence } from './sample-frames.js'

const answer = (received: number, applied: number, durable: number) =>
  ({
    kind: 'answer',
    received: sequence(received),
    applied: sequence(applied),
    durable: sequence(durable),
  }) as const

t.test('nobody waits before there is a peer', async (t) => {
  const progress = new PeerProgress()
  t.notOk(progress.isWaiting)
  t.equal(progress.whenReceived(sequence(1)), undefined)
  t.equal(progress.whenApplied(sequence(1)), undefined)
  t.equal(progress.whenDurable(sequence(1)), undefined)
})

t.test('each kind waits for its own position', async (t) => {
  const progress = new PeerProgress()
  progress.begin(sequence(10))
  t.equal(progress.whenDurable(sequence(10)), undefined, 'that is so already')
  const order: string[] = []
  const note = (what: string) => () => void order.push(what)
  const waits = [
    progress.whenDurable(sequence(12))?.then(note('durable 12')),
    progress.whenApplied(sequence(12))?.then(note('applied 12')),
    progress.whenReceived(sequence(12))?.then(note('received 12')),
    progress.whenApplied(sequence(11))?.then(note('applied 11')),
  ]
  t.notOk(waits.includes(undefined))
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  progress.answer(answer(12, 11, 10), sequence(12))
  await turn()
  t.same(order, ['received 12', 'applied 11'])
  progress.answer(answer(12, 12, 10), sequence(12))
  await turn()
  t.same(order.slice(2), ['applied 12'])
  progress.answer(answer(12, 12, 12), sequence(12))
  await Promise.all(waits)
  t.same(order.slice(3), ['durable 12'])
  t.same([progress.received, progress.applied, progress.durable], [12, 12, 12])
})

t.test('what cannot be is refused, and changes nothing', async (t) => {
  const progress = new PeerProgress()
  progress.begin(sequence(5))
  progress.answer(answer(9, 8, 7), sequence(9))
  for (const bad of [
    answer(10, 8, 7),
    answer(8, 8, 7),
    answer(9, 7, 7),
    answer(9, 8, 6),
    answer(9, 10, 7),
    answer(9, 8, 9),
  ])
    t.throws(() => progress.answer(bad, sequence(9)), { name: 'ProtocolError' })
  t.same([progress.received, progress.applied, progress.durable], [9, 8, 7])
})

t.test('waiters outlive a connection, and all go on when the peer is given up', async (t) => {
  const progress = new PeerProgress()
  progress.begin(sequence(0))
  progress.answer(answer(9, 9, 3), sequence(9))
  const kept = progress.whenDurable(sequence(5))
  const given = progress.whenApplied(sequence(50))
  // It crashed: what it had only applied is sent again.
  progress.begin(sequence(4))
  t.same([progress.received, progress.applied, progress.durable], [4, 4, 4])
  progress.answer(answer(5, 5, 5), sequence(9))
  await kept
  progress.releaseAll()
  await given
  t.equal(progress.whenApplied(sequence(99)), undefined)
  t.notOk(progress.isWaiting)
})

t.test('thousands wait in any order, and are let go in the order of the stream', async (t) => {
  const random = new SeededRandom(5)
  const progress = new PeerProgress()
  progress.begin(sequence(0))
  const count = 5000
  const done: number[] = []
  const waits: Promise<void>[] = []
  const wait = (value: number) => {
    const promise = progress.whenApplied(sequence(value))
    if (promise) waits.push(promise.then(() => void done.push(value)))
  }
  // Nearly in order, as writes that complete beside each other.
  for (let value = 1; value <= count; value += 10)
    for (const next of [3, 1, 2, 9, 5, 4, 6, 8, 7, 0]) wait(value + next)
  for (let reached = 0; reached < count + 10; ) {
    reached += 1 + random.below(700)
    progress.answer(answer(reached, reached, 0), sequence(reached))
  }
  await Promise.all(waits)
  t.equal(done.length, count)
  t.same(
    done,
    [...done].sort((a, b) => a - b),
  )
})
