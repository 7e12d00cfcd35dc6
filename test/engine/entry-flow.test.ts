// The stream on one connection, against a peer in the hands of the test and a line that can be held up.
import type { Duplex } from 'node:stream'
import t from 'tap'
import { EnginePair, pattern } from '../support/engine-pair.js'
import { FakeSecondary } from '../support/fake-peer.js'
import { SpoilingKeeper } from '../support/spoiling-keeper.js'

const lengthBytes = 65536
/** As many of these entries as leave before a sender waits; together they fill a block of the outbox's own memory. */
const sentCount = 16

/** While it is held up it keeps what it is given, as it is, and takes nothing of it. */
class HeldLine {
  isHeld = false
  #waiting: (() => void) | undefined

  constructor(stream: Duplex) {
    const write = stream._write.bind(stream)
    stream._write = (chunk, encoding, callback) => {
      const pass = (): void => write(chunk, encoding, callback)
      if (this.isHeld) this.#waiting = pass
      else pass()
    }
  }

  get isWaiting(): boolean {
    return this.#waiting !== undefined
  }

  release(): void {
    this.isHeld = false
    this.#waiting?.()
  }
}

async function streaming() {
  const pair = await EnginePair.make({ replication: { mode: 'sync' } })
  const peers: FakeSecondary[] = []
  const lines: HeldLine[] = []
  FakeSecondary.listen(pair, (peer) => {
    peers.push(peer)
    if (peers.length === 1) peer.serve()
  })
  const { connect } = pair
  pair.connect = async (life, name) => {
    const stream = await connect(life, name)
    lines.push(new HeldLine(stream))
    return stream
  }
  await pair.a.start({ isAlone: true })
  await pair.a.create('vol0')
  await pair.run(pair.a.engine.setPeer({ uri: 'nbd://b' }))
  await pair.sync()
  const [peer] = peers
  const [line] = lines
  if (peer === undefined || line === undefined) throw new Error('nobody connected')
  peer.isAnswering = false
  peer.frames.length = 0
  return { pair, peer, line }
}

function beginWrite(pair: EnginePair, bytes: Buffer, keeper: SpoilingKeeper | undefined) {
  const parts = [bytes]
  const write = { offset: 0, lengthBytes, parts, fua: false }
  const done = pair.a.export('vol0').write(keeper === undefined ? write : { ...write, keeper })
  return Promise.resolve(done).finally(() => keeper?.settled(parts))
}

for (const memory of ['of clients', 'of the outbox'] as const) {
  t.test(
    `an answer before the system took the entries: memory ${memory} is sent as it was`,
    async (t) => {
      const { pair, peer, line } = await streaming()
      const keeper = memory === 'of clients' ? new SpoilingKeeper() : undefined
      const first = peer.received + 1
      line.isHeld = true
      const values = Array.from({ length: sentCount * 3 }, (_, index) => index + 1)
      const early = values
        .slice(0, sentCount + 4)
        .map((value) => beginWrite(pair, pattern(value, lengthBytes), keeper))
      await pair.until(() => line.isWaiting, 'entries are given to the system')
      await pair.scheduler.settle(50)
      t.equal(peer.received, first - 1, 'it has none of them')
      const last = first + sentCount - 1
      peer.answer(last, last, last)
      await pair.run(Promise.all(early.slice(0, sentCount)))
      if (keeper !== undefined) t.equal(keeper.viewCount, 4, 'nobody keeps what was answered')
      // They would come to lie where those were.
      const late = values
        .slice(sentCount + 4)
        .map((value) => beginWrite(pair, pattern(value, lengthBytes), keeper))
      await pair.scheduler.settle(50)
      t.equal(peer.received, first - 1, 'the line is still held up')
      line.release()
      await pair.until(
        () => peer.received === first + values.length - 1 || peer.reason !== undefined,
        'everything comes',
      )
      t.equal(peer.reason, undefined, 'no checksum is wrong')
      const came = peer.frames.flatMap((frame) => (frame.kind === 'write' ? [frame] : []))
      t.same(
        came.map(({ parts }) => [...new Set(Buffer.concat(parts))]),
        values.map((value) => [value]),
      )
      peer.answer(peer.received, peer.received, peer.received)
      await pair.run(Promise.all([...early, ...late]))
      await pair.a.close()
    },
  )
}

t.test(
  'memory of entries that the system has taken is used again when they are answered',
  async (t) => {
    const { pair, peer } = await streaming()
    const keeper = new SpoilingKeeper()
    const bytes = pattern(1, lengthBytes)
    const before = peer.received
    const write = beginWrite(pair, bytes, keeper)
    await pair.until(() => peer.received > before, 'it is sent')
    peer.answer(peer.received, peer.received, peer.received)
    await pair.run(write)
    t.equal(keeper.viewCount, 0)
    t.notOk(bytes.equals(pattern(1, lengthBytes)), 'the next request may be read into it')
    await pair.a.close()
  },
)
