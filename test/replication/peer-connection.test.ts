// A connection to the peer: frames in order, one turn's together, nothing read while the receiver holds back, and an end in every case.
import { Duplex } from 'node:stream'
import t from 'tap'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { encodeFrame } from '../../src/replication/frame-encoder.js'
import { FrameReader } from '../../src/replication/frame-reader.js'
import type { Frame, ReceivedFrame, Side } from '../../src/replication/frames.js'
import { linkLimits } from '../../src/replication/limits.js'
import { type CloseReason, PeerConnection } from '../../src/replication/peer-connection.js'
import { duplexPair } from '../support/duplex-pair.js'
import { ManualClock } from '../support/manual-clock.js'
import { bytesOf, samples, sequence, whole } from './sample-frames.js'

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))
const turns = async (count = 20) => {
  for (let done = 0; done < count; done++) await turn()
}

type Receive = (frame: ReceivedFrame) => Promise<void> | undefined

function connect(
  options: {
    readonly receive?: Receive
    readonly before?: readonly Buffer[]
    readonly stream?: Duplex
    readonly side?: Side
  } = {},
) {
  const [ours, theirs] = duplexPair()
  const clock = new ManualClock()
  const frames: ReceivedFrame[] = []
  const ends: CloseReason[] = []
  const connection = new PeerConnection({
    stream: options.stream ?? ours,
    clock,
    side: options.side ?? 'secondary',
    ...(options.before && { before: options.before }),
    receive: (frame) => {
      frames.push(frame)
      return options.receive?.(frame)
    },
  })
  void connection.closed.then((reason) => void ends.push(reason))
  const reader = new FrameReader(options.side ?? 'secondary')
  const sent: Frame[] = []
  let sentPieces = 0
  theirs.on('data', (piece: Buffer) => {
    sentPieces++
    reader.push(piece)
    for (let frame = reader.next(); frame !== undefined; frame = reader.next()) sent.push(frame)
  })
  theirs.on('error', () => {})
  const isDestroyed = () => ours.destroyed
  return { connection, clock, frames, ends, sent, theirs, isDestroyed, pieces: () => sentPieces }
}

/** A stream that takes nothing, or takes when it is told. */
class Stuck extends Duplex {
  #taken: (() => void) | undefined
  takesAll = false

  override _read(): void {}

  override _write(_: Buffer, __: BufferEncoding, callback: () => void): void {
    if (this.takesAll) callback()
    else this.#taken = callback
  }

  /** What was written is taken. */
  takeOne(): void {
    const taken = this.#taken
    this.#taken = undefined
    taken?.()
  }
}

t.test('frames arrive in order, those before the first read too', async (t) => {
  const { frames, theirs, connection } = connect({ before: [bytesOf('write').subarray(0, 20)] })
  t.same(frames, [], 'nothing before the owner has the connection')
  theirs.write(bytesOf('write').subarray(20))
  theirs.write(Buffer.concat([bytesOf('flush'), bytesOf('operation')]))
  await turns()
  t.same(
    frames.map((frame) => whole(frame as Frame)),
    [whole(samples.write), samples.flush, samples.operation],
  )
  t.equal(
    connection.receivedBytes,
    bytesOf('write').length + bytesOf('flush').length + bytesOf('operation').length,
  )
  connection.close('enough')
})

t.test('what is sent in one turn leaves in order', async (t) => {
  const { connection, sent } = connect({ side: 'primary' })
  const { head, parts } = encodeFrame(samples.zero)
  connection.send(samples.write)
  connection.sendBytes([head, ...parts], head.length)
  connection.send(samples.flush)
  await turns()
  t.same(sent.map(whole), [whole(samples.write), samples.zero, samples.flush])
  t.equal(connection.sentBytes, bytesOf('write').length + head.length + bytesOf('flush').length)
  t.equal(connection.unsentBytes, 0)
  connection.close('enough')
})

