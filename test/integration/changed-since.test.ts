// What changed since a snapshot, asked by nbdinfo: the basis of incremental backups. Chunks are the grain; nothing that changed is missing,
// and what is shared again after a restore is unchanged again.
import assert from 'node:assert/strict'
import t from 'tap'
import { missingTools, output, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'

const KiB = 1024
const MiB = 1024 * KiB
const skip = missingTools('nbdinfo', 'qemu-io')
const server = await LockstepServer.start(t, {
  directory: scratch(t),
  volumes: { vol0: 16 * MiB, huge: 2 ** 53 - 512 },
})

async function io(name: string, ...commands: readonly string[]): Promise<void> {
  const flags = commands.flatMap((command) => ['-c', command])
  await output('qemu-io', ['-f', 'raw', '-d', 'unmap', ...flags, server.uri(name)])
}

/** Ranges of `name` with the flag set, as [offset, lengthBytes]. */
async function changed(name: string, since: string): Promise<readonly (readonly number[])[]> {
  const context = `--map=x-lockstep:changed-since:${since}`
  const map = JSON.parse(await output('nbdinfo', [context, '--json', server.uri(name)])) as {
    readonly offset: number
    readonly length: number
    readonly type: number
  }[]
  const end = map.at(-1)
  assert.equal((end?.offset ?? 0) + (end?.length ?? 0), 16 * MiB, 'the map covers the export')
  return map.filter((one) => one.type !== 0).map((one) => [one.offset, one.length])
}

t.test('writes, zeroes and trims are changes, reads are not', { skip }, async (t) => {
  await io('vol0', 'write -P 1 0 8M')
  await server.ok('snapshot', 'create', 'vol0@a')
  t.same(await changed('vol0', 'a'), [])
  await io('vol0', 'read -P 1 0 8M', 'write -P 2 1M 64k', 'write -P 2 2097151 2')
  await io('vol0', 'discard 4M 128k', 'write -z 6M 64k', 'write -P 3 12M 4k')
  t.same(await changed('vol0', 'a'), [
    [1 * MiB, 64 * KiB],
    [2 * MiB - 64 * KiB, 128 * KiB],
    [4 * MiB, 128 * KiB],
    [6 * MiB, 64 * KiB],
    [12 * MiB, 64 * KiB],
  ])
})

t.test('one snapshot tells what changed since another', { skip }, async (t) => {
  await server.ok('snapshot', 'create', 'vol0@b')
  await io('vol0', 'write -P 4 3M 64k')
  t.same((await changed('vol0@b', 'a')).length, 5)
  t.same(await changed('vol0', 'b'), [[3 * MiB, 64 * KiB]])
  t.same((await changed('vol0', 'a')).length, 6)
})

t.test('what was restored is unchanged again', { skip }, async (t) => {
  await server.ok('snapshot', 'restore', 'vol0@a', '--range', '1M:3M', '--yes')
  t.same(await changed('vol0', 'a'), [
    [4 * MiB, 128 * KiB],
    [6 * MiB, 64 * KiB],
    [12 * MiB, 64 * KiB],
  ])
  await server.ok('snapshot', 'restore', 'vol0@a', '--yes')
  t.same(await changed('vol0', 'a'), [])
})

t.test('the answer survives a restart', { skip }, async (t) => {
  await io('vol0', 'write -P 5 7M 64k', 'flush')
  await server.kill9().gone
  await server.serve()
  t.same(await changed('vol0', 'a'), [[7 * MiB, 64 * KiB]])
})

t.test('the largest volume is used to its last sector', { skip }, async (t) => {
  const sizeBytes = 2 ** 53 - 512
  t.equal((await output('nbdinfo', ['--size', server.uri('huge')])).trim(), String(sizeBytes))
  const last = sizeBytes - 512
  await io('huge', `write -P 7 ${last} 512`, 'write -P 8 4P 64k', 'flush')
  await server.ok('snapshot', 'create', 'huge@a')
  await io('huge', `write -P 9 ${last} 512`, 'discard 4P 64k', 'flush')
  await server.kill9().gone
  await server.serve()
  await io('huge', `read -P 9 ${last} 512`, 'read -P 0 4P 64k', 'read -P 0 1P 64k')
  await io('huge@a', `read -P 7 ${last} 512`, 'read -P 8 4P 64k')
  t.ok((await server.storeStatus('huge')).allocatedBytes <= 128 * KiB)
})
