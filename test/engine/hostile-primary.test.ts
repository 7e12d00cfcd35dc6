// A secondary and a primary that sends what no primary would: each attack ends the connection with a reason in `status`, changes nothing, and the next
// connection goes on where the last good entry was.
import t, { type Test } from 'tap'
import type { Operation } from '../../src/core/operation.js'
import type { ByteOffset, Generation, StoreId } from '../../src/core/units.js'
import { frozenCountMax } from '../../src/engine/frozen.js'
import { EnginePair } from '../support/engine-pair.js'
import { FakePrimary, fakeGeneration, tableOperation } from '../support/fake-peer.js'

const id = (value: number): StoreId => value as StoreId
const range = (offset: number, lengthBytes: number) => ({
  offset: offset as ByteOffset,
  lengthBytes,
})
const sizeBytes = 65536

async function blank(): Promise<EnginePair> {
  const pair = await EnginePair.make()
  await pair.b.start()
  return pair
}

async function following(): Promise<EnginePair> {
  const pair = await blank()
  const peer = await FakePrimary.connect(pair, 'b')
  await peer.follow()
  peer.write(7)
  peer.operation({ kind: 'create-volume', storeId: id(3), name: 'vol1', sizeBytes })
  await pair.until(() => pair.b.storeNames.includes('vol1'), 'it is performed')
  peer.connection.bye('enough')
  await pair.until(() => pair.b.link === 'offline', 'the end')
  return pair
}

type Attack = (peer: FakePrimary) => void

async function attack(
  t: Test,
  pair: EnginePair,
  what: { readonly name: string; readonly attack: Attack; readonly reason: RegExp },
): Promise<void> {
  const before = await pair.b.digests()
  const peer = await FakePrimary.connect(pair, 'b')
  await peer.follow()
  what.attack(peer)
  await peer.ended()
  await pair.until(() => pair.b.link !== 'streaming', 'it knows')
  t.match(pair.b.peer.reason.toLowerCase(), what.reason, what.name)
  t.equal(pair.b.failure, undefined)
  t.same(await pair.b.digests(), before, `${what.name}: nothing changed`)
  pair.b.engine.checkInvariants()
}

const create = (storeId: number, name: string): Operation => ({
  kind: 'create-volume',
  storeId: id(storeId),
  name,
  sizeBytes,
})

t.test('stores are not kept for verify without end', async (t) => {
  const pair = await following()
  await attack(t, pair, {
    name: 'freeze for ever',
    attack: (peer) => {
      for (let frozenId = 1; frozenId <= frozenCountMax + 1; frozenId++)
        peer.operation({ kind: 'freeze', frozenId, storeId: id(1) })
    },
    reason: /more stores are to be kept/,
  })
  await pair.b.close()
})

t.test('entries out of place', async (t) => {
  const pair = await following()
  const attacks: readonly [string, Attack, RegExp][] = [
    ['a gap', (peer) => peer.write(1, { sequence: peer.sequence + 2 }), /came instead of/],
    ['a duplicate', (peer) => peer.write(1, { sequence: peer.sequence }), /came instead of/],
    ['an unknown store', (peer) => peer.write(1, { storeId: 99 }), /store 99, which is not here/],
    ['behind the end', (peer) => peer.write(1, { offset: sizeBytes - 512 }), /behind the end/],
    [
      'a replay in the stream',
      (peer) => peer.replay(peer.sequence + 1, create(9, 'x')),
      /out of place/,
    ],
    [
      'the beginning in the middle',
      (peer) => peer.streamFrom(Number.MAX_SAFE_INTEGER - 1),
      /out of place/,
    ],
    ['a second hello', (peer) => peer.send({ kind: 'hello', body: {} }), /out of place/],
    ['a second decision', (peer) => peer.send({ kind: 'decision', body: {} }), /out of place/],
  ]
  for (const [name, run, reason] of attacks) await attack(t, pair, { name, attack: run, reason })
  await pair.b.close()
})

