// The client believes no server: each lie is a protocol error, never a wait without end and never other bytes than asked for.
import type { Duplex } from 'node:stream'
import t from 'tap'
import { NbdClient } from '../../nbd/client.js'
import { Command } from '../../nbd/constants.js'
import { OptionReplyHeader, ServerGreeting, StructuredChunk } from '../../nbd/messages.js'
import { duplexPair } from '../support/duplex-pair.js'
import { inTime } from '../support/nbd-server.js'

const go = OptionReplyHeader.encode({ option: 7, type: 1, lengthBytes: 0 })

/** A client in transmission with a server that says what the test wants. */
async function connected(): Promise<{ client: NbdClient; peer: Duplex }> {
  const [ours, peer] = duplexPair()
  peer.resume()
  peer.write(ServerGreeting.encode({ handshakeFlags: 3 }))
  const client = new NbdClient(ours)
  await client.greet(3)
  client.style = 'structured'
  peer.write(go)
  await inTime(client.go('any'), 'GO')
  return { client, peer }
}

function chunk(type: number, payload: Buffer, isLast = true, cookie = 1n): Buffer {
  const header = { flags: isLast ? 1 : 0, type, cookie, lengthBytes: payload.length }
  return Buffer.concat([StructuredChunk.encode(header), payload])
}

function data(offset: number, lengthBytes: number): Buffer {
  const payload = Buffer.alloc(8 + lengthBytes, 1)
  payload.writeBigUInt64BE(BigInt(offset))
  return payload
}

t.test('chunks of a read must cover it once', async (t) => {
  const wrong = [
    [chunk(1, data(0, 8))],
    [chunk(1, data(0, 17))],
    [chunk(1, data(8, 16))],
    [chunk(1, data(0, 8), false), chunk(1, data(0, 8))],
    [chunk(1, data(0, 8), false), chunk(1, data(4, 12))],
    [chunk(5, data(0, 16))],
    [chunk(1, Buffer.alloc(7))],
    [chunk(2, Buffer.alloc(11))],
    [chunk(0, Buffer.alloc(0))],
    [chunk(0x8001, Buffer.alloc(5))],
    [chunk(0x8001, Buffer.from('000000050009', 'hex'))],
    [chunk(1, data(0, 16), true, 2n)],
  ]
  for (const [index, chunks] of wrong.entries()) {
    const { client, peer } = await connected()
    const read = client.read({ offset: 0, lengthBytes: 16 })
    peer.write(Buffer.concat(chunks))
    await t.rejects(inTime(read, 'the end'), { name: 'ProtocolError' }, `row ${index}`)
    client.destroy()
  }
})

t.test('chunks in any order make the bytes that were asked for, holes as zeroes', async (t) => {
  const { client, peer } = await connected()
  const read = client.read({ offset: 100, lengthBytes: 16 })
  const hole = Buffer.from('000000000000006400000008', 'hex')
  peer.write(
    Buffer.concat([
      chunk(1, data(108, 8), false),
      chunk(2, hole, false),
      chunk(0, Buffer.alloc(0)),
    ]),
  )
  const found = await inTime(read, 'the read')
  t.equal(found.toString('hex'), '0000000000000000' + '0101010101010101')
  client.destroy()
})

t.test('an answer that was not asked, and a server that leaves, end every request', async (t) => {
  const { client, peer } = await connected()
  const requests: Promise<unknown>[] = [
    client.read({ offset: 0, lengthBytes: 1 }),
    client.command(Command.FLUSH),
  ]
  peer.end()
  for (const request of requests) {
    await t.rejects(inTime(request, 'the end'), { name: 'ConnectionEnded' })
  }
  await t.rejects(inTime(client.command(Command.FLUSH), 'the end'), { name: 'ConnectionEnded' })
})

t.test("requests before GO are the caller's mistake", async (t) => {
  const [ours] = duplexPair()
  t.throws(() => new NbdClient(ours).request({ command: 0 }), { name: 'AssertionError' })
})
