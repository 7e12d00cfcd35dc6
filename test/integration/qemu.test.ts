// QEMU's programs against the real daemon: qemu-img converts, compares and maps, qemu-io writes patterns and reads them back.
import { join } from 'node:path'
import t from 'tap'
import { checksum, exportChecksum, makeFileSystemImage, makeImage } from '../support/images.js'
import { missingTools, output, run, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'
import { root } from '../support/tree.js'

const MiB = 1024 * 1024
const sizeBytes = 64 * MiB
const skip = missingTools('qemu-img', 'qemu-io', 'nbdcopy', 'mkfs.ext4')
const directory = scratch(t)
const server = await LockstepServer.start(t, {
  directory,
  volumes: { vol0: sizeBytes, io: 16 * MiB },
})
const path = (name: string): string => join(directory, name)

type MapEntry = {
  readonly start: number
  readonly length: number
  readonly zero: boolean
  readonly data: boolean
}

/** Runs qemu-io commands. It reports a pattern that is not there on its output and ends with 1. */
async function qemuIo(uri: string, ...commands: readonly string[]): Promise<string> {
  const flags = commands.flatMap((command) => ['-c', command])
  return output('qemu-io', ['-f', 'raw', '-t', 'writeback', '-d', 'unmap', ...flags, uri])
}

t.test('qemu-img info tells the size', { skip }, async (t) => {
  for (const uri of [server.uri('vol0'), server.tcpUri('vol0')]) {
    const info = JSON.parse(await output('qemu-img', ['info', '--output=json', uri])) as object
    t.match(info, { 'virtual-size': sizeBytes, format: 'raw' })
  }
})

t.test('qemu-img converts an image in and out, and finds it equal', { skip }, async (t) => {
  await makeFileSystemImage(path('fs.img'), { sizeBytes, sourceDirectory: join(root, 'src') })
  const uri = server.uri('vol0')
  await output('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', path('fs.img'), uri])
  t.match(await output('qemu-img', ['compare', path('fs.img'), uri]), /identical/)
  t.equal(await exportChecksum(uri), await checksum(path('fs.img')))
  await output('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', uri, path('copy.qcow2')])
  t.match(await output('qemu-img', ['compare', path('copy.qcow2'), uri]), /identical/)
  await output('qemu-img', ['check', '-q', path('copy.qcow2')])
  const many = ['-W', '-m', '8', '-f', 'qcow2', '-O', 'raw']
  await output('qemu-img', ['convert', '-n', ...many, path('copy.qcow2'), server.tcpUri('vol0')])
  t.equal(await exportChecksum(server.tcpUri('vol0')), await checksum(path('fs.img')))
})

t.test('qemu-img compare sees one changed byte', { skip }, async (t) => {
  await makeImage(path('a.img'), { sizeBytes, seed: 21 })
  const uri = server.uri('vol0')
  await output('qemu-img', ['convert', '-n', '-O', 'raw', '-f', 'raw', path('a.img'), uri])
  await qemuIo(uri, 'write -P 0xa7 33333333 1')
  const compared = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', path('a.img'), uri])
  t.equal(compared.status, 1)
  t.match(compared.stdout, /mismatch at offset 333\d+/)
})

t.test('qemu-img map tells data from holes', { skip }, async (t) => {
  const uri = server.uri('io')
  await qemuIo(uri, 'discard 0 16M', 'write -P 0x11 1M 128k', 'write -P 0x22 3M 64k')
  const map = JSON.parse(
    await output('qemu-img', ['map', '--output=json', '-f', 'raw', uri]),
  ) as MapEntry[]
  t.same(
    map.map((entry) => [entry.start, entry.length, entry.data, entry.zero]),
    [
      [0, 1 * MiB, false, true],
      [1 * MiB, 128 * 1024, true, false],
      [1 * MiB + 128 * 1024, 2 * MiB - 128 * 1024, false, true],
      [3 * MiB, 64 * 1024, true, false],
      [3 * MiB + 64 * 1024, 13 * MiB - 64 * 1024, false, true],
    ],
  )
})

t.test('qemu-img reads what changed since a snapshot as a dirty bitmap', { skip }, async (t) => {
  await server.ok('snapshot', 'create', 'io@base')
  await qemuIo(server.uri('io'), 'write -P 0x33 5M 64k', 'flush')
  const options = [
    'driver=nbd',
    'server.type=unix',
    `server.path=${server.socketPath}`,
    'export=io',
    'x-dirty-bitmap=x-lockstep:changed-since:base',
  ].join(',')
  const map = JSON.parse(
    await output('qemu-img', ['map', '--output=json', '--image-opts', options]),
  ) as MapEntry[]
  // QEMU shows what the bitmap has set as a hole without data.
  const changed = map.filter((entry) => !entry.data).map((entry) => [entry.start, entry.length])
  t.same(changed, [[5 * MiB, 64 * 1024]])
  await server.ok('snapshot', 'delete', 'io@base', '--yes')
})

t.test('qemu-img bench runs its depth of requests', { skip }, async (t) => {
  for (const flags of [[], ['-w', '--flush-interval=64'], ['-w', '--pattern=171']]) {
    const text = await output('qemu-img', [
      'bench',
      ...['-f', 'raw', '-c', '2000', '-d', '32', '-s', '4096', '-S', '8192'],
      ...flags,
      server.uri('io'),
    ])
    t.match(text, /Run completed/)
  }
  await qemuIo(server.uri('io'), 'read -P 171 0 4k')
})

t.test('patterns are read back, also across chunks and unaligned', { skip }, async () => {
  const uri = server.tcpUri('io')
  await qemuIo(uri, 'write -P 0x41 0 16M', 'write -P 0x42 65535 2', 'write -P 0x43 131000 70001')
  await qemuIo(
    uri,
    'read -P 0x41 0 65535',
    'read -P 0x42 65535 2',
    'read -P 0x41 65537 65463',
    'read -P 0x43 131000 70001',
    'read -P 0x41 201001 1M',
  )
})

t.test(
  'discarded and zeroed ranges read as zeroes, their neighbours do not',
  { skip },
  async () => {
    const uri = server.uri('io')
    await qemuIo(
      uri,
      'write -P 0x51 0 4M',
      'discard 1M 1M',
      'write -z 2M 64k',
      'write -z -u 3M 70k',
      'write -z 3500001 777',
      'flush',
    )
    await qemuIo(
      uri,
      'read -P 0x51 0 1M',
      'read -P 0 1M 1M',
      'read -P 0 2M 64k',
      'read -P 0x51 2162688 983040',
      'read -P 0 3M 70k',
      'read -P 0x51 3217408 282593',
      'read -P 0 3500001 777',
      'read -P 0x51 3500778 693526',
    )
  },
)

t.test('a wrong pattern would be noticed', { skip }, async (t) => {
  await t.rejects(
    qemuIo(server.uri('io'), 'write -P 1 0 4k', 'read -P 2 0 4k'),
    /Pattern verification failed/,
  )
})

t.test('asynchronous requests with FUA and flushes in between', { skip }, async () => {
  const commands = Array.from({ length: 32 }, (_, index) => [
    `aio_write -f -P ${index + 1} ${index * 65536} 64k`,
    ...(index % 8 === 7 ? ['aio_flush'] : []),
  ]).flat()
  await qemuIo(server.uri('io'), ...commands)
  const reads = Array.from(
    { length: 32 },
    (_, index) => `read -P ${index + 1} ${index * 65536} 64k`,
  )
  await qemuIo(server.tcpUri('io'), ...reads)
})
