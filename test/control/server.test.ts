// The control socket against people and programs that mean harm or make mistakes: after each, a good client is still served.
import assert from 'node:assert/strict'
import { stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { ControlServer } from '../../src/control/server.js'
import { silentLog } from '../../src/core/log.js'
import { RawClient, type Reply, startControl } from '../support/control.js'
import { output, scratch } from '../support/process.js'
import { waitFor } from '../support/wait.js'

const newline = 0x0a
let badInputCount = 0

/** The proof after each bad client: a new one gets its answer. */
async function stillServes(t: Test, path: string, about: string): Promise<void> {
  badInputCount++
  const client = await RawClient.open(t, path)
  t.same((await client.ask('ping')).result, { pong: true }, `still serves after ${about}`)
  client.socket.destroy()
}

t.test('the socket can be opened by its owner only', async (t) => {
  const { path } = await startControl(t)
  t.equal((await stat(path)).mode & 0o777, 0o600)
})

t.test('a socket that a killed process left is replaced', async (t) => {
  const path = join(scratch(t), 'control.sock')
  const script = `import socket, os; s = socket.socket(socket.AF_UNIX); s.bind('${path}'); s.listen(); os._exit(0)`
  await output('python3', ['-c', script])
  t.ok((await stat(path)).isSocket())
  const { daemon } = await startControl(t)
  const server = await ControlServer.open({ path, daemon, log: silentLog })
  t.teardown(() => server.stop())
  server.serve()
  await stillServes(t, path, 'a stale socket')
})

t.test('a socket that somebody answers on is left alone, and so is a file', async (t) => {
  const { daemon, path } = await startControl(t)
  const open = (taken: string) => ControlServer.open({ path: taken, daemon, log: silentLog })
  await t.rejects(open(path), { code: 'IN_USE', message: /another process listens/ })
  await stillServes(t, path, 'a second server')
  await t.rejects(open(dirname(path)), { code: 'IN_USE', message: /not a socket/ })
  const full = join(scratch(t), 'full.sock')
  const deaf = createServer().listen(full)
  t.teardown(() => deaf.close())
  await waitFor('the deaf server', () => deaf.listening)
  await t.rejects(open(full), { code: 'IN_USE' })
})

t.test('who asks before the beginning waits for it, and a stop then closes', async (t) => {
  const { daemon, path: begunPath } = await startControl(t)
  const begun = await RawClient.open(t, begunPath)
  /** Meanwhile a request that was sent before is here, and its answer there. */
  const others = async (): Promise<void> => {
    for (let count = 0; count < 10; count++) await begun.ask('ping')
  }
  const path = join(scratch(t), 'early.sock')
  const server = await ControlServer.open({ path, daemon, log: silentLog })
  const early = await RawClient.open(t, path)
  let isAnswered = false
  const asked = early.ask('ping').finally(() => {
    isAnswered = true
  })
  await waitFor('the connection', () => server.connectionCount === 1)
  await others()
  t.equal(isAnswered, false)
  server.serve()
  t.same((await asked).result, { pong: true })
  await server.stop()

  const other = await ControlServer.open({ path, daemon, log: silentLog })
  const waiting = await RawClient.open(t, path)
  waiting.say('{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
  await waitFor('the connection', () => other.connectionCount === 1)
  await others()
  await other.stop()
  await waiting.closed()
  await t.rejects(waiting.next(), 'without an answer')
})

t.test('a path that no socket can have is refused with the reason', async (t) => {
  const { daemon } = await startControl(t)
  const path = join(scratch(t), 'x'.repeat(120))
  await t.rejects(ControlServer.open({ path, daemon, log: silentLog }), {
    code: 'INVALID_ARGUMENT',
    message: /107 bytes/,
  })
})

t.test('bad lines are answered and the connection goes on', async (t) => {
  const { path } = await startControl(t)
  const client = await RawClient.open(t, path)
  const lines: readonly (readonly [string | Uint8Array, number])[] = [
    ['GET / HTTP/1.1\r\n', -32700],
    ['{"jsonrpc":"2.0","id":1,"method":"ping"\n', -32700],
    [Uint8Array.of(0x16, 0x03, 0x01, 0xff, 0xfe, 0x00, 0x0a), -32700],
    ['NBDMAGIC\n', -32700],
    ['[{"jsonrpc":"2.0","id":1,"method":"ping"}]\n', -32600],
    [`${'['.repeat(100_000)}\n`, -32700],
    [`${'['.repeat(100_000)}${']'.repeat(100_000)}\n`, -32600],
    ['{"jsonrpc":"2.0","id":1,"method":"ping","params":{"__proto__":{"a":1}}}\n', -32602],
    ['\u0000\n', -32700],
  ]
  for (const [line, code] of lines) {
    client.say(line)
    t.equal((await client.next()).error?.code, code, JSON.stringify(line).slice(0, 50))
    badInputCount++
  }
  client.say('\n\n')
  t.same((await client.ask('ping')).result, { pong: true }, 'empty lines are nothing')
  t.equal(({} as { a?: number }).a, undefined)
})

t.test('random bytes get an error a line, and nothing else', async (t) => {
  const { path } = await startControl(t)
  const client = await RawClient.open(t, path)
  let state = 99
  for (let round = 0; round < 200; round++) {
    const junk = Array.from({ length: 64 }, () => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
      return (state >> 16) & 0xff
    })
    const line = Buffer.from(junk.map((byte) => (byte === newline ? 0 : byte)))
    client.say(Buffer.concat([line, Buffer.from('\n')]))
    assert.ok((await client.next()).error, line.toString('hex'))
    badInputCount++
  }
  await stillServes(t, path, 'random bytes')
})

t.test('a line above the limit is told so, and the connection closed', async (t) => {
  const { path } = await startControl(t, { stopTimeoutMs: 200 })
  const client = await RawClient.open(t, path)
  const mebibyte = 'x'.repeat(1048576)
  client.say(`${mebibyte.slice(0, -1)}\n`)
  t.equal((await client.next()).error?.code, -32700, 'a line of the limit is only not JSON')
  client.say(mebibyte)
  client.say(`${mebibyte}\n`)
  t.match((await client.next()).error?.message, /longer than 1048576 bytes/)
  await client.closed()
  await stillServes(t, path, 'a long line')
})

t.test('half a line does nothing, then or at its end', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  client.say(
    '{"jsonrpc":"2.0","id":1,"method":"volume.create","params":{"name":"v","sizeBytes":512}}',
  )
  await stillServes(t, path, 'half a line')
  client.socket.end()
  t.match((await client.next()).error?.message, /no end/)
  await client.closed()
  t.same(engine.asked, [])
})

