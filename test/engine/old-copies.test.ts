// Disks that are put back to an older state: seen, and never trusted.
import t from 'tap'
import { EnginePair, pattern } from '../support/engine-pair.js'

async function refused(pair: EnginePair): Promise<void> {
  await pair.until(() => pair.a.link === 'refused', 'a is refused')
  await pair.until(() => pair.b.link === 'refused', 'b is refused')
}

t.test('a copy of the primary that ran while it was copied is refused', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.a.write('vol0', 0, pattern(1), true)
  const putBack = pair.a.copyDisk()
  // The same extent, nothing but bytes; then one that a batch made active.
  await pair.a.write('vol0', 4096, pattern(2))
  await pair.a.create('vol1')
  await pair.a.write('vol1', 0, pattern(3), true)
  pair.a.crash()
  putBack()
  await pair.a.start()
  await refused(pair)
  t.match(await pair.run(pair.a.engine.connectPeer({ explain: true })), { rule: 'old-primary' })
  t.match(pair.a.peer.reason, /old copy/)
  await pair.close()
})

t.test(
  'a copy of a primary that had stopped is refused, however far it has come since',
  async (t) => {
    const pair = await EnginePair.inSync()
    await pair.a.close()
    const putBack = pair.a.copyDisk()
    await pair.a.start()
    await pair.sync()
    await pair.a.write('vol0', 0, pattern(1), true)
    await pair.a.close()
    putBack()
    // Each start is a batch: by its number alone the copy would have caught up.
    for (let start = 0; start < 8; start++) {
      await pair.a.start({ isAlone: true })
      pair.a.crash()
    }
    await pair.a.start()
    await refused(pair)
    t.match(await pair.run(pair.a.engine.connectPeer({ explain: true })), { rule: 'old-primary' })
    await pair.close()
  },
)

t.test('a copy of the primary is refused when it has written since', async (t) => {
  const pair = await EnginePair.inSync()
  const putBack = pair.a.copyDisk()
  await pair.a.write('vol0', 0, pattern(1), true)
  await pair.a.create('vol1')
  pair.a.crash()
  putBack()
  await pair.a.start({ isAlone: true })
  for (let at = 0; at < 16; at++) await pair.a.write('vol0', at * 4096, pattern(9), true)
  await pair.a.close()
  await pair.a.start()
  await refused(pair)
  t.match(await pair.run(pair.a.engine.connectPeer({ explain: true })), { rule: 'old-primary' })
  await pair.close()
})

t.test('a copy of the primary is refused by a secondary that was killed as well', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.a.write('vol0', 0, pattern(9), true)
  await pair.sync()
  // With a clean stop no extent stays active.
  await pair.a.close()
  await pair.a.start()
  await pair.sync()
  const putBack = pair.a.copyDisk()
  // In its place there, and in no journal there; here the extent became active behind the copy.
  await pair.a.write('vol0', 0, pattern(1))
  pair.b.kill()
  pair.a.crash()
  putBack()
  await pair.b.start()
  t.same(await pair.b.read('vol0', 0, 4096), pattern(1), 'what was written survived the kill')
  await pair.a.start()
  await refused(pair)
  t.match(await pair.run(pair.a.engine.connectPeer({ explain: true })), { rule: 'old-primary' })
  await pair.close()
})

t.test('a copy that has every batch of the primary is as good as the primary', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.a.write('vol0', 0, pattern(1), true)
  await pair.sync()
  const putBack = pair.a.copyDisk()
  await pair.a.write('vol0', 0, pattern(2))
  pair.a.crash()
  putBack()
  await pair.a.start()
  await pair.sync()
  await pair.same()
  t.same(await pair.b.read('vol0', 0, 4096), pattern(1), 'what was not durable is gone on both')
  await pair.close()
})

t.test('a copy of the secondary is refused', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.a.write('vol0', 0, pattern(1), true)
  const putBack = pair.b.copyDisk()
  await pair.a.write('vol0', 4096, pattern(2), true)
  pair.b.crash()
  putBack()
  await pair.b.start()
  await refused(pair)
  t.match(await pair.run(pair.a.engine.connectPeer({ explain: true })), { rule: 'old-secondary' })
  t.match(pair.a.peer, { reason: /Node b is at \d+/, action: /^make node b anew/ })
  t.match(pair.b.peer, { reason: /This node is at \d+, and has told the primary a/ })
  t.match(pair.b.peer.action, /^stop this node and make it anew/)
  await pair.close()
})