t.test('what is sent in one turn goes to the stream as one write', async (t) => {
  const writes: number[] = []
  class Vectored extends Duplex {
    override _read(): void {}
    override _writev(chunks: { chunk: Buffer }[], callback: () => void): void {
      writes.push(chunks.length)
      callback()
    }
  }
  const { connection } = connect({ stream: new Vectored(), side: 'primary' })
  for (let count = 0; count < 5; count++) connection.send(samples.flush)
  await turn()
  t.same(writes, [5])
  connection.close('enough')
})

t.test('of many answers in one turn the newest is sent', async (t) => {
  const { connection, sent } = connect()
  for (let number = 1; number <= 100; number++)
    connection.answer(sequence(number), sequence(number), sequence(0))
  await turns()
  t.same(sent, [{ kind: 'answer', received: 100, applied: 100, durable: 0 }])
  connection.close('enough')
})

t.test('nothing is handed over while the receiver holds back, and nothing is lost', async (t) => {
  const releases: (() => void)[] = []
  const receive = () => new Promise<void>((resolve) => void releases.push(resolve))
  const { frames, theirs, connection, clock, ends } = connect({ receive })
  for (const kind of ['flush', 'zero', 'nothing'] as const) theirs.write(bytesOf(kind))
  await turns()
  t.equal(frames.length, 1)
  for (let second = 0; second < 60; second++) clock.advance(1000)
  t.same(ends, [], 'a receiver that takes its time is not the peer being dead')
  releases.shift()?.()
  await turns()
  t.equal(frames.length, 2)
  releases.shift()?.()
  await turns()
  t.same(
    frames.map(({ kind }) => kind),
    ['flush', 'zero', 'nothing'],
  )
  connection.close('enough')
})

t.test('a slow receiver stops the reading: what waits here is bounded', async (t) => {
  const { theirs, connection, frames } = connect({ receive: () => new Promise(() => {}) })
  const flush = bytesOf('flush')
  let writtenBytes = 0
  const many = Buffer.concat(Array.from({ length: 1000 }, () => flush))
  for (let round = 0; round < 200; round++) {
    const isTaken = theirs.write(many)
    writtenBytes += many.length
    await turn()
    if (!isTaken) break
  }
  t.equal(frames.length, 1)
  t.ok(
    connection.receivedBytes < 400_000,
    `${connection.receivedBytes} of ${writtenBytes} bytes were read`,
  )
  t.ok(writtenBytes < 2_000_000, 'the peer was told to wait')
  connection.close('enough')
})

t.test('pings are answered, and our own tell how long the way is', async (t) => {
  const { theirs, sent, connection, clock, frames } = connect()
  theirs.write(bytesOf('ping'))
  await turns()
  t.same(sent, [samples.pong])
  t.same(frames, [], 'they stay inside')
  clock.advance(1001)
  await turns()
  t.match(sent[1], { kind: 'ping', token: 1 })
  clock.advance(7)
  const { head } = encodeFrame({ kind: 'pong', token: 1 })
  theirs.write(Buffer.concat([encodeFrame({ kind: 'pong', token: 77 }).head, head]))
  await turns()
  t.equal(connection.roundTripMs, 7)
  connection.close('enough')
})

t.test('a connection with traffic sends no pings', async (t) => {
  const { sent, connection, clock, theirs } = connect()
  for (let step = 0; step < 20; step++) {
    connection.send({ kind: 'ready', body: {} })
    theirs.write(bytesOf('flush'))
    await turn()
    clock.advance(500)
  }
  await turns()
  t.notOk(sent.some(({ kind }) => kind === 'ping'))
  connection.close('enough')
})

t.test('a silent peer is dead after the deadline, one that pings is not', async (t) => {
  const { clock, ends, isDestroyed, theirs } = connect()
  await turn()
  for (let second = 0; second < 30; second++) {
    theirs.write(bytesOf('ping'))
    await turn()
    clock.advance(1000)
  }
  t.same(ends, [])
  clock.advance(3900)
  await turn()
  t.same(ends, [])
  clock.advance(1200)
  await turn()
  t.match(ends, [{ kind: 'silent', message: /nothing came from the peer for 5000 ms/ }])
  t.ok(isDestroyed())
  t.equal(clock.timerCount, 0, 'no timer stays behind')
})

