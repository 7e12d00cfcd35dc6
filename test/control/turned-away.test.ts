// Clients above the limit: each hears why, whenever it asks, and nobody stays for ever.
import { once } from 'node:events'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { ControlClient } from '../../src/control/client.js'
import { RawClient, startControl } from '../support/control.js'
import { withDeadline } from '../support/process.js'

const noPlace = {
  code: 'LIMIT_REACHED',
  message: 'all 1 connections to the control socket are taken (control-connections)',
  action: /wait a moment .* lockstep events --follow/,
}

async function startFull(t: Test, limits: { turnedAwayCountMax?: number } = {}) {
  const started = await startControl(t, { connectionCountMax: 1, stopTimeoutMs: 50, ...limits })
  const first = await RawClient.open(t, started.path)
  await first.ask('ping')
  return { ...started, first }
}

t.test('whoever asks at once hears why', async (t) => {
  const { path } = await startFull(t)
  for (let round = 0; round < 50; round++) {
    const client = await ControlClient.open(path, { timeoutMs: 10_000 })
    await t.rejects(client.request('ping', {}, { timeoutMs: 10_000 }), noPlace)
    client.close()
  }
})

t.test('whoever asks after the refusal has come hears why', async (t) => {
  const { path } = await startFull(t)
  const client = await ControlClient.open(path, { timeoutMs: 10_000 })
  await withDeadline(client.closed, 10_000, () => 'the end')
  await t.rejects(client.request('ping', {}), noPlace)
})

t.test('a client that neither leaves nor reads is closed', async (t) => {
  const { path } = await startFull(t)
  const socket = connect({ path, allowHalfOpen: true })
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  await once(socket, 'connect')
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  socket.write('x')
  socket.resume()
  const ended = once(socket, 'end')
  await withDeadline(ended, 10_000, () => 'the end of its answer')
  // It keeps its side open and goes on talking, until nobody listens.
  const talk = setInterval(() => socket.write('x'), 10)
  t.teardown(() => clearInterval(talk))
  await withDeadline(closed, 10_000, () => 'the socket stays open')
})

t.test('above the number that is told, clients are closed at once', async (t) => {
  const { path, first } = await startFull(t, { turnedAwayCountMax: 0 })
  const client = await RawClient.open(t, path)
  t.equal((await client.next()).error?.data.code, 'LIMIT_REACHED')
  await client.closed()
  t.ok((await first.ask('ping')).result, 'the one that has a place keeps it')
})

t.test('stopping does not wait for them', async (t) => {
  const { path, server } = await startControl(t, {
    connectionCountMax: 1,
    stopTimeoutMs: 3_600_000,
  })
  const first = await RawClient.open(t, path)
  await first.ask('ping')
  const socket = connect({ path, allowHalfOpen: true })
  t.teardown(() => socket.destroy())
  await once(socket, 'data')
  first.socket.destroy()
  await withDeadline(server.stop(), 10_000, () => 'the end of the server')
  t.equal(server.connectionCount, 0)
})
