// The simulated network: bytes arrive in order and whole, or as a prefix when something happens to the connection; the same seed gives the same run.
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import t from 'tap'
import { SeededRandom } from '../random.js'
import { Life, Scheduler } from '../sim-clock.js'
import { type SimConnection, SimNetwork } from './sim-network.js'

const shape = { capacityBytes: 3000, pieceBytesMax: 700, delayShare: 0.2, delayMsMax: 20 }

type World = {
  readonly scheduler: Scheduler
  readonly network: SimNetwork
  readonly lives: readonly [Life, Life]
  readonly near: Duplex
  readonly far: Duplex
  readonly connection: SimConnection
}

async function connected(seed = 1): Promise<World> {
  const random = new SeededRandom(seed)
  const scheduler = new Scheduler({ order: random.fork('order') })
  const network = new SimNetwork({ scheduler, random: random.fork('network'), shape })
  const lives = [new Life('a'), new Life('b')] as const
  const accepted = new Promise<Duplex>((resolve) => {
    network.listen('b', lives[1], resolve)
  })
  const near = await scheduler.run(network.connect(lives[0], 'b'))
  const far = await scheduler.run(accepted)
  const [connection] = network.connections
  assert(connection)
  return { scheduler, network, lives, near, far, connection }
}

type Seen = { bytes: Buffer; hasEnded: boolean; error: string | undefined }

/** What comes out of a stream. */
function watch(stream: Duplex): Seen {
  const seen: Seen = { bytes: Buffer.alloc(0), hasEnded: false, error: undefined }
  stream.on('data', (piece: Buffer) => {
    seen.bytes = Buffer.concat([seen.bytes, piece])
  })
  stream.on('end', () => {
    seen.hasEnded = true
  })
  stream.on('error', (error) => {
    seen.error = (error as { code?: string }).code
  })
  return seen
}

const payload = new SeededRandom(5).hex(20_000)

t.test('bytes arrive whole and in order, in both directions', async (t) => {
  const { scheduler, near, far, network } = await connected()
  const atFar = watch(far)
  const atNear = watch(near)
  near.write(payload)
  far.write('answer')
  near.end()
  await scheduler.settle(10_000)
  t.equal(atFar.bytes.toString(), payload)
  t.equal(atNear.bytes.toString(), 'answer')
  t.ok(atFar.hasEnded)
  t.equal(network.connections.length, 0, 'both ends are closed')
})

t.test('a peer that does not read holds the sender back', async (t) => {
  const { scheduler, near, connection } = await connected()
  let written = 0
  while (near.write(Buffer.alloc(1000)) && written < 1000) written++
  await scheduler.settle(10_000)
  t.ok(near.writableNeedDrain)
  t.ok(connection.pipes[0].bytesOnTheWay <= shape.capacityBytes)
  t.ok(connection.pipes[0].sentBytes < 30_000)
})

t.test('a reset after some bytes lets exactly a prefix through', async (t) => {
  const { scheduler, near, far, connection } = await connected()
  const atFar = watch(far)
  const atNear = watch(near)
  connection.cutAfter('reset', 0, 5000)
  near.write(payload)
  await scheduler.settle(10_000)
  t.equal(atFar.bytes.toString(), payload.slice(0, 5000))
  t.equal(atFar.error, 'ECONNRESET')
  t.equal(atNear.error, 'ECONNRESET')
})

t.test('after silence nothing arrives and nobody is told', async (t) => {
  const { scheduler, near, far, connection } = await connected()
  const atFar = watch(far)
  const atNear = watch(near)
  near.write('before')
  await scheduler.settle(1000)
  connection.cut('silence')
  near.write('behind')
  far.write('back')
  await scheduler.settle(100_000)
  t.equal(atFar.bytes.toString(), 'before')
  t.equal(atNear.bytes.length, 0)
  t.notOk(atFar.hasEnded || atNear.hasEnded || atFar.error || atNear.error)
})

t.test('a flipped bit changes one bit', async (t) => {
  const { scheduler, near, far, connection } = await connected()
  const atFar = watch(far)
  connection.pipes[0].flip(777)
  near.write(Buffer.alloc(2000))
  await scheduler.settle(10_000)
  const wrong = [...atFar.bytes.entries()].filter(([, byte]) => byte !== 0)
  t.equal(wrong.length, 1)
  t.equal(wrong[0]?.[0], 777)
  t.equal(Math.log2(wrong[0]?.[1] ?? 0) % 1, 0)
})

t.test('a stall holds bytes back for its time', async (t) => {
  const { scheduler, near, far, connection } = await connected()
  const atFar = watch(far)
  connection.stall(60_000)
  near.write('late')
  await scheduler.settle(50_000)
  t.equal(atFar.bytes.length, 0)
  await scheduler.settle(20_000)
  t.equal(atFar.bytes.toString(), 'late')
})

t.test('who was killed closes, who lost power is silent, and neither hears any more', async (t) => {
  for (const how of ['killed', 'powerLost'] as const) {
    const { scheduler, near, far, connection, lives } = await connected(3)
    const atNear = watch(near)
    const atFar = watch(far)
    lives[1].end()
    connection[how](lives[1])
    near.write('to nobody')
    await scheduler.settle(100_000)
    t.equal(atFar.bytes.length, 0)
    t.equal(atNear.hasEnded || atNear.error !== undefined, how === 'killed', how)
  }
})

t.test('nobody listens: refused, or no answer when the machine is off', async (t) => {
  const scheduler = new Scheduler()
  const network = new SimNetwork({ scheduler, random: new SeededRandom(1), shape })
  const life = new Life()
  await t.rejects(scheduler.run(network.connect(life, 'b')), { code: 'ETIMEDOUT' })
  t.ok(scheduler.nowMs > 60_000)
  const other = new Life()
  network.listen('b', other, () => {})
  other.end()
  await t.rejects(scheduler.run(network.connect(life, 'b')), { code: 'ECONNREFUSED' })
})

t.test('a buffer that changes while it is being sent is noticed', async (t) => {
  const { scheduler, near, far, network } = await connected()
  const atFar = watch(far)
  const chunk = Buffer.alloc(10_000)
  near.write(chunk)
  chunk.fill(1)
  await scheduler.settle(10_000)
  t.equal(atFar.bytes.length, 10_000)
  t.same(network.violations, ['a buffer changed while it was being sent'])
})

t.test('the same seed gives the same run', async (t) => {
  const traces: number[] = []
  for (const seed of [9, 9, 10]) {
    const { scheduler, near, far } = await connected(seed)
    watch(far)
    near.write(payload)
    await scheduler.settle(10_000)
    traces.push(scheduler.trace)
  }
  t.equal(traces[0], traces[1])
  t.not(traces[0], traces[2])
})
