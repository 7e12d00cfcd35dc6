// Input that broke other NBD servers, in the handshake, over real sockets. After each the server still serves a good client.
import type { Socket } from 'node:net'
import t, { type Test } from 'tap'
import { NbdClient } from '../../nbd/client.js'
import { OptionCode } from '../../nbd/constants.js'
import { ClientGreeting, OptionHeader } from '../../nbd/messages.js'
import { contextBody, infoBody } from '../../nbd/option-bodies.js'
import { assertServes, inTime, startServer, type TestServer, until } from '../support/nbd-server.js'

let badInputs = 0

/** Resolves when the socket is closed, also after an error. */
function closeOf(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()))
}

/** Sends `bytes` after connecting, and ends its side; resolves when the server has closed the connection. */
async function tryBytes(served: TestServer, bytes: Buffer, end: 'fin' | 'rst'): Promise<void> {
  badInputs++
  const ended = served.ends.length + 1
  const socket = await served.socket()
  socket.on('data', () => {})
  const closed = closeOf(socket)
  socket.write(bytes, () => (end === 'fin' ? socket.end() : socket.resetAndDestroy()))
  await inTime(closed, 'the connection closes')
  await served.ended(ended)
}

const greeting = ClientGreeting.encode({ flags: 3 })

function option(number: number, body: Buffer = Buffer.alloc(0), lengthBytes = body.length): Buffer {
  return Buffer.concat([OptionHeader.encode({ option: number, lengthBytes }), body])
}

function assertClean(t: Test, served: TestServer): void {
  t.same(served.fatal, [])
  t.same(served.failures, [])
  t.same(
    served.ends.filter(({ reason }) => reason === 'failed'),
    [],
    'no bug was met',
  )
  t.equal(served.memory.attachedCount, 0)
  t.equal(served.server.usedBytes, 0)
  t.equal(served.server.counters().connections, 0)
}

t.test('FIN and RST after every byte of a handshake', async (t) => {
  const served = await startServer(t)
  const whole = Buffer.concat([
    greeting,
    option(OptionCode.STRUCTURED_REPLY),
    option(OptionCode.SET_META_CONTEXT, contextBody('memory', ['base:allocation'])),
    option(OptionCode.INFO, infoBody('memory', [1, 2, 3])),
    option(OptionCode.GO, infoBody('memory')),
  ])
  for (const end of ['fin', 'rst'] as const) {
    for (let at = 0; at <= whole.length; at++) await tryBytes(served, whole.subarray(0, at), end)
  }
  await assertServes(served)
  await served.ended(2 * (whole.length + 1) + 1)
  assertClean(t, served)
})

/** All sequences of up to `lengthMax` of the options, the empty one included. */
function sequencesOf(options: readonly Buffer[], lengthMax: number): Buffer[][] {
  const sequences: Buffer[][] = [[]]
  for (let start = 0, length = 1; length <= lengthMax; length++) {
    const end = sequences.length
    for (; start < end; start++) {
      for (const next of options) sequences.push([...(sequences[start] ?? []), next])
    }
  }
  return sequences
}

t.test('every sequence of up to four options, with nothing behind ABORT', async (t) => {
  const served = await startServer(t, {
    limits: { handshakeCountMax: 64, lingerTimeoutMs: 20 },
    tls: { isRequired: false, start: async (stream) => stream },
  })
  const options = [
    option(OptionCode.LIST),
    option(OptionCode.STARTTLS),
    option(OptionCode.STRUCTURED_REPLY),
    option(OptionCode.EXTENDED_HEADERS),
    option(OptionCode.SET_META_CONTEXT, contextBody('memory', ['base:allocation'])),
    option(OptionCode.INFO, infoBody('nobody')),
    option(OptionCode.GO, infoBody('memory')),
    option(OptionCode.EXPORT_NAME, Buffer.from('memory')),
    option(77, Buffer.from('what?')),
  ]
  const sequences = sequencesOf(options, 4).flatMap((before) =>
    before.length < 4 ? [before, [...before, option(OptionCode.ABORT)]] : [before],
  )
  t.equal(sequences.length, 8201)
  // All of it is sent at once: what comes behind STARTTLS or after transmission began is bad in itself.
  const queue = sequences.map((parts) => Buffer.concat([greeting, ...parts]))
  const worker = async (): Promise<void> => {
    for (let bytes = queue.pop(); bytes; bytes = queue.pop()) {
      badInputs++
      const socket = await served.socket()
      socket.on('data', () => {})
      const closed = closeOf(socket)
      socket.end(bytes)
      await inTime(closed, 'the connection closes')
    }
  }
  await Promise.all(Array.from({ length: 8 }, worker))
  await until(() => served.ends.length === sequences.length, 'all have ended')
  await assertServes(served)
  await served.ended(sequences.length + 1)
  assertClean(t, served)
})

