// status, wait and events against the engine's double: the exit codes of health that a real node shows only when its disk fails.
import { dirname } from 'node:path'
import t from 'tap'
import { runLine } from '../../support/command-line.js'
import { RawClient, startControl } from '../../support/control.js'

const failure = {
  message: 'data could not be made durable (EIO)',
  action: 'check the medium, then restart the daemon',
}

t.test('status -x: 0 when all is well, 6 with the reason when it is not', async (t) => {
  const { engine, path } = await startControl(t)
  const ask = (...words: readonly string[]) =>
    runLine(words, { environment: { LOCKSTEP_DIR: dirname(path) } })
  const healthy = await ask('status', '-x')
  t.equal(healthy.status, 0)
  t.equal(healthy.stdout, 'double is healthy\n')
  engine.failure = failure
  const ill = await ask('status', '-x')
  t.equal(ill.status, 6)
  t.match(ill.stdout, /status: data could not be made durable \(EIO\)\n +action: check the medium/)
  t.equal((await ask('status')).status, 0, 'status itself was answered')
  const json = await ask('status', '-x', '--json')
  t.equal(json.status, 6)
  t.match(JSON.parse(json.stdout), { failure, stores: [], listeners: ['nbd://127.0.0.1:1'] })
})

t.test('a node that has failed is not ready', async (t) => {
  const { engine, path } = await startControl(t)
  const wait = () => runLine(['wait', '--for', 'ready', '--timeout', '0', '--dir', dirname(path)])
  t.equal((await wait()).status, 0)
  engine.failure = failure
  const waited = await wait()
  t.equal(waited.status, 8)
  t.match(waited.stderr, /not ready within 0 s: data could not be made durable/)
})

t.test('a daemon that stops in the middle of an answer is unreachable', async (t) => {
  const { engine, path, server } = await startControl(t, { stopTimeoutMs: 50 })
  engine.gate = new Promise(() => {})
  const words = ['volume', 'create', 'v', '1M']
  const said = runLine(words, { environment: { LOCKSTEP_DIR: dirname(path) } })
  while (engine.asked.length === 0) await new Promise((resolve) => setImmediate(resolve))
  await server.stop()
  const { status, stderr } = await said
  t.equal(status, 4)
  t.match(stderr, /closed the connection .* before it answered\n {2}try: lockstep status/)
})

t.test('events are lines for people and one document for scripts', async (t) => {
  const { engine, path } = await startControl(t)
  engine.emit({ at: '2024-01-01T00:00:00Z', kind: 'started', message: 'open' })
  const ask = (...words: readonly string[]) =>
    runLine(['events', ...words], { environment: { LOCKSTEP_DIR: dirname(path) } })
  t.equal((await ask()).stdout, '2024-01-01T00:00:00Z started open\n')
  t.equal(JSON.parse((await ask('--json')).stdout).events.length, 1)
})

t.test('when the control socket is full every command says so, and what to do', async (t) => {
  const { engine, path } = await startControl(t, { connectionCountMax: 1 })
  const first = await RawClient.open(t, path)
  await first.ask('ping')
  const lines = ['status', 'volume create v 1M', 'config', 'doctor', 'events --follow']
  for (const line of lines) {
    const said = await runLine(line.split(' '), { environment: { LOCKSTEP_DIR: dirname(path) } })
    t.equal(said.status, 1, line)
    t.match(said.stderr + said.stdout, /all 1 connections to the control socket are taken/, line)
    t.match(said.stderr + said.stdout, /try: wait a moment .* lockstep events --follow/, line)
  }
  t.same(engine.asked, [], 'nothing was done')
  const waited = await runLine(['wait', '--for', 'ready', '--timeout', '0', '--dir', dirname(path)])
  t.equal(waited.status, 8, 'a place may become free: that is waited for')
  t.match(waited.stderr, /not ready within 0 s: all 1 connections/)
})
