// The memory of a link's sockets: what was read stays while it is held, and is read into again afterwards. Real sockets, because others are not read so.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { LinkMemory } from '../../src/engine/link-memory.js'
import { waitFor } from '../support/wait.js'

/** Both ends of a connection. */
async function socketPair(t: Test): Promise<{ readonly near: Socket; readonly far: Socket }> {
  const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [far] = (await once(server, 'connection')) as [Socket]
  t.teardown(() => {
    near.destroy()
    far.destroy()
    server.close()
  })
  return { near, far }
}

t.test('pieces come as they were sent, and their memory is used again', async (t) => {
  const { near, far } = await socketPair(t)
  const memory = new LinkMemory()
  const seen = new Set<ArrayBufferLike>()
  let receivedBytes = 0
  let isRight = true
  const source = memory.read(far, (piece) => {
    for (const [index, value] of piece.entries())
      if (value !== (receivedBytes + index) % 251) isRight = false
    receivedBytes += piece.length
    seen.add(piece.buffer)
    memory.release(piece)
  })
  t.ok(source)
  far.resume()
  const sent = Buffer.from(Array.from({ length: 4 * 1024 * 1024 }, (_, index) => index % 251))
  near.write(sent)
  await waitFor('everything has come', () => receivedBytes === sent.length)
  t.ok(isRight)
  t.ok(seen.size <= 3, `${seen.size} pieces of memory`)
  source?.close()
  t.equal(memory.heldBytes, 0)
})

t.test('what is held stays as it was, and counts', async (t) => {
  const { near, far } = await socketPair(t)
  const memory = new LinkMemory()
  const held: Buffer[] = []
  let receivedBytes = 0
  const source = memory.read(far, (piece) => {
    receivedBytes += piece.length
    held.push(piece)
  })
  far.resume()
  const sent = Buffer.from(Array.from({ length: 1024 * 1024 }, (_, index) => index % 249))
  near.write(sent)
  await waitFor('everything has come', () => receivedBytes === sent.length)
  t.ok(Buffer.concat(held).equals(sent))
  t.ok(memory.heldBytes >= sent.length - 128 * 1024, `${memory.heldBytes} held`)
  for (const piece of held) memory.release(piece)
  source?.close()
  t.equal(memory.heldBytes, 0)
})

t.test('what is no socket is left to others', async (t) => {
  const memory = new LinkMemory()
  t.equal(
    memory.read(new PassThrough(), () => {}),
    undefined,
  )
  const foreign = Buffer.from('abc')
  memory.hold(foreign)
  memory.release(foreign)
  t.equal(foreign.toString(), 'abc')
  t.equal(memory.heldBytes, 0)
})
