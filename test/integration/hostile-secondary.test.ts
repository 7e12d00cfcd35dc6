// A real primary whose peer's address leads to a stranger: somebody who is no node, or who says what no secondary would. After each attack `status` says why the link
// ended and what to do, the primary serves its clients, and with the right address both nodes are in sync again.
import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import t, { type Test } from 'tap'
import { OptionReplyHeader, ServerGreeting } from '../../nbd/messages.js'
import { PeerOption } from '../../src/app/peer-protocol.js'
import type { PeerStatus } from '../../src/engine/api.js'
import { FrameType } from '../../src/replication/frame-head.js'
import type { Hello } from '../../src/replication/hello.js'
import { BlockClient } from '../support/block-client.js'
import { NodePair } from '../support/node-pair.js'
import { memoryOf, withDeadline } from '../support/process.js'
import {
  bytesOf,
  flipped,
  helloFrom,
  oddFrame,
  ScriptedListener,
  type ScriptedPeer,
  strangerHello,
} from '../support/scripted-peer.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024

t.setTimeout(300_000)

/** What the stranger knows: what both nodes say of themselves. */
type Known = { readonly primary: Hello; readonly replica: Hello }
type Attack = {
  readonly name: string
  /** Instead of the handshake. */
  readonly call?: (socket: Socket) => void
  /** What it says of itself; without it, nothing. */
  readonly hello?: (known: Known) => Partial<Hello>
  /** In the stream, when it has followed the primary's decision; without it, it goes no further than the hello. */
  readonly run?: (peer: ScriptedPeer, known: Known) => void
  /** In the place of its hello. */
  readonly instead?: (peer: ScriptedPeer, known: Known) => void
  readonly reason: RegExp
}

const other = 'f'.repeat(32) as Hello['generations'][number]['generation']
const huge = 0xffff_ffff
const ack = 1
const unsupported = 0x8000_0001

/** A server's greeting, and an answer to the first option. */
function answering(reply: { type: number; lengthBytes: number }, data = Buffer.alloc(0)) {
  return (socket: Socket): void => {
    socket.write(ServerGreeting.encode({ handshakeFlags: 3 }))
    socket.write(OptionReplyHeader.encode({ option: PeerOption.GREET, ...reply }))
    socket.write(data)
  }
}

