// The limits that can be set, at the real daemon: each holds, says so, and leaves the clients that are within it alone.
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { RawClient } from '../support/control.js'
import { scratch, withDeadline } from '../support/process.js'
import { LockstepServer } from '../support/server.js'
import { waitFor } from '../support/wait.js'

const greetingBytes = 18
/** proto.md, NBD_OPT_EXPORT_NAME for vol0, behind the client's flags. */
const chooseVol0 = Buffer.from(
  ['00000003', '49484156454f5054', '00000001', '00000004', '766f6c30'].join(''),
  'hex',
)

class NbdClient {
  readonly socket: Socket
  receivedBytes = 0
  isClosed = false

  constructor(t: Test, path: string) {
    this.socket = connect(path)
    t.teardown(() => this.socket.destroy())
    this.socket.on('data', (chunk: Buffer) => {
      this.receivedBytes += chunk.length
    })
    this.socket.on('error', () => {})
    this.socket.on('close', () => {
      this.isClosed = true
    })
  }

  greeted(): Promise<true> {
    return waitFor('the greeting', () => this.receivedBytes >= greetingBytes || undefined)
  }

  closed(): Promise<true> {
    return waitFor('the end', () => this.isClosed || undefined)
  }
}

function start(t: Test, ...serveArgs: readonly string[]): Promise<LockstepServer> {
  const volumes = { vol0: 1024 * 1024 }
  return LockstepServer.start(t, { directory: scratch(t), volumes, serveArgs })
}

t.test('connections: one above is turned away, and a place that is left is free', async (t) => {
  const server = await start(t, '--connections', '3')
  const clients = [1, 2, 3].map(() => new NbdClient(t, server.socketPath))
  for (const client of clients) await client.greeted()
  const fourth = new NbdClient(t, server.socketPath)
  await fourth.closed()
  t.equal(fourth.receivedBytes, 0)
  await waitFor('the log', () => server.log.includes('client turned away'))
  t.notOk(clients.some((client) => client.isClosed))
  clients[0]?.socket.destroy()
  await waitFor('a free place', async () => {
    const client = new NbdClient(t, server.socketPath)
    await waitFor('an answer', () => client.isClosed || client.receivedBytes > 0)
    return client.receivedBytes > 0
  })
  t.pass()
})

t.test(
  'handshakes: those who do not choose leave room for nobody else, but only so long',
  async (t) => {
    const server = await start(t, '--handshakes', '2', '--handshake-timeout', '1')
    const slow = [new NbdClient(t, server.socketPath), new NbdClient(t, server.socketPath)]
    for (const client of slow) await client.greeted()
    await new NbdClient(t, server.socketPath).closed()
    for (const client of slow) await client.closed()
    const next = new NbdClient(t, server.socketPath)
    await next.greeted()
    t.ok(next.receivedBytes >= greetingBytes)
  },
)

t.test('connections to one store: one above is refused', async (t) => {
  const server = await start(t, '--connections-per-export', '1')
  const first = new NbdClient(t, server.socketPath)
  await first.greeted()
  first.socket.write(chooseVol0)
  await waitFor('size and flags', () => first.receivedBytes >= greetingBytes + 10)
  const second = new NbdClient(t, server.socketPath)
  await second.greeted()
  second.socket.write(chooseVol0)
  await second.closed()
  t.equal(second.receivedBytes, greetingBytes)
  t.equal((await server.status()).connections, 1)
  t.notOk(first.isClosed)
})

t.test('the control socket: clients and length of a line', async (t) => {
  const server = await start(t, '--control-connections', '2', '--control-line-bytes', '4K')
  const path = join(server.dataDirectory, 'control.sock')
  const first = await RawClient.open(t, path)
  const second = await RawClient.open(t, path)
  for (const client of [first, second]) await client.ask('ping')
  const third = await RawClient.open(t, path)
  t.equal((await third.next()).error?.data.code, 'LIMIT_REACHED')
  second.say(`${'x'.repeat(5000)}\n`)
  t.match((await second.next()).error?.message, /longer than 4096 bytes/)
  await withDeadline(second.closed(), 10_000, () => 'the end')
  t.ok((await first.ask('ping')).result)
})
