// A real secondary that a stranger calls as a primary would, and that gets what no primary would send. After each attack `status` says why the link ended and what to do,
// the secondary serves its clients as before, and its own primary connects and both hold the same.
import assert from 'node:assert/strict'
import t, { type Test } from 'tap'
import type { PeerStatus } from '../../src/engine/api.js'
import { FrameType } from '../../src/replication/frame-head.js'
import type { Frame } from '../../src/replication/frames.js'
import type { Hello } from '../../src/replication/hello.js'
import { BlockClient } from '../support/block-client.js'
import { NodePair, statusOf } from '../support/node-pair.js'
import { memoryOf } from '../support/process.js'
import {
  bytesOf,
  flipped,
  helloFrom,
  oddFrame,
  ScriptedPeer,
  strangerHello,
} from '../support/scripted-peer.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024

t.setTimeout(300_000)

/** What the attacker knows: everything. */
type Known = { readonly primary: Hello; readonly replica: Hello; readonly storeId: number }
type Attack = {
  readonly name: string
  /** Where it speaks: before its hello, behind the two hellos with this one, or in the stream that it was let into. */
  readonly at: 'beginning' | 'hello' | 'stream'
  readonly hello?: (known: Known) => Partial<Hello>
  readonly run?: (peer: ScriptedPeer, known: Known) => void
  readonly reason: RegExp
  readonly link: 'refused' | 'offline'
}

const other = 'f'.repeat(32) as Hello['generations'][number]['generation']
const next = ({ replica }: Known, by = 1) => (replica.sequence + by) as Hello['sequence']
const write = (known: Known, of: { by?: number; storeId?: number; offset?: number } = {}) =>
  bytesOf({
    kind: 'write',
    sequence: next(known, of.by),
    storeId: (of.storeId ?? known.storeId) as Extract<Frame, { kind: 'write' }>['storeId'],
    offset: of.offset ?? 0,
    lengthBytes: 4096,
    fua: false,
    parts: [Buffer.alloc(4096, 0xee)],
  })
const json = (text: string): Buffer => Buffer.from(text)
const huge = 0xffff_ffff

const hellos: readonly Attack[] = [
  {
    name: 'only newer versions',
    at: 'hello',
    hello: () => ({ versionMin: 2, versionMax: 9 }),
    reason: /speaks versions 1 to 1 of the link, node primary 2 to 9/,
    link: 'refused',
  },
  {
    name: 'another group',
    at: 'hello',
    hello: () => ({ group: 'another-group' }),
    reason: /belongs to group another-group/,
    link: 'refused',
  },
  {
    name: 'another history',
    at: 'hello',
    hello: () => ({ generations: [{ generation: other, forkSequence: 0 }] }),
    reason: /in common/,
    link: 'refused',
  },
  {
    name: 'a generation that never met this one',
    at: 'hello',
    hello: ({ primary, replica }) => ({
      generations: [
        ...primary.generations,
        { generation: other, parent: lastOf(primary), forkSequence: replica.sequence - 1 },
      ],
    }),
    reason: /went another way|has entries/,
    link: 'refused',
  },
  {
    name: 'an older copy of the primary',
    at: 'hello',
    hello: ({ primary }) => ({ sequence: (primary.sequence - 1) as Hello['sequence'] }),
    reason: /old copy/,
    link: 'refused',
  },
  {
    name: 'this very node',
    at: 'hello',
    hello: ({ replica }) => ({ nodeId: replica.nodeId }),
    reason: /this very node/,
    link: 'refused',
  },
  {
    name: 'a secondary',
    at: 'hello',
    hello: () => ({ role: 'secondary' }),
    reason: /neither node is primary/,
    link: 'refused',
  },
  {
    name: 'chunks of another size',
    at: 'hello',
    hello: () => ({ chunkBytes: 8192 }),
    reason: /chunks have/,
    link: 'refused',
  },
  {
    name: 'a decision from nowhere',
    at: 'hello',
    run: (peer) => decide(peer, 'resume', 999_999_999),
    reason: /does not fit this node/,
    link: 'refused',
  },
]

