// Options of real sockets: how much one takes while nobody reads, before and after, and which congestion control the kernel says it has.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { calmConnection, calmLoopback, enlargeSendBuffer } from '../../src/app/socket-options.js'
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

async function congestionOf(t: Test, host: string): Promise<string> {
  const listener = net.createServer()
  listener.listen({ port: 0, host })
  await once(listener, 'listening')
  calmLoopback(listener)
  const { port } = listener.address() as net.AddressInfo
  const client = net.connect(port, '127.0.0.1')
  const [socket] = (await once(listener, 'connection')) as [net.Socket]
  t.teardown(() => {
    client.destroy()
    socket.destroy()
    listener.close()
  })
  return congestionOfSocket(t, socket)
}

function congestionOfSocket(t: Test, socket: net.Socket): string {
  const { fd } = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle
  const koffi = createRequire(import.meta.url)('koffi')
  const types = ['int', 'int', 'int', 'void *', 'void *']
  const getOption = koffi.load(null).func('getsockopt', 'int', types)
  const name = Buffer.alloc(16)
  const length = Buffer.alloc(4)
  length.writeInt32LE(name.length)
  t.equal(getOption(fd, 6, 13, name, length), 0)
  return name.toString('latin1').replace(/\0.*$/s, '')
}

t.test('connections over the loopback are not paced', async (t) => {
  t.equal(await congestionOf(t, '127.0.0.1'), 'reno')
})

t.test('a connection to another node on this machine is not paced', async (t) => {
  const listener = net.createServer()
  listener.listen({ port: 0, host: '127.0.0.1' })
  await once(listener, 'listening')
  const { port } = listener.address() as net.AddressInfo
  const client = net.connect(port, '127.0.0.1')
  t.teardown(() => {
    client.destroy()
    listener.close()
  })
  await once(client, 'connect')
  calmConnection(client)
  t.equal(congestionOfSocket(t, client), 'reno')
})

t.test('listeners for a network keep what the system has', async (t) => {
  const own = readFileSync('/proc/sys/net/ipv4/tcp_congestion_control', 'latin1').trim()
  t.equal(await congestionOf(t, '0.0.0.0'), own)
})

t.test('Unix listeners and closed ones are left alone', async (t) => {
  const listener = net.createServer()
  calmLoopback(listener)
  t.pass()
})
