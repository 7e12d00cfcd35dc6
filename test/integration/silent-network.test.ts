// Two daemons on two machines, and a network that falls silent: the cable is pulled, or what one of them sends is lost while it still hears the other. Nobody is told, so
// only the deadline shows it. Writes go on, and when the network is back the link goes on where it was, without a resync.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { PeerStatus } from '../../src/engine/api.js'
import { Load, NodePair, statusOf } from '../support/node-pair.js'
import { missingTools, scratch } from '../support/process.js'
import { missingNamespaces, TwoMachines } from '../support/two-machines.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024
const skip = missingNamespaces() || missingTools('nbdcopy')

t.setTimeout(300_000)

async function start(t: Test): Promise<{ pair: NodePair; machines: TwoMachines }> {
  const machines = await TwoMachines.start(t)
  const secret = join(scratch(t), 'secret')
  writeFileSync(secret, 'what both of these nodes know', { mode: 0o600 })
  const args = ['--peer-secret-file', secret, '--peer-deadline', '2']
  const volumes = { vol0: 8 * MiB }
  const pair = await NodePair.start(t, {
    ...{ machines, volumes, serveArgs: args, replicaServeArgs: args },
  })
  return { pair, machines }
}

async function replicaSays(pair: NodePair): Promise<PeerStatus | undefined> {
  return (await statusOf(pair.replica)).peers[0]
}

/** Both nodes know, while writes go on; then it is over, and only what was kept in memory goes over. */
async function throughSilence(
  t: Test,
  pair: NodePair,
  silence: { begin(): Promise<void>; end(): Promise<void> },
): Promise<void> {
  const load = new Load(pair.primary, 'vol0', 7)
  const goesOn = async (what: string): Promise<void> => {
    const before = load.writeCount
    await waitFor(what, () => load.writeCount > before + 100)
  }
  await goesOn('writes')
  await silence.begin()
  const here = await waitFor('the primary notices', async () => {
    const peer = await pair.peer()
    return peer.link === 'streaming' ? undefined : peer
  })
  t.ok((here.action ?? '') !== '', 'it says what to do')
  const there = await waitFor('the replica notices', async () => {
    const peer = await replicaSays(pair)
    return peer?.link === 'offline' ? peer : undefined
  })
  t.ok((there.action ?? '') !== '', 'it says what to do')
  t.match(`${here.reason} ${there.reason}`, /nothing came/i, 'and one of them knows by the silence')
  await goesOn('writes without the replica')
  await silence.end()
  // By itself: nobody is there who would type anything.
  await pair.primary.ok('wait', '--for', 'in-sync', '--timeout', '55')
  await goesOn('writes with the replica')
  await load.stop()
  await pair.inSync()
  t.same(await pair.differences(), [])
  const events = await pair.primary.ok('events')
  t.match(events, /link streaming: the stream went on behind \d+ when they met/)
  const [, behindJoining = ''] = events.split('the peer has everything')
  t.notMatch(behindJoining, /copying what differs/, 'nothing was copied')
}

t.test('a cable that is pulled is noticed by both', { skip }, async (t) => {
  const { pair, machines } = await start(t)
  await throughSilence(t, pair, { begin: () => machines.cut(), end: () => machines.mend() })
})

for (const who of ['one', 'other'] as const)
  t.test(
    `a ${who === 'one' ? 'primary' : 'replica'} that is not heard is noticed by both`,
    { skip },
    async (t) => {
      const { pair, machines } = await start(t)
      const machine = machines[who]
      await throughSilence(t, pair, {
        begin: () => machines.silence(machine),
        end: () => machines.unsilence(machine),
      })
    },
  )
