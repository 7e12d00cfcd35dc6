// Whether a directory holds a node: asked before a daemon starts, and when none answers. Light: every command may need it.
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoNameOf } from '../core/errors.js'

/** A directory with one of them is a node's, whole or damaged. */
const nodeFiles = ['checkpoint', 'journal-0']

/** Why there is no node, and what to type. */
export type Absence = { readonly message: string; readonly action: string }

/** Undefined unless it is certain that there is no node: what cannot be looked at is for the pool to explain, or for whoever connects. */
export async function absenceOf(directory: string): Promise<Absence | undefined> {
  const here = `check the name; to make a node there: lockstep init ${directory}`
  const elsewhere =
    'check the name; to make a node in a directory of its own: lockstep init NEW-DIR'
  const failure = await failureOf(stat(`${directory}/.`))
  if (failure === 'ENOENT') return { message: `there is no directory ${directory}`, action: here }
  if (failure === 'ENOTDIR')
    return { message: `${directory} is no directory, and a node is one`, action: elsewhere }
  for (const name of nodeFiles)
    if (!isAbsence(await failureOf(stat(join(directory, name))))) return undefined
  const [stranger] = await readdir(directory).catch(() => ['?'])
  const message = `there is no node in ${directory}`
  if (stranger === undefined) return { message, action: here }
  return { message: `${message}, which holds other files`, action: elsewhere }
}

function isAbsence(failure: string | undefined): boolean {
  return failure === 'ENOENT' || failure === 'ENOTDIR'
}

function failureOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => errnoNameOf(error),
  )
}
