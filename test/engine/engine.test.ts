// The engine as an operator and a client see it: answers, status, differences, events, and its end.
import t from 'tap'
import type { OperationRequest } from '../../src/core/operation.js'
import { byteOffset } from '../../src/core/units.js'
import type { EngineEvent } from '../../src/engine/api.js'
import { failureOf } from '../support/failure.js'
import { chunkBytes, filled, journalBytes, SmallNode } from '../support/small-node.js'

const volumeBytes = 1024 * 1024

t.test('what was durable is counted as such after a checkpoint and a power cut', async (t) => {
  let node = await SmallNode.start()
  await node.create('v', volumeBytes)
  for (let chunk = 0; chunk < 50; chunk++) await node.write('v', chunk * chunkBytes, filled(1))
  await node.flush('v')
  const before = node.engine.status()
  t.ok(before.durableSequence > 50)
  await node.run(node.engine.checkpoint())
  node = await SmallNode.start({ medium: node.cutPower() })
  const after = node.engine.status()
  t.not(after.generation, before.generation, 'an unclean stop begins a new history')
  t.ok(after.sequence >= before.durableSequence, `${after.sequence} >= ${before.durableSequence}`)
})

t.test(
  'a request with an id is performed once, and answered as often as it is asked',
  async (t) => {
    const node = await SmallNode.start()
    const request = { kind: 'volume.create', name: 'v', sizeBytes: 512 } as const
    const works = Array.from({ length: 3 }, () => node.engine.perform(request, { requestId: 'r1' }))
    const [first, ...others] = await node.run(Promise.all(works))
    t.ok(others.every((one) => JSON.stringify(one) === JSON.stringify(first)))
    t.equal(node.engine.status().sequence, 1)
    t.strictSame(await node.run(node.engine.perform(request, { requestId: 'r1' })), first)
    const refused = node.engine.perform(request, { requestId: 'r2' })
    t.match(await failureOf(node.run(refused)), { code: 'NAME_TAKEN' })
    t.equal(node.engine.status().sequence, 1, 'a refusal takes no sequence')
  },
)

t.test('an id that was used for another request is refused, and nothing is done', async (t) => {
  const node = await SmallNode.start()
  const create = (name: string) =>
    node.engine.perform({ kind: 'volume.create', name, sizeBytes: 512 }, { requestId: 'r' })
  await node.run(create('v'))
  const mark = () => node.engine.mark({ name: 'm' }, { requestId: 'r' })
  for (const other of [() => create('w'), mark]) {
    t.match(await failureOf(node.run(other())), {
      code: 'INVALID_ARGUMENT',
      message: 'the request id "r" was used for another request; nothing was done',
    })
  }
  t.equal(node.engine.status().sequence, 1)
})

t.test('behind an answered flush everything is told to be durable', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', volumeBytes)
  const store = node.export('v')
  for (const fua of [true, false]) {
    await node.run(
      Promise.resolve(store.write({ offset: 0, lengthBytes: chunkBytes, parts: [filled(1)], fua })),
    )
    for (let count = 0; count < 2; count++) {
      await node.flush('v')
      const { sequence, durableSequence } = node.engine.status()
      t.equal(durableSequence, sequence, fua ? 'with FUA the flush had nothing to do' : 'without')
    }
  }
})

t.test('what would be refused is told without being done', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', volumeBytes)
  await node.run(node.engine.perform({ kind: 'snapshot.create', stores: ['v'], name: 'a' }))
  const before = node.engine.status()
  const check = (request: OperationRequest) => () => node.engine.check(request)
  t.throws(check({ kind: 'volume.delete', name: 'v' }), { code: 'HAS_SNAPSHOTS' })
  const range = { offset: byteOffset(volumeBytes), lengthBytes: 1 }
  t.throws(check({ kind: 'snapshot.restore', store: 'v@a', range }), { code: 'OUT_OF_RANGE' })
  const none = { kind: 'snapshot.delete', store: 'v@none' } as const
  t.throws(check({ kind: 'batch', operations: [none] }), { code: 'NO_SUCH_STORE' })
  check({ kind: 'snapshot.delete', store: 'v@a' })()
  check({ kind: 'batch', operations: [{ kind: 'snapshot.delete', store: 'v@a' }] })()
  t.same(node.engine.status(), before)
  await node.run(node.engine.close())
  t.throws(check({ kind: 'snapshot.delete', store: 'v@a' }), { code: 'BUSY' })
})

