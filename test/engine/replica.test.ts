// The secondary's side: what it performs, what it refuses, and that nothing it could not perform is ever taken for done.
import t from 'tap'
import { EnginePair, pattern } from '../support/engine-pair.js'

/** Room for a resync of all of `vol0`, and not for much more. */
const outboxBytesMax = 128 * 1024

/** Writes all of `vol0` until the outbox is folded. */
async function overflow(pair: EnginePair, value: number): Promise<void> {
  for (let at = 0; at < 48; at++) await pair.a.write('vol0', (at % 16) * 4096, pattern(value + at))
}

t.test(
  'a write that fails on the secondary is asked for again, never taken for done',
  async (t) => {
    const pair = await EnginePair.inSync({ replication: { mode: 'async' } })
    pair.b.fault = ({ kind, name }) =>
      name === 'data' && kind.startsWith('write') ? { errno: 'EIO' } : undefined
    await pair.a.write('vol0', 0, pattern(1))
    await pair.a.snapshot('vol0@a')
    await pair.a.write('vol0', 4096, pattern(2))
    await pair.until(() => pair.b.link === 'refused', 'b refuses')
    t.match(pair.b.peer.reason, /This node cannot go on/)
    await pair.until(() => pair.a.link === 'refused', 'a knows')
    t.match(pair.a.peer.reason, /The secondary cannot go on/)
    t.equal(
      pair.a.peer.action,
      `on the secondary: ${pair.b.peer.action}`,
      'and what to do, and where',
    )
    t.same(pair.b.storeNames, ['vol0'], 'the snapshot behind the write was not taken without it')
    pair.b.fault = () => undefined
    await pair.sync()
    await pair.same()
    t.same(pair.b.storeNames, ['vol0', 'vol0@a'])
    await pair.close()
  },
)

t.test('a resync that is cut off between its operations and its data goes on', async (t) => {
  const pair = await EnginePair.inSync({ isSlow: true, replication: { outboxBytesMax } })
  await pair.part()
  await overflow(pair, 1)
  await pair.a.snapshot('vol0@a')
  t.ok(pair.a.peer.dirtyBytes >= 7 * 4096, 'the outbox was folded')
  for (let cutAt = 0; cutAt < 40; cutAt++) {
    pair.mend()
    pair.a.engine.connectPeer().catch(() => {})
    await pair.until(
      () => ['replaying', 'resyncing', 'streaming'].includes(pair.b.link),
      'it goes on',
    )
    for (let step = 0; step < cutAt; step++) await pair.scheduler.step()
    if (pair.a.link === 'streaming') break
    await pair.part()
    pair.a.engine.checkInvariants()
  }
  pair.mend()
  await pair.sync()
  await pair.same()
  t.equal(pair.b.engine.status().isWhole, true)
  await pair.close()
})

t.test('the end of a resync that was folded makes nothing whole in the next one', async (t) => {
  const pair = await EnginePair.inSync({
    isSlow: true,
    replication: { outboxBytesMax, mode: 'async' },
  })
  await pair.part()
  await overflow(pair, 1)
  pair.mend()
  pair.a.engine.connectPeer().catch(() => {})
  await pair.until(() => pair.b.engine.status().isWhole === false, 'a resync')
  await pair.until(() => pair.a.peer.dirtyBytes === 0, 'all was copied')
  // The end is ordered, and the secondary does not get it.
  await pair.part()
  t.equal(pair.b.engine.status().isWhole, false, 'the end has not come')
  await overflow(pair, 20)
  t.ok(pair.a.peer.opLogEntries >= 2, 'the end was folded, and the generation behind it')
  pair.b.fault = ({ kind, name }) =>
    name === 'data' && kind.startsWith('write') ? { errno: 'EIO' } : undefined
  pair.mend()
  pair.a.engine.connectPeer().catch(() => {})
  await pair.until(() => pair.b.link === 'refused', 'the copying fails')
  t.equal(pair.b.engine.status().isWhole, false)
  t.ok(pair.b.storeNames.some((name) => name.includes('@before-resync')))
  pair.b.fault = () => undefined
  await pair.sync()
  await pair.same()
  t.notOk(pair.b.storeNames.some((name) => name.includes('@before-resync')))
  await pair.close()
})

t.test('zeroes that the primary has room for have room on the secondary', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.part()
  const zeroes = { offset: 8192, lengthBytes: 32768, fua: true, mayUnmap: false, fastOnly: false }
  await pair.run(Promise.resolve(pair.a.export('vol0').zero(zeroes)))
  // What was active is compared by digests, and a hole has those of zeroes.
  pair.a.crash()
  await pair.a.start()
  t.ok(pair.a.peer.dirtyBytes >= 32768)
  pair.mend()
  await pair.sync()
  const [a, b] = [pair.a, pair.b].map(({ engine }) => engine.status().pool.usedBytes)
  t.equal(a, 32768)
  t.equal(b, a)
  await pair.same()
  await pair.close()
})
