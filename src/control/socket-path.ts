// Unix socket paths: what a previous process left behind is removed, what a living one answers on is not.
import { lstat, unlink } from 'node:fs/promises'
import { connect } from 'node:net'
import { errnoNameOf, LockstepError } from '../core/errors.js'

/** In the data directory. */
export const controlSocketName = 'control.sock'
/** sockaddr_un holds 108 bytes with the final zero. */
const socketPathBytesMax = 107

/** Resolves once `path` is free to listen on. A socket that nobody answers on is removed; anything else there is refused. */
export async function claimSocketPath(path: string): Promise<void> {
  checkSocketPath(path)
  const found = await lstat(path).catch((error: unknown) => {
    if (errnoNameOf(error) === 'ENOENT') return undefined
    throw new LockstepError(
      'IO_ERROR',
      `${path}: ${errnoNameOf(error)}`,
      `check the directory: ls -ld ${path}`,
    )
  })
  if (found === undefined) return
  if (!found.isSocket()) {
    throw new LockstepError(
      'IN_USE',
      `${path} exists and is not a socket`,
      'move it away, or listen on another path',
    )
  }
  if (await answers(path)) {
    throw new LockstepError(
      'IN_USE',
      `another process listens on ${path}`,
      'stop that process, or listen on another path',
    )
  }
  await unlink(path).catch((error: unknown) => {
    if (errnoNameOf(error) !== 'ENOENT') throw error
  })
}

export function checkSocketPath(path: string): void {
  if (Buffer.byteLength(path) > socketPathBytesMax) {
    throw new LockstepError(
      'INVALID_ARGUMENT',
      `${path} is longer than the ${socketPathBytesMax} bytes that a socket's path may have`,
      'use a directory with a shorter path',
    )
  }
}

/** A process that is alive but does not accept fills its backlog: EAGAIN. Only a refusal says that nobody is there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', (error) => {
      const name = errnoNameOf(error)
      resolve(name !== 'ECONNREFUSED' && name !== 'ENOENT')
    })
  })
}
