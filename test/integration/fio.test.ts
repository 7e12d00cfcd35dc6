// fio's own NBD engine with checksums in every block: what was written is what is read, at depth, by several jobs, on both transports.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { missingTools, output, run, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'

const MiB = 1024 * 1024
const skip = missingTools('fio', 'qemu-io')
const directory = scratch(t)
const server = await LockstepServer.start(t, { directory, volumes: { vol0: 64 * MiB } })

type FioReport = {
  readonly jobs: readonly {
    readonly error: number
    readonly read: { readonly total_ios: number }
    readonly write: { readonly total_ios: number }
  }[]
}

const verify = [
  '--verify=crc32c',
  '--verify_fatal=1',
  '--randrepeat=1',
  '--group_reporting',
  '--output-format=json',
]

async function fio(uri: string, ...flags: readonly string[]): Promise<FioReport> {
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
  return JSON.parse(text.slice(text.indexOf('{'))) as FioReport
}

for (const [name, uri] of [
  ['a Unix socket', (): string => server.uri('vol0')],
  ['TCP', (): string => server.tcpUri('vol0')],
] as const) {
  t.test(`random writes verify over ${name}`, { skip }, async (t) => {
    const flags = ['--rw=randwrite', '--bs=4k', '--size=32m', '--iodepth=32', '--fsync=256']
    const report = await fio(uri(), ...flags)
    t.match(report.jobs[0], { error: 0, write: { total_ios: 8192 }, read: { total_ios: 8192 } })
  })

  t.test(`mixed sizes and offsets verify over ${name}`, { skip }, async (t) => {
    const sizes = ['--bsrange=512-256k', '--blockalign=512', '--bs_unaligned=0']
    const report = await fio(uri(), '--rw=randwrite', ...sizes, '--size=48m', '--iodepth=16')
    t.match(report.jobs[0], { error: 0 })
    t.ok((report.jobs[0]?.read.total_ios ?? 0) > 0, 'it read back')
  })
}

t.test('sequential megabytes verify', { skip }, async (t) => {
  const report = await fio(server.uri('vol0'), '--rw=write', '--bs=1m', '--size=64m', '--iodepth=4')
  t.match(report.jobs[0], { error: 0, write: { total_ios: 64 } })
})

t.test('four jobs on four connections verify', { skip }, async (t) => {
  const jobs = ['--numjobs=4', '--offset_increment=16m', '--size=16m']
  const flags = ['--rw=randwrite', '--bs=8k', '--iodepth=8', '--fsync=64', '--end_fsync=1']
  const report = await fio(server.uri('vol0'), ...flags, ...jobs)
  t.match(report.jobs[0], { error: 0, write: { total_ios: 8192 } })
})

t.test('trims among verified writes are read as zeroes or as the write', { skip }, async (t) => {
  const flags = ['--rw=randtrimwrite', '--bs=4k', '--size=16m', '--iodepth=1', '--verify=0']
  const report = await fio(server.uri('vol0'), ...flags)
  t.match(report.jobs[0], { error: 0 })
})

t.test('a block that was changed behind its back would be noticed', { skip }, async (t) => {
  const write = ['--rw=write', '--bs=4k', '--size=1m', '--iodepth=4', '--do_verify=0']
  await fio(server.uri('vol0'), ...write)
  const change = ['-f', 'raw', '-c', 'write -P 0x13 520k 512', server.uri('vol0')]
  await output('qemu-io', change)
  const target = ['--name=t', '--ioengine=nbd', `--uri=${server.uri('vol0')}`]
  const read = ['--rw=read', '--bs=4k', '--size=1m', '--output=/dev/null']
  const finished = await run('fio', [...target, ...verify, ...read], { cwd: directory })
  t.not(finished.status, 0)
  t.match(finished.stderr, /verify/)
})
