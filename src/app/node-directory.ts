// Whether a directory holds a node: asked before a daemon starts, and when none answers. Light: every command may need it.
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoNameOf } from '../core/errors.js'

/** A directory with one of them is a node's, whole or damaged. */
const nodeFiles = ['checkpoint', 'journal-0']

/** 'node' unless it is certain that there is none: what cannot be looked at is for the pool to explain. */
export async function contentOf(directory: string): Promise<'node' | 'no-node' | 'no-directory'> {
  const found = await stat(directory).catch(() => undefined)
  if (found?.isDirectory() !== true) return 'no-directory'
  for (const name of nodeFiles) {
    const error: unknown = await stat(join(directory, name)).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    if (error === undefined || errnoNameOf(error) !== 'ENOENT') return 'node'
  }
  return 'no-node'
}