const beginnings: readonly Attack[] = [
  {
    name: 'a web browser',
    at: 'beginning',
    run: (peer) => peer.raw(Buffer.from(`GET / HTTP/1.1\r\nHost: x\r\n${'a'.repeat(64)}\r\n\r\n`)),
    reason: /frame begins with/,
    link: 'offline',
  },
  {
    name: 'zeroes',
    at: 'beginning',
    run: (peer) => peer.raw(Buffer.alloc(65536)),
    reason: /frame begins with/,
    link: 'offline',
  },
  {
    name: 'silence',
    at: 'beginning',
    reason: /nothing came/,
    link: 'offline',
  },
  {
    name: 'half a frame',
    at: 'beginning',
    run: (peer) => peer.raw(oddFrame({ type: FrameType.HELLO, payloadBytes: 100 }).subarray(0, 20)),
    reason: /nothing came/,
    link: 'offline',
  },
  {
    name: 'a cut in a frame',
    at: 'beginning',
    run: (peer) =>
      peer.socket.end(oddFrame({ type: FrameType.HELLO, payloadBytes: 100 }).subarray(0, 20)),
    reason: /closed the connection within a frame/,
    link: 'offline',
  },
  {
    name: 'a reset',
    at: 'beginning',
    run: (peer) => peer.socket.resetAndDestroy(),
    reason: /connection (was cut|failed)/,
    link: 'offline',
  },
  {
    name: 'a hello of four gigabytes',
    at: 'beginning',
    run: (peer) => peer.raw(oddFrame({ type: FrameType.HELLO, payloadBytes: huge })),
    reason: /hello has 4294967295 bytes of payload/,
    link: 'offline',
  },
  {
    name: 'a hello that is no JSON',
    at: 'beginning',
    run: (peer) => peer.raw(oddFrame({ type: FrameType.HELLO }, json('{"group":'))),
    reason: /json/,
    link: 'offline',
  },
  {
    name: 'a hello as deep as it is long',
    at: 'beginning',
    run: (peer) =>
      peer.raw(oddFrame({ type: FrameType.HELLO }, json(`{"a":${'['.repeat(60_000)}`))),
    reason: /deep|json/,
    link: 'offline',
  },
  {
    name: 'a hello without anything',
    at: 'beginning',
    run: (peer) => peer.raw(oddFrame({ type: FrameType.HELLO }, json('{}'))),
    reason: /versionmin is not a whole number/,
    link: 'offline',
  },
  {
    name: 'an entry first',
    at: 'beginning',
    run: (peer, known) => peer.raw(write(known)),
    reason: /write frame out of place/,
    link: 'offline',
  },
  {
    name: 'what only a secondary says',
    at: 'beginning',
    run: (peer) => peer.raw(oddFrame({ type: FrameType.ANSWER })),
    reason: /a primary must not send answer/,
    link: 'offline',
  },
]

const entries: readonly Attack[] = [
  {
    name: 'a gap',
    at: 'stream',
    run: (peer, known) => peer.raw(write(known, { by: 2 })),
    reason: /came instead of/,
    link: 'offline',
  },
  {
    name: 'a duplicate',
    at: 'stream',
    run: (peer, known) => peer.raw(write(known, { by: 0 })),
    reason: /came instead of/,
    link: 'offline',
  },
  {
    name: 'a wrong checksum of data',
    at: 'stream',
    run: (peer, known) => peer.raw(flipped(write(known), 48 + 1000)),
    reason: /checksum/,
    link: 'offline',
  },
  {
    name: 'a wrong checksum of a head',
    at: 'stream',
    run: (peer, known) => peer.raw(flipped(write(known), 20)),
    reason: /checksum of a head/,
    link: 'offline',
  },
  {
    name: 'a write of four gigabytes',
    at: 'stream',
    run: (peer, known) =>
      peer.raw(
        oddFrame({
          type: FrameType.WRITE,
          sequence: next(known),
          storeId: known.storeId,
          payloadBytes: huge,
          lengthBytes: huge,
        }),
      ),
    reason: /write has 4294967295 bytes of payload/,
    link: 'offline',
  },
  {
    name: 'a write behind the end',
    at: 'stream',
    run: (peer, known) => peer.raw(write(known, { offset: 1024 * MiB })),
    reason: /behind the end/,
    link: 'offline',
  },
  {
    name: 'a write to nothing',
    at: 'stream',
    run: (peer, known) => peer.raw(write(known, { storeId: 4711 })),
    reason: /store 4711, which is not here/,
    link: 'offline',
  },
  {
    name: 'an operation that cannot be',
    at: 'stream',
    run: (peer, known) =>
      peer.send({
        kind: 'operation',
        sequence: next(known),
        at: '2024-01-01T00:00:00.000Z',
        operation: { kind: 'delete', storeId: 4711 as never },
      }),
    reason: /not here/,
    link: 'offline',
  },
  {
    name: 'garbage in the stream',
    at: 'stream',
    run: (peer) => peer.raw(Buffer.alloc(4096, 0xa5)),
    reason: /frame begins with/,
    link: 'offline',
  },
  {
    name: 'a second hello',
    at: 'stream',
    run: (peer, known) => peer.hello(known.primary),
    reason: /hello frame out of place/,
    link: 'offline',
  },
]

function lastOf({ generations }: Hello): Hello['generations'][number]['generation'] {
  const last = generations.at(-1)
  assert(last)
  return last.generation
}

