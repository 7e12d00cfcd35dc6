// The primary's link: connecting, greeting, deciding, and ending, whatever the other side and the operator do meanwhile.
import t from 'tap'
import type { Connect } from '../../src/engine/api.js'
import { duplexPair } from '../support/duplex-pair.js'
import { EnginePair, pattern } from '../support/engine-pair.js'

t.test('a disconnect while a connection is being made ends the attempt', async (t) => {
  const pair = await EnginePair.make()
  await pair.b.start()
  for (const outcome of ['refusing', 'up'] as const) {
    pair.network.state = outcome
    await pair.a.start()
    await pair.until(() => pair.a.link === 'connecting', 'it connects')
    await pair.run(pair.a.engine.disconnectPeer())
    t.equal(pair.a.link, 'offline')
    await pair.scheduler.settle(30_000)
    t.equal(pair.a.link, 'offline', `${outcome}: it stays so`)
    t.match(pair.a.peer.reason, /disconnected by an operator/i)
    await pair.a.close()
  }
  await pair.b.close()
})

t.test('close ends within a second when a connection attempt hangs', async (t) => {
  const pair = await EnginePair.make()
  pair.connect = () => new Promise(() => {})
  await pair.a.start()
  await pair.until(() => pair.a.link === 'connecting', 'it connects')
  const beforeMs = pair.scheduler.nowMs
  await pair.a.close()
  t.ok(pair.scheduler.nowMs - beforeMs < 1000)
})

t.test('explaining moves nothing, and a link that was ended stays so', async (t) => {
  const pair = await EnginePair.inSync({ replication: { outboxBytesMax: 128 * 1024 } })
  t.match(
    await pair.run(pair.a.engine.connectPeer({ explain: true })),
    { kind: 'nothing', rule: 'in-step' },
    'of a link that is up: what would be done now, not what was done',
  )
  t.equal(pair.a.link, 'streaming')
  await pair.run(pair.a.engine.disconnectPeer())
  await pair.until(() => pair.b.link === 'offline', 'b knows')
  for (let at = 0; at < 48; at++) await pair.a.write('vol0', (at % 16) * 4096, pattern(at + 1))
  const { sequence } = pair.b.engine.status()
  const told = await pair.run(pair.a.engine.connectPeer({ explain: true }))
  t.match(told, { kind: 'resync', rule: 'by-map', direction: 'to-peer' })
  t.ok(told.bytes >= 7 * 4096)
  await pair.scheduler.settle(30_000)
  t.equal(pair.b.engine.status().sequence, sequence)
  t.equal(pair.b.engine.status().isWhole, true)
  t.notOk(pair.b.storeNames.some((name) => name.includes('@before-resync')))
  t.equal(pair.a.link, 'offline')
  t.match(await pair.run(pair.a.engine.connectPeer()), { kind: 'resync' })
  await pair.sync()
  await pair.same()
  await pair.close()
})

t.test('two primaries refuse each other, and both say so', async (t) => {
  const pair = await EnginePair.make({ roles: ['primary', 'primary'] })
  await pair.b.start({ isAlone: true })
  await pair.a.start()
  await pair.until(() => pair.a.link === 'refused', 'a refuses')
  t.match(pair.a.peer.reason, /belongs to group/)
  await pair.until(() => pair.b.engine.status().peers.length > 0, 'b tells')
  t.match(pair.b.peer, { link: 'refused', node: 'a' })
  t.match(pair.b.peer.reason, /belongs to group/)
  t.ok(pair.b.peer.action)
  await pair.close()
})

t.test('who only asks does not change why the link is closed', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.run(pair.a.engine.disconnectPeer())
  await pair.until(() => pair.a.link === 'offline', 'it is closed')
  t.match(await pair.run(pair.a.engine.connectPeer({ explain: true })), { kind: 'nothing' })
  await pair.until(() => pair.a.link === 'offline', 'nothing came of it')
  t.match(pair.a.peer.reason, /Disconnected by an operator/)
  pair.cut()
  await t.rejects(pair.run(pair.a.engine.connectPeer({ explain: true })), {
    code: 'PEER_UNREACHABLE',
  })
  t.match(pair.a.peer.reason, /kept in mind for it\. Disconnected by an operator/)
  pair.mend()
  await pair.run(pair.a.engine.connectPeer())
  await pair.sync()
  await pair.close()
})

t.test('who only asks does not change what is said of a link that was refused', async (t) => {
  const pair = await EnginePair.make({ roles: ['primary', 'primary'] })
  await pair.b.start({ isAlone: true })
  await pair.a.start()
  await pair.until(() => pair.a.link === 'refused', 'a refuses')
  const { link, reason, action } = pair.a.peer
  const events: string[] = []
  pair.a.engine.onEvent(({ message }) => events.push(message))
  let decided = ''
  void pair.a.engine.connectPeer({ explain: true }).then(({ rule }) => {
    decided = rule
  })
  await pair.until(() => {
    const now = pair.a.peer
    t.same([now.link, now.reason, now.action], [link, reason, action])
    return decided !== ''
  }, 'it is told')
  t.equal(decided, 'other-group')
  await pair.scheduler.settle(1000)
  t.match(pair.a.peer, { link, reason })
  t.same(events, [])
  await pair.close()
})

