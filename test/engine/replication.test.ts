// Two engines as one group: how the replica comes to be, stays, falls behind and comes back, and when a client gets its answer.
import t from 'tap'
import { EnginePair, pattern } from '../support/engine-pair.js'

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
  await pair.same()
  await pair.close()
})
