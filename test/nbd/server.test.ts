// The server: how many it lets in, what it counts, and that it stops in time whatever clients do.
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { NbdClient } from '../../nbd/client.js'
import { Command, OptionCode } from '../../nbd/constants.js'
import { infoBody } from '../../nbd/option-bodies.js'
import { NbdServer } from '../../nbd/server.js'
import { duplexPair } from '../support/duplex-pair.js'
import { ManualTimers } from '../support/manual-timers.js'
import { exportList, MemoryExport } from '../support/memory-export.js'
import { assertServes, inTime, startServer, until } from '../support/nbd-server.js'

t.test(
  'connections above the limit are closed at once, and a place that is free is given',
  async (t) => {
    const served = await startServer(t, { limits: { connectionCountMax: 3 } })
    const clients = await Promise.all([served.open(), served.open(), served.open()])
    const refused = await served.socket()
    await inTime(once(refused, 'close'), 'the refusal')
    t.equal(served.refusals.length, 1)
    t.equal(served.server.counters().refusedConnections, 1)
    await clients[0]?.disconnect()
    await served.ended(1)
    await assertServes(served)
  },
)

t.test(
  'handshakes above the limit are closed at once, those in transmission do not count',
  async (t) => {
    const served = await startServer(t, { limits: { handshakeCountMax: 2 } })
    const open = [await served.open(), await served.open(), await served.open()]
    t.equal(open.length, 3)
    const slow = [await served.socket(), await served.socket()]
    await until(() => served.server.counters().handshakes === 2, 'two are in their handshake')
    const refused = await served.socket()
    await inTime(once(refused, 'close'), 'the refusal')
    slow[0]?.destroy()
    await served.ended(1)
    await assertServes(served)
  },
)

t.test('handshakes that hang give way to new clients, the oldest first', async (t) => {
  const timers = new ManualTimers()
  const served = await startServer(t, { limits: { handshakeCountMax: 2 }, timers })
  const first = await served.socket()
  await until(() => served.server.counters().handshakes === 1, 'one is in its handshake')
  const second = await served.socket()
  await until(() => served.server.counters().handshakes === 2, 'two are in their handshake')
  timers.advance(1000)
  const isCut = inTime(once(first.resume(), 'close'), 'the first gives way')
  const client = await served.open()
  await isCut
  await served.ended(1)
  t.match(served.ends, [{ reason: 'timeout', message: /others waited/ }])
  t.equal(second.closed, false, 'there is room: the second may go on')
  t.equal(served.server.counters().handshakes, 1)
  t.equal(served.refusals.length, 0)
  await client.disconnect()
})

t.test('it counts connections, requests and bytes', async (t) => {
  const served = await startServer(t)
  const client = await served.open()
  await client.write({ offset: 0, data: Buffer.alloc(1000) })
  await client.read({ offset: 0, lengthBytes: 300 })
  const { error } = await client.request({ command: 99 })
  t.equal(error?.errno, 'EINVAL')
  t.match(served.server.counters(), {
    connections: 1,
    handshakes: 0,
    acceptedConnections: 1,
    refusedConnections: 0,
    requests: 3,
    failedRequests: 1,
    readBytes: 300,
    writtenBytes: 1000,
  })
  await client.disconnect()
  await served.ended(1)
  t.match(served.server.counters(), { connections: 0, acceptedConnections: 1 })
})

t.test('stopping answers what is in flight and accepts nothing more', async (t) => {
  const served = await startServer(t)
  let open = (): void => {}
  const wait = new Promise<void>((resolve) => {
    open = resolve
  })
  let calls = 0
  served.memory.delay = () => {
    calls++
    return wait
  }
  const client = await served.open()
  const write = client.write({ offset: 0, data: Buffer.from('kept') })
  await until(() => calls === 1, 'the write is with the export')
  const stopped = served.server.stop()
  const late = client.read({ offset: 0, lengthBytes: 1 })
  late.catch(() => {})
  const refused = await served.socket().catch(() => undefined)
  if (refused && !refused.destroyed) await inTime(once(refused, 'close'), 'the refusal')
  open()
  await inTime(write, 'the answer')
  await inTime(stopped, 'the stop')
  await t.rejects(late, { name: 'ConnectionEnded' })
  t.match(served.ends, [{ reason: 'stopped' }])
  t.equal(served.memory.content.toString('utf8', 0, 4), 'kept')
})

t.test(
  'stopping cuts what does not end by itself: idle, deaf, silent, stuck in the export',
  async (t) => {
    const limits = { stopTimeoutMs: 300, lingerTimeoutMs: 200 }
    const served = await startServer(t, { limits, sizeBytes: 4 * 1024 * 1024 })
    served.memory.content.fill(1)
    const silent = await served.socket()
    const inHandshake = await served.connect()
    const idle = await served.open()
    const deaf = await served.connect()
    await deaf.expectAck(OptionCode.GO, infoBody('memory'))
    deaf.reader.detach()
    for (let count = 0; count < 20; count++) {
      deaf.send(deaf.encodeRequest({ command: Command.READ, lengthBytes: 4 * 1024 * 1024 }))
    }
    const halfWritten = await served.open()
    halfWritten.send(
      halfWritten.encodeRequest({ command: Command.WRITE, lengthBytes: 100_000 }),
      Buffer.alloc(50_000),
    )
    await until(() => served.server.counters().requests > 2, 'the requests arrived')
    const stuck = await served.open()
    let open = (): void => {}
    served.memory.delay = ({ command }) =>
      command === 'flush' ? new Promise<void>((resolve) => (open = resolve)) : undefined
    stuck.command(Command.FLUSH).catch(() => {})
    await until(() => served.memory.flushCount === 1, 'the flush began')
    let isStopped = false
    const stopped = served.server.stop().then(() => {
      isStopped = true
    })
    await served.ended(5)
    t.equal(isStopped, false, 'one request is still with the export')
    await inTime(stuck.closed, 'its connection is cut all the same')
    open()
    await inTime(stopped, 'the stop')
    t.equal(served.ends.length, 6)
    t.ok(served.ends.every(({ reason }) => reason === 'stopped'))
    for (const client of [inHandshake, idle, deaf, halfWritten, stuck]) client.destroy()
    silent.destroy()
    t.equal(served.server.usedBytes, 0)
  },
)

t.test('it serves Unix sockets, listeners of others, and any duplex', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'nbd-test-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const memory = new MemoryExport({ sizeBytes: 4096 })
  const server = new NbdServer({ exports: exportList(memory) })
  t.teardown(() => server.stop())
  const path = join(directory, 's')
  const listener = createServer({ allowHalfOpen: true })
  server.serve(listener)
  listener.listen(path)
  await once(listener, 'listening')
  const overUnix = await NbdClient.connect({ path })
  await overUnix.go('')
  await overUnix.write({ offset: 7, data: Buffer.from('x') })
  await overUnix.disconnect()
  const [ours, theirs] = duplexPair()
  server.accept(theirs, 'a test')
  const inMemory = new NbdClient(ours)
  await inMemory.greet(3)
  await inMemory.go('memory')
  t.equal((await inMemory.read({ offset: 7, lengthBytes: 1 })).toString(), 'x')
  await inMemory.disconnect()
})
