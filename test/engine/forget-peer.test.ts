// peer forget between two engines: nothing is kept in mind any more, clients go on, and whoever comes gets everything.
import t from 'tap'
import { EnginePair, pattern } from '../support/engine-pair.js'

t.test('a node that is lost is let go of, and another one takes its place', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.a.write('vol0', 0, pattern(1))
  pair.b.burn()
  await pair.until(() => ['offline', 'connecting'].includes(pair.a.link), 'it is noticed')
  await pair.a.write('vol0', 4096, pattern(2))
  await pair.a.snapshot('vol0@a')
  await pair.b.init()
  await pair.b.start()
  t.match(await pair.run(pair.a.engine.connectPeer()), { kind: 'refuse', rule: 'other-node' })
  t.match(pair.a.peer.action, /lockstep peer forget/)
  await pair.until(() => pair.b.link === 'refused', 'b hears of it')
  t.match(pair.b.peer, {
    reason: /The primary a replicates to another node than this one/,
    action: /^on the primary: .*lockstep peer forget/,
  })
  const { dirtyBytes, opLogEntries } = await pair.run(pair.a.engine.forgetPeer())
  t.ok(dirtyBytes >= 4096, 'what was only in the outbox counts')
  t.ok(opLogEntries >= 1)
  t.match(pair.a.engine.status().peers, [{ link: 'offline', reason: /was forgotten/ }])
  await pair.a.write('vol0', 8192, pattern(3))
  t.match(await pair.run(pair.a.engine.connectPeer()), { kind: 'full', rule: 'blank' })
  await pair.sync()
  await pair.same()
  await pair.close()
})

t.test('the same node gets everything again, also after a start', async (t) => {
  for (const isStartedAgain of [false, true]) {
    const pair = await EnginePair.inSync()
    await pair.a.write('vol0', 0, pattern(1))
    const before = await pair.run(pair.a.engine.forgetPeer())
    t.match(before, { node: 'b' })
    t.equal(pair.b.link, 'offline')
    t.notOk(pair.a.export('vol0').metaContexts().includes('x-lockstep:dirty'))
    await pair.a.write('vol0', 4096, pattern(2), true)
    await pair.a.snapshot('vol0@a')
    pair.a.engine.checkInvariants()
    if (isStartedAgain) {
      pair.a.crash()
      await pair.a.start()
    } else {
      t.match(await pair.run(pair.a.engine.connectPeer()), { kind: 'full', rule: 'untracked' })
    }
    await pair.sync()
    await pair.same()
    await pair.close()
  }
})

t.test('with writes under way, at any step, none is lost and none hangs', async () => {
  for (let steps = 0; steps < 60; steps += 4) {
    const pair = await EnginePair.inSync({ isSlow: true })
    const writes = Array.from({ length: 12 }, (_, at) =>
      pair.a.begin('vol0', at * 4096, pattern(at + 1), at % 3 === 0),
    )
    for (let step = 0; step < steps; step++) await pair.scheduler.step()
    const forgetting = pair.a.engine.forgetPeer()
    writes.push(pair.a.begin('vol0', 0, pattern(99)), pair.a.begin('vol0', 61_440, pattern(98)))
    await pair.run(forgetting)
    await pair.run(Promise.all(writes))
    await pair.a.flush('vol0')
    await pair.run(pair.a.engine.connectPeer())
    await pair.sync()
    await pair.same()
    await pair.close()
  }
})

t.test('in the middle of a resync, and in every mode', async (t) => {
  for (const mode of ['sync', 'semi-sync', 'async'] as const) {
    const outboxBytesMax = 128 * 1024
    const pair = await EnginePair.inSync({ isSlow: true, replication: { mode, outboxBytesMax } })
    await pair.part()
    for (let at = 0; at < 48; at++) await pair.a.write('vol0', (at % 16) * 4096, pattern(at))
    pair.mend()
    pair.a.engine.connectPeer().catch(() => {})
    await pair.until(() => pair.a.link === 'resyncing', 'a resync')
    await pair.run(pair.a.engine.forgetPeer())
    await pair.a.write('vol0', 0, pattern(77))
    t.equal(pair.b.engine.status().isWhole, false, 'it keeps what it had before')
    t.ok(pair.b.storeNames.includes('vol0@before-resync'))
    await pair.run(pair.a.engine.connectPeer())
    await pair.sync()
    await pair.same()
    t.notOk(pair.b.storeNames.includes('vol0@before-resync'))
    await pair.close()
  }
})

t.test('where there is nothing to forget it says so', async (t) => {
  const pair = await EnginePair.make()
  await pair.b.start()
  await pair.a.start({ isAlone: true })
  await t.rejects(pair.run(pair.a.engine.forgetPeer()), { code: 'INVALID_ARGUMENT' })
  await t.rejects(pair.run(pair.b.engine.forgetPeer()), { code: 'NOT_PRIMARY' })
  await pair.close()
})
