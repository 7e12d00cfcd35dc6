// verify between two real daemons: a byte that is flipped in a node's data file is found and repaired, in the direction that the operator names, under load.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { flipBit } from '../support/data-file.js'
import { Load, NodePair } from '../support/node-pair.js'
import { missingTools, output, scratch } from '../support/process.js'
import type { LockstepServer } from '../support/server.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024
const skip = missingTools('nbdcopy')

t.setTimeout(300_000)

/** No two blocks of it are the same. */
function numbered(sizeBytes: number, seed: number): Buffer {
  const image = Buffer.alloc(sizeBytes)
  for (let at = 0; at < sizeBytes; at += 8) image.writeDoubleLE(at + seed, at)
  return image
}

type Verified = {
  readonly status: number | null
  readonly stores: readonly {
    store: string
    differingBytes: number
    ranges: unknown[]
    skippedBytes?: number
  }[]
}

async function verify(server: LockstepServer, ...words: readonly string[]): Promise<Verified> {
  const { status, stdout } = await server.cli(['verify', ...words, '--json'])
  return { status, stores: JSON.parse(stdout).stores }
}

t.test(
  'a flipped bit on the replica is found and repaired, while writes go on',
  { skip },
  async (t) => {
    const pair = await NodePair.start(t, { volumes: { vol0: 16 * MiB, busy: 4 * MiB } })
    const { primary, replica } = pair
    const path = join(scratch(t), 'image')
    const image = numbered(16 * MiB, 6)
    writeFileSync(path, image)
    await output('nbdcopy', [path, primary.uri('vol0')])
    await primary.ok('snapshot', 'create', 'vol0@a')
    const load = new Load(primary, 'busy', 3)
    await waitFor('load', () => load.writeCount > 100)
    const clean = await verify(primary)
    t.equal(clean.status, 0, JSON.stringify(clean))

    await flipBit(replica, image, 5 * MiB)
    const found = await verify(primary, 'vol0')
    t.equal(found.status, 6)
    t.match(found.stores, [{ store: 'vol0', differingBytes: 65536, ranges: [{ offset: 5 * MiB }] }])
    const waited = await primary.cli(['wait', '--for', 'in-sync', '--timeout', '600'])
    t.match(waited, { status: 1, stderr: /verify found 64 KiB of vol0 that differ there/ })
    t.match(waited.stderr, /try: lockstep verify vol0 --repair/)
    t.match(await primary.ok('peer', 'list'), /, 64 KiB differ /)
    t.match(await primary.ok('dirty', 'vol0'), /verify found 64 KiB of it: lockstep verify vol0 /)
    t.equal((await primary.cli(['verify', 'vol0', '--repair'])).status, 5, 'it has to be meant')
    const repaired = await primary.cli(['verify', 'vol0', '--repair', '--yes'])
    t.equal(repaired.status, 0)
    t.match(repaired.stdout, /the peer gets what this node has/)
    await pair.inSync()
    t.equal((await verify(primary)).status, 0, 'the snapshot, which shares the chunk, as well')
    await load.stop()
    await pair.inSync()
    t.same(await pair.differences(), [])
  },
)

t.test('a flipped bit on the primary is repaired from the replica', { skip }, async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: 16 * MiB } })
  const { primary } = pair
  const path = join(scratch(t), 'image')
  const image = numbered(16 * MiB, 7)
  writeFileSync(path, image)
  await output('nbdcopy', [path, primary.uri('vol0')])
  await primary.ok('snapshot', 'create', 'vol0@a')
  await flipBit(primary, image, 3 * MiB)
  const found = await verify(primary)
  t.equal(found.status, 6)
  t.match(found.stores, [{ differingBytes: 65536 }, { differingBytes: 65536 }])
  t.match(await primary.cli(['verify', '--from', 'peer']), { status: 2, stderr: /needs --repair/ })
  t.match(await primary.cli(['verify', '--repair', '--from', 'us', '--yes']), { status: 2 })
  const unsure = await primary.cli(['verify', '--repair', '--from', 'peer'])
  t.match(unsure, { status: 5, stderr: /what this node holds of any store where it differs/ })
  const repaired = await verify(primary, '--repair', '--from', 'peer', '--yes')
  t.equal(repaired.status, 0)
  t.match(repaired.stores, [{ skippedBytes: 0 }, { skippedBytes: 0 }])
  t.equal((await verify(primary)).status, 0)
  const copy = join(scratch(t), 'copy')
  await output('nbdcopy', [primary.uri('vol0@a'), copy])
  t.ok(readFileSync(copy).equals(image), 'what was written is what is read')
  await pair.inSync()
  t.same(await pair.differences(), [])
})

