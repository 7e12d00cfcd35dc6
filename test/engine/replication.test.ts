// Two engines as one group: how the replica comes to be, stays, falls behind and comes back, and when a client gets its answer.
import t from 'tap'
import { EnginePair, pattern } from '../support/engine-pair.js'
import { thrownBy } from '../support/failure.js'

t.test('a blank secondary gets every store, and shares chunks as the primary does', async (t) => {
  const pair = await EnginePair.make()
  await pair.b.start()
  await pair.a.start({ isAlone: true })
  await pair.a.create('vol0')
  await pair.a.create('vol1', 8192)
  for (let chunk = 0; chunk < 12; chunk++)
    await pair.a.write('vol0', chunk * 4096, pattern(chunk + 1))
  await pair.a.snapshot('vol0@a')
  await pair.a.write('vol0', 0, pattern(99))
  await pair.a.snapshot('vol0@b')
  await pair.run(pair.a.engine.setPeer({ uri: 'nbd://b' }))
  await pair.sync()
  await pair.same()
  t.match(pair.b.storeNames, ['vol0', 'vol0@a', 'vol0@b', 'vol1'])
  await pair.run(pair.b.engine.reclaim())
  const used = pair.a.engine.status().pool.usedBytes
  t.equal(pair.b.engine.status().pool.usedBytes, used, 'the replica uses as much space')
  t.equal(pair.b.engine.status().isWhole, true)
  await pair.close()
})

t.test('a short loss of the link is resumed from the outbox, without a resync', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.part()
  for (let at = 0; at < 4; at++) await pair.a.write('vol0', at * 4096, pattern(at + 1))
  await pair.a.snapshot('vol0@a')
  t.equal(pair.a.peer.dirtyBytes, 0, 'all of it is in the outbox')
  pair.mend()
  const { rule, kind } = await pair.run(pair.a.engine.connectPeer())
  t.match({ rule, kind }, { rule: 'in-outbox', kind: 'resume' })
  await pair.sync()
  const why = /, and lacks nothing\. The stream went on behind \d+ when they met\.$/
  for (const { peer } of [pair.a, pair.b]) t.match(peer.reason, why, 'nothing is lacking any more')
  await pair.part()
  pair.mend()
  t.match(await pair.run(pair.a.engine.connectPeer()), { rule: 'in-step', kind: 'nothing' })
  await pair.sync()
  await pair.a.write('vol0', 0, pattern(9))
  for (const { peer } of [pair.a, pair.b])
    t.match(peer.reason, /, and lacks nothing\. Both nodes were at \d+ when they met\.$/)
  await pair.same()
  await pair.close()
})

t.test('an outbox that overflows is folded; operations and blocks go over later', async (t) => {
  const pair = await EnginePair.inSync({ replication: { outboxBytesMax: 128 * 1024 } })
  for (let at = 0; at < 16; at++) await pair.a.write('vol0', at * 4096, pattern(1))
  await pair.a.snapshot('vol0@old')
  await pair.part()
  for (let at = 0; at < 48; at++) await pair.a.write('vol0', (at % 4) * 4096, pattern(at + 2))
  await pair.a.snapshot('vol0@a')
  await pair.a.perform({
    kind: 'snapshot.restore',
    store: 'vol0@old',
    range: { offset: 4096, lengthBytes: 8192 } as never,
  })
  await pair.a.perform({ kind: 'snapshot.delete', store: 'vol0@old' })
  const { dirtyBytes, opLogEntries } = pair.a.peer
  t.ok(dirtyBytes >= 4 * 4096 && dirtyBytes <= 8 * 4096, 'the restored range is clean again')
  t.ok(opLogEntries >= 3)
  const vol0 = pair.a.export('vol0')
  t.ok(vol0.metaContexts().includes('x-lockstep:dirty'))
  t.same(
    await vol0.blockStatus({
      context: 'x-lockstep:dirty',
      offset: 0,
      lengthBytes: 65536,
      extentCountMax: 10,
    }),
    [
      { lengthBytes: 4096, flags: 1 },
      { lengthBytes: 8192, flags: 0 },
      { lengthBytes: 4096, flags: 1 },
      { lengthBytes: 49152, flags: 0 },
    ],
  )
  const before = pair.a.peer.sentBytes
  pair.mend()
  t.match(await pair.run(pair.a.engine.connectPeer()), { kind: 'resync', rule: 'by-map' })
  await pair.sync()
  await pair.same()
  t.ok(pair.a.peer.sentBytes - before < dirtyBytes + 16_384, 'little more than what was dirty')
  t.notOk(
    pair.b.storeNames.some((name) => name.includes('@before-resync')),
    'and is let go of',
  )
  await pair.close()
})

t.test('a write that fails on the primary is repaired while the stream goes on', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.a.write('vol0', 0, pattern(1))
  pair.a.fault = ({ kind, name }) =>
    name === 'data' && kind.startsWith('write') ? { errno: 'EIO' } : undefined
  await t.rejects(pair.a.write('vol0', 0, pattern(2)))
  pair.a.fault = () => undefined
  await pair.a.write('vol0', 8192, pattern(3))
  await pair.sync()
  await pair.same()
  t.ok(
    pair.a.engine.recentEvents().some(({ message }) => /something differs/.test(message)),
    'it was copied without a new greeting',
  )
  await pair.close()
})

