// The table of methods: each passes its own example, refuses what is not in it, and asks the engine for the right thing.
import t from 'tap'
import { methods } from '../../src/control/methods.js'
import { LockstepError } from '../../src/core/errors.js'
import { RawClient, startControl } from '../support/control.js'

const refused = -32000
const invalidParams = -32602

t.test('every example in the table is accepted by its method', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  for (const method of methods.values()) {
    engine.stores.clear()
    for (const name of ['vol0', 'vol1']) engine.addVolume(name, 1048576)
    for (const name of ['vol0@monday', 'vol0@old']) engine.addVolume(name, 1048576)
    if (method.name === 'volume.create') engine.stores.clear()
    let reply = await client.ask(method.name, method.example)
    while (reply.method !== undefined) reply = await client.next() // Progress comes before the answer.
    t.not(reply.result, undefined, `${method.name}: ${reply.error?.message}`)
    if (method.name === 'events') t.equal(engine.listenerCount, 1)
  }
  t.ok(methods.size > 18, `${methods.size} methods`)
})

t.test('every method refuses an unknown parameter and names it', async (t) => {
  const { path } = await startControl(t)
  const client = await RawClient.open(t, path)
  for (const method of methods.values()) {
    const { error } = await client.ask(method.name, { ...method.example, sizBytes: 1 })
    t.equal(error?.code, invalidParams, method.name)
    t.match(error?.message, /sizBytes/)
    t.match(error?.data.code, 'INVALID_ARGUMENT')
  }
})

t.test('a wrong parameter is named with what is expected', async (t) => {
  const { path } = await startControl(t)
  const client = await RawClient.open(t, path)
  const range = { offset: -1, lengthBytes: 1 }
  const cases: readonly (readonly [string, unknown, string])[] = [
    ['volume.create', { name: 'a', sizeBytes: '1G' }, 'sizeBytes'],
    ['volume.create', { name: 'a', sizeBytes: 1.5 }, 'sizeBytes'],
    ['volume.create', { sizeBytes: 512 }, 'name'],
    ['volume.create', { name: 'x'.repeat(513), sizeBytes: 512 }, 'name'],
    ['volume.create', ['a', 512], ''],
    ['volume.create', 'a', ''],
    ['snapshot.create', { name: 'a' }, 'stores'],
    ['snapshot.create', { name: 'a', stores: [] }, 'stores'],
    ['snapshot.create', { name: 'a', stores: ['v'], all: true }, 'stores'],
    ['snapshot.create', { name: 'a', stores: 'vol0' }, 'stores'],
    ['snapshot.create', { name: 'a', stores: ['vol0'], all: true }, 'stores'],
    ['snapshot.restore', { store: 'vol0@a', range }, 'range.offset'],
    ['snapshot.restore', { store: 'vol0@a', range: { offset: 0 } }, 'range.lengthBytes'],
    ['snapshot.delete', { store: 'a', requestId: 'x'.repeat(200) }, 'requestId'],
    ['sync', { source: 'a' }, 'target'],
    ['batch', {}, 'operations'],
    ['batch', { operations: [7] }, 'operations[0]'],
    ['batch', { operations: [{ kind: 'batch', operations: [] }] }, 'operations[0].kind'],
    ['batch', { operations: [{ kind: 'volume.delete' }] }, 'operations[0].name'],
    ['dirty', { cells: 100_000 }, 'cells'],
    ['events', { follow: 'yes' }, 'follow'],
  ]
  for (const [method, params, field] of cases) {
    const { error } = await client.ask(method, params)
    t.equal(error?.code, invalidParams, `${method} ${JSON.stringify(params).slice(0, 60)}`)
    t.equal(error?.data.field, field)
    t.match(error?.data.action, /for example \{"jsonrpc"/)
  }
})

t.test(
  'which sizes there are is not told here: every whole number goes on to the engine',
  async (t) => {
    const { path } = await startControl(t)
    const client = await RawClient.open(t, path)
    for (const sizeBytes of [0, -512, 513, 2 ** 53, 2 ** 60]) {
      for (const method of ['volume.create', 'volume.resize']) {
        const { error } = await client.ask(method, { name: 'a', sizeBytes })
        t.not(error?.code, invalidParams, `${method} ${sizeBytes}`)
      }
    }
  },
)

t.test('an unknown method lists those that are known', async (t) => {
  const { path } = await startControl(t)
  const client = await RawClient.open(t, path)
  for (const name of ['volume.creat', '__proto__', 'constructor', '']) {
    const { error } = await client.ask(name)
    t.equal(error?.code, -32601)
    t.match(error?.data.action, /volume\.create/)
  }
})

t.test('what the engine refuses keeps its code and action', async (t) => {
  const { path } = await startControl(t)
  const client = await RawClient.open(t, path)
  const { error } = await client.ask('snapshot.delete', { store: 'vol0@none' })
  t.equal(error?.code, refused)
  const action = 'there are none yet: lockstep volume create vol0 1G'
  t.same(error?.data, { code: 'NO_SUCH_STORE', action })
  const listed = await client.ask('snapshot.list', { volume: 'x' })
  t.same(listed.error?.data, { code: 'NO_SUCH_STORE', action })
})

t.test('of a snapshot no snapshots are listed', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  await client.ask('volume.create', { name: 'vol0', sizeBytes: 512 })
  const volume = engine.stores.get('vol0')
  t.ok(volume)
  if (volume !== undefined)
    engine.stores.set('vol0@a', { ...volume, name: 'vol0@a', snapshotOf: 'vol0' })
  t.same((await client.ask('snapshot.list', { volume: 'vol0' })).error, undefined)
  const { error } = await client.ask('snapshot.list', { volume: 'vol0@a' })
  t.match(error?.message, /"vol0@a" is a snapshot, not a volume/)
  t.match(error?.data, { code: 'NO_SUCH_STORE', action: /before the @/ })
})