t.test('without a peer, or with one that is away, it says so', async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: MiB } })
  t.match(await pair.replica.cli(['verify']), { status: 1, stderr: /this node is a secondary/ })
  t.match(await pair.primary.cli(['verify', 'no']), { status: 1, stderr: /no store "no"/ })
  await pair.primary.ok('peer', 'disconnect')
  const away = await pair.primary.cli(['verify'])
  t.match(away, { status: 1, stderr: /cannot be compared now: .*Disconnected by an operator/ })
  const unasked = await pair.primary.cli(['verify', '--repair'])
  t.match(unasked, { status: 1, stderr: /^lockstep: the nodes cannot be compared now/ })
  t.match(await pair.replica.cli(['verify', '--repair']), {
    status: 1,
    stderr: /^lockstep: this node is a secondary/,
  })
})

t.test('a verify is one at a time, has a number, and is cancelled by it', async (t) => {
  // Sparse, and more than can be compared before somebody has typed a line.
  const pair = await NodePair.start(t, { volumes: { vol0: 256 * 1024 * MiB } })
  const { primary } = pair
  t.match(await primary.ok('verify', '--no-wait'), /^verifying as job 1; .*lockstep job wait 1/)
  const busy = { status: 1, stderr: /as job 1.*\n {2}try: lockstep job wait 1, or .* cancel 1/ }
  t.match(await primary.cli(['verify', 'vol0']), busy)
  t.match(await primary.cli(['peer', 'forget', '--yes']), busy)
  t.match(await primary.cli(['job', 'wait', '1', '--timeout', '0']), { status: 8 })
  t.match(await primary.ok('job', 'cancel', '1'), /^job 1: cancelled when .* of vol0 had been/)
  t.match(await primary.ok('job', 'list'), /1 {2}verify {2}cancelled when/)
  const { status, stdout } = await primary.cli(['job', 'wait', '1', '--json'])
  t.equal(status, 1)
  t.match(JSON.parse(stdout), { error: { code: 'CANCELLED' } })
  t.match(await primary.cli(['job', 'cancel', '7']), { status: 1, stderr: /no job "7"/ })
})

t.test('a secondary refuses what destroys before it asks whether that is meant', async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: MiB } })
  const { primary, replica } = pair
  await primary.ok('snapshot', 'create', 'vol0@a')
  await primary.ok('mark', 'm', '--snapshot', 'local.kept', '--wait')
  await pair.inSync()
  const refused = { status: 1, stderr: /^lockstep: this node is a secondary/ }
  for (const line of [
    'volume delete vol0',
    'volume resize vol0 512',
    'snapshot delete vol0@a',
    'snapshot restore vol0@a',
    'snapshot refresh vol0@a',
    'sync vol0 vol0@a',
  ])
    t.match(await replica.cli(line.split(' ')), refused, line)
  const input = '[{"kind":"volume.delete","name":"vol0"}]'
  t.match(await replica.cli(['batch', '-'], { input }), refused)
  t.match(await replica.cli(['snapshot', 'delete', 'vol0@local.kept']), { status: 5 }, 'its own')
  await replica.ok('snapshot', 'delete', 'vol0@local.kept', '--yes')
})
