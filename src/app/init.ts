// Makes a directory a node: private to its owner, locked while it is made. An interrupted init leaves nothing that serve would take.
import { AssertionError } from 'node:assert'
import { chmod, mkdir, readdir, rmdir, stat, unlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { shownName } from '../core/shown-name.js'
import { initGroup } from '../engine/engine.js'
import { NodeDisk } from '../storage/node-disk.js'
import { NotAFile, otherKindOf } from '../storage/node-disk-kind.js'
import { systemClock, systemRandom } from './system.js'

export type InitRequest = {
  readonly directory: string
  /** Take a data file that is not empty; its content is lost. */
  readonly overwrite: boolean
  /** Blank: it joins the group of the first primary that connects. */
  readonly isSecondary?: boolean
  readonly node?: string
  readonly chunkBytes?: number
  readonly journalBytes?: number
  /** An absolute path. */
  readonly data?: string
}

const nodeNamePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/
/** What a node or an interrupted init leaves: anything else is somebody's. */
const ownNames =
  /^(data|checkpoint(\.tmp)?|journal-[01]|lock|lockstep\.toml|peer\.json(\.tmp)?|control\.sock)$/

/** Rejects with a LockstepError that says what to do. */
export async function initDirectory(
  request: InitRequest,
): Promise<{ node: string; directory: string; role: 'primary' | 'secondary' }> {
  const { directory } = request
  const role = request.isSecondary === true ? 'secondary' : 'primary'
  const node = checkNodeName(request.node ?? defaultNodeName())
  if (request.data !== undefined) await checkData(request.data)
  const made = await makeDirectory(directory)
  await using disk = await NodeDisk.open(directory).catch((error: unknown) => {
    throw explained(error, request)
  })
  const before = await disk.list()
  await initGroup(disk, {
    node,
    random: systemRandom,
    clock: systemClock,
    overwrite: request.overwrite,
    role,
    ...(request.chunkBytes === undefined ? {} : { chunkBytes: request.chunkBytes }),
    ...(request.journalBytes === undefined ? {} : { journalBytes: request.journalBytes }),
    ...(request.data === undefined ? {} : { dataName: request.data }),
  }).catch(async (error: unknown) => {
    if (!(error instanceof AssertionError)) {
      await removeMade(disk, before)
      if (made.length > 0) await removeDirectories(directory, made)
    }
    throw explained(error, request)
  })
  return { node, directory, role }
}

/** What a failed init began goes, so that it takes no room and stands in nobody's way; what was there before stays. */
async function removeMade(disk: NodeDisk, before: readonly string[]): Promise<void> {
  for (const name of await disk.list()) {
    if (!before.includes(name) && ownNames.test(name)) await disk.remove(name).catch(() => {})
  }
}

/** The directories that init made itself go as well, while the lock is still held. One that is not empty stays. */
async function removeDirectories(directory: string, made: readonly string[]): Promise<void> {
  try {
    await unlink(join(directory, 'lock'))
    for (const path of [...made].reverse()) await rmdir(path)
  } catch (error) {
    if (error instanceof AssertionError) throw error
  }
}

function explained(error: unknown, { directory, data }: InitRequest): unknown {
  if (error instanceof AssertionError) return error
  const { path } = (error ?? {}) as { readonly path?: unknown }
  if (!(error instanceof LockstepError)) {
    return data !== undefined && path === data
      ? cannotTakeData(data, error)
      : cannotMake(directory, error)
  }
  return new LockstepError(error.code, error.message, error.action.replace('DIR', directory))
}

function checkNodeName(name: string): string {
  if (nodeNamePattern.test(name)) return name
  throw new LockstepError(
    'INVALID_NAME',
    `${shownName(name, 63)} cannot be a node's name`,
    'use 1 to 63 letters, digits and . _ - such as --node alpha',
  )
}

function defaultNodeName(): string {
  const name = hostname().split('.', 1)[0] ?? ''
  return nodeNamePattern.test(name) ? name : 'node'
}

/** Answers the directories that were not there before, the outermost first. */
async function makeDirectory(directory: string): Promise<readonly string[]> {
  try {
    const made = await makeMissing(directory)
    const stranger = (await readdir(directory)).find((name) => !ownNames.test(name))
    if (stranger !== undefined) {
      throw new LockstepError(
        'INVALID_ARGUMENT',
        `${directory} is not empty: it holds ${stranger}`,
        'choose an empty or a new directory: it becomes private to the node',
      )
    }
    await chmod(directory, 0o700)
    return made
  } catch (error) {
    throw error instanceof LockstepError ? error : cannotMake(directory, error)
  }
}

/** As mkdir -p. Not Node's own: that one never ends where a directory is there and nothing can be made in it (/proc/x). */
async function makeMissing(directory: string): Promise<readonly string[]> {
  const missing: string[] = []
  const made: string[] = []
  let path = directory
  for (; !(await isThere(path)); path = dirname(path)) missing.push(path)
  for (const next of missing.reverse()) {
    await mkdir(next, { mode: 0o700 }).then(
      () => made.push(next),
      (error: unknown) => {
        if (errnoNameOf(error) !== 'EEXIST') throw error
      },
    )
  }
  return made
}

async function isThere(path: string): Promise<boolean> {
  if (path === dirname(path)) return true
  try {
    await stat(path)
    return true
  } catch (error) {
    if (errnoNameOf(error) === 'ENOENT') return false
    throw error
  }
}

/** What opens and takes bytes, but is no place for them: /dev/full, a terminal. Everything else is told when it is opened. */
async function checkData(data: string): Promise<void> {
  const found = await stat(data).catch(() => undefined)
  const kind = found === undefined ? undefined : otherKindOf(found)
  if (kind === undefined || found?.isBlockDevice() === true) return
  throw cannotTakeData(data, new NotAFile(data, kind))
}

function cannotTakeData(data: string, error: unknown): LockstepError {
  const reason = error instanceof NotAFile ? `it is ${error.kind}` : errnoNameOf(error)
  return new LockstepError(
    'IO_ERROR',
    `${data} cannot be the data file: ${reason}`,
    'give --data a device, or a file in a directory that is there, that you may write to',
  )
}

function cannotMake(directory: string, error: unknown): LockstepError {
  const errno = errnoNameOf(error)
  if (errno === 'ENOTDIR') {
    return new LockstepError(
      'IO_ERROR',
      `${directory} cannot be made a node: it, or what it should be in, is a file`,
      'name a new or an empty directory; --data names a file or device for the data',
    )
  }
  const code = errno === 'ENOSPC' || errno === 'EDQUOT' ? 'NO_SPACE' : 'IO_ERROR'
  const action =
    code === 'NO_SPACE'
      ? 'choose a file system with more room, or a smaller --journal-size'
      : 'choose a directory that you may write to'
  const cause = error instanceof Error ? error.message : errno
  return new LockstepError(code, `${directory} cannot be made a node: ${cause}`, action)
}
