// A data file or device that somebody has: neither a second node nor init gets it, whatever is confirmed, and who had it first goes on.
import { cpSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { runLine } from '../support/command-line.js'
import { makeDevice, missingRoot } from '../support/lower-layers.js'
import { missingTools, output, run, scratch } from '../support/process.js'
import { LockstepServer, mainPath } from '../support/server.js'

const MiB = 1024 * 1024
const skip = missingTools('qemu-io')
const skipDevice = skip || missingRoot() || missingTools('losetup', 'mkfs.ext4')

type Failure = { readonly code: string; readonly message: string; readonly action: string }

async function refused(...words: readonly string[]): Promise<Failure & { status: number | null }> {
  const { status, stdout } = await run(process.execPath, [mainPath, ...words, '--json'])
  return { status, ...(JSON.parse(stdout) as { error: Failure }).error }
}

t.test('two directories, one data file', { skip }, async (t) => {
  const directory = scratch(t)
  const data = join(directory, 'shared')
  const server = await LockstepServer.start(t, {
    directory: join(directory, 'one'),
    initArgs: ['--data', data],
    volumes: { vol0: 64 * MiB },
  })
  await output('qemu-io', ['-f', 'raw', '-c', 'write -P 1 0 1M', server.uri('vol0')])
  const { size } = statSync(data)
  const copy = join(directory, 'copy')
  cpSync(server.dataDirectory, copy, { recursive: true, filter: (path) => !path.endsWith('.sock') })
  const listen = `nbd+unix:///?socket=${join(directory, 'other.sock')}`
  const inUse = { status: 1, code: 'IN_USE', message: data, action: /fuser -v/ }
  t.match(await refused('serve', copy, '--listen', listen), inUse)
  t.match(await refused('init', join(directory, 'two'), '--data', data), inUse)
  t.match(await refused('init', join(directory, 'two'), '--data', data, '--yes'), inUse)
  t.equal(statSync(data).size, size, 'nothing was cut')
  await output('qemu-io', ['-f', 'raw', '-c', 'read -P 1 0 1M', server.uri('vol0')])
  t.equal(await server.stop(), 0)
})

t.test("another node's own data file", { skip }, async (t) => {
  const server = await LockstepServer.start(t, { directory: scratch(t), volumes: { vol0: MiB } })
  const other = join(scratch(t), 'other')
  const data = join(server.dataDirectory, 'data')
  const made = await runLine(['init', other, '--data', data, '--yes', '--json'])
  t.match(JSON.parse(made.stdout), { error: { code: 'IN_USE', message: data } })
})

t.test('a device that is served, and one that is mounted', { skip: skipDevice }, async (t) => {
  const device = await makeDevice(t, 64 * MiB)
  const directory = scratch(t)
  const server = await LockstepServer.start(t, { directory, initArgs: ['--data', device] })
  const other = join(directory, 'other')
  const inUse = { status: 1, code: 'IN_USE', message: device, action: /lsblk/ }
  t.match(await refused('init', other, '--data', device, '--yes'), inUse)
  const made = await run('mkfs.ext4', ['-q', '-F', device])
  t.not(made.status, 0, 'nor does anybody else get it')
  await server.kill9().gone
  await server.serve()
  t.equal(await server.stop(), 0)
  await output('mkfs.ext4', ['-q', '-F', device])
  const mount = join(directory, 'mount')
  await output('mkdir', [mount])
  await output('mount', [device, mount])
  t.teardown(() => run('umount', ['--lazy', mount]))
  t.match(await refused('init', other, '--data', device, '--yes'), inUse)
})
