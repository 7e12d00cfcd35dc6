// A secondary that follows its primary, and others who connect to it: nobody but its own group's nodes ends the link.
import assert from 'node:assert/strict'
import t from 'tap'
import type { Sequence } from '../../src/core/units.js'
import { parseHello } from '../../src/replication/hello.js'
import { Life } from '../simulation/sim-clock.js'
import { EnginePair, pattern } from '../support/engine-pair.js'
import {
  blankHello,
  FakePrimary,
  FakeSecondary,
  fakeGeneration,
  fakeHello,
} from '../support/fake-peer.js'

const linkEvents = (pair: EnginePair): readonly string[] =>
  pair.b.engine
    .recentEvents()
    .filter(({ kind }) => kind === 'link')
    .map(({ message }) => message)

t.test('a primary of another group does not cut the link', async (t) => {
  const pair = await EnginePair.inSync()
  const before = linkEvents(pair)
  const { reason } = pair.b.peer
  const stranger = await FakePrimary.connect(pair, 'b')
  stranger.send({ kind: 'hello', body: { ...fakeHello() } })
  const { group } = (await stranger.next('hello')).body
  t.equal(group, pair.b.engine.status().group, 'it hears with whom it speaks')
  stranger.send({ kind: 'decision', body: {} })
  t.equal(await stranger.ended(), 'this node has a primary')
  t.same([pair.a.link, pair.b.link], ['streaming', 'streaming'])
  t.equal(pair.b.peer.reason, reason)
  const [event, ...more] = linkEvents(pair).filter((message) => !before.includes(message))
  t.match(event, /^connection from there refused: node fake belongs to group fake-group/)
  t.same(more, [], 'nothing else happened to the link')
  await pair.a.write('vol0', 0, pattern(1))
  await pair.same()
  await pair.close()
})

t.test('whoever says nothing neither cuts the link nor stays without end', async (t) => {
  const pair = await EnginePair.inSync()
  const callers: FakePrimary[] = []
  for (let count = 0; count < 12; count++) callers.push(await FakePrimary.connect(pair, 'b'))
  const openCount = () => callers.filter(({ reason }) => reason === undefined).length
  await pair.until(() => openCount() <= 4, 'only the last few are kept')
  const garbage = await pair.run(pair.network.connect(new Life('garbage'), 'b'))
  let isClosed = false
  garbage
    .on('error', () => {})
    .on('close', () => {
      isClosed = true
    })
  garbage.resume()
  garbage.write(Buffer.alloc(4096, 0x47))
  await pair.until(() => isClosed, 'garbage is no hello')
  t.same([pair.a.link, pair.b.link], ['streaming', 'streaming'])
  await pair.a.write('vol0', 0, pattern(2))
  await pair.same()
  await pair.close()
})

t.test('a newer connection of its own primary takes the place of a half open one', async (t) => {
  const pair = await EnginePair.inSync()
  const { generations, group, nodeId } = await (async () => {
    const stranger = await FakePrimary.connect(pair, 'b')
    stranger.send({ kind: 'hello', body: { ...fakeHello() } })
    const { body } = await stranger.next('hello')
    return body as { generations: never; group: string; nodeId: string }
  })()
  t.not(nodeId, 'fake-node')
  const newer = await FakePrimary.connect(pair, 'b')
  const sequence = 1_000_000 as never
  newer.send({ kind: 'hello', body: { ...fakeHello({ generations, group, sequence }) } })
  await newer.next('hello')
  t.ok(linkEvents(pair).some((message) => message.includes('a newer connection took its place')))
  newer.connection.close('enough')
  await pair.sync()
  await pair.same()
  await pair.close()
})

t.test('a stranger who calls a primary does not hide what its own link does', async (t) => {
  const pair = await EnginePair.inSync()
  pair.b.crash()
  await pair.until(() => ['offline', 'connecting'].includes(pair.a.link), 'b is gone')
  const stranger = await FakePrimary.connect(pair, 'a')
  stranger.send({ kind: 'hello', body: { ...fakeHello() } })
  await stranger.next('hello')
  stranger.send({ kind: 'decision', body: {} })
  t.equal(await stranger.ended(), 'this node is a primary')
  t.not(pair.a.link, 'refused')
  t.notMatch(pair.a.peer.reason, /fake-group/)
  const events = pair.a.engine.recentEvents().map(({ message }) => message)
  t.ok(events.some((message) => /refused: node fake belongs to group fake-group/.test(message)))
  await pair.b.start()
  await pair.sync()
  await pair.same()
  await pair.close()
})