t.test('client flags that nobody knows', async (t) => {
  const served = await startServer(t)
  for (const flags of [4, 8, 0x8000_0000, 0xffff_ffff, 0x49484156, 0x47455420]) {
    await tryBytes(served, ClientGreeting.encode({ flags }), 'fin')
    t.equal(served.ends.at(-1)?.reason, 'protocol-error')
    await assertServes(served)
  }
})

t.test('option lengths of 2^31, 2^32 - 1 and around the limit', async (t) => {
  const served = await startServer(t)
  const numbers = [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 77]
  for (const number of numbers) {
    for (const lengthBytes of [0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 65_537, 65_536, 4097]) {
      const header = option(number, Buffer.alloc(100), lengthBytes)
      await tryBytes(served, Buffer.concat([greeting, header]), 'fin')
    }
    t.equal(served.server.usedBytes, 0)
  }
  await assertServes(served)
})

t.test(
  'a body that is too long for its option is skipped, and the next option is served',
  async (t) => {
    const served = await startServer(t)
    const client = await served.connect()
    for (const number of [3, 5, 8, 11]) {
      badInputs++
      const [refusal] = await inTime(client.option(number, Buffer.alloc(4097, 0x49)), 'a refusal')
      t.equal(refusal?.type, 0x8000_0009)
    }
    badInputs++
    const [unknown] = await inTime(client.option(999, Buffer.alloc(65_536)), 'a refusal')
    t.equal(unknown?.type, 0x8000_0001)
    await client.go('memory')
    await client.disconnect()
  },
)

t.test('lengths that disagree inside an option', async (t) => {
  const served = await startServer(t)
  const client = await served.connect()
  await client.negotiateStructured()
  const lies = [0xffff_ffff, 0x8000_0000, 0x7fff_ffff, 4097, 100, 7, 5]
  const bodies: [number, Buffer][] = []
  for (const lie of lies) {
    const name = infoBody('memory', [3])
    name.writeUInt32BE(lie, 0)
    bodies.push([OptionCode.INFO, name], [OptionCode.GO, name])
    const queries = contextBody('memory', ['base:allocation'])
    queries.writeUInt32BE(lie, 10)
    bodies.push([OptionCode.SET_META_CONTEXT, queries])
    const query = contextBody('memory', ['base:allocation'])
    query.writeUInt32BE(lie, 14)
    bodies.push([OptionCode.LIST_META_CONTEXT, query])
  }
  const infos = infoBody('memory', [3])
  infos.writeUInt16BE(0xffff, 10)
  bodies.push(
    [OptionCode.GO, infos],
    [OptionCode.GO, Buffer.alloc(5)],
    [OptionCode.INFO, Buffer.alloc(0)],
  )
  for (const chunk of [bodies.slice(0, 25), bodies.slice(25)]) {
    const fresh = await served.connect()
    await fresh.negotiateStructured()
    for (const [number, body] of chunk) {
      badInputs++
      const answers = await inTime(fresh.option(number, body), 'an answer')
      t.equal(answers.at(-1)?.type, 0x8000_0003, body.toString('hex'))
    }
    await inTime(fresh.go('memory'), 'GO')
    await fresh.disconnect()
  }
  client.destroy()
})

t.test('names of 256, 257, 4096 and 4097 bytes, with NUL, and with bad UTF-8', async (t) => {
  const served = await startServer(t)
  const names = [
    ...[256, 257, 4096, 4097].map((length) => Buffer.alloc(length, 'n')),
    Buffer.from('mem\0ory'),
    Buffer.from('memory\0'),
    Buffer.from('c080ff', 'hex'),
    Buffer.from('../../etc/passwd'),
    Buffer.from('%s%n\u001b[2J'),
  ]
  for (const name of names) {
    const client = await served.connect()
    await client.negotiateStructured()
    const length = Buffer.alloc(4)
    length.writeUInt32BE(name.length)
    const info = Buffer.concat([length, name, Buffer.alloc(2)])
    const context = Buffer.concat([length, name, Buffer.alloc(4)])
    for (const [number, body] of [
      [6, info],
      [7, info],
      [9, context],
      [10, context],
    ] as const) {
      badInputs++
      const answers = await inTime(client.option(number, body), 'an answer')
      const last = answers.at(-1)
      t.ok((last?.type ?? 0) >= 0x8000_0000)
      t.ok((last?.data.length ?? 0) <= 256, 'the text does not grow with the name')
    }
    badInputs++
    client.send(option(OptionCode.EXPORT_NAME, name))
    await inTime(client.reader.read(1).catch(() => undefined) as Promise<unknown>, 'the end')
    client.destroy()
    await assertServes(served)
  }
})

