// A replica whose file system runs full, while it follows or in the middle of a resync: the link stops, both nodes say why and what to do, the primary goes on;
// and when what they say has been done, the link goes on and both hold the same bytes.
import { rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { makeSmallDirectory, missingRoot } from '../support/lower-layers.js'
import { NodePair } from '../support/node-pair.js'
import { missingTools, output } from '../support/process.js'
import { holdsPattern, writePattern } from '../support/store-pattern.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024
const fileSystemBytes = 192 * MiB
/** What a ballast leaves of it for the replica. */
const roomBytes = 48 * MiB
const skip =
  missingRoot() || missingTools('losetup', 'mkfs.ext4', 'mount', 'fallocate', 'nbdcopy', 'qemu-io')

t.setTimeout(300_000)

type Cramped = { readonly pair: NodePair; makeRoom(): void }

async function start(t: Test): Promise<Cramped> {
  const directory = await makeSmallDirectory(t, fileSystemBytes)
  const ballast = join(directory, 'ballast')
  const { bavail, bsize } = statfsSync(directory)
  await output('fallocate', ['--length', String(bavail * bsize - roomBytes), ballast])
  const pair = await NodePair.start(t, {
    volumes: { vol0: 64 * MiB },
    replicaDirectory: directory,
    initArgs: ['--journal-size', '1M'],
  })
  return { pair, makeRoom: () => rmSync(ballast) }
}

/** Both nodes name it, with what to do; the replica is still there for who reads. */
async function stopsAs(t: Test, pair: NodePair, action: RegExp): Promise<void> {
  const peer = await waitFor('the link stops', async () => {
    const found = await pair.peer()
    return found.link === 'refused' ? found : undefined
  })
  t.match(peer.reason, /there (is|was) no room/)
  t.match(peer.action, action)
  const said = await Promise.all(
    [pair.primary, pair.replica].map((node) => node.cli(['status', '-x'])),
  )
  for (const { status, stdout } of said) {
    t.equal(status, 6)
    t.match(stdout, action)
  }
  const [here, there] = said.map(({ stdout }) => stdout)
  t.match(here, /The secondary cannot go on: .*\n +action: on the secondary: /)
  t.match(there, /This node cannot go on: /)
  t.notMatch(there, /on the secondary: /)
}

/** There is room again. Nobody says anything to either node, unless the next try is to be now. */
async function goesOn(
  t: Test,
  { pair }: Cramped,
  options: { readonly isAsked: boolean },
): Promise<void> {
  if (options.isAsked) await pair.inSync()
  else await pair.primary.ok('wait', '--for', 'in-sync', '--timeout', '55')
  t.same(await pair.differences(), [])
  t.equal((await pair.primary.cli(['status', '-x'])).status, 0)
}

t.test('a replica that ran full goes on by itself when there is room', { skip }, async (t) => {
  const cramped = await start(t)
  const { pair } = cramped
  await writePattern(pair.primary, 1, '0 32M')
  await writePattern(pair.primary, 2, '32M 32M')
  await stopsAs(t, pair, /make room where its data is, or delete/)
  await writePattern(pair.primary, 3, '1M 1M')
  t.ok(await holdsPattern(pair.primary, 2, '32M 32M'), 'the primary goes on')
  t.ok(await holdsPattern(pair.replica, 1, '2M 30M'), 'the replica has what it had')
  cramped.makeRoom()
  await goesOn(t, cramped, { isAsked: false })
})

t.test(
  'a replica that ran full goes on when snapshots of its own are deleted',
  { skip },
  async (t) => {
    const cramped = await start(t)
    const { primary, replica } = cramped.pair
    await writePattern(primary, 1, '0 14M')
    await primary.ok('mark', 'one', '--snapshot', 'one', '--wait')
    await writePattern(primary, 2, '0 14M')
    await primary.ok('mark', 'two', '--snapshot', 'two', '--wait')
    await writePattern(primary, 3, '0 14M')
    await writePattern(primary, 4, '14M 8M')
    await stopsAs(
      t,
      cramped.pair,
      /delete snapshots of its own \(lockstep snapshot list, lockstep snapshot delete/,
    )
    t.match(await replica.ok('snapshot', 'list'), /vol0@local\.one/)
    await replica.ok('snapshot', 'delete', 'vol0@local.one', '--yes')
    await goesOn(t, cramped, { isAsked: true })
    t.match(await replica.ok('snapshot', 'list'), /vol0@local\.two/)
  },
)

/** A resync, with room for what it brings or for what was there before, and not for both. */
async function startResync(t: Test): Promise<Cramped> {
  const cramped = await start(t)
  const { primary, replica } = cramped.pair
  await writePattern(primary, 1, '0 28M')
  await cramped.pair.inSync()
  await replica.stop()
  await writePattern(primary, 2, '0 28M')
  // What the outbox kept is gone with the process: only the map knows.
  await primary.kill9().gone
  await primary.serve()
  await replica.serve()
  return cramped
}

t.test('a resync without room goes on by itself when there is room', { skip }, async (t) => {
  const cramped = await startResync(t)
  const { pair } = cramped
  await stopsAs(t, pair, /make room where its data is, or let it go: before-resync = "if-room"/)
  const kept = await pair.replica.ok('snapshot', 'list')
  t.match(kept, /vol0@before-resync/, 'what it had before is still there')
  cramped.makeRoom()
  await goesOn(t, cramped, { isAsked: false })
  t.notMatch(await pair.replica.ok('snapshot', 'list'), /before-resync/)
})

t.test('a resync without room gives up what was before when it is told so', { skip }, async (t) => {
  const cramped = await startResync(t)
  const { pair } = cramped
  await stopsAs(t, pair, /let it go: before-resync = "if-room" in lockstep\.toml of this node/)
  await pair.replica.stop()
  const toml = join(pair.replica.dataDirectory, 'lockstep.toml')
  writeFileSync(toml, 'before-resync = "if-room"\n')
  await pair.replica.serve()
  await pair.primary.cli(['peer', 'connect'])
  await waitFor('it is given up', async () =>
    /given up: there was no room for both/.test(await pair.replica.ok('events')),
  )
  await goesOn(t, cramped, { isAsked: true })
})
