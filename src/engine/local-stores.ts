// Stores that a node keeps for itself, outside the stream: what a mark kept, what was there before a resync, what a verify reads. Which they are, and what
// may be done with them; their names, which no store of the stream can have, are in core/store-name.ts.
import { LockstepError } from '../core/errors.js'
import { beforeResyncName, markPrefix } from '../core/store-name.js'
import { type GroupState, isLocalId, type Store, storeOf } from '../storage/group-state.js'

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

/** Throws why this node's own snapshot may not be deleted. */
export function checkDeletable(store: Store): void {
  if (isMarkSnapshot(store)) return
  throw new LockstepError(
    'IN_USE',
    `${store.name} is what this replica had before the resync: until that is done it is the only good copy`,
    'lockstep wait --for in-sync: it is let go of then',
  )
}
