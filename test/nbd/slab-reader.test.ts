// A real socket that reads into slabs: every byte arrives once and in order, while its pieces are held for long and released in any order.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { SharedMemory } from '../../nbd/memory.js'
import { SlabReader } from '../../nbd/slab-reader.js'
import type { Slabs } from '../../nbd/slabs.js'

const KiB = 1024

async function socketPair(t: Test, where: 'tcp' | 'unix' = 'tcp') {
  const directory = mkdtempSync(join(tmpdir(), 'slab-reader-'))
  const path = join(directory, 'socket')
  const listener = net.createServer({ allowHalfOpen: true })
  listener.listen(where === 'unix' ? { path } : { port: 0, host: '127.0.0.1' })
  await once(listener, 'listening')
  const address = listener.address()
  assert(address !== null)
  const client =
    typeof address === 'string' ? net.connect(address) : net.connect(address.port, '127.0.0.1')
  const [server] = (await once(listener, 'connection')) as [net.Socket]
  t.teardown(() => {
    client.destroy()
    server.destroy()
    listener.close()
    rmSync(directory, { recursive: true })
  })
  return { client, server }
}

function newMemory(): SharedMemory {
  return new SharedMemory({ processBytesMax: 64 * KiB * KiB, pooledBytesMax: 16 * KiB * KiB })
}

/** Bytes that are different everywhere. */
function pattern(lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes)
  for (let at = 0; at + 4 <= lengthBytes; at += 4) bytes.writeUInt32LE((at * 2654435761) >>> 0, at)
  return bytes
}

async function receive(t: Test, heldPiecesMax: number, where?: 'tcp' | 'unix'): Promise<void> {
  const { client, server } = await socketPair(t, where)
  const memory = newMemory()
  const sent = pattern(5 * 1024 * KiB + 333)
  const held: { readonly piece: Buffer; readonly offset: number }[] = []
  let receivedBytes = 0
  const check = ({ piece, offset }: { readonly piece: Buffer; readonly offset: number }): void => {
    assert(piece.equals(sent.subarray(offset, offset + piece.length)), `bytes at ${offset}`)
    memory.slabs.release(piece)
  }
  const reader = SlabReader.over(server, memory.slabs, (piece) => {
    held.push({ piece, offset: receivedBytes })
    receivedBytes += piece.length
    // The one in the middle goes first: holds end in any order.
    while (held.length > heldPiecesMax) check(held.splice(held.length >> 1, 1)[0] ?? assert.fail())
  })
  assert(reader, 'this version of Node has what is needed')
  const ended = once(server, 'end')
  server.resume()
  client.end(sent)
  await ended
  t.equal(receivedBytes, sent.length)
  for (const piece of held) check(piece)
  t.equal(memory.slabs.inUseCount, 1, 'only the slab being read into is left')
  const closed = once(server, 'close')
  server.destroy()
  await closed
  reader.close()
  t.equal(memory.slabs.inUseCount, 0)
  t.equal(memory.budget.usedBytes, 0)
}

t.test('every byte arrives when pieces are used at once', (t) => receive(t, 0))
t.test('every byte arrives while some pieces are kept', (t) => receive(t, 7))
t.test('every byte arrives over a Unix socket', async (t) => {
  await receive(t, 0, 'unix')
  await receive(t, 7, 'unix')
  await receive(t, 100_000, 'unix')
})
t.test('every byte arrives while all pieces are kept', (t) => receive(t, 100_000))

/** The largest piece that arrives while the client sends as fast as it can. */
async function largestPiece(t: Test, slabs: Slabs, where: 'tcp' | 'unix'): Promise<number> {
  const { client, server } = await socketPair(t, where)
  let largestBytes = 0
  const reader = SlabReader.over(server, slabs, (piece) => {
    largestBytes = Math.max(largestBytes, piece.length)
    slabs.release(piece)
    // What gathers while nobody reads comes in one piece.
    server.pause()
    setImmediate(() => setImmediate(() => server.resume()))
  })
  const ended = once(server, 'end')
  server.resume()
  client.end(Buffer.alloc(16 * 1024 * KiB))
  await ended
  const closed = once(server, 'close')
  server.destroy()
  await closed
  reader?.close()
  return largestBytes
}

t.test('sixteen Unix sockets at a time read all that is there in one piece', async (t) => {
  const { slabs } = newMemory()
  t.ok((await largestPiece(t, slabs, 'unix')) > 140 * KiB)
  for (let seat = 0; seat < 16; seat++) t.equal(slabs.takeSeat(), true, 'it has left its seat')
  t.equal(slabs.takeSeat(), false)
  t.ok((await largestPiece(t, slabs, 'unix')) <= 132 * KiB)
  slabs.leaveSeat()
  t.ok((await largestPiece(t, slabs, 'tcp')) <= 132 * KiB)
  t.equal(slabs.takeSeat(), true)
})

t.test('a paused socket reads nothing, and goes on where it was', async (t) => {
  const { client, server } = await socketPair(t)
  const { slabs } = newMemory()
  let text = ''
  let received = () => {}
  const reader = SlabReader.over(server, slabs, (piece) => {
    text += piece.toString()
    slabs.release(piece)
    received()
  })
  const next = () =>
    new Promise<void>((resolve) => {
      received = resolve
    })
  server.resume()
  const first = next()
  client.write('one ')
  await first
  server.pause()
  const afterPause = next()
  client.write('two')
  // A round trip on another connection gives the loop the chance to read what it must not.
  await socketPair(t)
  t.equal(text, 'one ')
  server.resume()
  await afterPause
  t.equal(text, 'one two')
  reader?.close()
})

t.test('other streams are left to their data events', async (t) => {
  const { server } = await socketPair(t)
  const { slabs } = newMemory()
  const ignore = () => {}
  t.equal(SlabReader.over(new PassThrough(), slabs, ignore), undefined)
  class OwnSocket extends net.Socket {}
  t.equal(SlabReader.over(new OwnSocket(), slabs, ignore), undefined)
  server.destroy()
  t.equal(SlabReader.over(server, slabs, ignore), undefined, 'nor is a socket that is gone')
  t.equal(slabs.inUseCount, 0)
})
