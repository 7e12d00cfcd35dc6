// The way to a peer's connection, both sides over a real NBD server: who gets through, who does not and why, and that no byte behind the handshake is lost.
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import { OptionReply } from '../../nbd/constants.js'
import { peerConnector } from '../../src/app/peer-connector.js'
import { peerOptions } from '../../src/app/peer-option.js'
import {
  GreetBody,
  GreetReply,
  noProof,
  PeerFlag,
  PeerOption,
  Proof,
} from '../../src/app/peer-protocol.js'
import { systemRandom } from '../../src/app/system.js'
import { inTime, startServer, until } from '../support/nbd-server.js'
import { scratch } from '../support/process.js'

const secret = Buffer.from('an example of a secret')

type Listener = {
  readonly served: Awaited<ReturnType<typeof startServer>>
  readonly uri: string
  readonly accepted: { readonly stream: Duplex; readonly from: string }[]
  readonly refused: string[]
  /** What the engine is told of who was refused. */
  readonly turnedAway: string[]
}

async function startListener(
  t: Test,
  options: { readonly secret?: Buffer } = {},
): Promise<Listener> {
  const accepted: { stream: Duplex; from: string }[] = []
  const refused: string[] = []
  const turnedAway: string[] = []
  const privateOptions = peerOptions({
    engine: {
      peerTurnedAway: (from, { kind, reason }) => turnedAway.push(`${from} ${kind} ${reason}`),
      acceptPeer: async (stream, from) => {
        accepted.push({ stream, from })
        t.teardown(() => stream.destroy())
      },
    },
    random: systemRandom,
    log: { debug: (bindings) => void refused.push((bindings as { reason: string }).reason) },
    ...(options.secret === undefined ? {} : { secret: options.secret }),
  })
  const served = await startServer(t, { privateOptions })
  return { served, uri: `nbd://127.0.0.1:${served.port}`, accepted, refused, turnedAway }
}

const neverAborted = new AbortController().signal

const call = (
  uri: string,
  own?: Buffer,
  timeoutMs = 10_000,
  signal = neverAborted,
): Promise<Duplex> =>
  inTime(
    peerConnector({ random: systemRandom, timeoutMs, ...(own ? { secret: own } : {}) })(
      uri,
      signal,
    ),
    'the call',
  )

/** What `stream` says from now on, as text. */
function heard(stream: Duplex): { readonly text: () => string } {
  let text = ''
  stream.on('data', (data: Buffer) => {
    text += data.toString()
  })
  // It comes paused, so that nothing is lost before its owner listens.
  stream.resume()
  return { text: () => text }
}

for (const own of [undefined, secret]) {
  t.test(`nodes ${own ? 'with one secret' : 'without a secret'} get a connection`, async (t) => {
    const listener = await startListener(t, own ? { secret: own } : {})
    const mine = await call(listener.uri, own)
    t.teardown(() => mine.destroy())
    mine.write('from the caller')
    await until(() => listener.accepted.length === 1, 'it is accepted')
    const [theirs] = listener.accepted
    t.match(theirs?.from, /^127\.0\.0\.1:\d+$/)
    theirs?.stream.write('from the listener')
    const here = heard(mine)
    const there = heard(theirs?.stream as Duplex)
    await until(() => here.text() === 'from the listener', 'the caller hears')
    await until(() => there.text() === 'from the caller', 'the listener hears')
    t.equal(listener.served.server.counters().connections, 0, 'it is no NBD connection any more')
  })
}

t.test('what comes right behind the handshake is not lost, on either side', async (t) => {
  const listener = await startListener(t)
  const raw = await listener.served.connect()
  const greet = { versionMin: 1, versionMax: 1, nonce: Buffer.alloc(32) }
  await raw.expectAck(PeerOption.GREET, GreetBody.encode(greet))
  const join = Buffer.alloc(16)
  join.writeBigUInt64BE(0x49484156454f5054n)
  join.writeUInt32BE(PeerOption.JOIN, 8)
  join.writeUInt32BE(Proof.lengthBytes, 12)
  raw.send(Buffer.concat([join, noProof, Buffer.from('early')]))
  await until(() => listener.accepted.length === 1, 'it is accepted')
  const there = heard(listener.accepted[0]?.stream as Duplex)
  await until(() => there.text() === 'early', 'the listener hears it')
  raw.destroy()

  // The same the other way: the last answer and a frame in one piece.
  const eager = createServer((socket) => scripted(socket))
  t.teardown(() => eager.close())
  eager.listen(0, '127.0.0.1')
  const port = await until(() => eager.address() !== null, 'a port').then(
    () => (eager.address() as { port: number }).port,
  )
  const mine = await call(`nbd://127.0.0.1:${port}`)
  const here = heard(mine)
  await until(() => here.text() === 'at once', 'the caller hears it')
  mine.destroy()
})