t.test('HTTP, a TLS hello, a port scan, noise, and a greeting of its own', async (t) => {
  const served = await startServer(t, { limits: { handshakeTimeoutMs: 200 } })
  const inputs = [
    Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'),
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    Buffer.from(`16030100c8010000c40303${'00'.repeat(200)}`, 'hex'),
    Buffer.from('SSH-2.0-OpenSSH_9.2\r\n'),
    Buffer.from('EHLO localhost\r\n'),
    Buffer.from('4e42444d4147494349484156454f50540003', 'hex'),
    Buffer.from('4e42444d41474943' + '00420281861253', 'hex'),
    Buffer.alloc(100_000, 0),
    Buffer.alloc(100_000, 0xff),
    Buffer.from('\r\n'),
  ]
  for (const input of inputs) {
    badInputs++
    const socket = await served.socket()
    socket.on('data', () => {})
    socket.write(input)
    // It keeps its side open: the server ends it.
    await inTime(closeOf(socket), 'the server closes')
    await assertServes(served)
  }
  // A port scan: connect and leave.
  for (let count = 0; count < 50; count++) {
    badInputs++
    const socket = await served.socket()
    socket.resetAndDestroy()
  }
  await until(() => served.server.counters().connections === 0, 'all are gone')
  await assertServes(served)
})

t.test('a handshake of one byte at a time ends at the deadline', async (t) => {
  const served = await startServer(t, { limits: { handshakeTimeoutMs: 300 } })
  badInputs++
  const socket = await served.socket()
  socket.on('data', () => {})
  const list = option(OptionCode.LIST)
  const bytes = Buffer.concat([greeting, ...Array.from({ length: 32 }, () => list)])
  let at = 0
  const drip = setInterval(() => socket.write(bytes.subarray(at, ++at)), 5)
  t.teardown(() => clearInterval(drip))
  await served.ended(1)
  clearInterval(drip)
  t.match(served.ends, [{ reason: 'timeout' }])
  await assertServes(served)
})

t.test('options without end, and answers that nobody reads', async (t) => {
  const served = await startServer(t, { limits: { handshakeTimeoutMs: 1000 } })
  badInputs += 2
  const chatty = await served.connect()
  chatty.send(...Array.from({ length: 40 }, () => option(77)))
  await served.ended(1)
  t.match(served.ends[0], { message: 'more than 32 options' })
  chatty.destroy()
  served.memory.contexts = Array.from(
    { length: 4000 },
    (_, index) => `x-test:${'n'.repeat(200)}${index}`,
  )
  const deaf = await served.connect()
  await deaf.negotiateStructured()
  deaf.reader.detach()
  const list = option(OptionCode.LIST_META_CONTEXT, contextBody('memory', []))
  deaf.send(...Array.from({ length: 30 }, () => list))
  await served.ended(2)
  t.match(served.ends[1], { reason: 'timeout' })
  deaf.destroy()
  await assertServes(served)
})

t.test('thousands of connections, most of them refused, leave the server as it was', async (t) => {
  const served = await startServer(t, { limits: { handshakeTimeoutMs: 300 } })
  const good = await served.open()
  const sockets: Socket[] = []
  // As many at a time as the system queues for a listener.
  for (let batch = 0; batch < 20; batch++) {
    const connecting = Array.from({ length: 100 }, () => served.socket())
    for (const socket of await Promise.all(connecting)) sockets.push(socket.resume())
    badInputs += connecting.length
  }
  t.equal((await inTime(good.read({ offset: 0, lengthBytes: 512 }), 'a read')).length, 512)
  await until(() => {
    const { acceptedConnections, refusedConnections } = served.server.counters()
    return acceptedConnections + refusedConnections === 2001
  }, 'all have come')
  t.ok(served.refusals.length > 1000, `${served.refusals.length} were refused`)
  for (const socket of sockets) socket.destroy()
  await until(() => served.server.counters().connections === 1, 'all others are gone')
  await assertServes(served)
  await good.disconnect()
})

t.test('nothing of an export is opened before GO succeeds', async (t) => {
  const served = await startServer(t)
  const client = await NbdClient.connect({ port: served.port, host: '127.0.0.1' })
  await client.list()
  await client.info('memory', [1, 2, 3])
  t.equal(served.memory.attachedCount, 0)
  client.destroy()
})

t.test('the count', async (t) => {
  t.comment(`${badInputs} bad inputs were tried in the handshake`)
  t.ok(badInputs > 10_000)
})
