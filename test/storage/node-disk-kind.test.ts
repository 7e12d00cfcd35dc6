// Every kind of thing that can have a file's name, met by the real disk's open and by the lock: a word for each, and no call that waits.
import { execFileSync } from 'node:child_process'
import { mkdirSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { NodeDisk } from '../../src/storage/node-disk.js'
import { failureOf } from '../support/failure.js'
import { scratch } from '../support/process.js'

const kinds: Readonly<Record<string, (t: Test, path: string) => unknown>> = {
  'a named pipe': (_, path) => execFileSync('mkfifo', [path]),
  'a directory': (_, path) => mkdirSync(path),
  'a symbolic link': (_, path) => symlinkSync('nowhere', path),
  'a socket': (t, path) => {
    const server = createServer()
    t.teardown(() => server.close())
    return new Promise<void>((resolve) => server.listen(path, resolve))
  },
}

for (const [kind, make] of Object.entries(kinds)) {
  t.test(`${kind} is no file`, async (t) => {
    const directory = scratch(t)
    await using disk = await NodeDisk.open(directory)
    const path = join(directory, 'name')
    await make(t, path)
    const told = { name: 'NotAFile', path, kind, message: `${path} is ${kind}, not a file` }
    t.match(await failureOf(disk.open('name', { create: true })), told)
    if (kind !== 'a symbolic link') t.match(await failureOf(disk.open('name')), told)
    const other = scratch(t)
    const lock = join(other, 'lock')
    await make(t, lock)
    t.match(await failureOf(NodeDisk.open(other)), { name: 'NotAFile', path: lock, kind })
  })
}

t.test('a device is opened, and what is not there says so', async (t) => {
  await using disk = await NodeDisk.open(scratch(t))
  await using device = await disk.open('/dev/null')
  t.equal(device.isFixedSize, false)
  await t.rejects(disk.open('none'), { code: 'ENOENT' })
})
