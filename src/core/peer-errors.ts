// What an operator is told who asks this node for something that its role, or its peer, does not allow now.
import { LockstepError } from './errors.js'
import { formatBytes } from './units.js'

/** Whoever waits for something of it waits in vain. */
export function nodeStops(): LockstepError {
  return new LockstepError('BUSY', 'the node is stopping', 'try again when it has started')
}

export function isPrimary(hasPeer: boolean): LockstepError {
  return new LockstepError(
    'INVALID_ARGUMENT',
    'this node is a primary: only a secondary becomes promotable',
    hasPeer
      ? 'ask the secondary, or wait for in-sync here: lockstep wait --for in-sync'
      : 'it has no secondary either; name one: lockstep peer set nbd://HOST:PORT',
  )
}

export function primaryConnects(): LockstepError {
  return new LockstepError(
    'NOT_PRIMARY',
    'this node is a secondary: its primary connects to it, and disconnects',
    'run the command on the primary: lockstep peer list names it',
  )
}

export function notTracking(): LockstepError {
  return new LockstepError(
    'NOT_PRIMARY',
    'this node is a secondary: only a primary keeps in mind what its peer lacks',
    'run the command on the primary',
  )
}

export function noTrackedPeer(): LockstepError {
  return new LockstepError(
    'INVALID_ARGUMENT',
    'no node is kept in mind: there is nothing to forget',
    'lockstep peer list',
  )
}

/** Everything was sent, and the copies are known to differ all the same. */
export function nodesDiffer(
  differences: readonly { readonly store: string; readonly differingBytes: number }[],
): LockstepError {
  const [first, ...others] = differences
  const bytes = differences.reduce((sum, one) => sum + one.differingBytes, 0)
  const more = others.length === 0 ? '' : ` and ${others.length} more`
  const which = others.length === 0 ? ` ${first?.store ?? ''}` : ''
  return new LockstepError(
    'NODES_DIFFER',
    `the peer has every change, but verify found ${formatBytes(bytes)} of ${first?.store ?? ''}${more} that differ there, and they were not repaired`,
    `lockstep verify${which} --repair, or --repair --from peer: which node is right only you know`,
  )
}

export function verifying(): LockstepError {
  return new LockstepError('BUSY', 'a verify is under way', 'wait until it has ended')
}

/** There is no link, and none is on its way. */
export function cannotCompare(link: {
  readonly reason: string
  readonly action?: string | undefined
}): LockstepError {
  return new LockstepError(
    'PEER_UNREACHABLE',
    `the nodes cannot be compared now: ${link.reason}`,
    link.action ?? 'lockstep peer connect',
  )
}

export function noPeer(): LockstepError {
  return new LockstepError(
    'INVALID_ARGUMENT',
    'no peer is configured',
    'name it: lockstep peer set nbd://HOST:PORT',
  )
}
