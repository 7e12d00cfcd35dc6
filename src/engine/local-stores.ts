// Stores that a node keeps for itself, outside the stream: what a mark kept, what was there before a resync, what a verify reads. Their names, and what may be
// done with them.
//
// Invariant: no store of the stream can have one of these names, whatever clients of the primary call theirs.
import { LockstepError } from '../core/errors.js'
import { type GroupState, isLocalId, type Store, storeOf } from '../storage/group-state.js'

/** What a mark leaves on the secondary: `vol0@local.nightly`. */
export const markPrefix = 'local.'
/** What a secondary had before a resync: `vol0@before-resync`, and of a snapshot `vol0@before-resync.monday`. */
export const beforeResyncName = 'before-resync'
/** What verify reads. Nobody else sees them; no name of a user begins with a dot. */
export const frozenPrefix = '.frozen.'

/** Of a snapshot the part of its name behind the @. */
export function snapshotPart(store: Store): string {
  return store.name.slice(store.name.indexOf('@') + 1)
}

function localPart(store: Store): string | undefined {
  return isLocalId(store.id) ? snapshotPart(store) : undefined
}

/** The name of the volume that a store is, or was taken of. */
export function sourceName(state: GroupState, store: Store): string {
  if (isLocalId(store.id)) return localSource(store)
  return store.volumeId === undefined ? store.name : storeOf(state, store.volumeId).name
}

export function isMarkSnapshot(store: Store): boolean {
  return localPart(store)?.startsWith(markPrefix) === true
}

export function isBeforeResync(store: Store): boolean {
  return localPart(store)?.startsWith(beforeResyncName) === true
}

/** Not for the eyes of people: it comes and goes with a verify. */
export function isHidden(store: Store): boolean {
  return isLocalId(store.id) && store.name.startsWith(frozenPrefix)
}

/** The volume that a store of this node alone was taken of, by its name then. */
export function localSource(store: Store): string {
  return store.name.slice(0, store.name.indexOf('@'))
}

/** Throws INVALID_NAME for names that snapshots of the stream may not have. */
export function checkUnreserved(part: string): void {
  const isReserved =
    part.startsWith(markPrefix) ||
    part === beforeResyncName ||
    part.startsWith(`${beforeResyncName}.`)
  if (!isReserved) return
  throw new LockstepError(
    'INVALID_NAME',
    `snapshots named "${markPrefix}…" and "${beforeResyncName}" are those that a replica keeps for itself`,
    `choose another name, such as ${part.startsWith(markPrefix) ? part.slice(markPrefix.length) || 'monday' : 'before-upgrade'}`,
  )
}

/** Throws why this node's own snapshot may not be deleted. */
export function checkDeletable(store: Store): void {
  if (isMarkSnapshot(store)) return
  throw new LockstepError(
    'IN_USE',
    `${store.name} is what this replica had before the resync: until that is done it is the only good copy`,
    'lockstep wait --for in-sync: it is let go of then',
  )
}
