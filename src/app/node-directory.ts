// Whether a directory holds a node: asked before a daemon starts, and when none answers. Light: every command may need it.
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoNameOf } from '../core/errors.js'

/** A directory with one of them is a node's, whole or damaged. */
const nodeFiles = ['checkpoint', 'journal-0']

/** 'node' unless it is certain that there is none: what cannot be looked at is for the pool to explain, or for whoever connects. */
export async function contentOf(directory: string): Promise<'node' | 'no-node' | 'no-directory'> {
  if (await isMissing(`${directory}/.`)) return 'no-directory'
  for (const name of nodeFiles) if (!(await isMissing(join(directory, name)))) return 'node'
  return 'no-node'
}

function isMissing(path: string): Promise<boolean> {
  return stat(path).then(
    () => false,
    (error: unknown) => ['ENOENT', 'ENOTDIR'].includes(errnoNameOf(error)),
  )
}
