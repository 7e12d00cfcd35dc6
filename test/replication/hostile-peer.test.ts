// A peer that means harm, or is broken: whatever it sends, the connection ends for a declared reason, and memory stays bounded.
import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import t from 'tap'
import { encodeFrame } from '../../src/replication/frame-encoder.js'
import type { Frame, Side } from '../../src/replication/frames.js'
import { linkLimits } from '../../src/replication/limits.js'
import { type CloseReason, PeerConnection } from '../../src/replication/peer-connection.js'
import { fuzz } from '../support/fuzz.js'
import { ManualClock } from '../support/manual-clock.js'
import { SeededRandom } from '../support/random.js'
import { frameFuzzTargets } from './fuzz-targets.js'
import { bytesOf, kinds, samples, senderOf, sequence } from './sample-frames.js'

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** A stream from which the test's bytes come, and that takes everything or nothing. */
class Hostile extends Duplex {
  readonly #takes: boolean
  wantsMore = true

  constructor(takes: boolean) {
    super()
    this.#takes = takes
  }

  override _read(): void {
    this.wantsMore = true
  }

  override _write(_: Buffer, __: BufferEncoding, callback: () => void): void {
    if (this.#takes) callback()
  }

  feed(bytes: Buffer): void {
    if (!this.destroyed) this.wantsMore = this.push(bytes)
  }
}

function attacked(options: { readonly takes?: boolean; readonly side?: Side } = {}) {
  const stream = new Hostile(options.takes ?? true)
  const clock = new ManualClock()
  const frames: Frame[] = []
  const ends: CloseReason[] = []
  const connection = new PeerConnection({
    stream,
    clock,
    side: options.side ?? 'secondary',
    receive: (frame) => void frames.push(frame),
  })
  void connection.closed.then((reason) => void ends.push(reason))
  return { stream, clock, frames, ends, connection }
}

const primaryStream = Buffer.concat(
  kinds.filter((kind) => senderOf(kind) === 'primary' && kind !== 'bye').map(bytesOf),
)

t.test('a cut at any byte is a lost connection, and everything before it arrived', async (t) => {
  for (let cut = 0; cut < primaryStream.length; cut += 3) {
    const { stream, ends, connection } = attacked()
    stream.feed(primaryStream.subarray(0, cut))
    stream.push(null)
    const reason = await connection.closed
    if (reason.kind !== 'lost') t.fail(`cut at ${cut}: ${reason.kind}`)
    await turn()
    assert.equal(ends.length, 1)
  }
  t.pass('every cut')
})

t.test(
  'a missing run of bytes, or one that came twice, never gets a frame through that was not sent',
  async (t) => {
    const random = new SeededRandom(21)
    const known = new Set(kinds.map((kind) => JSON.stringify(samples[kind])))
    for (let round = 0; round < 1500; round++) {
      const at = random.below(primaryStream.length)
      const length = 1 + random.below(60)
      const spoilt =
        round % 2 === 0
          ? Buffer.concat([primaryStream.subarray(0, at), primaryStream.subarray(at + length)])
          : Buffer.concat([primaryStream.subarray(0, at + length), primaryStream.subarray(at)])
      const { stream, frames, connection } = attacked()
      stream.feed(spoilt)
      stream.push(null)
      const reason = await connection.closed
      if (reason.kind !== 'lost' && reason.kind !== 'protocol')
        t.fail(`${reason.kind} in round ${round}`)
      for (const frame of frames)
        if (frame.kind !== 'write' && !known.has(JSON.stringify(frame)))
          t.fail(`round ${round}: ${JSON.stringify(frame)}`)
    }
    t.pass('every gap')
  },
)

t.test('10,000 mutations end as declared, whole and in pieces alike', async (t) => {
  for (const target of frameFuzzTargets) {
    const rounds = target.name.includes('connection') ? 500 : 10_000
    const results = await fuzz(target, { rounds, seed: 4000 })
    t.comment(`${target.name}: ${rounds} inputs, ${results} different results`)
    t.ok(results > 20, `${target.name} reaches many places`)
  }
})

t.test('a flood of pings is answered as fast as it is read, and never queued', async (t) => {
  for (const takes of [true, false]) {
    const { stream, connection } = attacked({ takes })
    await turn()
    const pings = Buffer.concat(Array.from({ length: 1300 }, () => bytesOf('ping')))
    let unsentMax = 0
    for (let round = 0; round < 300; round++) {
      stream.feed(pings)
      await turn()
      unsentMax = Math.max(unsentMax, connection.unsentBytes)
    }
    t.equal(connection.receivedBytes, 300 * pings.length)
    const answersMax = 300 * bytesOf('pong').length
    t.ok(unsentMax <= answersMax, `at most ${unsentMax} bytes waited: an answer a turn`)
    connection.close('enough')
  }
})

t.test('a peer that never reads gets no more than the bound, whatever it asks for', async (t) => {
  const { stream, connection, clock, ends } = attacked({ takes: false })
  await turn()
  for (let number = 1; number < 20_000 && !connection.isClosed; number++) {
    connection.send({ kind: 'digest-answer', requestId: number, digests: Buffer.alloc(8192) })
    if (number % 1000 === 0) {
      stream.feed(bytesOf('ping'))
      clock.advance(100)
      await turn()
    }
    assert(connection.unsentBytes <= linkLimits.unsentBytesMax)
  }
  await turn()
  t.match(ends, [{ kind: 'stalled' }])
  t.ok(stream.destroyed)
})

t.test('a peer that never answers is dead after five seconds', async (t) => {
  const { stream, clock, ends, connection } = attacked({ side: 'primary' })
  await turn()
  connection.send(samples.flush)
  clock.advance(4900)
  await turn()
  t.same(ends, [])
  clock.advance(1200)
  await turn()
  t.match(ends, [{ kind: 'silent' }])
  t.ok(stream.destroyed)
})

t.test(
  'a payload that comes byte by byte costs what it is long, not what it has pieces',
  async (t) => {
    const { stream, frames, connection } = attacked()
    await turn()
    const lengthBytes = 2 * 1024 * 1024
    const { head } = encodeFrame({
      ...samples.write,
      lengthBytes,
      parts: [Buffer.alloc(lengthBytes, 9)],
    })
    stream.feed(head)
    for (let at = 0; at < lengthBytes; at += 16) {
      stream.feed(Buffer.alloc(16, 9))
      if (at % 65_536 === 0) await turn()
    }
    await turn()
    t.equal(frames.length, 1)
    const [frame] = frames
    t.ok(frame?.kind === 'write' && frame.parts.length <= linkLimits.smallPartCountMax + 1)
    connection.close('enough')
  },
)

t.test('a side that says what is not its own is refused, whatever it said before', async (t) => {
  const { stream, frames, ends } = attacked({ side: 'primary' })
  await turn()
  stream.feed(bytesOf('answer'))
  stream.feed(bytesOf('write'))
  await turn()
  t.same(frames, [
    { kind: 'answer', received: sequence(14), applied: sequence(13), durable: sequence(12) },
  ])
  t.match(ends, [{ kind: 'protocol', message: /a secondary must not send write/ }])
})