t.test('a wrong address does not rename the peer: the refusal says who answered', async (t) => {
  const pair = await EnginePair.inSync()
  const { connect } = pair
  for (const chunkBytes of [4096, 8192]) {
    FakeSecondary.listen(pair, (peer) => {
      peer.onFrame = ({ kind }) => {
        if (kind === 'hello') peer.send({ kind, body: { ...blankHello({ chunkBytes }) } })
      }
    })
    await pair.run(pair.a.engine.setPeer({ uri: `nbd://wrong-${chunkBytes}` }))
    await pair.until(() => pair.a.link === 'refused', 'the wrong one is refused')
    t.equal(pair.a.peer.node, 'b')
    t.match(pair.a.peer, {
      reason: /replicates to another node than fake,/,
      action: /^connect the node that this one replicates to/,
    })
  }
  pair.connect = connect
  t.match((await pair.run(pair.a.engine.forgetPeer())).node, 'b')
  await pair.run(pair.a.engine.setPeer({ uri: 'nbd://b' }))
  t.match(await pair.run(pair.a.engine.connectPeer()), { rule: 'untracked' })
  await pair.sync()
  t.equal(pair.a.peer.node, 'b')
  await pair.close()
})

t.test('a link that a greeting refused says by which rule', async (t) => {
  const pair = await EnginePair.make()
  const { connect } = pair
  FakeSecondary.listen(pair, (peer) => {
    peer.onFrame = (frame) => {
      if (frame.kind !== 'hello') return
      const { group, generations } = parseHello(frame.body)
      const [first] = generations
      assert(first)
      const own = { generation: fakeGeneration, parent: first.generation, forkSequence: 0 }
      const sequence = 100 as Sequence
      const body = { ...fakeHello({ group, generations: [first, own], sequence }) }
      peer.send({ kind: 'hello', body })
    }
  })
  await pair.a.start()
  await pair.until(() => pair.a.link === 'refused', 'a stranger, but for the group')
  await pair.a.create('vol0')
  t.match(await pair.run(pair.a.engine.connectPeer()), { kind: 'split-brain', rule: 'parted' })
  await pair.until(() => pair.a.link === 'refused', 'both have gone on')
  t.equal(pair.a.peer.rule, 'parted')
  pair.connect = connect
  await pair.b.start()
  t.match(await pair.run(pair.a.engine.connectPeer()), { rule: 'blank' })
  t.equal(pair.a.peer.rule, undefined, 'it is over')
  await pair.sync()
  await pair.close()
})

t.test('a stranger who calls a replica does not take the name of its primary', async (t) => {
  const pair = await EnginePair.inSync()
  pair.a.crash()
  await pair.until(() => pair.b.link === 'offline', 'its primary is gone')
  const { uri } = pair.b.peer
  const stranger = await FakePrimary.connect(pair, 'b')
  stranger.send({ kind: 'hello', body: { ...fakeHello() } })
  await stranger.next('hello')
  stranger.send({
    kind: 'decision',
    body: { rule: 'other-group', kind: 'refuse', operations: 0, bytes: 0, reason: 'another group' },
  })
  await pair.until(() => pair.b.link === 'refused', 'the stranger is refused')
  t.match(pair.b.peer.reason, /Node fake belongs to group fake-group/)
  t.same([pair.b.peer.node, pair.b.peer.uri], ['a', uri])
  await pair.a.start()
  await pair.sync()
  t.equal(pair.b.peer.node, 'a')
  await pair.close()
})

t.test('what an operator does ends the news of a caller who was refused', async (t) => {
  const pair = await EnginePair.inSync()
  pair.b.crash()
  await pair.until(() => pair.a.link === 'offline', 'b is gone')
  const call = async () => {
    const asks = await FakePrimary.connect(pair, 'a')
    asks.send({ kind: 'hello', body: { ...fakeHello() } })
    const { body } = await asks.next('hello')
    const twin = await FakePrimary.connect(pair, 'a')
    twin.send({ kind: 'hello', body })
    await pair.until(() => pair.a.link === 'refused', 'the twin is refused')
    t.match(pair.a.peer.reason, /this very node, or a copy/)
  }
  await call()
  await pair.run(pair.a.engine.disconnectPeer())
  t.equal(pair.a.link, 'offline')
  t.match(pair.a.peer.reason, /[Dd]isconnected by an operator/)
  await call()
  await pair.run(pair.a.engine.setPeer({ uri: 'nbd://silent' }))
  t.not(pair.a.link, 'refused', 'a new address ends it too')
  await pair.b.start()
  await pair.close()
})
