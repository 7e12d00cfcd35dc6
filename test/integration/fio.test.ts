// fio's own NBD engine with checksums in every block: what was written is what is read, at depth, by several jobs, on both transports.
//
// Each test has a volume of its own, and says how many requests fio made: a checksum does not tell a block from what another run wrote there, and a run that
// does nothing verifies, too.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { BlockClient } from '../support/block-client.js'
import { missingTools, output, run, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'

const MiB = 1024 * 1024
const skip = missingTools('fio', 'qemu-io')
const directory = scratch(t)
const server = await LockstepServer.start(t, { directory })
let volumeCount = 0

type Direction = { readonly total_ios: number; readonly io_bytes: number }
type FioJobReport = {
  readonly error: number
  readonly read: Direction
  readonly write: Direction
  readonly trim: Direction
}

const verify = [
  '--verify=crc32c',
  '--verify_fatal=1',
  '--randrepeat=1',
  '--group_reporting',
  '--output-format=json',
]

/** Answers the name of one that nobody has written to. */
async function newVolume(t: Test): Promise<string> {
  const name = `vol${volumeCount++}`
  await server.ok('volume', 'create', name, '64M')
  t.teardown(() => server.ok('volume', 'delete', name, '--yes'))
  return name
}

async function fio(uri: string, ...flags: readonly string[]): Promise<FioJobReport> {
  const file = join(directory, 'fio.json')
  await output(
    'fio',
    ['--name=t', '--ioengine=nbd', `--uri=${uri}`, ...verify, ...flags, `--output=${file}`],
    {
      timeoutMs: 120_000,
      cwd: directory,
    },
  )
  const text = await readFile(file, 'utf8')
  // fio may say something before its JSON.
  const { jobs } = JSON.parse(text.slice(text.indexOf('{'))) as { jobs: readonly FioJobReport[] }
  const report = jobs[0]
  assert(report, text)
  return report
}

/** What a run looks like that made so many requests of a kind, all of them good. */
function all(counts: { readonly [kind in 'read' | 'write' | 'trim']?: number }): object {
  const ofKind = Object.entries(counts).map(([kind, count]) => [kind, { total_ios: count }])
  return { error: 0, ...Object.fromEntries(ofKind) }
}

for (const [transport, uriOf] of [
  ['a Unix socket', (name: string): string => server.uri(name)],
  ['TCP', (name: string): string => server.tcpUri(name)],
] as const) {
  t.test(`random writes verify over ${transport}`, { skip }, async (t) => {
    const flags = ['--rw=randwrite', '--bs=4k', '--size=32m', '--iodepth=32', '--fsync=256']
    const report = await fio(uriOf(await newVolume(t)), ...flags)
    t.match(report, all({ write: 8192, read: 8192 }))
  })

  t.test(`mixed sizes and offsets verify over ${transport}`, { skip }, async (t) => {
    const sizes = ['--bsrange=512-256k', '--blockalign=512', '--bs_unaligned=0']
    const flags = ['--rw=randwrite', ...sizes, '--size=48m', '--iodepth=16']
    const { error, read, write } = await fio(uriOf(await newVolume(t)), ...flags)
    t.equal(error, 0)
    t.equal(write.io_bytes, 48 * MiB, 'all of it was written')
    t.equal(read.io_bytes, 48 * MiB, 'and read back')
  })
}

t.test('sequential megabytes verify', { skip }, async (t) => {
  const flags = ['--rw=write', '--bs=1m', '--size=64m', '--iodepth=4']
  const report = await fio(server.uri(await newVolume(t)), ...flags)
  t.match(report, all({ write: 64, read: 64 }))
})

t.test('four jobs on four connections verify', { skip }, async (t) => {
  const jobs = ['--numjobs=4', '--offset_increment=16m', '--size=16m']
  const flags = ['--rw=randwrite', '--bs=8k', '--iodepth=8', '--fsync=64', '--end_fsync=1']
  const report = await fio(server.uri(await newVolume(t)), ...flags, ...jobs)
  t.match(report, all({ write: 8192, read: 8192 }))
})

t.test(
  'what is written over a trim verifies, what is trimmed reads as zeroes',
  { skip },
  async (t) => {
    const name = await newVolume(t)
    const common = ['--bs=4k', '--size=16m', '--iodepth=1']
    const written = await fio(server.uri(name), '--rw=randtrimwrite', ...common)
    t.match(written, all({ trim: 4096, write: 4096, read: 4096 }))
    const trimmed = await fio(server.uri(name), '--rw=randtrim', '--io_size=8m', ...common)
    t.match(trimmed, all({ trim: 2048, write: 0 }))
    const client = await BlockClient.open(server.socketPath, name)
    const image = await client.readAll()
    await client.close()
    const zeroes = Buffer.alloc(4096)
    const blocks = Array.from({ length: 4096 }, (_, index) =>
      image.subarray(index * 4096).subarray(0, 4096),
    )
    t.equal(blocks.filter((block) => block.equals(zeroes)).length, 2048)
  },
)

t.test('a block that was changed behind its back would be noticed', { skip }, async (t) => {
  const uri = server.uri(await newVolume(t))
  const write = ['--rw=write', '--bs=4k', '--size=1m', '--iodepth=4', '--do_verify=0']
  await fio(uri, ...write)
  await output('qemu-io', ['-f', 'raw', '-c', 'write -P 0x13 520k 512', uri])
  const read = ['--rw=read', '--bs=4k', '--size=1m', '--output=/dev/null']
  const target = ['--name=t', '--ioengine=nbd', `--uri=${uri}`]
  const finished = await run('fio', [...target, ...verify, ...read], { cwd: directory })
  t.not(finished.status, 0)
  t.match(finished.stderr, /verify/)
})

t.test('a write that is lost would be noticed', { skip }, async (t) => {
  const uri = server.uri(await newVolume(t))
  const common = ['--rw=write', '--bs=4k', '--iodepth=4', '--output=/dev/null']
  const target = ['--name=t', '--ioengine=nbd', `--uri=${uri}`]
  await fio(uri, '--rw=write', '--bs=4k', '--size=1020k', '--iodepth=4', '--do_verify=0')
  const args = [...target, ...verify, ...common, '--size=1m', '--verify_only']
  const finished = await run('fio', args, { cwd: directory })
  t.not(finished.status, 0, 'the last of 256 was never written')
  t.match(finished.stderr, /verify/)
})
