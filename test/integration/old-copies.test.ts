// A node whose data directory was put back to an older copy: the link stops, both nodes say why and what to do, and nothing that only the other node has is
// overwritten.
import { cpSync, renameSync, rmSync } from 'node:fs'
import t, { type Test } from 'tap'
import { NodePair } from '../support/node-pair.js'
import { missingTools } from '../support/process.js'
import type { LockstepServer } from '../support/server.js'
import { holdsPattern, writePattern } from '../support/store-pattern.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024
const skip = missingTools('nbdcopy', 'qemu-io')

t.setTimeout(600_000)

/** What the server's disk is at this moment, while it is stopped. */
async function copyOf(server: LockstepServer): Promise<string> {
  await server.stop()
  const copy = `${server.dataDirectory}-copy`
  cpSync(server.dataDirectory, copy, { recursive: true })
  await server.serve()
  return copy
}

async function putBack(server: LockstepServer, copy: string): Promise<void> {
  await server.kill9().gone
  rmSync(server.dataDirectory, { recursive: true })
  renameSync(copy, server.dataDirectory)
  await server.serve()
}

/** Both nodes name it, with what to do. */
async function refusedAs(t: Test, pair: NodePair, reason: RegExp): Promise<void> {
  const peer = await waitFor('the refusal', async () => {
    await pair.primary.cli(['peer', 'connect'])
    const found = await pair.peer()
    return found.link === 'refused' ? found : undefined
  })
  t.match(peer.reason, reason)
  t.ok((peer.action ?? '') !== '', 'it says what to do')
  const said = await pair.primary.cli(['status', '-x'])
  t.equal(said.status, 6)
  t.match(said.stdout, /action:/)
  const [there] = (await pair.replica.status()).peers
  t.match(there?.reason, reason)
}

t.test(
  'a replica from an old copy is refused, and a blank one gets everything',
  { skip },
  async (t) => {
    const pair = await NodePair.start(t, { volumes: { vol0: 4 * MiB } })
    const { primary, replica } = pair
    await writePattern(primary, 1, '0 1M')
    const copy = await copyOf(replica)
    await pair.inSync()
    await writePattern(primary, 2, '0 1M')
    await primary.ok('snapshot', 'create', 'vol0@b')
    await pair.inSync()
    await putBack(replica, copy)
    await refusedAs(t, pair, /old copy/)
    await writePattern(primary, 3, '2M 64k')
    t.ok(await holdsPattern(primary, 2, '0 1M'), 'the primary goes on')
    t.ok(await holdsPattern(replica, 1, '0 1M'), 'and the old copy stays as it is')
    // As the action says.
    await replica.stop()
    rmSync(replica.dataDirectory, { recursive: true })
    await replica.ok('init', replica.dataDirectory, '--secondary', '--node', 'replica')
    await replica.serve()
    await primary.ok('peer', 'forget', '--yes')
    await pair.inSync()
    t.same(await pair.differences(), [])
  },
)

for (const [how, change] of [
  ['writes', async (primary: LockstepServer) => writePattern(primary, 2, '0 1M')],
  [
    'operations',
    async (primary: LockstepServer) => void (await primary.ok('snapshot', 'create', 'vol0@b')),
  ],
] as const) {
  t.test(`a primary from a copy that is older by ${how} is refused`, { skip }, async (t) => {
    const pair = await NodePair.start(t, { volumes: { vol0: 4 * MiB } })
    const { primary, replica } = pair
    await writePattern(primary, 1, '0 1M')
    const copy = await copyOf(primary)
    await pair.inSync()
    await change(primary)
    await pair.inSync()
    await putBack(primary, copy)
    // What it writes now would be taken for newer than what it lost.
    await writePattern(primary, 7, '3M 64k')
    await refusedAs(t, pair, /old copy/)
    const newest = how === 'writes' ? 2 : 1
    t.ok(await holdsPattern(replica, newest, '0 1M'), 'the replica keeps what the primary lost')
    t.notOk(await holdsPattern(replica, 7, '3M 64k'), 'and takes nothing from it')
  })
}

t.test('two nodes of different groups refuse each other', { skip }, async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: MiB } })
  const other = await NodePair.start(t, { volumes: { vol0: MiB } })
  await pair.primary.ok('peer', 'set', other.proxy.uri)
  const peer = await waitFor('the refusal', async () => {
    const found = await pair.peer()
    return found.link === 'refused' ? found : undefined
  })
  t.match(peer.reason, /belongs to group/)
  t.ok((peer.action ?? '') !== '', 'it says what to do')
  await other.inSync()
  t.same(await other.differences(), [], 'the others are not disturbed')
})