t.test('a refusal that somebody asked for is shown by the other node too', async (t) => {
  const pair = await EnginePair.inSync()
  const putBack = pair.b.copyDisk()
  await pair.a.write('vol0', 0, pattern(1), true)
  await pair.sync()
  pair.b.crash()
  putBack()
  await pair.until(() => pair.a.link === 'offline', 'it is gone')
  await pair.b.start()
  t.match(await pair.run(pair.a.engine.connectPeer({ explain: true })), { rule: 'old-secondary' })
  await pair.until(() => pair.b.link !== 'greeting', 'the connection is over')
  t.match(pair.b.peer, { link: 'refused', reason: /more than that is durable here/ })
  await pair.close()
})

t.test('connecting where the stream is open says so, and where both are', async (t) => {
  const pair = await EnginePair.inSync()
  for (let at = 0; at < 5; at++) await pair.a.write('vol0', at * 4096, pattern(at))
  await pair.sync()
  const { sequence } = pair.a.engine.status()
  const told = await pair.run(pair.a.engine.connectPeer())
  t.match(told, { kind: 'nothing', bytes: 0, operations: 0 })
  t.match(told.reason, new RegExp(`the link is streaming: .*at ${sequence}, .* up to ${sequence}$`))
  await pair.close()
})

t.test('once the link is closed, status does not tell what a refusal asked for', async (t) => {
  const pair = await EnginePair.make({ roles: ['primary', 'primary'] })
  await pair.b.start({ isAlone: true })
  await pair.a.start()
  await pair.until(() => pair.a.link === 'refused', 'a refuses')
  t.match(pair.a.peer.action, /nodes of one group/)
  await pair.run(pair.a.engine.disconnectPeer())
  await pair.until(() => pair.a.link === 'offline', 'it is closed')
  t.equal(pair.a.peer.action, undefined)
  const told = await pair.run(pair.a.engine.connectPeer({ explain: true }))
  t.match(told.action, /nodes of one group/)
  await pair.until(() => pair.a.link === 'offline', 'nothing came of it')
  t.equal(pair.a.peer.action, undefined)
  await pair.close()
})

t.test('who connects right after the address was changed hears of the new one', async (t) => {
  const pair = await EnginePair.make()
  await pair.b.start()
  // Somebody takes the connection and says nothing.
  pair.connect = async (life, name) =>
    name === 'silent' ? duplexPair()[0] : pair.network.connect(life, name)
  await pair.a.start({ isAlone: true })
  await pair.run(pair.a.engine.setPeer({ uri: 'nbd://silent' }))
  pair.a.engine.connectPeer().catch(() => {})
  await pair.until(() => pair.a.link === 'greeting', 'it greets')
  await pair.run(pair.a.engine.setPeer({ uri: 'nbd://b' }))
  t.match(await pair.run(pair.a.engine.connectPeer()), { rule: 'blank' })
  await pair.sync()
  await pair.close()
})

t.test('whoever connects hears when nobody waits for the connection any more', async (t) => {
  const signals: AbortSignal[] = []
  const connect: Connect = (_, signal) => {
    signals.push(signal)
    return new Promise(() => {})
  }
  const pair = await EnginePair.make({ replication: { connect } })
  await pair.a.start()
  await pair.until(() => signals.length === 1, 'it connects')
  await pair.run(pair.a.engine.disconnectPeer())
  await pair.until(() => signals[0]?.aborted === true, 'disconnected')
  void pair.a.engine.connectPeer().catch(() => {})
  await pair.until(() => signals.length === 2, 'it connects again')
  t.notOk(signals[1]?.aborted)
  await pair.a.close()
  t.ok(signals[1]?.aborted, 'stopped')
})

t.test(
  'a node that falls silent holds up the end of the other by a farewell, in each state',
  async (t) => {
    const states = ['greeting', 'resyncing', 'streaming'] as const
    for (const state of states)
      for (const who of ['a', 'b'] as const) {
        const pair = await EnginePair.inSync({ replication: { outboxBytesMax: 128 * 1024 } })
        await pair.run(pair.a.engine.disconnectPeer())
        for (let at = 0; at < 48; at++)
          await pair.a.write('vol0', (at % 16) * 4096, pattern(at + 1))
        if (state === 'resyncing') await pair.a.engine.setPeer({ maxRate: 4096 })
        void pair.a.engine.connectPeer().catch(() => {})
        await pair.until(() => pair[who].link === state, state)
        for (const connection of pair.network.connections) connection.cut('silence')
        const writing = pair.a.begin('vol0', 0, pattern(77), true)
        const beforeMs = pair.scheduler.nowMs
        // A replica that streams is in sync for all that it knows.
        if (who === 'a' || state !== 'streaming') {
          const waiting = pair[who].engine.waitFor('in-sync', 600_000)
          pair[who].engine.stopWaiting()
          await t.rejects(waiting, { code: 'BUSY', message: /the node is stopping/ })
        }
        if (who === 'a') await pair.run(Promise.all([pair.a.engine.leavePeer(), writing]))
        await pair[who].close()
        t.ok(pair.scheduler.nowMs - beforeMs < 1500, `${who} while ${state}`)
        if (who === 'b') await pair.run(writing)
      }
  },
)

t.test(
  'the link of a node that stops says so, whatever was the reason of an earlier end',
  async (t) => {
    const pair = await EnginePair.inSync()
    await pair.run(pair.a.engine.disconnectPeer())
    await pair.run(pair.a.engine.connectPeer())
    await pair.sync()
    const events: string[] = []
    pair.a.engine.onEvent(({ kind, message }) => kind === 'link' && events.push(message))
    await pair.a.close()
    t.same(events, ['link offline: the node is stopping'])
  },
)
