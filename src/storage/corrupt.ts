// What is said when the files of a data directory are damaged: nothing was changed, and what can be done, which is more where another node has a copy.
import { LockstepError } from '../core/errors.js'
import type { GroupState } from './group-state.js'

/** For what storage finds wrong in its own files. */
export function damaged(message: string): LockstepError {
  return new LockstepError(
    'CORRUPT',
    message,
    'nothing was changed; restore the data directory from a backup',
  )
}

const renewal = 'make a new secondary of its peer in another directory: lockstep init NEW-DIR'

/** Offers the copy of the other node, if there is one. Without a state nobody knows. Other errors stay as they are. */
export function offeringPeer(error: unknown, state: GroupState | undefined): unknown {
  if (!(error instanceof LockstepError) || error.code !== 'CORRUPT') return error
  if (state?.peer === undefined && state?.role === 'primary') return error
  const offer = state === undefined ? `, or, if it has a peer, ${renewal}` : `, or ${renewal}`
  return new LockstepError('CORRUPT', error.message, `${error.action}${offer} --secondary`)
}