const other = 'b'.repeat(32) as Generation
const copy = (sourceId: number, targetId: number, end?: number): Operation => ({
  kind: 'copy',
  reason: 'restore',
  sourceId: id(sourceId),
  targetId: id(targetId),
  ...(end === undefined ? {} : { range: range(0, end) }),
})
const snapshot = (name: string): Operation => ({
  kind: 'create-snapshots',
  snapshots: [{ storeId: id(4), sourceId: id(1), name }],
})
const impossible: readonly [string, Operation, RegExp][] = [
  ['a used id', create(3, 'vol9'), /was there before/],
  ['a used name', create(4, 'vol1'), /there is a store "vol1"/],
  ['a name that is none', create(4, 'vol0@x'), /is not a name/],
  ['an unknown store', { kind: 'delete', storeId: id(77) }, /not here/],
  ['a volume with snapshots', { kind: 'delete', storeId: id(1) }, /has snapshots/],
  ['a resize of nothing', { kind: 'resize', storeId: id(77), sizeBytes: 512 }, /not here/],
  ['a rename to a used name', { kind: 'rename', storeId: id(3), name: 'vol0' }, /already/],
  [
    'a snapshot with a name of the replica itself',
    snapshot('local.x'),
    /a replica keeps for itself/,
  ],
  ['one with the other name', snapshot('before-resync'), /a replica keeps for itself/],
  ['one with a name behind that', snapshot('before-resync.a'), /a replica keeps for itself/],
  [
    'a snapshot that is renamed so',
    { kind: 'rename', storeId: id(2), name: 'local.x' },
    /a replica keeps for itself/,
  ],
  [
    'a batch with a snapshot that is renamed so',
    { kind: 'batch', operations: [{ kind: 'rename', storeId: id(2), name: 'before-resync' }] },
    /a replica keeps for itself/,
  ],
  ['the end of a resync that is none', { kind: 'resync-end' }, /none was under way/],
  ['a copy to itself', copy(1, 1), /to itself/],
  ['a copy of nothing', copy(77, 1), /not here/],
  ['a copy behind the end', copy(1, 3, sizeBytes * 2), /behind the end/],
  ['a table in the stream', tableOperation(), /out of place/],
  ['a freeze of nothing', { kind: 'freeze', frozenId: 1, storeId: id(77) }, /not here/],
  [
    'snapshots with one id',
    {
      kind: 'create-snapshots',
      snapshots: [
        { storeId: id(4), sourceId: id(1), name: 'x' },
        { storeId: id(4), sourceId: id(3), name: 'x' },
      ],
    },
    /was there before/,
  ],
  [
    'snapshots with one name',
    {
      kind: 'create-snapshots',
      snapshots: [
        { storeId: id(4), sourceId: id(1), name: 'x' },
        { storeId: id(5), sourceId: id(2), name: 'x' },
      ],
    },
    /already/,
  ],
  [
    'a batch that creates one id twice',
    { kind: 'batch', operations: [create(4, 'x'), create(4, 'y')] as never },
    /was there before/,
  ],
  [
    'a batch that deletes twice',
    {
      kind: 'batch',
      operations: [
        { kind: 'delete', storeId: id(3) },
        { kind: 'delete', storeId: id(3) },
      ],
    },
    /both touch/,
  ],
  [
    'a batch that cuts and copies',
    {
      kind: 'batch',
      operations: [
        { kind: 'resize', storeId: id(3), sizeBytes: 512 },
        copy(1, 3, sizeBytes) as never,
      ],
    },
    /both touch/,
  ],
  [
    'a generation of another history',
    { kind: 'new-generation', record: { generation: other, parent: other, forkSequence: 11 } },
    /no child/,
  ],
  [
    'a generation that begins twice',
    {
      kind: 'new-generation',
      record: { generation: fakeGeneration, parent: fakeGeneration, forkSequence: 11 },
    },
    /begins twice/,
  ],
  [
    'a generation that forks in the future',
    {
      kind: 'new-generation',
      record: { generation: other, parent: fakeGeneration, forkSequence: 10_000_000 },
    },
    /forks at/,
  ],
]

t.test('operations that cannot be', async (t) => {
  const pair = await following()
  for (const [name, operation, reason] of impossible)
    await attack(t, pair, { name, attack: (peer) => peer.operation(operation), reason })
  await pair.b.close()
})

