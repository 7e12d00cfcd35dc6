// scripts/backup as its first lines describe it: a full copy, two incremental ones, and each of them restored to the very bytes that
// the volume had at the time. What an incremental copy holds is in proportion to what changed.
import { readFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { BlockClient } from '../support/block-client.js'
import { checksum, exportChecksum, makeImage } from '../support/images.js'
import { type Finished, missingTools, output, run, scratch } from '../support/process.js'
import { LockstepServer, mainPath } from '../support/server.js'
import { root } from '../support/tree.js'

const MiB = 1024 * 1024
const sizeBytes = 64 * MiB
const skip = missingTools('nbdcopy', 'nbdinfo', 'qemu-img', 'qemu-io')
const directory = scratch(t)
const server = await LockstepServer.start(t, { directory, volumes: { vol0: sizeBytes } })
const copies = join(directory, 'copies')
/** What the volume held when copy N was made. */
const checksums: string[] = []

function backup(...args: readonly string[]): Promise<Finished> {
  const where = [
    '--server',
    `nbd+unix:///?socket=${server.socketPath}`,
    '--dir',
    server.dataDirectory,
  ]
  const env = { LOCKSTEP_MAIN: mainPath }
  return run(join(root, 'scripts/backup'), [...where, ...args], { env })
}

/** The snapshot of copy N in the series of `vol0`. */
function snapshotOf(number: number): string {
  const series = /^series (\w+)$/m.exec(readFileSync(join(copies, 'vol0.series'), 'utf8'))?.[1]
  return `vol0@backup-${series}-${number}`
}

/** It works, and has nothing else to say than what it made. */
async function backedUp(...args: readonly string[]): Promise<string> {
  const finished = await backup(...args)
  if (finished.status !== 0 || finished.stderr !== '')
    throw new Error(`backup ${args.join(' ')}: ${finished.stderr}`)
  return finished.stdout
}

async function change(...commands: readonly string[]): Promise<void> {
  const flags = commands.flatMap((command) => ['-c', command])
  await output('qemu-io', ['-f', 'raw', '-d', 'unmap', ...flags, server.uri('vol0')])
}

t.test('a full copy is the volume', { skip }, async (t) => {
  await makeImage(join(directory, 'image'), { sizeBytes, seed: 31 })
  await output('nbdcopy', [join(directory, 'image'), server.uri('vol0')])
  await backedUp('full', 'vol0', copies)
  checksums.push(await exportChecksum(server.uri('vol0')))
  t.equal(await checksum(join(copies, 'vol0.1.raw')), checksums[0])
  t.match((await backup('full', 'vol0', copies)).stderr, /has copies of vol0 already/)
})

t.test('incremental copies hold what changed, zeroes too', { skip }, async (t) => {
  await change('write -P 0x61 1M 300k', 'discard 8M 2M', 'write -P 0x62 40000000 1')
  const told = await backedUp('incremental', 'vol0', copies)
  checksums.push(await exportChecksum(server.uri('vol0')))
  const changed = Number(/: (\d+) bytes that changed/.exec(told)?.[1])
  t.ok(changed >= 300 * 1024, `${changed} bytes are at least what was written`)
  t.ok(changed < 4 * MiB, `${changed} bytes are not much more`)
  t.ok((await stat(join(copies, 'vol0.2.qcow2'))).size < 4 * MiB, 'and neither is the file')
  await change(
    'write -P 0x63 0 64k',
    'write -P 0x64 9M 1M',
    'write -z 1M 64k',
    'write -P 0x65 67108000 864',
  )
  await backedUp('incremental', 'vol0', copies)
  checksums.push(await exportChecksum(server.uri('vol0')))
  t.equal(new Set(checksums).size, 3, 'three different contents')
})

t.test('every copy is restored to the bytes of its time', { skip }, async (t) => {
  for (const [index, expected] of checksums.entries()) {
    const image = join(directory, `restored-${index + 1}`)
    await backedUp('restore', '--to', image, 'vol0', copies, String(index + 1))
    t.equal(await checksum(image), expected, `copy ${index + 1} as an image`)
  }
  for (const number of [2, 1, 3]) {
    await backedUp('restore', '--yes', 'vol0', copies, String(number))
    t.equal(await exportChecksum(server.uri('vol0')), checksums[number - 1], `copy ${number}`)
  }
})

t.test('the series goes on after a restore, and with nothing changed', { skip }, async (t) => {
  await backedUp('restore', '--yes', 'vol0', copies, '2')
  await backedUp('incremental', 'vol0', copies)
  await backedUp('restore', '--to', join(directory, 'restored-4'), 'vol0', copies)
  t.equal(await checksum(join(directory, 'restored-4')), checksums[1])
  t.match(await backedUp('incremental', 'vol0', copies), /: 0 bytes that changed/)
  t.match(await backedUp('list', 'vol0', copies), /^1 .*vol0\.1\.raw[\s\S]*^5 .*vol0\.5\.qcow2/m)
  const names = (await server.status()).stores.map((store) => store.name)
  t.same(names, ['vol0', snapshotOf(5)], 'one snapshot is kept')
})

t.test('a volume that grew is copied whole', { skip }, async (t) => {
  await server.ok('volume', 'resize', 'vol0', String(80 * MiB))
  await change('write -P 0x66 70M 1M')
  await backedUp('incremental', 'vol0', copies)
  await backedUp('restore', '--to', join(directory, 'restored-6'), 'vol0', copies)
  t.equal(await checksum(join(directory, 'restored-6')), await exportChecksum(server.uri('vol0')))
})

t.test('an old snapshot that somebody reads stays, and the series goes on', { skip }, async (t) => {
  const reader = await BlockClient.open(server.socketPath, snapshotOf(6))
  t.match(await backup('incremental', 'vol0', copies), {
    status: 1,
    stdout: /vol0\.7\.qcow2: 0 bytes that changed/,
    stderr: /^lockstep: vol0@backup-\w+-6 has 1 open connection/m,
  })
  await reader.close()
  await backedUp('incremental', 'vol0', copies)
  const names = (await server.status()).stores.map((store) => store.name)
  t.same(names, ['vol0', snapshotOf(6), snapshotOf(8)])
  await server.ok('snapshot', 'delete', snapshotOf(6), '--yes')
})

t.test('what cannot be done is said, and changes nothing', { skip }, async (t) => {
  const refused = await backup('restore', 'vol0', copies)
  t.match(refused, { status: 5, stderr: /overwrites all of vol0: add --yes/ })
  t.match(await backup('restore', '--yes', 'vol0', copies, '99'), {
    status: 1,
    stderr: /no copy 99/,
  })
  t.match(await backup('incremental', 'vol0', join(directory, 'none')), {
    status: 1,
    stderr: /scripts\/backup full/,
  })
  await change('write -P 0x70 1M 64k')
  await server.ok('snapshot', 'refresh', snapshotOf(8), '--yes')
  t.match(await backup('incremental', 'vol0', copies), {
    status: 1,
    stderr: /was refreshed or made anew, so it is not what copy 8 holds: start a new series/,
  })
  await server.ok('snapshot', 'delete', snapshotOf(8), '--yes')
  await server.ok('snapshot', 'create', snapshotOf(8))
  t.match(await backup('incremental', 'vol0', copies), { status: 1, stderr: /made anew/ })
  const second = join(directory, 'second')
  await backedUp('full', 'vol0', second)
  await backedUp('incremental', 'vol0', second)
  const kept = (await server.status()).stores.map(({ name }) => name)
  t.equal(kept.length, 3, 'another series has a snapshot of its own')
  for (const name of kept.filter((one) => one.includes('@') && one !== snapshotOf(8)))
    await server.ok('snapshot', 'delete', name, '--yes')
  await server.ok('snapshot', 'rename', snapshotOf(8), 'other')
  t.match(await backup('incremental', 'vol0', copies), { status: 1, stderr: /start a new series/ })
  const names = (await server.status()).stores.map((store) => store.name)
  t.same(names, ['vol0', 'vol0@other'], 'no snapshot is left behind')
})