t.test('a process that was stopped reads first what came meanwhile', async (t) => {
  const [ours, theirs] = duplexPair()
  const clock = new ManualClock()
  const ends: CloseReason[] = []
  const connection = new PeerConnection({
    stream: ours,
    clock,
    side: 'secondary',
    receive: () => undefined,
  })
  void connection.closed.then((reason) => void ends.push(reason))
  await turn()
  clock.sleep(60_000)
  // The timer comes before the bytes; the decision comes after both.
  const deferred: (() => void)[] = []
  clock.defer = (callback) => void deferred.push(callback)
  clock.advance(1)
  t.equal(deferred.length, 1)
  theirs.write(bytesOf('ping'))
  await turns()
  for (const callback of deferred) callback()
  await turn()
  t.same(ends, [])
  connection.close('enough')
})

t.test('a peer that takes nothing is given up, however much it talks', async (t) => {
  const stream = new Stuck()
  const { connection, clock, ends } = connect({ stream, side: 'primary' })
  await turn()
  connection.send(samples.flush)
  for (let second = 0; second < 19; second++) {
    await turn()
    stream.push(bytesOf('ping'))
    await turn()
    clock.advance(1000)
  }
  t.same(ends, [])
  clock.advance(1100)
  await turn()
  t.match(ends, [{ kind: 'stalled', message: /took nothing for 20000 ms/ }])
})

t.test('a slow peer that takes some now and then is kept', async (t) => {
  const stream = new Stuck()
  const { connection, clock, ends } = connect({ stream, side: 'primary' })
  await turn()
  for (let count = 0; count < 4; count++)
    connection.send({ ...samples.write, lengthBytes: 1 << 20, parts: [Buffer.alloc(1 << 20)] })
  for (let step = 0; step < 4; step++) {
    for (let second = 0; second < 15; second++) {
      stream.push(bytesOf('ping'))
      await turn()
      clock.advance(1000)
    }
    stream.takeOne()
    await turn()
  }
  t.same(ends, [])
  connection.close('enough')
})

t.test('who has much to send waits until the peer takes it', async (t) => {
  const stream = new Stuck()
  const { connection } = connect({ stream, side: 'primary' })
  await turn()
  const large = { ...samples.write, lengthBytes: 300_000, parts: [Buffer.alloc(300_000)] }
  let count = 0
  while (connection.canSend) {
    connection.send(large)
    count++
  }
  t.equal(count, 4)
  let isDrained = false
  const drained = connection.drained().then(() => {
    isDrained = true
  })
  await turns()
  t.notOk(isDrained)
  stream.takesAll = true
  stream.takeOne()
  await drained
  t.ok(connection.canSend)
  connection.close('enough')
  await connection.drained()
})

t.test('a queue beyond all bounds ends the connection, and frees it', async (t) => {
  const { connection, ends } = connect({ stream: new Stuck(), side: 'primary' })
  await turn()
  const large = { ...samples.write, lengthBytes: 1 << 20, parts: [Buffer.alloc(1 << 20)] }
  for (let count = 0; count < 100; count++) connection.send(large)
  await turn()
  t.match(ends, [{ kind: 'stalled' }])
  t.equal(connection.unsentBytes, 0)
  await connection.drained()
})

t.test('a flood of pings to a peer that does not read leaves one answer waiting', async (t) => {
  const stream = new Stuck()
  const { connection } = connect({ stream })
  await turn()
  const pings = Buffer.concat(Array.from({ length: 1000 }, () => bytesOf('ping')))
  for (let round = 0; round < 500; round++) {
    stream.push(pings)
    connection.answer(sequence(round), sequence(round), sequence(round))
    await turn()
  }
  t.ok(
    connection.unsentBytes <= linkLimits.unsentBytesHigh + 1000,
    `${connection.unsentBytes} bytes wait`,
  )
  t.notOk(connection.isClosed)
  connection.close('enough')
})

