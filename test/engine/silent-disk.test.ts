// A disk that does not answer: both nodes say so while it lasts, nobody calls himself in sync with it, and when it answers again all is as before.
import assert from 'node:assert/strict'
import t from 'tap'
import { EnginePair, pattern } from '../support/engine-pair.js'
import { FakeSecondary } from '../support/fake-peer.js'

/** From now on no disk call of a node is completed, until the answer is called. */
function freeze(node: EnginePair['a']): () => void {
  let thaw = (): void => {}
  const frozen = new Promise<void>((resolve) => {
    thaw = resolve
  })
  node.hold = () => frozen
  return () => {
    node.hold = () => undefined
    thaw()
  }
}

t.test('a replica whose disk hangs says so, and so does its primary', async (t) => {
  const pair = await EnginePair.inSync({ isSlow: true })
  const thaw = freeze(pair.b)
  const writing = pair.a.begin('vol0', 0, pattern(1), true)
  await pair.scheduler.settle(4_000)
  t.equal(pair.a.peer.unconfirmedSeconds, undefined, 'a busy disk may take so long')
  t.equal(pair.a.peer.action, undefined)
  t.equal(pair.b.engine.status().diskSilentSeconds, undefined)
  await pair.scheduler.settle(4_000)
  t.same([pair.a.link, pair.b.link], ['streaming', 'streaming'], 'both are alive')
  const { unconfirmedSeconds = 0, reason, action } = pair.a.peer
  t.match(action, /lockstep peer disconnect lets writes go on/)
  t.ok(unconfirmedSeconds >= 5 && unconfirmedSeconds <= 8, `${unconfirmedSeconds} s`)
  t.match(reason, /^The peer lives, and has made nothing durable for \d s of what it was sent: /)
  t.ok((pair.b.engine.status().diskSilentSeconds ?? 0) >= 5)
  t.match(pair.b.peer.reason, /^This node's disk has not answered for \d s/)
  t.equal(pair.a.engine.status().diskSilentSeconds, undefined, 'its own disk is well')
  const waits = [pair.a, pair.b].map(({ engine }) => engine.waitFor('in-sync', 60_000))
  let reachedCount = 0
  for (const wait of waits) void wait.then(() => reachedCount++)
  await pair.scheduler.settle(2_000)
  t.equal(reachedCount, 0, 'nobody is in sync with it')
  thaw()
  await pair.run(Promise.all([writing, ...waits]))
  t.equal(pair.a.peer.unconfirmedSeconds, undefined)
  t.equal(pair.b.engine.status().diskSilentSeconds, undefined)
  t.match(pair.b.peer.reason, /lacks nothing/)
  await pair.same()
  await pair.close()
})

t.test('writes that are only not durable there are seen as well', async (t) => {
  const pair = await EnginePair.inSync({ isSlow: true })
  await pair.a.write('vol0', 0, pattern(1), true)
  pair.b.hold = ({ kind }) => (kind === 'sync' ? new Promise(() => {}) : undefined)
  for (let second = 0; second < 8; second++) {
    await pair.a.write('vol0', 0, pattern(second + 2))
    await pair.scheduler.settle(1_000)
  }
  t.equal(pair.a.link, 'streaming')
  t.ok((pair.a.peer.unconfirmedSeconds ?? 0) >= 5, 'the peer applies them, and keeps none')
  t.ok((pair.b.engine.status().diskSilentSeconds ?? 0) >= 5)
})

t.test('nor does a write that is not even applied hide it', async (t) => {
  const pair = await EnginePair.inSync({
    isSlow: true,
    isNeverNow: true,
    replication: { mode: 'async' },
  })
  pair.b.hold = ({ kind, name }) =>
    kind.startsWith('write') && name === 'data' ? new Promise(() => {}) : undefined
  await pair.a.write('vol0', 0, pattern(1))
  await pair.scheduler.settle(10_000)
  t.ok((pair.b.engine.status().diskSilentSeconds ?? 0) >= 5, 'nothing waits to be committed')
  t.ok((pair.a.peer.unconfirmedSeconds ?? 0) >= 5)
})

t.test('when the primary goes on without it, the replica knows that at once', async (t) => {
  const pair = await EnginePair.inSync({ isSlow: true })
  const thaw = freeze(pair.b)
  const writing = pair.a.begin('vol0', 0, pattern(1), true)
  await pair.scheduler.settle(45_000)
  await pair.run(writing)
  t.equal(pair.b.link, 'offline', 'what it has not applied yet does not keep it from seeing that')
  t.ok((pair.b.engine.status().diskSilentSeconds ?? 0) >= 40)
  thaw()
  await pair.sync()
  await pair.same()
  await pair.close()
})

t.test('a node tells of its own disk, with or without a peer', async (t) => {
  const pair = await EnginePair.make({ isSlow: true })
  await pair.a.start({ isAlone: true })
  await pair.a.create('vol0')
  const thaw = freeze(pair.a)
  const writing = pair.a.begin('vol0', 0, pattern(1), true)
  await pair.scheduler.settle(4_000)
  t.equal(pair.a.engine.status().diskSilentSeconds, undefined)
  await pair.scheduler.settle(5_000)
  t.ok((pair.a.engine.status().diskSilentSeconds ?? 0) >= 5)
  thaw()
  await pair.run(writing)
  t.equal(pair.a.engine.status().diskSilentSeconds, undefined)
  await pair.a.close()
})

t.test('a peer that confirms late is said to, until it does', async (t) => {
  const pair = await EnginePair.make({ replication: { mode: 'async' } })
  const peers: FakeSecondary[] = []
  FakeSecondary.listen(pair, (peer) => {
    peers.push(peer)
    peer.serve()
  })
  await pair.a.start()
  await pair.until(() => pair.a.link === 'streaming', 'it follows')
  await pair.a.create('vol0')
  await pair.scheduler.settle(60_000)
  t.equal(pair.a.peer.unconfirmedSeconds, undefined, 'idle for as long as it likes')
  const [peer] = peers
  assert(peer)
  peer.isAnswering = false
  for (let second = 0; second < 8; second++) {
    await pair.a.write('vol0', 0, pattern(second + 1))
    await pair.scheduler.settle(1_000)
    // Something becomes durable: it is slow, and that is all.
    if (second < 4) peer.answer(peer.received, peer.received, peer.received)
  }
  t.equal(pair.a.peer.unconfirmedSeconds, undefined, 'four seconds')
  await pair.scheduler.settle(3_000)
  t.ok((pair.a.peer.unconfirmedSeconds ?? 0) >= 5)
  peer.answer(peer.received, peer.received, peer.received)
  await pair.scheduler.settle(100)
  t.equal(pair.a.peer.unconfirmedSeconds, undefined)
  await pair.a.close()
})