const calls: readonly Attack[] = [
  {
    name: 'a web server',
    call: (socket) => socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n'),
    reason: /is no node/,
  },
  { name: 'a door that closes', call: (socket) => socket.destroy(), reason: /cut|closed/ },
  { name: 'a reset', call: (socket) => socket.resetAndDestroy(), reason: /cut|closed|failed/ },
  {
    name: 'an ordinary NBD server',
    call: answering({ type: unsupported, lengthBytes: 0 }),
    reason: /is no lockstep node/,
  },
  {
    name: 'an answer of four gigabytes',
    call: answering({ type: ack, lengthBytes: huge }),
    reason: /answer is too long/,
  },
  {
    name: 'another version of the handshake',
    call: answering({ type: ack, lengthBytes: 36 }, Buffer.alloc(36, 9)),
    reason: /speaks version 2313/,
  },
  {
    name: 'an answer with orders for the terminal',
    call: answering({ type: unsupported + 1, lengthBytes: 9 }, Buffer.from('\x1b[2Jnever')),
    reason: /refuses: {2}\[2jnever/,
  },
]

const hellos: readonly Attack[] = [
  {
    name: 'only newer versions',
    hello: () => ({ versionMin: 2, versionMax: 9 }),
    reason: /speaks versions 1 to 1 of the link, node replica 2 to 9/,
  },
  {
    name: 'another group',
    hello: () => ({ group: 'another-group' }),
    reason: /belongs to group another-group/,
  },
  {
    name: 'another node',
    hello: () => ({ nodeId: 'another-node' }),
    reason: /replicates to another node/,
  },
  {
    name: 'this very node',
    hello: ({ primary }) => ({ nodeId: primary.nodeId }),
    reason: /this very node/,
  },
  { name: 'a primary', hello: () => ({ role: 'primary' }), reason: /both nodes are primary/ },
  {
    name: 'another history',
    hello: () => ({ generations: [{ generation: other, forkSequence: 0 }] }),
    reason: /in common/,
  },
  {
    name: 'an old copy',
    hello: ({ replica }) => ({ sequence: (replica.sequence - 1) as Hello['sequence'] }),
    reason: /old copy/,
  },
  {
    name: 'more than there ever was',
    hello: ({ replica }) => ({ sequence: (replica.sequence + 1000) as Hello['sequence'] }),
    reason: /old copy|older/,
  },
  { name: 'other chunks', hello: () => ({ chunkBytes: 8192 }), reason: /chunks have/ },
  {
    name: 'a name with orders for the terminal',
    hello: () => ({ node: '\x1b[2J' }),
    reason: /node is not a name/,
  },
  { name: 'silence', reason: /nothing came/ },
  {
    name: 'zeroes',
    instead: (peer) => peer.raw(Buffer.alloc(65536)),
    reason: /frame begins with/,
  },
  {
    name: 'a hello of four gigabytes',
    instead: (peer) => peer.raw(oddFrame({ type: FrameType.HELLO, payloadBytes: huge })),
    reason: /hello has 4294967295 bytes of payload/,
  },
  {
    name: 'a hello that is no JSON',
    instead: (peer) => peer.raw(oddFrame({ type: FrameType.HELLO }, Buffer.from('{"group":'))),
    reason: /json/,
  },
  {
    name: 'an answer first',
    instead: (peer) => peer.raw(oddFrame({ type: FrameType.ANSWER })),
    reason: /an answer to nothing/,
  },
]

const answers: readonly Attack[] = [
  {
    name: 'an answer to what was never sent',
    run: (peer, known) => answer(peer, known.replica.sequence + 1000),
    reason: /the peer has received \d+, but \d+ was sent last/,
  },
  {
    name: 'an answer that goes back',
    run: (peer, known) => {
      answer(peer, known.replica.sequence)
      answer(peer, known.replica.sequence - 1)
    },
    reason: /the position of the peer went back/,
  },
  {
    name: 'durable before applied',
    run: (peer, { replica: { sequence } }) =>
      peer.raw(
        oddFrame({ type: FrameType.ANSWER, sequence, offset: sequence - 2, lengthBytes: sequence }),
      ),
    reason: /positions in the wrong order/,
  },
  {
    name: 'a result of no comparison',
    run: (peer, { replica }) =>
      peer.send({
        kind: 'compared',
        sequence: (replica.sequence + 1000) as Hello['sequence'],
        lengthBytes: 4096,
        differing: Uint8Array.of(1),
      }),
    reason: /an outcome for \d+, which was not sent/,
  },
  {
    name: 'a result of a mark that was not made',
    run: (peer, { replica }) =>
      peer.send({
        kind: 'result',
        sequence: (replica.sequence + 1000) as Hello['sequence'],
        body: { name: 'm', snapshots: [], snapshotCount: 0, problems: [] },
      }),
    reason: /a result of \d+, where nothing was ordered/,
  },
  {
    name: 'digests that nobody asked for',
    run: (peer) => peer.send({ kind: 'digest-answer', requestId: 1, digests: Buffer.alloc(64) }),
    reason: /an answer to nothing/,
  },
  {
    name: 'what only a primary says',
    run: (peer) => peer.raw(oddFrame({ type: FrameType.FLUSH, sequence: 1 })),
    reason: /a secondary must not send flush/,
  },
  {
    name: 'a wrong checksum of data',
    run: (peer) =>
      peer.raw(
        flipped(oddFrame({ type: FrameType.RESULT, sequence: 1 }, Buffer.from('{"a":1}')), 50),
      ),
    reason: /checksum/,
  },
  {
    name: 'a wrong checksum of a head',
    run: (peer) => peer.raw(flipped(bytesOf({ kind: 'ping', token: 1 }), 20)),
    reason: /checksum of a head/,
  },
  {
    name: 'four gigabytes',
    run: (peer) => peer.raw(oddFrame({ type: FrameType.RESULT, payloadBytes: huge })),
    reason: /result has 4294967295 bytes of payload/,
  },
  {
    name: 'garbage',
    run: (peer) => peer.raw(Buffer.alloc(4096, 0xa5)),
    reason: /frame begins with/,
  },
  {
    name: 'a second hello',
    run: (peer, known) => peer.hello(known.replica),
    reason: /hello frame out of place/,
  },
  {
    name: 'a cut in a frame',
    run: (peer) => peer.socket.end(bytesOf({ kind: 'ping', token: 1 }).subarray(0, 20)),
    reason: /closed the connection within a frame/,
  },
  {
    name: 'a refusal with orders for the terminal',
    run: (peer) =>
      peer.send({ kind: 'refuse', code: 'CONFLICT', message: 'no\x1b[2J', action: 'pray' }),
    reason: /no|control/,
  },
  { name: 'no more sign of life', run: () => {}, reason: /nothing came/ },
]

function answer(peer: ScriptedPeer, sequence: number): void {
  const position = sequence as Hello['sequence']
  peer.send({ kind: 'answer', received: position, applied: position, durable: position })
}

async function strike(peer: ScriptedPeer, attack: Attack, replica: Hello): Promise<void> {
  const { body } = await peer.next('hello')
  const known: Known = { primary: body as unknown as Hello, replica }
  attack.instead?.(peer, known)
  if (attack.hello === undefined && attack.run === undefined) return
  peer.hello({ ...known.replica, ...attack.hello?.(known) })
  if (attack.run === undefined) return
  await peer.next('decision')
  peer.send({ kind: 'ready', body: {} })
  answer(peer, known.replica.sequence)
  attack.run(peer, known)
}

async function writeOnPrimary(pair: NodePair, value: number): Promise<void> {
  const client = await BlockClient.open(pair.primary.socketPath, 'vol0')
  const write = client.write(0, Buffer.alloc(4096, value), { fua: true })
  await withDeadline(write, 20_000, () => 'a write while a stranger is at the peer’s address')
  assert.equal((await client.read(0, 1))[0], value)
  await client.close()
}

/** The right node at the right address again. */
async function allIsWell(pair: NodePair, value: number): Promise<void> {
  await writeOnPrimary(pair, value)
  const control = await pair.primary.control()
  await control.request('peer.set', { uri: pair.proxy.uri })
  control.close()
  await pair.inSync()
  const reader = await BlockClient.open(pair.replica.socketPath, 'vol0')
  assert.equal((await reader.read(0, 1))[0], value)
  await reader.close()
}

/** What the right node says of itself, when the primary has let go of it. */
async function parted(t: Test, pair: NodePair): Promise<Hello> {
  await pair.primary.ok('peer', 'disconnect')
  return helloFrom(t, pair.replica.tcpUri(''), strangerHello())
}

/** Until `status` says it: the primary tries again and again, and meets the same stranger each time. */
async function saidOf(pair: NodePair, attack: Attack): Promise<PeerStatus> {
  let last = ''
  const found = waitFor(attack.name, async () => {
    const peer = await pair.peer()
    last = `${peer.link}: ${peer.reason}`
    const isSaid = attack.reason.test(peer.reason.toLowerCase())
    return isSaid && ['refused', 'offline', 'connecting'].includes(peer.link) ? peer : undefined
  })
  return found.catch((error: unknown) => {
    throw new Error(`${attack.name}: ${last}`, { cause: error })
  })
}

for (const [where, attacks] of [
  ['in the place of a handshake', calls],
  ['by what they say of themselves', hellos],
  ['by their answers', answers],
] as const) {
  t.test(`secondaries that are none ${where} harm nobody`, async (t) => {
    const pair = await NodePair.start(t, {
      volumes: { vol0: MiB },
      serveArgs: ['--peer-deadline', '2'],
    })
    const listener = await ScriptedListener.start(t)
    let value = 1
    for (const attack of attacks) {
      const replica = await parted(t, pair)
      listener.onCall = attack.call
      listener.onPeer = (peer) => void strike(peer, attack, replica).catch(() => {})
      await pair.primary.ok('peer', 'set', listener.uri)
      await pair.primary.cli(['peer', 'connect'])
      const said = await saidOf(pair, attack)
      t.ok((said.action ?? '') !== '', `${attack.name}: it says what to do`)
      await allIsWell(pair, value++)
    }
    t.comment(`${attacks.length} attacks, ${listener.callCount} calls`)
    t.same(await pair.differences(), [])
  })
}

t.test('a secondary that stops reading costs no more memory than the outbox', async (t) => {
  const outboxBytes = 64 * MiB
  const pair = await NodePair.start(t, {
    volumes: { vol0: 256 * MiB },
    serveArgs: ['--mode', 'async', '--outbox-bytes', '64M'],
  })
  const replica = await parted(t, pair)
  const listener = await ScriptedListener.start(t)
  const attack: Attack = {
    name: 'it reads no more',
    run: (peer) => {
      peer.socket.pause()
      // It lives: nothing but what it takes shows that it is of no use.
      const timer = setInterval(() => peer.send({ kind: 'ping', token: 1 }), 500)
      void peer.closed.then(() => clearInterval(timer))
      t.teardown(() => clearInterval(timer))
    },
    reason: /the outbox is full/,
  }
  let struckCount = 0
  listener.onPeer = (peer) => {
    struckCount++
    void strike(peer, attack, replica).catch(() => {})
  }
  await pair.primary.ok('peer', 'set', listener.uri)
  await pair.primary.cli(['peer', 'connect'])
  await waitFor('it follows', async () => (await pair.peer()).link === 'streaming')
  const before = memoryOf(pair.primary.pid, 'VmRSS')
  const client = await BlockClient.open(pair.primary.socketPath, 'vol0')
  const data = Buffer.alloc(MiB, 7)
  for (let index = 0; index < 160; index++) await client.write(index * MiB, data, { fua: false })
  const grownBytes = memoryOf(pair.primary.pid, 'VmHWM') - before
  t.comment(`160 MiB written, ${Math.round(grownBytes / MiB)} MiB of memory`)
  t.ok(grownBytes < outboxBytes + 96 * MiB)
  t.match(await pair.primary.ok('events'), attack.reason)
  t.ok(struckCount > 0)
  await client.close()
  await allIsWell(pair, 9)
  t.same(await pair.differences(), [])
})
