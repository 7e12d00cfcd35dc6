// The refusal of a name that no store has: one sentence and one action, whoever finds it out. The command line looks some names up before it asks for a
// confirmation, the engine all of them.
import { LockstepError } from './errors.js'
import { limits } from './limits.js'
import { shownName } from './shown-name.js'

const namesShown = 10

/** `stores` are all that there are: those that a node keeps for itself are not offered. */
export function noSuchStore(
  name: string,
  stores: readonly { readonly name: string; readonly isLocal?: boolean }[],
): LockstepError {
  const all = stores.filter(({ isLocal }) => isLocal !== true).map((store) => store.name)
  // Where a volume was meant a snapshot may be refused, and the other way round.
  const alike = all.filter((one) => one.includes('@') === name.includes('@'))
  const names = alike.length > 0 ? alike : all
  const shown = names.slice(0, namesShown).join(', ')
  const rest = names.length > namesShown ? ', … (lockstep status shows them all)' : ''
  return new LockstepError(
    'NO_SUCH_STORE',
    `there is no store ${shownName(name, limits.nameBytesMax)}`,
    names.length === 0
      ? 'there are none yet: lockstep volume create vol0 1G'
      : `one of ${shown}${rest}`,
  )
}

/** A snapshot was named where only a volume will do. */
export function isNoVolume(name: string): LockstepError {
  return new LockstepError(
    'NO_SUCH_STORE',
    `"${name}" is a snapshot, not a volume`,
    'name the volume: the part before the @',
  )
}