t.test('a secondary refuses changes, and is read while it follows', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.a.write('vol0', 0, pattern(5))
  t.equal((await pair.b.read('vol0', 0, 1))[0], 5, 'a write that was answered is there')
  t.match(
    thrownBy(() => pair.b.begin('vol0', 0, pattern(1))),
    { errno: 'EPERM' },
  )
  await t.rejects(pair.b.create('vol1'), { code: 'NOT_PRIMARY' })
  t.equal(pair.b.export('vol0').isReadOnly, true)
  await pair.b.flush('vol0')
  t.equal(pair.b.engine.status().sequence, pair.a.engine.status().sequence)
  await t.rejects(pair.run(pair.b.engine.connectPeer()), { code: 'NOT_PRIMARY' })
  await pair.run(pair.b.engine.waitFor('promotable', 1000))
  const promotable = () => pair.run(pair.a.engine.waitFor('promotable', 1000))
  await t.rejects(promotable(), { code: 'INVALID_ARGUMENT', action: /wait --for in-sync/ })
  await pair.close()
})

t.test('either node, or both, may stop or crash at any phase of a resync', async (t) => {
  for (const [which, how] of [
    ['a', 'crash'],
    ['b', 'crash'],
    ['both', 'crash'],
    ['a', 'close'],
    ['b', 'close'],
    ['a', 'kill'],
    ['b', 'kill'],
  ] as const) {
    for (let phase = 0; phase < 6; phase++) {
      const pair = await EnginePair.inSync({
        isSlow: true,
        replication: { outboxBytesMax: 128 * 1024 },
      })
      await pair.a.snapshot('vol0@old')
      await pair.part()
      for (let at = 0; at < 40; at++)
        await pair.a.write('vol0', (at % 16) * 4096, pattern(at + phase))
      await pair.a.snapshot('vol0@a')
      pair.mend()
      pair.a.engine.connectPeer().catch(() => {})
      for (let step = 0; step < 10 + phase * 25; step++) await pair.scheduler.step()
      for (const node of [pair.a, pair.b]) {
        if (which !== 'both' && node.name !== which) continue
        if (how === 'close') await node.close()
        else node[how]()
        await node.start()
      }
      await pair.sync()
      await pair.same()
      t.equal(pair.b.engine.status().isWhole, true, `${which} ${how} ${phase}`)
      await pair.close()
    }
  }
})

t.test('stores come, go and change their size while they are copied', async () => {
  for (let steps = 0; steps < 60; steps += 6) {
    const pair = await EnginePair.make({ isSlow: true })
    await pair.b.start()
    await pair.a.start({ isAlone: true })
    await pair.a.create('vol0', 262_144)
    await pair.a.create('vol1', 65536)
    for (let chunk = 0; chunk < 64; chunk++)
      await pair.a.write('vol0', chunk * 4096, pattern(chunk + 1))
    await pair.a.write('vol1', 0, pattern(9))
    await pair.a.snapshot('vol0@a')
    await pair.run(pair.a.engine.setPeer({ uri: 'nbd://b' }))
    await pair.until(() => pair.a.link !== 'connecting', 'it goes on')
    for (let step = 0; step < steps; step++) await pair.scheduler.step()
    await pair.a.perform({ kind: 'volume.resize', name: 'vol0', sizeBytes: 8192 })
    await pair.a.perform({ kind: 'snapshot.delete', store: 'vol0@a' })
    await pair.a.perform({ kind: 'volume.delete', name: 'vol1' })
    await pair.a.create('vol1', 4096)
    await pair.a.snapshot('vol0@b')
    await pair.sync()
    await pair.same()
    await pair.close()
  }
})

t.test(
  'a secondary names the stores of what its primary did, and says nothing that it cannot know',
  async (t) => {
    const pair = await EnginePair.inSync()
    await pair.a.snapshot('vol0@a')
    await pair.a.perform({ kind: 'snapshot.restore', store: 'vol0@a' })
    await pair.a.perform({ kind: 'volume.rename', name: 'vol0', newName: 'mail' })
    await pair.a.perform({ kind: 'snapshot.delete', store: 'mail@a' })
    await pair.sync()
    const told = pair.b.engine.recentEvents().filter(({ kind }) => kind === 'operation')
    t.match(
      told.slice(-4).map(({ message, stores }) => [message, stores]),
      [
        ['create-snapshots from the primary: vol0@a', ['vol0@a']],
        ['copy from the primary: vol0', ['vol0']],
        ['rename from the primary: mail', ['mail']],
        ['delete from the primary: mail@a', ['mail@a']],
      ],
    )
    const unknown = { mode: null, lagBytes: null, lagSeconds: null, dirtyBytes: null }
    t.match(pair.b.engine.status().peers, [{ ...unknown, lacksBytes: null, opLogEntries: null }])
    await pair.close()
  },
)
