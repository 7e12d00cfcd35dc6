// What stands where a plain file should: told by its kind, because the errno of such a call (EISDIR, ENXIO, ESPIPE) tells nobody what to do.
//
// Invariant: a file is judged by its open descriptor. What a path leads to is only asked after an open that failed, for the words.
import type { Stats } from 'node:fs'
import { lstat, stat } from 'node:fs/promises'
import { errnoNameOf } from '../core/errors.js'

export class NotAFile extends Error {
  override readonly name = 'NotAFile'
  readonly path: string
  /** With its article. */
  readonly kind: string

  constructor(path: string, kind: string) {
    super(`${path} is ${kind}, not a file`)
    this.path = path
    this.kind = kind
  }
}

/** Undefined for a plain file. */
export function otherKindOf(found: Stats): string | undefined {
  if (found.isFile()) return undefined
  if (found.isDirectory()) return 'a directory'
  if (found.isFIFO()) return 'a named pipe'
  if (found.isSocket()) return 'a socket'
  if (found.isSymbolicLink()) return 'a symbolic link'
  return found.isBlockDevice() ? 'a block device' : 'a character device'
}

/** The error of an open(2) that failed because of what is there, as a NotAFile; any other as it is. */
export async function openFailure(path: string, error: unknown): Promise<unknown> {
  const errno = errnoNameOf(error)
  // ELOOP where links are not followed, EISDIR of a directory opened for writing, ENXIO of a socket, or of a pipe that nobody reads.
  if (!['EISDIR', 'ENXIO', 'ELOOP'].includes(errno)) return error
  const found = await (errno === 'ELOOP' ? lstat(path) : stat(path)).catch(() => undefined)
  const kind = found && otherKindOf(found)
  return kind === undefined || kind.endsWith('device') ? error : new NotAFile(path, kind)
}
