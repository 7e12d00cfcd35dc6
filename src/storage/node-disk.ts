// The real disk: the files of a locked data directory, and absolute paths, through Node's fs and a few native calls.
//
// Invariant: one process at a time has a data directory open. The lock is the kernel's (flock), so a crash releases it.
import assert from 'node:assert/strict'
import { constants } from 'node:fs'
import { type FileHandle, open, readdir, rename, unlink } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import type { Disk } from '../core/disk.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { loadNative, type Native } from './native.js'
import { NodeDiskFile } from './node-disk-file.js'
import { NotAFile, openFailure, otherKindOf } from './node-disk-kind.js'
import { lockFile } from './node-disk-lock.js'
import { processReadRing, type ReadRing } from './node-disk-read-ring.js'
import { openRunDelay, type RunDelayMs } from './node-disk-run-delay.js'

export const lockName = 'lock'
/** What is made in the directory is made there: whoever could write to it once may have left a link that leads elsewhere. */
const createFlags = constants.O_CREAT | constants.O_NOFOLLOW

export type NodeDiskOptions = {
  /** False: go without the native calls, as where their library is absent. */
  readonly native?: boolean
  /** Monotonic milliseconds, for tests of the back-off. */
  readonly nowMs?: () => number
  /** As above. */
  readonly runDelayMs?: RunDelayMs
}

let systemRunDelayMs: RunDelayMs | undefined

export class NodeDisk implements Disk {
  readonly directory: string
  readonly #lock: FileHandle
  readonly #native: Native | undefined
  readonly #ring: ReadRing | undefined
  readonly #nowMs: () => number
  readonly #runDelayMs: RunDelayMs
  readonly #alone: NodeDiskFile[] = []

  private constructor(directory: string, lock: FileHandle, options: NodeDiskOptions) {
    this.directory = directory
    this.#lock = lock
    this.#native = options.native === false ? undefined : loadNative()
    this.#ring = this.#native === undefined ? undefined : processReadRing()
    this.#nowMs = options.nowMs ?? (() => performance.now())
    systemRunDelayMs ??= openRunDelay()
    this.#runDelayMs = options.runDelayMs ?? systemRunDelayMs
  }

  /** Locks `directory`, which must exist. Throws LockstepError: NOT_INITIALISED without a directory, IN_USE when another process has it. */
  static async open(directory: string, options: NodeDiskOptions = {}): Promise<NodeDisk> {
    const lock = await openLock(directory)
    try {
      const kind = otherKindOf(await lock.stat())
      if (kind !== undefined) throw new NotAFile(join(directory, lockName), kind)
      const native = options.native === false ? undefined : loadNative()
      if (!(await lockFile(lock.fd, native))) throw await inUse(directory, lock)
      await noteOwner(lock)
      return new NodeDisk(directory, lock, options)
    } catch (error) {
      await lock.close()
      throw error
    }
  }

  async open(
    name: string,
    options: { readonly create?: boolean; readonly alone?: boolean } = {},
  ): Promise<NodeDiskFile> {
    const isElsewhere = isAbsolute(name)
    const path = isElsewhere ? name : this.#pathOf(name)
    // A device has many names, and most of them are links.
    const flags = isElsewhere ? constants.O_CREAT : createFlags
    const file = await NodeDiskFile.open(path, {
      createFlags: options.create === true ? flags : 0,
      isAlone: options.alone === true,
      native: this.#native,
      ring: this.#ring,
      nowMs: this.#nowMs,
      runDelayMs: this.#runDelayMs,
    })
    if (options.alone === true) this.#alone.push(file)
    return file
  }

  async rename(from: string, to: string): Promise<void> {
    await rename(this.#pathOf(from), this.#pathOf(to))
  }

  async remove(name: string): Promise<void> {
    await unlink(this.#pathOf(name))
  }

  /** Names of the directory, without the lock: it is this class's own. */
  async list(): Promise<readonly string[]> {
    return (await readdir(this.directory)).filter((name) => name !== lockName).sort()
  }

  async syncDirectory(): Promise<void> {
    await using directory = await open(this.directory, constants.O_RDONLY | constants.O_DIRECTORY)
    await directory.sync()
  }

  /** Gives the directory back. Files are closed one by one, before; of one that nobody else may have open that is made sure, whatever failed. */
  async close(): Promise<void> {
    for (const file of this.#alone.splice(0)) if (!file.isClosed) await file.close()
    await this.#lock.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #pathOf(name: string): string {
    assert(name !== '' && name !== '.' && name !== '..')
    assert(!name.includes('/'))
    assert(name !== lockName)
    return join(this.directory, name)
  }
}

async function openLock(directory: string): Promise<FileHandle> {
  const path = join(directory, lockName)
  try {
    return await open(path, constants.O_RDWR | createFlags, 0o600)
  } catch (error) {
    const errno = errnoNameOf(error)
    if (errno !== 'ENOENT' && errno !== 'ENOTDIR') throw await openFailure(path, error)
    const action = `create it with: lockstep init ${directory}`
    throw new LockstepError('NOT_INITIALISED', `${directory} is not a directory`, action)
  }
}

/** Who has the lock, for people: over what is there, because a full file system has no room for a note, and is no reason not to start. */
async function noteOwner(lock: FileHandle): Promise<void> {
  const note = `${process.pid}\n`
  try {
    await lock.write(note, 0)
    await lock.truncate(note.length)
  } catch (error) {
    if (!['ENOSPC', 'EDQUOT'].includes(errnoNameOf(error))) throw error
  }
}

async function inUse(directory: string, lock: FileHandle): Promise<LockstepError> {
  const { buffer, bytesRead } = await lock.read(Buffer.alloc(32), 0, 32, 0)
  const pid = /^\d+$/.exec(buffer.toString('latin1', 0, bytesRead).trim())?.[0]
  const holder = pid === undefined ? 'another process' : `process ${pid}`
  const action =
    pid === undefined
      ? `find it with: fuser ${join(directory, lockName)}`
      : `stop it first (kill ${pid}), or use another directory`
  return new LockstepError('IN_USE', `${directory} is in use by ${holder}`, action)
}