t.test(
  'what the peer must not send ends the connection, and so does what the receiver refuses',
  async (t) => {
    const broken = connect()
    broken.theirs.write(Buffer.from('GET / HTTP/1.1\r\n\r\nand a few bytes more to fill the head'))
    await turns()
    t.match(broken.ends, [{ kind: 'protocol', message: /frame begins with/ }])
    for (const receive of [
      () => {
        throw new ProtocolError('a gap')
      },
      () => Promise.reject(new ProtocolError('a gap')),
    ]) {
      const refused = connect({ receive })
      refused.theirs.write(bytesOf('flush'))
      await turns()
      t.match(refused.ends, [{ kind: 'protocol', message: 'a gap' }])
      t.equal(refused.frames.length, 1)
    }
  },
)

t.test('the error of our own receiver is not swallowed', async (t) => {
  const stream = new Stuck()
  const { ends } = connect({
    stream,
    receive: () => {
      throw new RangeError('ours')
    },
  })
  await turn()
  t.throws(() => stream.emit('data', bytesOf('flush')), { name: 'RangeError' })
  await turn()
  t.match(ends, [{ kind: 'local', message: 'this node failed' }])
})

t.test('the end of the stream is told with where it came', async (t) => {
  const clean = connect()
  clean.theirs.write(bytesOf('flush'))
  clean.theirs.end()
  await turns()
  t.equal(clean.frames.length, 1)
  t.match(clean.ends, [{ kind: 'lost', message: 'the peer closed the connection' }])
  const cut = connect()
  cut.theirs.end(bytesOf('flush').subarray(0, 30))
  await turns()
  t.match(cut.ends, [{ kind: 'lost', message: /within a frame/ }])
  const reset = new Stuck()
  const failed = connect({ stream: reset })
  reset.destroy(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }))
  await turns()
  t.match(failed.ends, [{ kind: 'lost', message: 'the connection failed (ECONNRESET)' }])
  const gone = new Stuck()
  gone.destroy()
  await turn()
  const late = connect({ stream: gone })
  await turns()
  late.clock.runDeferred()
  await turn()
  t.match(late.ends, [{ kind: 'lost' }])
})

t.test(
  'bye leaves behind everything that was sent before it, and both sides know why',
  async (t) => {
    const [a, b] = duplexPair()
    const clock = new ManualClock()
    const received: ReceivedFrame[] = []
    const first = new PeerConnection({
      stream: a,
      clock,
      side: 'primary',
      receive: () => undefined,
    })
    const second = new PeerConnection({
      stream: b,
      clock,
      side: 'secondary',
      receive: (frame) => void received.push(frame),
    })
    await turn()
    first.send(samples.flush)
    first.bye('the node is stopping')
    first.send(samples.flush)
    t.notOk(first.canSend)
    t.match(await second.closed, { kind: 'bye', message: 'the node is stopping' })
    t.match(await first.closed, { kind: 'local', message: 'the node is stopping' })
    t.same(received, [samples.flush])
  },
)

t.test('bye to a peer that takes nothing ends after a moment', async (t) => {
  const stream = new Stuck()
  const { connection, clock, ends } = connect({ stream })
  await turn()
  connection.send({ kind: 'ready', body: {} })
  connection.bye('enough')
  await turns()
  t.same(ends, [])
  clock.advance(linkLimits.farewellTimeoutMs)
  await turn()
  t.match(ends, [{ kind: 'local', message: 'enough' }])
  t.ok(stream.destroyed)
  t.equal(clock.timerCount, 0)
})

t.test('after the end nothing happens any more', async (t) => {
  const { connection, theirs, frames, ends, clock } = connect()
  theirs.write(bytesOf('flush'))
  connection.close('first')
  connection.close('second')
  connection.bye('third')
  connection.send(samples.ping)
  connection.answer(sequence(1), sequence(1), sequence(1))
  await turns()
  clock.advance(60_000)
  t.same(frames, [])
  t.match(ends, [{ kind: 'local', message: 'first' }])
  t.ok(connection.isClosed)
})
