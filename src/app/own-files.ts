// The files of a data directory that are read or written by name: something else in their place is told at the start, with what to do about it.
import { AssertionError } from 'node:assert'
import { lstat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { checkpointTemporaryName } from '../storage/checkpoint.js'
import { lockName } from '../storage/node-disk.js'
import { NotAFile, otherKindOf } from '../storage/node-disk-kind.js'
import { keptPeerTemporaryName } from './kept-peer.js'

/** They are opened only when there is something to write, which may be days later. */
const temporaryNames = [checkpointTemporaryName, keptPeerTemporaryName]
const madeAnewNames = [lockName, ...temporaryNames]

/** Rejects with LockstepError when something else has the name of a file that a node writes later. */
export async function checkTemporaryNames(directory: string): Promise<void> {
  for (const name of temporaryNames) {
    const path = join(directory, name)
    const found = await lstat(path).catch(() => undefined)
    const kind = found && otherKindOf(found)
    if (kind !== undefined) throw explainedDiskError(new NotAFile(path, kind), directory)
  }
}

/** Errors of the disk, which say an errno and no more, as a sentence; and actions with the directory's name. */
export function explainedDiskError(error: unknown, directory: string): unknown {
  if (error instanceof LockstepError) {
    return new LockstepError(
      error.code,
      error.message,
      error.action.replace(/(?<![A-Z-])DIR\b/, directory),
    )
  }
  if (error instanceof NotAFile) {
    return madeAnewNames.includes(basename(error.path))
      ? new LockstepError(
          'IO_ERROR',
          error.message,
          `move ${error.path} away; the file is made anew`,
        )
      : new LockstepError(
          'CORRUPT',
          error.message,
          'nothing was changed; put the file back, or restore the data directory from a backup',
        )
  }
  const { code, path } = (error ?? {}) as { code?: unknown; path?: unknown }
  if (typeof code !== 'string' || error instanceof AssertionError) return error
  const where = typeof path === 'string' ? path : directory
  const message = `${where} cannot be opened: ${errnoNameOf(error)}`
  return new LockstepError('IO_ERROR', message, `lockstep doctor --dir ${directory}`)
}
