// Reads what should be a plain file. A pipe in its place is not waited for, and a device is not read until memory ends.
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { NotAFile, openFailure, otherKindOf } from '../storage/node-disk-kind.js'

/** Rejects with NotAFile, or with the errno. */
export async function readPlainFile(path: string): Promise<string> {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK
  await using file = await open(path, flags).catch(async (error: unknown) => {
    throw await openFailure(path, error)
  })
  const kind = otherKindOf(await file.stat())
  if (kind !== undefined) throw new NotAFile(path, kind)
  return await file.readFile('utf8')
}