t.test('a retry with the same requestId is performed once', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  const params = { name: 'vol0', sizeBytes: 512, requestId: 'r-1' }
  const first = await client.ask('volume.create', params)
  const second = await client.ask('volume.create', params)
  t.same(second.result, first.result)
  t.equal(engine.asked.length, 1)
  t.same(engine.asked[0], { kind: 'volume.create', name: 'vol0', sizeBytes: 512 })
})

t.test('an operation can be asked about without being performed', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  const remove = { kind: 'volume.delete', name: 'vol0' }
  const batch = { kind: 'batch', operations: [remove] }
  for (const operation of [remove, batch])
    t.same((await client.ask('check', { operation })).result, { ok: true })
  t.same(engine.checked, [remove, batch])
  t.same(engine.asked, [])
  engine.refusal = new LockstepError('HAS_SNAPSHOTS', 'it has some', 'delete them')
  const { error } = await client.ask('check', { operation: remove })
  t.match(error, { message: 'it has some', data: { code: 'HAS_SNAPSHOTS', action: 'delete them' } })
  const wrong: readonly (readonly [unknown, string])[] = [
    [7, 'operation'],
    [{}, 'operation.kind'],
    [{ kind: 'status' }, 'operation.kind'],
    [{ kind: 'volume.delete' }, 'operation.name'],
    [{ kind: 'batch' }, 'operation.operations'],
    [{ kind: 'batch', operations: [batch] }, 'operation.operations[0].kind'],
  ]
  for (const [operation, field] of wrong) {
    const answer = await client.ask('check', { operation })
    t.equal(answer.error?.data.field, field)
  }
})

t.test('a batch becomes one request', async (t) => {
  const { engine, path } = await startControl(t)
  engine.addVolume('vol0', 512)
  const client = await RawClient.open(t, path)
  const operations = [
    { kind: 'volume.create', name: 'vol1', sizeBytes: 512 },
    { kind: 'snapshot.create', all: true, name: 'a' },
  ]
  await client.ask('batch', { operations })
  t.same(engine.asked, [
    {
      kind: 'batch',
      operations: [operations[0], { kind: 'snapshot.create', stores: 'all', name: 'a' }],
    },
  ])
})

t.test(
  'a picture has four places, and nothing in it becomes empty or full by rounding',
  async (t) => {
    const { engine, path } = await startControl(t)
    engine.addVolume('vol0', 512)
    engine.picture = [0, 0.1 + 0.2, 2 / 3, 1e-9, 1 - 1e-9, 1]
    const client = await RawClient.open(t, path)
    const { result } = await client.ask('dirty')
    t.match(result, { stores: [{ picture: [0, 0.3, 0.6667, 0.0001, 0.9999, 1] }] })
  },
)

t.test('status tells the listeners with their real ports', async (t) => {
  const { engine, path } = await startControl(t)
  engine.addVolume('vol0', 512)
  const client = await RawClient.open(t, path)
  const { result } = await client.ask('status')
  t.match(result, { node: 'double', listeners: ['nbd://127.0.0.1:1'], pid: process.pid })
  t.match(result, { stores: [{ name: 'vol0', sizeBytes: 512 }], pool: { usedBytes: 131072 } })
  t.match(result, { fileSystem: { sizeBytes: 2 ** 40, freeBytes: 2 ** 39 } })
})
