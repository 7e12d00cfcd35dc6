// How far the peer is behind, in seconds: as old as the oldest change that it does not have, wherever that is kept.
import t from 'tap'
import { EnginePair, pattern } from '../support/engine-pair.js'

t.test('the lag of a peer that is away grows, in the outbox and as a map', async (t) => {
  const pair = await EnginePair.inSync({ replication: { outboxBytesMax: 32 * 1024 } })
  const lagSeconds = (): number => pair.a.engine.status().peers[0]?.lagSeconds ?? -1
  t.equal(lagSeconds(), 0)
  pair.b.crash()
  await pair.until(() => ['offline', 'connecting'].includes(pair.a.link), 'it is noticed')
  await pair.a.write('vol0', 0, pattern(1))
  await pair.scheduler.elapse(10_000)
  t.equal(pair.a.peer.dirtyBytes, 0)
  t.ok(lagSeconds() >= 10, 'in the outbox')
  for (let block = 0; block < 12; block++) await pair.a.write('vol0', block * 4096, pattern(block))
  t.ok(pair.a.peer.dirtyBytes > 0, 'the outbox is full')
  await pair.scheduler.elapse(20_000)
  t.ok(lagSeconds() >= 30, 'as a map')
  pair.a.crash()
  await pair.a.start()
  t.ok(pair.a.peer.dirtyBytes > 0)
  await pair.scheduler.elapse(5000)
  t.ok(lagSeconds() >= 5, 'since the start, as far as is known')
  await pair.b.start()
  await pair.sync()
  t.equal(lagSeconds(), 0)
  await pair.same()
  await pair.close()
})