t.test('half a line that never ends loses its connection', async (t) => {
  const { path } = await startControl(t, { lineTimeoutMs: 50 })
  const client = await RawClient.open(t, path)
  client.say('{"jsonrpc"')
  await client.closed()
  await stillServes(t, path, 'half a line for ever')
})

t.test('a client that ends its side still gets its answers', async (t) => {
  const { engine, path } = await startControl(t)
  let release: () => void = () => {}
  engine.gate = new Promise((resolve) => {
    release = resolve
  })
  const client = await RawClient.open(t, path)
  client.request(5, 'volume.create', { name: 'v', sizeBytes: 512 })
  client.socket.end()
  await waitFor('the request', () => engine.asked.length === 1)
  release()
  t.equal((await client.next()).id, 5)
  await client.closed()
})

t.test('a client that vanishes in the middle harms nobody', async (t) => {
  const { engine, path, server } = await startControl(t)
  for (let round = 0; round < 20; round++) {
    const client = await RawClient.open(t, path)
    client.request(1, 'events', { follow: true })
    client.request(2, 'volume.create', { name: `v${round}`, sizeBytes: 512 })
    client.say('{"half')
    client.socket.destroy()
  }
  await waitFor('the connections to end', () => server.connectionCount === 0)
  t.equal(engine.listenerCount, 0, 'nobody listens to events any more')
  await stillServes(t, path, 'clients that vanish')
})

t.test('pipelined requests begin in the order of their lines', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  const count = 500
  for (let id = 0; id < count; id++) {
    client.request(id, 'volume.create', { name: `v${id}`, sizeBytes: 512 })
  }
  const replies: Reply[] = []
  while (replies.length < count) replies.push(await client.next())
  t.notOk(replies.some((reply) => reply.error))
  t.same(
    engine.asked.map((request) => (request.kind === 'volume.create' ? request.name : '')),
    Array.from({ length: count }, (_, id) => `v${id}`),
  )
})

