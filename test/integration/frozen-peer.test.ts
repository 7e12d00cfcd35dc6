// A node whose other one is frozen (SIGSTOP: its system still takes connections, and nobody answers) ends when it is asked to: clients get their answers, whoever
// waits for the other node hears that this one stops, and nothing that was begun to reach it keeps the process.
import t, { type Test } from 'tap'
import { BlockClient } from '../support/block-client.js'
import { NodePair } from '../support/node-pair.js'
import type { LockstepServer } from '../support/server.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024
/** A farewell takes a second; an attempt to connect that was left alone would take eight. */
const endSecondsMax = 5

t.setTimeout(300_000)

/** Without the proxy: it would say good-bye in the place of the frozen node. */
async function direct(t: Test, serveArgs: readonly string[] = []): Promise<NodePair> {
  const pair = await NodePair.start(t, { volumes: { vol0: 8 * MiB }, serveArgs })
  await pair.primary.ask('peer.set', { uri: `nbd://127.0.0.1:${pair.replica.port}` })
  await pair.inSync()
  return pair
}

function freeze(t: Test, server: LockstepServer): void {
  const { pid } = server
  process.kill(pid, 'SIGSTOP')
  t.teardown(() => process.kill(pid, 'SIGCONT'))
}

async function endsSoon(t: Test, server: LockstepServer, what: string): Promise<void> {
  const beforeMs = performance.now()
  t.equal(await server.stop(), 0, what)
  const seconds = (performance.now() - beforeMs) / 1000
  t.ok(seconds < endSecondsMax, `${what}: ended after ${seconds.toFixed(1)} s`)
}

for (const name of ['primary', 'replica'] as const)
  t.test(`a ${name} ends while the stream is open to a frozen node`, async (t) => {
    const pair = await direct(t)
    freeze(t, name === 'primary' ? pair.replica : pair.primary)
    await endsSoon(t, pair[name], 'the stream is open')
  })

t.test('a primary ends while it tries to reach a frozen node', async (t) => {
  const pair = await direct(t, ['--peer-deadline', '2'])
  freeze(t, pair.replica)
  await waitFor('it tries', async () => {
    const { link, reason } = await pair.peer()
    return link === 'connecting' && reason.includes('nothing came')
  })
  const control = await pair.primary.control()
  t.teardown(() => control.close())
  const waiting = control.request('wait', { condition: 'in-sync', timeoutMs: 600_000 })
  const asking = control.request('peer.connect', {})
  const told = Promise.all([
    t.rejects(waiting, { code: 'BUSY', message: 'the node is stopping' }),
    t.rejects(asking, { code: 'BUSY', message: 'the node is stopping' }),
  ])
  // Requests of one connection begin in their order: both are under way when this is answered.
  await control.request('status', {})
  await endsSoon(t, pair.primary, 'an attempt to connect is under way')
  await told
})

t.test('what clients and operators wait for ends before the deadline of the peer', async (t) => {
  const pair = await direct(t, ['--peer-deadline', '600'])
  const client = await BlockClient.open(pair.primary.socketPath, 'vol0')
  freeze(t, pair.replica)
  const writing = client.write(0, Buffer.alloc(4096, 7), { fua: true })
  const marking = t.rejects(pair.primary.ask('mark', { name: 'x', wait: true, timeoutMs: 600_000 }))
  await waitFor('they wait for the peer', async () => ((await pair.peer()).lagBytes ?? 0) > 4096)
  // LockstepServer.stop gives it 20 s.
  t.equal(await pair.primary.stop(), 0)
  await writing
  await marking
  await client.close().catch(() => {})
})
