// The peer's methods on the control socket: what reaches the engine, and what is refused before it.
import t from 'tap'
import { LockstepError } from '../../src/core/errors.js'
import { RawClient, startControl } from '../support/control.js'

t.test('peer.connect, peer.disconnect and peer.set reach the engine', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  const decided = await client.ask('peer.connect', { explain: true })
  t.match(decided.result, { rule: 'same position', operations: 0, bytes: 0 })
  await client.ask('peer.connect')
  t.same((await client.ask('peer.disconnect')).result, { peers: [] })
  await client.ask('peer.set', { uri: 'nbd://192.0.2.7:10809' })
  await client.ask('peer.set', { mode: 'async' })
  t.same(engine.peerCalls, [
    'connect explain=true',
    'connect explain=false',
    'disconnect',
    'set {"uri":"nbd://192.0.2.7:10809"}',
    'set {"mode":"async"}',
  ])
})

t.test('an address that no node can have, and a mode that is none, change nothing', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  const wrong = await client.ask('peer.set', { uri: 'http://192.0.2.7', mode: 'async' })
  t.match(wrong.error, { message: /not an nbd: or/, data: { code: 'INVALID_CONFIG' } })
  const noPort = await client.ask('peer.set', { uri: 'nbd://192.0.2.7:0' })
  t.match(noPort.error, { message: /names no port/ })
  const noMode = await client.ask('peer.set', { mode: 'quick' })
  t.match(noMode.error, { message: /one of sync, semi-sync, async/, data: { field: 'mode' } })
  const long = await client.ask('peer.set', { uri: `nbd://${'x'.repeat(600)}` })
  t.match(long.error, { message: /at most 512 bytes/ })
  t.same(engine.peerCalls, [])
})

t.test('wait answers when the condition holds, and with the reason when it does not', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  let reach = (): void => {}
  const reached = new Promise<void>((resolve) => {
    reach = resolve
  })
  engine.condition = () => reached
  client.request(1, 'wait', { condition: 'in-sync', timeoutMs: 5000 })
  t.match(await client.ask('ping'), { result: { pong: true } }, 'others are answered meanwhile')
  reach()
  t.match(await client.next(), { id: 1, result: { condition: 'in-sync', isReached: true } })
  const late = new LockstepError('TIMED_OUT', 'not in time', 'look')
  engine.condition = () => Promise.reject(late)
  const missed = await client.ask('wait', { condition: 'promotable' })
  t.match(missed.error, { message: 'not in time', data: { code: 'TIMED_OUT', action: 'look' } })
  t.same(engine.peerCalls, ['wait in-sync 5000', 'wait promotable 60000'])
  const ready = await client.ask('wait', { condition: 'ready' })
  t.match(ready.error, { data: { field: 'condition' } })
  const week = await client.ask('wait', { condition: 'in-sync', timeoutMs: 7 * 86_400_000 })
  t.match(week.error, { data: { field: 'timeoutMs' } })
})

t.test('a verify that is refused is no job', async (t) => {
  const { engine, path } = await startControl(t)
  const client = await RawClient.open(t, path)
  engine.refusesVerify = new LockstepError('PEER_UNREACHABLE', 'It is away.', 'wait')
  for (const wait of [true, false]) {
    const unknown = await client.ask('verify', { store: 'none', wait })
    t.match(unknown.error, { data: { code: 'NO_SUCH_STORE' } }, 'before all else')
    const away = await client.ask('verify', { wait })
    t.match(away.error, { message: 'It is away.', data: { code: 'PEER_UNREACHABLE' } })
  }
  t.same((await client.ask('job.list')).result, { jobs: [] })
  t.same(engine.peerCalls, [])
})