t.test('one connection has no more than its share under way', async (t) => {
  const { engine, path } = await startControl(t, { requestsInFlightMax: 4 })
  let release: () => void = () => {}
  engine.gate = new Promise((resolve) => {
    release = resolve
  })
  const client = await RawClient.open(t, path)
  for (let id = 0; id < 50; id++)
    client.request(id, 'volume.create', { name: `v${id}`, sizeBytes: 512 })
  await waitFor('four requests', () => engine.asked.length === 4)
  await stillServes(t, path, 'a full pipeline')
  t.equal(engine.asked.length, 4)
  release()
  for (let id = 0; id < 50; id++) t.equal((await client.next()).error, undefined)
})

t.test('a client that asks and does not read is not asked for more, then closed', async (t) => {
  const { engine, path, server } = await startControl(t, { unreadTimeoutMs: 300 })
  for (let index = 0; index < 500; index++) engine.addVolume(`volume-${index}`, 512)
  const client = await RawClient.open(t, path)
  client.socket.pause()
  for (let id = 0; id < 2000; id++) client.request(id, 'status')
  await waitFor('the server to give up', () => server.connectionCount === 0)
  await stillServes(t, path, 'a client that does not read')
})

t.test('a follower that does not read is closed when its share is full', async (t) => {
  const { engine, path, server } = await startControl(t, { outputBytesMax: 1048576 })
  const client = await RawClient.open(t, path)
  await client.ask('events', { follow: true })
  client.socket.pause()
  const message = 'x'.repeat(1000)
  for (let index = 0; index < 4000 && server.connectionCount > 0; index++) {
    engine.emit({ at: '', kind: 'operation', message })
    if (index % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  await waitFor('the server to give up', () => server.connectionCount === 0)
  t.equal(engine.listenerCount, 0)
  await stillServes(t, path, 'a follower that does not read')
})

t.test('a follower gets what happens as notifications', async (t) => {
  const { path } = await startControl(t)
  const follower = await RawClient.open(t, path)
  t.same((await follower.ask('events', { follow: true })).result, { events: [] })
  const client = await RawClient.open(t, path)
  await client.ask('volume.create', { name: 'vol0', sizeBytes: 512 })
  t.match(await follower.next(), {
    method: 'event',
    params: { kind: 'operation', stores: ['vol0'] },
  })
})

t.test('a notification is performed and not answered', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  const params = { name: 'vol0', sizeBytes: 512 }
  client.say(`${JSON.stringify({ jsonrpc: '2.0', method: 'volume.create', params })}\n`)
  client.say(`${JSON.stringify({ jsonrpc: '2.0', method: 'nonsense' })}\n`)
  t.same((await client.ask('ping')).result, { pong: true })
  t.equal(engine.asked.length, 1)
})

t.test('above the limit of connections a client is told so, and others go on', async (t) => {
  const { path } = await startControl(t, { connectionCountMax: 3 })
  const clients = [
    await RawClient.open(t, path),
    await RawClient.open(t, path),
    await RawClient.open(t, path),
  ]
  for (const client of clients) await client.ask('ping')
  const fourth = await RawClient.open(t, path)
  t.equal((await fourth.next()).error?.data.code, 'LIMIT_REACHED')
  await fourth.closed()
  for (const client of clients) t.ok((await client.ask('ping')).result)
  badInputCount++
})

t.test('an unknown failure is an internal error that does not tell its cause', async (t) => {
  const { engine, path } = await startControl(t)
  engine.gate = Promise.reject(new TypeError('a secret'))
  engine.gate.catch(() => {})
  const client = await RawClient.open(t, path)
  const { error } = await client.ask('volume.create', { name: 'v', sizeBytes: 512 })
  t.equal(error?.code, -32603)
  t.notMatch(JSON.stringify(error), /secret/)
  await stillServes(t, path, 'a failure inside')
})

t.test('stopping waits for nobody longer than its deadline', async (t) => {
  const { engine, path, server } = await startControl(t, { stopTimeoutMs: 100 })
  engine.gate = new Promise(() => {})
  const idle = await RawClient.open(t, path)
  const busy = await RawClient.open(t, path)
  busy.request(1, 'volume.create', { name: 'v', sizeBytes: 512 })
  const deaf = await RawClient.open(t, path)
  deaf.request(1, 'events', { follow: true })
  deaf.socket.pause()
  const half = await RawClient.open(t, path)
  half.say('{"half')
  await waitFor('the request', () => engine.asked.length === 1 && engine.listenerCount === 1)
  await server.stop()
  t.equal(server.connectionCount, 0)
  deaf.socket.resume()
  for (const client of [idle, busy, deaf, half]) await client.closed()
  await t.rejects(stat(path), { code: 'ENOENT' })
})

t.teardown(() => t.comment(`bad inputs to the control socket: ${badInputCount}`))
