// The send buffer of a real Unix socket, before and after: how much it takes while nobody reads.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { enlargeSendBuffer } from '../../src/app/send-buffer.js'
import { loadNative } from '../../src/storage/native.js'

/** Above what a Unix socket takes by default, below what any user may ask for. */
const replyBytes = 300 * 1024

async function acceptedSocket(t: Test, where: 'unix' | 'tcp'): Promise<net.Socket> {
  const directory = mkdtempSync(join(tmpdir(), 'send-buffer-'))
  const listener = net.createServer({ pauseOnConnect: true })
  const path = join(directory, 'socket')
  listener.listen(where === 'unix' ? { path } : { port: 0, host: '127.0.0.1' })
  await once(listener, 'listening')
  const address = listener.address()
  assert(address !== null)
  const client =
    typeof address === 'string' ? net.connect(address) : net.connect(address.port, '127.0.0.1')
  const [socket] = (await once(listener, 'connection')) as [net.Socket]
  t.teardown(() => {
    client.destroy()
    socket.destroy()
    listener.close()
    rmSync(directory, { recursive: true })
  })
  return socket
}

t.test('a Unix socket takes a larger reply at once', async (t) => {
  assert(loadNative() !== undefined, 'the FFI package is installed')
  const plain = await acceptedSocket(t, 'unix')
  plain.write(Buffer.alloc(replyBytes))
  t.ok(plain.writableLength > 0, 'by default it does not')
  const enlarged = await acceptedSocket(t, 'unix')
  enlargeSendBuffer(enlarged)
  enlarged.write(Buffer.alloc(replyBytes))
  t.equal(enlarged.writableLength, 0)
})

t.test('TCP sockets and closed ones are left alone', async (t) => {
  enlargeSendBuffer(await acceptedSocket(t, 'tcp'))
  const closed = await acceptedSocket(t, 'unix')
  closed.destroy()
  enlargeSendBuffer(closed)
  t.pass()
})