t.test('a blank node takes a table of its own group first, and nothing else', async (t) => {
  const pair = await blank()
  const generations = [{ generation: 'c'.repeat(32) as Generation, forkSequence: 0 }]
  const vol = { id: id(1), name: 'vol0', sizeBytes, createdAt: '2024-01-01T00:00:00.000Z' }
  const attacks: readonly [Attack, RegExp][] = [
    [(peer) => peer.replay(11, create(1, 'vol0')), /before the table/],
    [(peer) => peer.streamFrom(11), /before the table of stores/],
    [(peer) => peer.replay(11, tableOperation({ group: 'other' })), /another group/],
    [(peer) => peer.replay(11, tableOperation({ generations })), /another history/],
    [
      (peer) => peer.replay(11, tableOperation({ stores: [vol, { ...vol, id: id(2) }] })),
      /there is a store "vol0" already/,
    ],
    [
      (peer) =>
        peer.replay(
          11,
          tableOperation({
            stores: [vol, { ...vol, id: id(2), volumeId: id(1), name: 'local.x' }],
          }),
        ),
      /a replica keeps for itself/,
    ],
    [(peer) => peer.replay(Number.MAX_SAFE_INTEGER - 1, tableOperation()), /no primary is at/],
    [(peer) => peer.replay(11, tableOperation(), 5), /comes behind 5, but the last one here is 0/],
    [(peer) => peer.streamFrom(11, 10), /comes behind 10, but the last one here is 0/],
  ]
  for (const [run, reason] of attacks) {
    const peer = await FakePrimary.connect(pair, 'b')
    await peer.greet()
    run(peer)
    await peer.ended()
    await pair.until(() => pair.b.link === 'offline', 'it knows')
    t.match(pair.b.peer.reason.toLowerCase(), reason)
    t.equal(pair.b.failure, undefined)
    t.equal(pair.b.engine.status().group, '', 'it is blank as before')
  }
  const peer = await FakePrimary.connect(pair, 'b')
  await peer.greet()
  peer.replay(11, tableOperation())
  peer.streamFrom(Number.MAX_SAFE_INTEGER - 1)
  await peer.ended()
  await pair.until(() => pair.b.link === 'offline', 'it knows')
  t.match(pair.b.peer.reason, /no primary is at/i)
  t.equal(pair.b.engine.status().sequence, 11)
  await pair.b.close()
})

t.test('a replay that is missing is noticed before anything behind it is here', async (t) => {
  for (const lost of [
    (peer: FakePrimary) => peer.replay(13, create(9, 'y'), 12),
    (peer: FakePrimary) => peer.streamFrom(13, 12),
  ]) {
    const pair = await blank()
    const peer = await FakePrimary.connect(pair, 'b')
    await peer.greet()
    peer.replay(11, tableOperation())
    // 12 is behind it in the line, or nowhere.
    lost(peer)
    peer.replay(12, create(8, 'x'), 11)
    await peer.ended()
    await pair.until(() => pair.b.link === 'offline', 'it knows')
    t.match(pair.b.peer.reason, /comes behind 12, but the last one here is 11/)
    t.equal(pair.b.engine.status().sequence, 11, 'what it says to have is there')
    await pair.b.close()
  }
})

t.test('a replayed end of a resync makes nothing whole', async (t) => {
  const pair = await blank()
  const peer = await FakePrimary.connect(pair, 'b')
  await peer.greet()
  peer.replay(11, tableOperation())
  peer.replay(12, { kind: 'resync-end' })
  await peer.ended()
  t.equal(pair.b.engine.status().isWhole, false)
  await pair.b.close()
})

t.test('names that are only like those of the replica itself are taken', async (t) => {
  const pair = await following()
  const peer = await FakePrimary.connect(pair, 'b')
  await peer.follow()
  peer.operation({ kind: 'rename', storeId: id(3), name: 'local.x' })
  peer.operation(snapshot('before-resync-1'))
  peer.operation({ kind: 'rename', storeId: id(2), name: 'local' })
  const names = ['local.x', 'vol0', 'vol0@before-resync-1', 'vol0@local']
  await pair.until(() => `${pair.b.storeNames}` === `${names}`, 'they are there')
  t.equal(pair.b.link, 'streaming')
  await pair.b.close()
})

t.test('a second connection ends the first, which is half open or a thief', async (t) => {
  const pair = await following()
  const first = await FakePrimary.connect(pair, 'b')
  await first.follow()
  const second = await FakePrimary.connect(pair, 'b')
  await second.follow()
  await first.ended()
  second.write(9)
  await pair.until(() => pair.b.engine.status().sequence === second.sequence, 'it is applied')
  t.equal((await pair.b.read('vol0', 0, 1))[0], 9)
  t.equal(pair.b.link, 'streaming')
  second.connection.bye('enough')
  await pair.b.close()
})

t.test('close ends in bounded time with a primary that does not read', async (t) => {
  const pair = await following()
  const peer = await FakePrimary.connect(pair, 'b')
  await peer.follow()
  peer.isReading = false
  for (let at = 0; at < 100; at++) peer.write(at)
  const beforeMs = pair.scheduler.nowMs
  await pair.b.close()
  t.ok(pair.scheduler.nowMs - beforeMs <= 30_000)
})
