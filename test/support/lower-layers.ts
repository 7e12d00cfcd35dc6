// Lower layers for a data directory that are really small or really fail: file systems on loop devices, and a device whose writes or
// reads fail on demand. Everything is taken down with the test, the last thing first.
import { spawn } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from 'tap'
import { endChild, output, run, scratch, toolEnvironment } from './process.js'
import { canConnect } from './reference.js'
import { waitFor } from './wait.js'

/** For a test's `skip`: loop devices and mounts are root's. */
export function missingRoot(): string | false {
  return process.getuid?.() === 0 ? false : 'needs root, for loop devices and mounts'
}

async function loopDevice(t: Test, path: string, ...flags: readonly string[]): Promise<string> {
  const device = (await output('losetup', ['--find', '--show', ...flags, path])).trim()
  t.teardown(() => run('losetup', ['--detach', device]))
  return device
}

/** A loop device of that size over a sparse file. */
export async function makeDevice(t: Test, sizeBytes: number): Promise<string> {
  const path = join(scratch(t), 'device')
  await output('truncate', ['-s', String(sizeBytes), path])
  return loopDevice(t, path)
}

/** A directory on an ext4 file system of that size of its own. */
export async function makeSmallDirectory(t: Test, sizeBytes: number): Promise<string> {
  const device = await makeDevice(t, sizeBytes)
  // No blocks kept back for root: full is full.
  await output('mkfs.ext4', ['-q', '-m', '0', '-O', '^has_journal', device])
  const directory = join(scratch(t), 'mount')
  mkdirSync(directory)
  await output('mount', [device, directory])
  t.teardown(() => run('umount', ['--lazy', directory]))
  return directory
}

export type FailingDevice = {
  readonly device: string
  /** From now on every request of that kind to the layer below fails with EIO, until `heal`. */
  fail(kind: 'pread' | 'pwrite'): void
  heal(): void
}

/** A loop device over a FUSE file over nbdkit's memory, whose error filter fails requests on demand. */
export async function makeFailingDevice(t: Test, sizeBytes: number): Promise<FailingDevice> {
  const directory = scratch(t)
  const socket = join(directory, 'socket')
  const flag = (kind: string): string => join(directory, `fail-${kind}`)
  const errors = ['pread', 'pwrite'].flatMap((kind) => [
    `error-${kind}=EIO`,
    `error-${kind}-rate=100%`,
    `error-${kind}-file=${flag(kind)}`,
  ])
  const nbdkit = spawn(
    'nbdkit',
    [
      '-f',
      '--exit-with-parent',
      '-U',
      socket,
      '--filter=error',
      'memory',
      String(sizeBytes),
      ...errors,
    ],
    { env: toolEnvironment(), stdio: 'ignore' },
  )
  t.teardown(() => endChild(nbdkit))
  await waitFor('nbdkit listens', () => canConnect(socket))
  const mount = join(directory, 'mount')
  mkdirSync(mount)
  const file = join(mount, 'file')
  const fuse = spawn('nbdfuse', [file, '--unix', socket], {
    env: toolEnvironment(),
    stdio: 'ignore',
  })
  t.teardown(async () => {
    await run('umount', ['--lazy', mount])
    await endChild(fuse)
  })
  await waitFor('the file is mounted', () =>
    stat(file).then(
      (found) => found.size > 0,
      () => false,
    ),
  )
  // Direct: what the device has dropped from memory is really read again below.
  const device = await loopDevice(t, file, '--direct-io=on')
  return {
    device,
    fail: (kind) => writeFileSync(flag(kind), ''),
    heal: () => {
      for (const kind of ['pread', 'pwrite']) rmSync(flag(kind), { force: true })
    },
  }
}
