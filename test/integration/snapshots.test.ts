// Snapshots by the command line, seen by real clients: of one moment under a running writer, of several volumes at the same one,
// restored, refreshed, synchronised, whole and in part, and never changed by what happens to the volume.
import { join } from 'node:path'
import t from 'tap'
import { exportChecksum, makeImage } from '../support/images.js'
import { LiveWriter, liveVolumeBytes, momentOf } from '../support/live-writer.js'
import { missingTools, output, run, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'

const MiB = 1024 * 1024
const sizeBytes = 32 * MiB
const skip = missingTools('nbdsh', 'nbdcopy', 'nbdinfo', 'qemu-io')
const directory = scratch(t)
const server = await LockstepServer.start(t, {
  directory,
  volumes: { vol0: sizeBytes, vol1: sizeBytes, live0: liveVolumeBytes, live1: liveVolumeBytes },
})
const uri = (name: string): string => server.uri(name)

async function fill(name: string, seed: number): Promise<string> {
  const image = join(directory, `image-${seed}`)
  await makeImage(image, { sizeBytes, seed })
  await output('nbdcopy', [image, uri(name)])
  return exportChecksum(uri(name))
}

async function io(name: string, ...commands: readonly string[]): Promise<void> {
  const flags = commands.flatMap((command) => ['-c', command])
  await output('qemu-io', ['-f', 'raw', '-d', 'unmap', ...flags, uri(name)])
}

t.test('a snapshot keeps its bytes, and a restore brings them back', { skip }, async (t) => {
  const before = await fill('vol0', 41)
  await server.ok('snapshot', 'create', 'vol0@a')
  t.equal(await exportChecksum(uri('vol0@a')), before)
  const after = await fill('vol0', 42)
  t.not(after, before)
  t.equal(await exportChecksum(uri('vol0@a')), before, 'unchanged by new writes')
  await server.ok('snapshot', 'restore', 'vol0@a', '--yes')
  t.equal(await exportChecksum(uri('vol0')), before)
  await io('vol0', 'write -P 1 0 32M', 'discard 5M 5M')
  t.equal(await exportChecksum(uri('vol0@a')), before, 'unchanged after the restore too')
  await server.ok('snapshot', 'delete', 'vol0@a', '--yes')
  t.equal((await run('nbdinfo', [uri('vol0@a')])).status, 1, 'a deleted snapshot is no export')
})

t.test('a restore of a range leaves the rest alone', { skip }, async (t) => {
  await io('vol0', 'write -P 0x10 0 32M')
  await server.ok('snapshot', 'create', 'vol0@b')
  await io('vol0', 'write -P 0x20 0 32M')
  await server.ok('snapshot', 'restore', 'vol0@b', '--range', '1M:2M', '--yes')
  await server.ok('snapshot', 'restore', 'vol0@b', '--range', '8388707:70001', '--yes')
  await io(
    'vol0',
    'read -P 0x20 0 1M',
    'read -P 0x10 1M 2M',
    'read -P 0x20 3M 5242979',
    'read -P 0x10 8388707 70001',
    'read -P 0x20 8458708 1M',
  )
  const refused = await server.cli([
    'snapshot',
    'restore',
    'vol0@b',
    '--range',
    '31M:2M',
    '--yes',
    '--json',
  ])
  t.equal(refused.status, 1)
  t.match(JSON.parse(refused.stdout), { error: { code: 'OUT_OF_RANGE' } })
  await server.ok('snapshot', 'delete', 'vol0@b', '--yes')
})

t.test('a refresh makes the snapshot what the volume is', { skip }, async (t) => {
  await fill('vol0', 43)
  await server.ok('snapshot', 'create', 'vol0@c')
  const newer = await fill('vol0', 44)
  await server.ok('snapshot', 'refresh', 'vol0@c', '--yes')
  t.equal(await exportChecksum(uri('vol0@c')), newer)
  await server.ok('snapshot', 'delete', 'vol0@c', '--yes')
})

t.test('a snapshot can be written, and restored as it is then', { skip }, async (t) => {
  const volume = await fill('vol0', 45)
  await server.ok('snapshot', 'create', 'vol0@d')
  await io('vol0@d', 'write -P 0x33 3M 1M', 'flush')
  t.equal(await exportChecksum(uri('vol0')), volume, 'the volume does not notice')
  await io('vol0@d', 'read -P 0x33 3M 1M', 'write -P 0x34 3M 1M')
  await server.ok('snapshot', 'restore', 'vol0@d', '--yes')
  await io('vol0', 'read -P 0x34 3M 1M')
  await server.ok('snapshot', 'delete', 'vol0@d', '--yes')
})

t.test('sync makes one volume what another is, whole and in part', { skip }, async (t) => {
  const source = await fill('vol0', 46)
  await fill('vol1', 47)
  await server.ok('sync', 'vol0', 'vol1', '--yes')
  t.equal(await exportChecksum(uri('vol1')), source)
  await io('vol0', 'write -P 0x55 0 32M')
  t.equal(await exportChecksum(uri('vol1')), source, 'and they go their own ways')
  await io('vol1', 'write -P 0x66 0 32M')
  await server.ok('sync', 'vol0', 'vol1', '--range', '4M:1M', '--yes')
  await io('vol1', 'read -P 0x66 0 4M', 'read -P 0x55 4M 1M', 'read -P 0x66 5M 27M')
})

t.test('snapshots of several volumes are of one moment under a writer', { skip }, async (t) => {
  const writer = LiveWriter.start(t, [uri('live0'), server.tcpUri('live1')])
  await writer.rounds(3)
  const moments: number[] = []
  for (let index = 0; index < 4; index++) {
    await server.ok('snapshot', 'create', `live0@m${index}`, `live1@m${index}`)
    moments.push(await momentOf([uri(`live0@m${index}`), uri(`live1@m${index}`)]))
    await writer.rounds(2)
  }
  await server.ok('snapshot', 'create', '--all', 'everything')
  moments.push(await momentOf([uri('live0@everything'), uri('live1@everything')]))
  const last = await writer.stop()
  t.same(
    moments,
    [...moments].sort((a, b) => a - b),
    `in order: ${moments.join(' ')}`,
  )
  t.ok(last * 128 >= (moments.at(-1) ?? 0))
  for (const [index, moment] of moments.slice(0, 4).entries())
    t.equal(
      await momentOf([uri(`live0@m${index}`), uri(`live1@m${index}`)]),
      moment,
      'unchanged since',
    )
})

t.test(
  'a restore under a running writer is one moment, and no request fails',
  { skip },
  async (t) => {
    const writer = LiveWriter.start(t, [uri('live0'), uri('live1')])
    await writer.rounds(2)
    for (let index = 0; index < 5; index++) {
      await server.ok('snapshot', 'restore', 'live0@m1', '--yes')
      await server.ok('snapshot', 'refresh', 'live1@m2', '--yes')
      await writer.rounds(1)
    }
    await writer.rounds(1)
    const last = await writer.stop()
    t.equal(
      await momentOf([uri('live0'), uri('live1')]),
      last * 128,
      'the writer went over all of it',
    )
    await server.ok('snapshot', 'restore', 'live0@m1', '--yes')
    t.equal(await exportChecksum(uri('live0')), await exportChecksum(uri('live0@m1')))
  },
)

t.test('a batch happens at one moment, all of it or nothing', { skip }, async (t) => {
  const writer = LiveWriter.start(t, [uri('live0'), uri('live1')])
  await writer.rounds(1)
  const create = (store: string): object => ({
    kind: 'snapshot.create',
    stores: [store],
    name: 'batch',
  })
  const batch = JSON.stringify([create('live0'), create('live1')])
  const done = await server.cli(['batch', '-'], { input: batch })
  t.equal(done.status, 0, done.stderr)
  await momentOf([uri('live0@batch'), uri('live1@batch')])
  await writer.stop()
  const bad = JSON.stringify([
    { kind: 'volume.create', name: 'never', sizeBytes: MiB },
    { kind: 'volume.delete', name: 'nothing' },
  ])
  const refused = await server.cli(['batch', '-', '--yes', '--json'], { input: bad })
  t.equal(refused.status, 1)
  t.match(JSON.parse(refused.stdout), { error: { code: 'NO_SUCH_STORE' } })
  t.notOk((await server.status()).stores.some((store) => store.name === 'never'))
})

t.test('a volume is renamed and resized with its snapshots', { skip }, async (t) => {
  const before = await fill('vol1', 48)
  await server.ok('snapshot', 'create', 'vol1@keep')
  await server.ok('volume', 'rename', 'vol1', 'renamed')
  t.equal(await exportChecksum(uri('renamed')), before)
  t.equal(await exportChecksum(uri('renamed@keep')), before)
  await server.ok('volume', 'resize', 'renamed', '48M')
  t.equal((await output('nbdinfo', ['--size', uri('renamed')])).trim(), String(48 * MiB))
  await io('renamed', 'read -P 0 32M 16M', 'write -P 0x77 32M 16M')
  await server.ok('volume', 'resize', 'renamed', '32M', '--yes')
  t.equal(await exportChecksum(uri('renamed')), before)
  await server.ok('volume', 'resize', 'renamed', '48M')
  await io('renamed', 'read -P 0 32M 16M')
  t.equal(await exportChecksum(uri('renamed@keep')), before)
})

t.test('everything is the same after a clean stop and a start', { skip }, async (t) => {
  const names = (await server.status()).stores.map((store) => store.name)
  const sums = new Map<string, string>()
  for (const name of names) sums.set(name, await exportChecksum(uri(name)))
  t.equal(await server.stop(), 0)
  await server.serve()
  t.same(
    (await server.status()).stores.map((store) => store.name),
    names,
  )
  for (const name of names) t.equal(await exportChecksum(uri(name)), sums.get(name), name)
})