t.test('ids are remembered up to a bound, the newest', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 512)
  const ask = (requestId: string) =>
    node.engine.perform({ kind: 'volume.resize', name: 'v', sizeBytes: 512 }, { requestId })
  const works = Array.from({ length: 1001 }, (_, index) => ask(`r${index}`))
  await node.run(Promise.all(works))
  const { sequence } = node.engine.status()
  await node.run(ask('r1000'))
  await node.run(ask('r1'))
  t.equal(node.engine.status().sequence, sequence)
  await node.run(ask('r0'))
  t.equal(node.engine.status().sequence, sequence + 1, 'the oldest is forgotten')
})

t.test('an operation is answered when it is durable, with its position', async (t) => {
  let node = await SmallNode.start()
  const { generation } = node.engine.status()
  t.strictSame(await node.create('v', 512), {
    position: { generation, sequence: 1 },
    stores: ['v'],
  })
  const { position, stores } = await node.snapshot('v@a')
  t.strictSame([position, stores], [{ generation, sequence: 2 }, ['v@a']])
  node = await SmallNode.start({ medium: node.cutPower() })
  const status = node.engine.status()
  t.strictSame(
    status.stores.map((store) => store.name),
    ['v', 'v@a'],
  )
  t.strictSame(status.stores[1]?.position, position)
  t.equal(status.stores[1]?.snapshotOf, 'v')
})

t.test('status says what is there', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 16 * chunkBytes)
  await node.write('v', 0, filled(1, 4 * chunkBytes))
  await node.snapshot('v@a')
  await node.write('v', 0, filled(2))
  await node.flush('v')
  const status = node.engine.status()
  t.match(status, {
    node: 'a',
    role: 'primary',
    chunkBytes,
    peers: [],
    connections: 0,
    sequence: 5,
    durableSequence: 5,
    stores: [
      { name: 'v', sizeBytes: 16 * chunkBytes, allocatedBytes: 4 * chunkBytes },
      { name: 'v@a', sizeBytes: 16 * chunkBytes, allocatedBytes: 4 * chunkBytes, snapshotOf: 'v' },
    ],
    pool: {
      usedBytes: 5 * chunkBytes,
      sharedBytes: 3 * chunkBytes,
      journalBytes: 2 * journalBytes,
    },
  })
  t.notOk('sizeBytes' in status.pool, 'a file has no capacity')
  t.notOk('failure' in status)
  t.ok(status.pool.journalUsedBytes > 0)
  t.match(status.group, /^[0-9a-f]{32}$/)
})

t.test('a device has a capacity', async (t) => {
  const device = { name: '/dev/x', sizeBytes: 20 * chunkBytes + 100 }
  const node = await SmallNode.start({ disk: { device } })
  t.equal(node.engine.status().pool.sizeBytes, 20 * chunkBytes)
})

t.test('dirty is what changed since the newest snapshot', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 8 * chunkBytes)
  await node.write('v', 0, filled(1, 2 * chunkBytes))
  const [alone] = await node.engine.dirty('v', 8)
  t.strictSame(alone, {
    store: 'v',
    sizeBytes: 8 * chunkBytes,
    dirtyBytes: 2 * chunkBytes,
    picture: [1, 1, 0, 0, 0, 0, 0, 0],
  })
  await node.snapshot('v@a')
  await node.write('v', 0, filled(2))
  await node.snapshot('v@b')
  await node.write('v', 7 * chunkBytes, filled(3))
  const reports = await node.engine.dirty()
  t.match(reports, [{ store: 'v', since: 'v@b', dirtyBytes: chunkBytes, picture: { length: 64 } }])
  t.match(await node.engine.dirty('v@b'), [{ store: 'v@b', since: 'v@a', dirtyBytes: chunkBytes }])
  t.notOk('since' in ((await node.engine.dirty('v@a'))[0] ?? {}))
  await node.perform({ kind: 'snapshot.refresh', store: 'v@a' })
  t.match(
    await node.engine.dirty('v'),
    [{ since: 'v@a', dirtyBytes: 0 }],
    'a refresh makes it newer',
  )
  t.match(await failureOf(node.engine.dirty('x')), { code: 'NO_SUCH_STORE' })
})

t.test('events tell what was done, to those who ask and those who listen', async (t) => {
  const node = await SmallNode.start()
  const heard: EngineEvent[] = []
  node.engine.onEvent((event) => heard.push(event))
  await node.create('v', 512)
  await node.run(node.engine.checkpoint())
  await node.close()
  t.strictSame(
    node.engine.recentEvents().map(({ kind }) => kind),
    ['started', 'operation', 'checkpoint', 'stopping', 'checkpoint'],
  )
  t.match(heard[0], { kind: 'operation', message: 'created volume v, 512 bytes', sequence: 1 })
  t.strictSame(heard[0]?.stores, ['v'])
})

