// A real socket is given bytes without its stream: whole, in part when it is full, and not at all when that would be wrong.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { sendingNow } from '../../src/app/send-now.js'

const { sendNow } = sendingNow()
assert(sendNow !== undefined, 'the FFI package is installed')

async function socketPair(t: Test): Promise<{ socket: net.Socket; client: net.Socket }> {
  const listener = net.createServer({ pauseOnConnect: true })
  listener.listen({ port: 0, host: '127.0.0.1' })
  await once(listener, 'listening')
  const { port } = listener.address() as net.AddressInfo
  const client = net.connect(port, '127.0.0.1')
  const [socket] = (await once(listener, 'connection')) as [net.Socket]
  t.teardown(() => {
    client.destroy()
    socket.destroy()
    listener.close()
  })
  return { socket, client }
}

t.test('parts arrive in their order, however many there are', async (t) => {
  const { socket, client } = await socketPair(t)
  const parts = Array.from({ length: 200 }, (_, index) => Buffer.from(`${index};`))
  const whole = Buffer.concat(parts)
  let sentBytes = 0
  const received: Buffer[] = []
  client.on('data', (piece: Buffer) => received.push(piece))
  while (sentBytes < whole.length) {
    let skipBytes = sentBytes
    const rest = parts.filter((part) => {
      skipBytes -= part.length
      return skipBytes < 0
    })
    const count = sendNow(socket, rest)
    assert(count > 0)
    sentBytes += count
  }
  socket.end()
  await once(client, 'end')
  t.equal(Buffer.concat(received).toString(), whole.toString())
})

t.test('a socket that is full takes a part, then nothing', async (t) => {
  const { socket, client } = await socketPair(t)
  client.pause()
  const large = Buffer.alloc(64 * 1024 * 1024)
  const count = sendNow(socket, [large])
  t.ok(count > 0)
  t.ok(count < large.length)
  let takenBytes = 0
  for (let tries = 0; tries < 10_000; tries++) {
    const more = sendNow(socket, [large])
    if (more === 0) break
    takenBytes += more
  }
  t.equal(sendNow(socket, [large]), 0)
  t.ok(count + takenBytes < large.length)
})

t.test(
  'a stream with bytes of its own, a closed one and one of another kind take nothing',
  async (t) => {
    const { socket, client } = await socketPair(t)
    client.pause()
    socket.write(Buffer.alloc(64 * 1024 * 1024))
    t.equal(sendNow(socket, [Buffer.from('x')]), 0)
    socket.destroy()
    t.equal(sendNow(socket, [Buffer.from('x')]), 0)
    t.equal(sendNow(new PassThrough(), [Buffer.from('x')]), 0)
  },
)

t.test('a connection that is gone takes nothing', async (t) => {
  const { socket, client } = await socketPair(t)
  socket.on('error', () => {})
  client.resetAndDestroy()
  await once(client, 'close')
  let count = 1
  for (let tries = 0; tries < 100 && count > 0; tries++) {
    count = sendNow(socket, [Buffer.from('x')])
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.equal(count, 0)
})
