// The judge of kill -9 loops, against histories whose verdict is plain: it accepts what the contract allows, and nothing else.
import t from 'tap'
import { BlockHistory } from './block-history.js'

const always = (tag: number) => () => tag

t.test('a flushed write must be found, an unflushed one may be', (t) => {
  const history = new BlockHistory(2)
  const first = history.send(0, 1, always(1))
  history.answered(first, 0, 1, false)
  t.same(history.wrongBlocks([0, 0]), [], 'answered is not flushed')
  t.same(history.wrongBlocks([1, 0]), [])
  history.flushed(history.sendFlush())
  t.same(history.wrongBlocks([0, 0]), [0], 'lost')
  t.same(history.wrongBlocks([1, 0]), [])
  history.send(0, 1, always(2))
  t.same(history.wrongBlocks([1, 0]), [], 'sent and not answered: either')
  t.same(history.wrongBlocks([2, 0]), [])
  t.same(history.wrongBlocks([3, 0]), [0], 'never written there')
  t.same(history.wrongBlocks([1, 1]), [1], 'written elsewhere')
  t.end()
})

t.test('a flush covers what was answered before it was sent, and nothing else', (t) => {
  const history = new BlockHistory(1)
  const write = history.send(0, 1, always(1))
  const flush = history.sendFlush()
  history.answered(write, 0, 1, false)
  history.flushed(flush)
  t.same(history.wrongBlocks([0]), [])
  const forced = history.send(0, 1, always(2))
  history.answered(forced, 0, 1, true)
  t.same(history.wrongBlocks([1]), [0], 'FUA is its own flush')
  t.end()
})

t.test('two writes in flight at once may end in either order', (t) => {
  const history = new BlockHistory(1)
  const one = history.send(0, 1, always(1))
  const two = history.send(0, 1, always(2))
  history.answered(two, 0, 1, false)
  history.answered(one, 0, 1, false)
  history.flushed(history.sendFlush())
  t.same(history.wrongBlocks([1]), [])
  t.same(history.wrongBlocks([2]), [])
  t.same(history.wrongBlocks([0]), [0])
  t.end()
})

t.test('a restore that was not answered happened wholly or not at all', (t) => {
  const history = new BlockHistory(2)
  const write = history.send(0, 2, always(5))
  history.answered(write, 0, 2, true)
  const restore = history.send(0, 2, (block) => 7 + block)
  t.same(history.wrongBlocks([5, 5], restore), [])
  t.same(history.wrongBlocks([7, 8], restore), [])
  t.strictNotSame(history.wrongBlocks([7, 5], restore), [], 'half of it')
  history.answered(restore, 0, 2, true)
  t.same(history.wrongBlocks([5, 5]), [0, 1], 'answered: it happened')
  t.end()
})

t.test('a snapshot holds what was answered before, and nothing sent later', (t) => {
  const history = new BlockHistory(2)
  const before = history.send(0, 1, always(1))
  history.answered(before, 0, 1, false)
  const capture = history.beginCapture()
  const during = history.send(1, 1, always(2))
  history.answered(during, 1, 1, true)
  history.endCapture(capture)
  history.send(0, 1, always(3))
  t.same(capture.wrongBlocks([1, 0]), [], 'before the write in flight')
  t.same(capture.wrongBlocks([1, 2]), [], 'after it')
  t.same(capture.wrongBlocks([0, 0]), [0], 'it misses a write')
  t.same(capture.wrongBlocks([3, 0]), [0], 'it has a later write')
  t.end()
})

t.test('after a restart, what was read is the history', (t) => {
  const history = new BlockHistory(1)
  history.send(0, 1, always(1))
  history.restart([1])
  t.same(history.wrongBlocks([0]), [0])
  t.same(history.wrongBlocks([1]), [])
  t.end()
})