t.test('a clean stop goes on where it was, under the same generation', async (t) => {
  let node = await SmallNode.start()
  await node.create('v', 8192)
  await node.write('v', 0, filled(1))
  await node.write('v', 4096, filled(2))
  const before = node.engine.status()
  const closing = [node.engine.close(), node.engine.close()]
  await node.run(Promise.all(closing))
  t.match(await failureOf(node.create('w', 512)), { code: 'BUSY', action: /./ })
  node = await SmallNode.start({ medium: node.cutPower() })
  const after = node.engine.status()
  t.equal(after.generation, before.generation)
  t.equal(after.sequence, before.sequence)
  t.ok((await node.read('v', 0, 8192)).equals(Buffer.concat([filled(1), filled(2)])))
})

t.test('an operation whose record did not get durable is not told as done', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 8192)
  node.fault = (call) => (call.kind === 'sync' ? { errno: 'EIO' } : undefined)
  t.match(await failureOf(node.create('w', 8192)), { code: 'FAILED_STOP' })
  const told = node.engine.recentEvents().filter(({ kind }) => kind === 'operation')
  t.match(told, [{ sequence: 1, stores: ['v'] }])
  t.equal(told.length, 1)
  await failureOf(node.close())
})

t.test('after a failed sync nothing is durable, and everybody is told', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 8192)
  node.fault = (call) => (call.kind === 'sync' ? { errno: 'EIO' } : undefined)
  await node.write('v', 0, filled(1))
  t.match(await failureOf(node.flush('v')), { errno: 'EIO' })
  node.fault = () => undefined
  const syncs = node.callsOf('sync').length
  t.match(await failureOf(node.flush('v')), { errno: 'EIO' }, 'for good')
  t.match(await failureOf(node.write('v', 0, filled(2), true)), { errno: 'EIO' })
  t.match(await failureOf(node.create('w', 512)), { code: 'FAILED_STOP', action: /restart/ })
  t.match(node.engine.status().failure, { message: /EIO/, action: /restart/ })
  t.match(node.engine.recentEvents().at(-1), { kind: 'failure' })
  await node.write('v', 0, filled(3))
  t.ok((await node.read('v', 0, chunkBytes)).equals(filled(3)), 'the rest goes on')
  t.match(await failureOf(node.close()), { code: 'FAILED_STOP' })
  t.equal(node.callsOf('sync').length, syncs, 'and no sync was tried again')
})

t.test('a refused operation changes nothing and is answered at its place', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 512)
  const works = [
    node.engine.perform({ kind: 'volume.delete', name: 'v' }),
    node.engine.perform({ kind: 'volume.delete', name: 'v' }),
    node.engine.perform({ kind: 'volume.create', name: 'v', sizeBytes: 1024 }),
  ]
  const ended = await node.run(Promise.allSettled(works))
  t.strictSame(
    ended.map((one) => one.status),
    ['fulfilled', 'rejected', 'fulfilled'],
  )
  t.equal(node.export('v').sizeBytes, 1024)
})

t.test('a batch is one position, or nothing', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 8 * chunkBytes)
  await node.write('v', 0, filled(1, 8 * chunkBytes))
  await node.snapshot('v@a')
  await node.write('v', 0, filled(2, 8 * chunkBytes))
  const range = (offset: number, lengthBytes: number) => ({
    offset: byteOffset(offset),
    lengthBytes,
  })
  const restore = (offset: number, lengthBytes: number) =>
    ({ kind: 'snapshot.restore', store: 'v@a', range: range(offset, lengthBytes) }) as const
  const create = { kind: 'volume.create', name: 'w', sizeBytes: 512 } as const
  const bad = [create, { ...create, name: 'v' }]
  t.match(await failureOf(node.perform({ kind: 'batch', operations: bad })), { code: 'NAME_TAKEN' })
  t.equal(node.engine.exports.find('w'), undefined)
  const { position, stores } = await node.perform({
    kind: 'batch',
    operations: [create, restore(100, 5000), restore(3 * chunkBytes - 1, 2)],
  })
  t.strictSame([stores, position.sequence], [['w', 'v', 'v'], 5])
  const expected = filled(2, 8 * chunkBytes).fill(1, 100, 5100)
  expected.fill(1, 3 * chunkBytes - 1, 3 * chunkBytes + 1)
  t.ok((await node.read('v', 0, 8 * chunkBytes)).equals(expected))
  node.engine.checkInvariants()
})