/** A listener that says everything at once, and its first frame behind it. */
function scripted(socket: Socket, flags = 0): void {
  socket.on('error', () => {})
  const ack = (option: number, data: Buffer): Buffer => {
    const head = Buffer.alloc(20)
    head.writeBigUInt64BE(0x3e889045565a9n)
    head.writeUInt32BE(option, 8)
    head.writeUInt32BE(OptionReply.ACK, 12)
    head.writeUInt32BE(data.length, 16)
    return Buffer.concat([head, data])
  }
  const reply = GreetReply.encode({ version: 1, flags, nonce: Buffer.alloc(32) })
  const greeting = Buffer.from('4e42444d4147494349484156454f5054' + '0003', 'hex')
  const all = [greeting, ack(PeerOption.GREET, reply), ack(PeerOption.JOIN, noProof)]
  socket.write(Buffer.concat([...all, Buffer.from('at once')]))
}

t.test('another secret, or none on one side, is refused by both in words', async (t) => {
  const other = Buffer.from('an example of another secret')
  const guarded = await startListener(t, { secret })
  await t.rejects(call(guarded.uri, other), {
    code: 'PEER_UNREACHABLE',
    message: /refuses: the secret is another one/,
    action: /set peer-secret-file on both nodes/,
  })
  await t.rejects(call(guarded.uri), {
    message: /this node has no secret/,
    action: /peer-secret-file/,
  })
  t.same(guarded.refused, ['the secret is another one', 'it has no secret, and this node has one'])
  t.match(guarded.turnedAway, [
    /^127\.0\.0\.1:\d+ secret the secret is another one$/,
    /^127\.0\.0\.1:\d+ secret it has no secret/,
  ])
  const open = await startListener(t)
  await t.rejects(call(open.uri, secret), { message: /the node at nbd:.* has no secret/ })
  t.equal(guarded.accepted.length + open.accepted.length, 0)
})

t.test('a listener that does not know the secret proves nothing', async (t) => {
  for (const [flags, message] of [
    [0, /has no secret/],
    [PeerFlag.HAS_SECRET, /does not know the secret/],
  ] as const) {
    const impostor = createServer((socket) => scripted(socket, flags))
    t.teardown(() => impostor.close())
    impostor.listen(0, '127.0.0.1')
    await until(() => impostor.address() !== null, 'a port')
    const { port } = impostor.address() as { port: number }
    await t.rejects(call(`nbd://127.0.0.1:${port}`, secret), { message })
  }
})

t.test('a proof is good once, and only behind a greeting', async (t) => {
  const listener = await startListener(t, { secret })
  const client = await listener.served.connect()
  const early = await client.option(PeerOption.JOIN, noProof)
  t.equal(early.at(-1)?.type, OptionReply.ERR_INVALID)
  const greet = GreetBody.encode({ versionMin: 1, versionMax: 1, nonce: Buffer.alloc(32) })
  await client.expectAck(PeerOption.GREET, greet)
  const first = await client.option(PeerOption.JOIN, noProof)
  t.equal(first.at(-1)?.type, OptionReply.ERR_POLICY)
  const second = await client.option(PeerOption.JOIN, noProof)
  t.equal(second.at(-1)?.type, OptionReply.ERR_INVALID, 'the challenge is used up')
  for (const body of [Buffer.alloc(0), Buffer.alloc(33)]) {
    for (const option of [PeerOption.GREET, PeerOption.JOIN]) {
      const refused = await client.option(option, body)
      t.equal(refused.at(-1)?.type, OptionReply.ERR_INVALID)
    }
  }
  const newer = GreetBody.encode({ versionMin: 2, versionMax: 9, nonce: Buffer.alloc(32) })
  const answers = await client.option(PeerOption.GREET, newer)
  t.match(answers.at(-1)?.data.toString(), /speaks version 1 of the handshake, not 2 to 9/)
  t.match(listener.turnedAway, [/ secret /, / version /])
  t.equal((await client.list()).length, 1, 'and the handshake goes on')
  t.equal(listener.accepted.length, 0)
  client.destroy()
})

t.test('every way of not being there is a sentence', async (t) => {
  const plain = await startServer(t)
  await t.rejects(call(`nbd://127.0.0.1:${plain.port}`), { message: /is no Lockstep node/ })
  const closed = createServer().listen(0, '127.0.0.1')
  await until(() => closed.address() !== null, 'a port')
  const { port } = closed.address() as { port: number }
  await new Promise((resolve) => closed.close(resolve))
  await t.rejects(call(`nbd://127.0.0.1:${port}`), { message: /nobody listens at nbd:/ })
  const path = join(scratch(t), 'none.sock')
  await t.rejects(call(`nbd+unix:///?socket=${path}`), { message: /there is no socket for/ })
  for (const uri of ['nonsense', 'nbds://127.0.0.1:1', 'nbd://127.0.0.1:0', 'nbd://h:1/vol0']) {
    await t.rejects(call(uri), { code: 'INVALID_CONFIG', message: /cannot connect to/ }, uri)
  }
})

