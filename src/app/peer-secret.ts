// The group's secret, which both nodes have in a file: read once, at the start. A file that others can read, or a secret that can be guessed, is refused.
import { open } from 'node:fs/promises'
import { errnoNameOf, LockstepError } from '../core/errors.js'

/** Below this a secret can be found by trying: 16 random letters and digits are more than 80 bits. */
const secretBytesMin = 16
/** A key, not a document. */
const secretBytesMax = 4096

const makeOne = (path: string) =>
  `make one and copy it to the other node: (umask 077; head -c 32 /dev/urandom | base64 > ${path})`

/** What is to be done when two nodes do not know the same. */
export const sameSecret =
  'set peer-secret-file on both nodes, to the same secret, and start the changed one again'

/** The secret without the white space around it; undefined when `path` is empty. Rejects with INVALID_CONFIG. */
export async function readPeerSecret(path: string): Promise<Buffer | undefined> {
  if (path === '') return undefined
  const text = await readPrivately(path)
  const secret = Buffer.from(text.trim())
  if (secret.length >= secretBytesMin && secret.length <= secretBytesMax) return secret
  throw invalid(
    `${path} holds ${secret.length} bytes; a secret has ${secretBytesMin} to ${secretBytesMax}`,
    makeOne(path),
  )
}

async function readPrivately(path: string): Promise<string> {
  try {
    await using file = await open(path)
    const { mode } = await file.stat()
    if ((mode & 0o077) !== 0) {
      throw invalid(`${path} can be read by other users`, `chmod 600 ${path}`)
    }
    const target = Buffer.alloc(2 * secretBytesMax)
    const { bytesRead } = await file.read(target, 0, target.length, 0)
    return target.toString('utf8', 0, bytesRead)
  } catch (error) {
    if (error instanceof LockstepError) throw error
    throw invalid(`the secret ${path} cannot be read: ${errnoNameOf(error)}`, makeOne(path))
  }
}

function invalid(message: string, action: string): LockstepError {
  return new LockstepError('INVALID_CONFIG', message, action)
}
