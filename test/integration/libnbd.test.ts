// libnbd's programs against the real daemon: nbdinfo sees what there is, and nbdcopy brings images in and out unchanged.
import { join } from 'node:path'
import t from 'tap'
import { checksum, exportChecksum, makeFileSystemImage, makeImage } from '../support/images.js'
import { missingTools, output, run, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'
import { root } from '../support/tree.js'

const MiB = 1024 * 1024
const sizeBytes = 64 * MiB

type NbdInfo = {
  readonly protocol: string
  readonly structured: boolean
  readonly exports: readonly {
    readonly 'export-name': string
    readonly contexts: readonly string[]
  }[]
}
type MapEntry = { readonly offset: number; readonly length: number; readonly type: number }

const skip = missingTools('nbdinfo', 'nbdcopy', 'qemu-nbd', 'mkfs.ext4')
const directory = scratch(t)
const server = await LockstepServer.start(t, {
  directory,
  volumes: { vol0: sizeBytes, vol1: sizeBytes + 512 },
})
const path = (name: string): string => join(directory, name)

t.test('nbdinfo shows an export and what it can do', { skip }, async (t) => {
  for (const uri of [server.uri('vol0'), server.tcpUri('vol0')]) {
    const info = JSON.parse(await output('nbdinfo', ['--json', uri])) as NbdInfo
    t.match(info, { protocol: 'newstyle-fixed', structured: true })
    t.match(info.exports[0], {
      'export-name': 'vol0',
      'export-size': sizeBytes,
      is_read_only: false,
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MiB,
    })
    t.match(info.exports[0]?.contexts, ['base:allocation'])
  }
  t.equal((await output('nbdinfo', ['--size', server.uri('vol1')])).trim(), String(sizeBytes + 512))
})

t.test('nbdinfo lists every export, snapshots included', { skip }, async (t) => {
  await server.ok('snapshot', 'create', 'vol1@first')
  const uri = `nbd+unix:///?socket=${server.socketPath}`
  const info = JSON.parse(await output('nbdinfo', ['--list', '--json', uri])) as NbdInfo
  const names = info.exports.map((one) => one['export-name'])
  t.same(new Set(names), new Set(['vol0', 'vol1', 'vol1@first']))
  await server.ok('snapshot', 'delete', 'vol1@first', '--yes')
})

t.test('a server with hundreds of snapshots is listed like any other', { skip }, async (t) => {
  const control = await server.control()
  const names = Array.from({ length: 300 }, (_, index) => `daily-${index}`)
  for (const name of names) await control.request('snapshot.create', { stores: ['vol1'], name })
  const uri = `nbd+unix:///?socket=${server.socketPath}`
  const info = JSON.parse(await output('nbdinfo', ['--list', '--json', uri])) as NbdInfo
  t.equal(info.exports.length, 302)
  const listed = await output('qemu-nbd', ['--list', '-k', server.socketPath])
  t.equal(listed.match(/^ export: /gm)?.length, 302)
  for (const name of names) await control.request('snapshot.delete', { store: `vol1@${name}` })
  control.close()
})

t.test('an export that is not there is refused by name', { skip }, async (t) => {
  const refused = await run('nbdinfo', [server.uri('nothing')])
  t.equal(refused.status, 1)
  // The name is in whatever nbdinfo says; this is what it makes of ERR_UNKNOWN alone.
  t.match(refused.stderr, /No such file or directory for export: nothing/)
})

t.test('nbdinfo --map tells data from holes', { skip }, async (t) => {
  const image = path('map.img')
  await output('truncate', ['-s', String(sizeBytes), image])
  await output('dd', [
    'if=/dev/urandom',
    `of=${image}`,
    'bs=64k',
    'seek=16',
    'count=4',
    'conv=notrunc',
    'status=none',
  ])
  await output('nbdcopy', [image, server.uri('vol0')])
  const map = JSON.parse(
    await output('nbdinfo', ['--map', '--json', server.uri('vol0')]),
  ) as MapEntry[]
  t.same(
    map.map(({ offset, length, type }) => ({ offset, length, type })),
    [
      { offset: 0, length: 1 * MiB, type: 3 },
      { offset: 1 * MiB, length: 256 * 1024, type: 0 },
      { offset: 1.25 * MiB, length: sizeBytes - 1.25 * MiB, type: 3 },
    ],
  )
  const totals = await output('nbdinfo', ['--map', '--totals', server.uri('vol0')])
  t.match(totals, /262144 .*data/)
})

t.test('nbdcopy brings an image in and out, by one connection and by many', { skip }, async (t) => {
  const image = path('in.img')
  await makeImage(image, { sizeBytes, seed: 11 })
  const expected = await checksum(image)
  for (const uri of [server.uri('vol0'), server.tcpUri('vol0')]) {
    for (const flags of [
      ['--connections=1'],
      ['--connections=4', '--requests=64'],
      ['--synchronous'],
      ['--flush', '--no-extents'],
    ]) {
      await output('nbdcopy', [...flags, image, uri])
      await output('nbdcopy', [...flags, uri, path('out.img')])
      t.equal(await checksum(path('out.img')), expected, flags.join(' '))
    }
  }
  t.equal(await exportChecksum(server.uri('vol0')), expected)
})

t.test('an image is gone where zeroes are copied over it', { skip }, async (t) => {
  await output('truncate', ['-s', String(sizeBytes), path('zero.img')])
  await output('nbdcopy', ['--destination-is-zero', path('zero.img'), server.uri('vol0')])
  t.not(
    await exportChecksum(server.uri('vol0')),
    await checksum(path('zero.img')),
    'told to leave it',
  )
  await output('nbdcopy', [path('zero.img'), server.uri('vol0')])
  t.equal(await exportChecksum(server.uri('vol0')), await checksum(path('zero.img')))
  t.equal((await server.storeStatus('vol0')).allocatedBytes, 0, 'and so is its space')
})

t.test('nbdcopy from one export to another', { skip }, async (t) => {
  await makeImage(path('in.img'), { sizeBytes, seed: 12 })
  await output('nbdcopy', [path('in.img'), server.uri('vol0')])
  await output('nbdcopy', [server.uri('vol0'), server.tcpUri('vol1')])
  await output('nbdcopy', [server.uri('vol1'), path('out.img')])
  await output('truncate', ['-s', String(sizeBytes), path('out.img')])
  t.equal(await checksum(path('out.img')), await checksum(path('in.img')))
})

t.test('a real file system passes through whole', { skip }, async (t) => {
  await makeFileSystemImage(path('fs.img'), { sizeBytes, sourceDirectory: join(root, 'src') })
  await output('nbdcopy', [path('fs.img'), server.uri('vol0')])
  await output('nbdcopy', [server.uri('vol0'), path('out.img')])
  t.equal(await checksum(path('out.img')), await checksum(path('fs.img')))
  await output('e2fsck', ['-fn', path('out.img')])
})