function decide(peer: ScriptedPeer, kind: string, fromSequence: number): void {
  const body = { rule: 'in-step', kind, direction: 'to-peer', fromSequence }
  const amounts = { operations: 0, bytes: 0, reason: 'both are at one position' }
  peer.send({ kind: 'decision', body: { ...body, ...amounts } })
}

async function strike(peer: ScriptedPeer, attack: Attack, known: Known): Promise<void> {
  if (attack.at !== 'beginning') {
    peer.hello({ ...known.primary, ...attack.hello?.(known) })
    await peer.next('hello')
  }
  if (attack.at === 'stream') {
    decide(peer, 'nothing', known.replica.sequence)
    await peer.next('ready')
  }
  if (attack.run === undefined && attack.at === 'hello')
    decide(peer, 'resume', known.replica.sequence)
  attack.run?.(peer, known)
}

async function replicaSays(pair: NodePair): Promise<PeerStatus> {
  const [peer] = (await statusOf(pair.replica)).peers
  assert(peer)
  return peer
}

async function know(t: Test, pair: NodePair): Promise<Known> {
  const primary = await helloFrom(t, pair.primary.tcpUri(''), strangerHello())
  const replica = await helloFrom(t, pair.replica.tcpUri(''), primary)
  const storeId = 1
  return { primary, replica, storeId }
}

/** The primary's own connection works, and what a client writes arrives. */
async function allIsWell(pair: NodePair, value: number): Promise<void> {
  const reader = await BlockClient.open(pair.replica.socketPath, 'vol0')
  assert.equal((await reader.read(0, 1))[0], value - 1, 'what was there before')
  await pair.inSync()
  const writer = await BlockClient.open(pair.primary.socketPath, 'vol0')
  await writer.write(0, Buffer.alloc(4096, value), { fua: true })
  await writer.close()
  assert.equal((await reader.read(0, 1))[0], value, 'what was written behind it')
  await reader.close()
}

for (const [where, attacks] of [
  ['in the place of a hello', beginnings],
  ['by what they say of themselves', hellos],
  ['in the stream', entries],
] as const) {
  t.test(`primaries that are none ${where} change nothing`, async (t) => {
    const pair = await NodePair.start(t, {
      volumes: { vol0: MiB },
      replicaServeArgs: ['--peer-deadline', '2'],
    })
    let value = 1
    await allIsWell(pair, value++)
    for (const attack of attacks) {
      await pair.primary.ok('peer', 'disconnect')
      const known = await know(t, pair)
      const peer = await ScriptedPeer.dial(t, pair.replica.tcpUri(''))
      await strike(peer, attack, known)
      await peer.ended()
      const said = await waitFor(attack.name, async () => {
        const found = await replicaSays(pair)
        return found.link === attack.link ? found : undefined
      })
      t.match(said.reason.toLowerCase(), attack.reason, attack.name)
      t.ok((said.action ?? '') !== '', `${attack.name}: it says what to do`)
      await allIsWell(pair, value++)
    }
    t.comment(`${attacks.length} attacks`)
    t.same(await pair.differences(), [])
  })
}

t.test('a primary that only asks and never reads costs no memory', async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: MiB } })
  await allIsWell(pair, 1)
  await pair.primary.ok('peer', 'disconnect')
  const known = await know(t, pair)
  const peer = await ScriptedPeer.dial(t, pair.replica.tcpUri(''))
  peer.hello(known.primary)
  await peer.next('hello')
  decide(peer, 'nothing', known.replica.sequence)
  await peer.next('ready')
  peer.socket.pause()
  const before = memoryOf(pair.replica.pid, 'VmRSS')
  const ask = bytesOf({
    kind: 'read-request',
    requestId: 1,
    frozenId: 7,
    offset: 0,
    lengthBytes: 4096,
  })
  const pings = Buffer.concat(
    Array.from({ length: 1300 }, (_, token) => [bytesOf({ kind: 'ping', token }), ask]).flat(),
  )
  let sentBytes = 0
  while (!peer.isClosed && sentBytes < 32 * MiB) {
    const isTaken = peer.socket.write(pings)
    sentBytes += pings.length
    if (isTaken) continue
    const drained = new Promise<void>((resolve) => peer.socket.once('drain', () => resolve()))
    await Promise.race([drained, peer.closed])
  }
  const grownBytes = memoryOf(pair.replica.pid, 'VmHWM') - before
  t.comment(`${sentBytes / MiB} MiB of questions, ${Math.round(grownBytes / MiB)} MiB of memory`)
  t.ok(grownBytes < 128 * MiB)
  // Nobody has to end it: the primary's own connection takes its place.
  await allIsWell(pair, 2)
  peer.socket.resume()
  await peer.ended()
  t.same(await pair.differences(), [])
})
