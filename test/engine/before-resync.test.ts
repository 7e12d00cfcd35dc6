// What a secondary had before a resync is there until the resync is done; without room for it the resync stops and says so, or gives it up when that is allowed.
import t from 'tap'
import { RequestError } from '../../nbd/errors.js'
import { LockstepError } from '../../src/core/errors.js'
import type { ReplicationOptions } from '../../src/engine/api.js'
import { BeforeResync, isNoRoom } from '../../src/engine/before-resync.js'
import type { Pool } from '../../src/storage/pool.js'
import { EnginePair, pattern } from '../support/engine-pair.js'
import { failureOf } from '../support/failure.js'
import { Group } from '../support/group.js'

const outboxBytesMax = 128 * 1024

/** Both were in sync; then b was away while all of `vol0` was written. */
async function behind(replication: Partial<ReplicationOptions> = {}): Promise<EnginePair> {
  const pair = await EnginePair.inSync({ replication: { outboxBytesMax, ...replication } })
  for (let at = 0; at < 16; at++) await pair.a.write('vol0', at * 4096, pattern(1))
  await pair.a.snapshot('vol0@a')
  await pair.part()
  for (let at = 0; at < 48; at++) await pair.a.write('vol0', (at % 16) * 4096, pattern(2))
  return pair
}

/** From here on b has no room for further chunks. */
function fill(pair: EnginePair): void {
  pair.b.fault = ({ kind, name }) =>
    name === 'data' && kind.startsWith('write') ? { errno: 'ENOSPC' } : undefined
}

t.test('it can be read while the resync goes on, and not be deleted', async (t) => {
  const pair = await behind()
  fill(pair)
  pair.mend()
  pair.a.engine.connectPeer().catch(() => {})
  await pair.until(() => pair.b.link === 'refused', 'no room')
  t.same(pair.b.storeNames, ['vol0', 'vol0@a', 'vol0@before-resync', 'vol0@before-resync.a'])
  t.equal((await pair.b.read('vol0@before-resync', 0, 1))[0], 1)
  await t.rejects(pair.b.perform({ kind: 'snapshot.delete', store: 'vol0@before-resync' }), {
    code: 'IN_USE',
    message: /only good copy/,
  })
  t.match(pair.b.peer.reason, /no room for the resync beside what this replica had/)
  t.match(pair.b.peer.action, /before-resync = "if-room"/)
  await pair.until(() => pair.a.link === 'refused', 'the primary knows')
  t.match(pair.a.peer.action, /^on the secondary: make room where its data is/)
  pair.b.fault = () => undefined
  await pair.sync()
  await pair.same()
  t.same(pair.b.storeNames, ['vol0', 'vol0@a'])
  t.equal(pair.b.engine.status().isWhole, true)
  await pair.close()
})

t.test('when it is not required it is given up for the resync, with an event', async (t) => {
  const pair = await behind({ isBeforeResyncRequired: false })
  fill(pair)
  pair.mend()
  pair.a.engine.connectPeer().catch(() => {})
  await pair.until(() => pair.b.link === 'refused', 'no room')
  t.same(pair.b.storeNames, ['vol0', 'vol0@a'], 'it is gone')
  t.ok(pair.b.engine.recentEvents().some(({ message }) => /is given up/.test(message)))
  pair.b.fault = () => undefined
  await pair.sync()
  await pair.same()
  await pair.close()
})

t.test(
  'what a crash at the end of the resync left of it is let go of at the next start',
  async (t) => {
    const pair = await EnginePair.inSync({ isSlow: true, replication: { outboxBytesMax } })
    await pair.part()
    for (let at = 0; at < 48; at++) await pair.a.write('vol0', (at % 16) * 4096, pattern(2))
    pair.mend()
    pair.a.engine.connectPeer().catch(() => {})
    const isKept = () => pair.b.storeNames.includes('vol0@before-resync')
    await pair.until(isKept, 'the resync has begun')
    await pair.until(() => !isKept(), 'it is done, and what was kept is deleted in memory only')
    pair.b.crash()
    await pair.b.start({ isAlone: true })
    t.equal(pair.b.engine.status().isWhole, true, 'the end of the resync was durable')
    t.same(pair.b.storeNames, ['vol0'])
    await pair.sync()
    pair.b.crash()
    await pair.b.start()
    t.same(pair.b.storeNames, ['vol0'], 'for good')
    await pair.sync()
    await pair.same()
    await pair.close()
  },
)

/** A pool that has no room in its journal for a snapshot of everything. */
function fullPool(): { readonly pool: Pool; readonly calls: string[] } {
  const group = new Group()
  group.volume('v', 512)
  const calls: string[] = []
  const pool = {
    state: group.state,
    nextLocalId: group.state.nextLocalId,
    prepare: async () => {
      throw new LockstepError('NO_SPACE', 'full', 'make room')
    },
    performLocal: () => calls.push('local'),
    markNotWhole: () => {
      group.state.isWhole = false
      calls.push('not whole')
    },
    commit: async () => void calls.push('commit'),
  }
  return { pool: pool as unknown as Pool, calls }
}

t.test('a journal without room for it stops the resync before anything changes', async (t) => {
  const required = fullPool()
  const stopping = new BeforeResync(required.pool, { isRequired: true, onGivenUp: t.fail })
  t.match(await failureOf(stopping.begin()), {
    code: 'NO_SPACE',
    message: /no room to keep what this replica has before/,
    action: /before-resync = "if-room"/,
  })
  t.same(required.calls, [])
  const given: string[] = []
  const optional = fullPool()
  const going = new BeforeResync(optional.pool, {
    isRequired: false,
    onGivenUp: (reason) => given.push(reason),
  })
  await going.begin()
  t.same(optional.calls, ['not whole', 'commit'])
  t.match(given, [/is not kept: there was no room/])
  t.equal(going.noRoom(), undefined, 'nothing is kept that could make room')
})

t.test('whatever layer says that there is no room is understood', async (t) => {
  t.ok(isNoRoom(new LockstepError('NO_SPACE', '', '')))
  t.ok(isNoRoom(new RequestError('ENOSPC', '')))
  for (const code of ['ENOSPC', 'EDQUOT', 'EFBIG'])
    t.ok(isNoRoom(Object.assign(new Error(), { code })))
  for (const other of [new RequestError('EIO', ''), new Error('x'), undefined, null, 'ENOSPC'])
    t.notOk(isNoRoom(other))
})
