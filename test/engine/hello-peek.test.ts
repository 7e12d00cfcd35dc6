// The hello of a connection is looked at in whatever pieces it comes, and stays in the stream with all that came behind it.
import t from 'tap'
import { peekHello } from '../../src/engine/hello-peek.js'
import { encodeFrame } from '../../src/replication/frame-encoder.js'
import type { Frame } from '../../src/replication/frames.js'
import { duplexPair } from '../support/duplex-pair.js'
import { fakeHello } from '../support/fake-peer.js'
import { ManualClock } from '../support/manual-clock.js'

const bytesOf = (frame: Frame): Buffer => {
  const { head, parts } = encodeFrame(frame)
  return Buffer.concat([head, ...parts])
}
const hello = bytesOf({ kind: 'hello', body: { ...fakeHello() } })
const behind = bytesOf({ kind: 'ping', token: 7 })

for (const pieceBytes of [1, 47, 1000, hello.length + 3, 100_000]) {
  t.test(`a hello in pieces of ${pieceBytes} bytes stays where it is`, async (t) => {
    const [near, far] = duplexPair()
    const found = peekHello(far, new ManualClock())
    const all = Buffer.concat([hello, behind])
    for (let at = 0; at < all.length; at += pieceBytes)
      near.write(all.subarray(at, at + pieceBytes))
    t.same(await found, fakeHello())
    near.end()
    const pieces: Buffer[] = []
    for await (const piece of far) pieces.push(piece as Buffer)
    t.same(Buffer.concat(pieces), all)
  })
}

t.test('what is no hello, and what never comes, is none', async (t) => {
  const wrong: readonly [string, Buffer][] = [
    ['another frame', behind],
    ['an HTTP request', Buffer.from(`GET / HTTP/1.1\r\n${'x'.repeat(100)}`)],
    ['a hello of nothing', bytesOf({ kind: 'hello', body: {} })],
  ]
  for (const [name, bytes] of wrong) {
    const [near, far] = duplexPair()
    const found = peekHello(far, new ManualClock())
    near.write(bytes)
    t.equal(await found, undefined, name)
  }
  const [near, far] = duplexPair()
  const cut = peekHello(far, new ManualClock())
  near.end(hello.subarray(0, -1))
  t.equal(await cut, undefined, 'the end')
  const clock = new ManualClock()
  const [, silent] = duplexPair()
  const late = peekHello(silent, clock)
  clock.advance(10_000)
  t.equal(await late, undefined, 'silence')
  const [, gone] = duplexPair()
  gone.destroy()
  t.equal(await peekHello(gone, new ManualClock()), undefined, 'a stream that is gone')
})