t.test('a server that says nothing, nonsense, or goes away costs a moment', async (t) => {
  const otherAddress = /lockstep peer set URI/
  const look = /check that the other node runs/
  const behaviours: readonly [(socket: Socket) => void, RegExp, RegExp][] = [
    [() => {}, /no answer from .* within 0\.2 s/, look],
    [
      (socket) => void socket.write(Buffer.alloc(4096, 'HTTP')),
      /is no node: NBD server greeting/,
      otherAddress,
    ],
    [(socket) => void socket.end(), /closed the connection/, look],
    [
      (socket) => void socket.write(greetingAndHugeAnswer()),
      /is no node: its answer is too long/,
      otherAddress,
    ],
  ]
  for (const [behave, message, action] of behaviours) {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      behave(socket)
    })
    server.listen(0, '127.0.0.1')
    await until(() => server.address() !== null, 'a port')
    const { port } = server.address() as { port: number }
    const expected = { message, action }
    await t.rejects(call(`nbd://127.0.0.1:${port}`, undefined, 200), expected, String(message))
    server.close()
  }
})

t.test('a call that nobody waits for any more leaves nothing behind', async (t) => {
  const held: Socket[] = []
  const silent = createServer((socket) => void held.push(socket.on('error', () => {}).resume()))
  t.teardown(() => silent.close())
  silent.listen(0, '127.0.0.1')
  await until(() => silent.address() !== null, 'a port')
  const { port } = silent.address() as { port: number }
  const attempt = new AbortController()
  const called = call(`nbd://127.0.0.1:${port}`, undefined, 600_000, attempt.signal)
  const told = t.rejects(called, { code: 'PEER_UNREACHABLE' })
  await until(() => held.length === 1, 'it is connected, and nobody answers')
  attempt.abort()
  await told
  await until(() => held[0]?.destroyed === true, 'it hung up')
  const again = call(`nbd://127.0.0.1:${port}`, undefined, 600_000, attempt.signal)
  await t.rejects(again, { code: 'PEER_UNREACHABLE' }, 'nor when it begins too late')
})

function greetingAndHugeAnswer(): Buffer {
  const head = Buffer.alloc(20)
  head.writeBigUInt64BE(0x3e889045565a9n)
  head.writeUInt32BE(PeerOption.GREET, 8)
  head.writeUInt32BE(OptionReply.ACK, 12)
  head.writeUInt32BE(0x7fff_ffff, 16)
  return Buffer.concat([Buffer.from('4e42444d4147494349484156454f50540003', 'hex'), head])
}

t.test('a Unix socket is as good as loopback', async (t) => {
  const listener = await startListener(t)
  const path = join(scratch(t), 'nbd.sock')
  const unix = listener.served.server.createListener().listen(path)
  t.teardown(() => unix.close())
  await until(() => unix.listening, 'it listens')
  const mine = await call(`nbd+unix:///?socket=${path}`)
  await until(() => listener.accepted.length === 1, 'it is accepted')
  t.equal(listener.accepted[0]?.from, 'unix')
  // A whole entry leaves at once: its receiver does not read in between.
  mine.write(Buffer.alloc(1024 * 1024))
  t.equal(mine.writableLength, 0)
  mine.destroy()
})

t.test('from another machine nobody gets through without a secret', async (t) => {
  const refused: unknown[] = []
  const told: string[] = []
  const [greet] = peerOptions({
    engine: {
      acceptPeer: async () => {},
      peerTurnedAway: (from, { kind }) => told.push(`${from} ${kind}`),
    },
    random: systemRandom,
    log: { debug: () => {} },
  })
  for (const peer of [
    '192.0.2.7:40000',
    '2001:db8::1:40000',
    '::ffff:192.0.2.7:1',
    '127.0.0.1:5',
  ]) {
    await greet?.handle({
      body: GreetBody.encode({ versionMin: 1, versionMax: 1, nonce: Buffer.alloc(32) }),
      isTls: false,
      peer,
      conversation: {},
      reply: async (type) => void refused.push(type),
      takeOver: () => {
        throw new Error('not to be taken')
      },
    })
  }
  const { ERR_POLICY, ACK } = OptionReply
  t.same(refused, [ERR_POLICY, ERR_POLICY, ERR_POLICY, ACK])
  t.match(told, ['192.0.2.7:40000 no-secret', '2001:db8::1:40000 no-secret', / no-secret$/])
})
