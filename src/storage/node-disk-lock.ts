// The kernel's locks on what one process at a time may have: the data directory, and the data file or device, which may be elsewhere and be named by two
// directories. A crash releases them.
//
// Invariant: a file is locked by its inode and a device by itself, whatever their names.
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import type { Native } from './native.js'

/** A process that was killed is gone before the kernel has let go of the reads that it had under way in a ring: until then the lock is there. */
const releaseMs = 2000
const tryEveryMs = 20

/** Takes the lock of the open file. False when somebody has it. Rejects with IO_ERROR when there is no way to take one. */
export async function lockFile(fd: number, native: Native | undefined): Promise<boolean> {
  return native ? native.lock(fd) === 0 : lockByTool(fd)
}

/** As `lockFile`, for a file whose directory is locked already: whoever had it with that directory is about to let go. Rejects with IN_USE. */
export async function lockData(
  fd: number,
  path: string,
  native: Native | undefined,
): Promise<void> {
  for (let waitedMs = 0; ; waitedMs += tryEveryMs) {
    if (await lockFile(fd, native)) return
    if (waitedMs >= releaseMs) break
    await delay(tryEveryMs)
  }
  throw new LockstepError(
    'IN_USE',
    `the data file ${path} is in use by another process: two nodes cannot share one`,
    `find it with: fuser -v ${path}; a copy of a node's directory needs a copy of its data as well`,
  )
}

/** Opens the device of `fd` once more, for this process alone. Rejects with IN_USE when it is mounted, part of another device, or another node's. */
export async function openDeviceAlone(fd: number, path: string): Promise<number> {
  const flags = fs.constants.O_RDWR | fs.constants.O_EXCL
  for (let waitedMs = 0; ; waitedMs += tryEveryMs) {
    try {
      return await new Promise((resolve, reject) =>
        // By the descriptor: what was looked at is what is opened, whatever its name leads to by now.
        fs.open(`/proc/self/fd/${fd}`, flags, (error, alone) =>
          error ? reject(error) : resolve(alone),
        ),
      )
    } catch (error) {
      if (errnoNameOf(error) !== 'EBUSY') throw error
    }
    if (waitedMs >= releaseMs) break
    await delay(tryEveryMs)
  }
  throw new LockstepError(
    'IN_USE',
    `the device ${path} is in use: it is mounted, a part of another device, or the data of a node that runs`,
    `find out by: lsblk ${path}; fuser -v ${path}`,
  )
}

/** util-linux's flock on our own descriptor: the lock belongs to the open file, and stays when the tool has ended. */
async function lockByTool(fd: number): Promise<boolean> {
  const words = ['--exclusive', '--nonblock', '3']
  const tool = spawn('flock', words, { stdio: ['ignore', 'ignore', 'ignore', fd] })
  const status = await new Promise<number | null>((resolve, reject) => {
    tool.once('error', reject)
    tool.once('exit', resolve)
  }).catch((cause: unknown) => {
    throw new LockstepError(
      'IO_ERROR',
      `the data directory cannot be locked: ${String(cause)}`,
      'install the package koffi (npm install koffi) or the flock tool (apt install util-linux)',
    )
  })
  return status === 0
}
