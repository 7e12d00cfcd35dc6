// Finding a store by its name, `volume` or `volume@snapshot`. What a name may be made of is in core/store-name.ts.
import { LockstepError } from '../core/errors.js'
import { isNoVolume, noSuchStore } from '../core/no-such-store.js'
import { fullName, type GroupState, isLocalId, type Store } from '../storage/group-state.js'
import { isHidden } from './local-stores.js'

/** Also one that this node keeps for itself, unless it is for nobody's eyes. */
export function findStore(state: GroupState, name: string): Store | undefined {
  for (const store of state.stores.values())
    if (fullName(state, store) === name && !isHidden(store)) return store
  return undefined
}

/** A store of the stream. Throws NO_SUCH_STORE, with the names that are there when they are few. */
export function storeNamed(state: GroupState, name: string): Store {
  const store = findStore(state, name)
  if (store !== undefined && isLocalId(store.id)) throw outsideStream(store)
  if (store !== undefined) return store
  throw absent(state, name)
}

/** Nobody has that name. */
export function absent(state: GroupState, name: string): LockstepError {
  return noSuchStore(
    name,
    streamStores(state).map((one) => ({ name: fullName(state, one) })),
  )
}

/** The stores of the stream: those that the other node has as well. */
export function streamStores(state: GroupState): readonly Store[] {
  return [...state.stores.values()].filter((store) => !isLocalId(store.id))
}

export function volumesOf(state: GroupState): readonly Store[] {
  return streamStores(state).filter((store) => store.volumeId === undefined)
}

/** One that this node keeps for itself. Throws NO_SUCH_STORE. */
export function localStoreNamed(state: GroupState, name: string): Store {
  const store = findStore(state, name)
  if (store !== undefined && isLocalId(store.id)) return store
  throw absent(state, name)
}

function outsideStream(store: Store): LockstepError {
  return new LockstepError(
    'INVALID_ARGUMENT',
    `${store.name} is a snapshot that this node keeps for itself`,
    `it can be read, and deleted: lockstep snapshot delete ${store.name}`,
  )
}

export function volumeNamed(state: GroupState, name: string): Store {
  const store = storeNamed(state, name)
  if (store.volumeId === undefined) return store
  throw isNoVolume(name)
}

export function snapshotNamed(state: GroupState, name: string): Store {
  const store = storeNamed(state, name)
  if (store.volumeId !== undefined) return store
  const snapshots = snapshotsOf(state, store).map((one) => fullName(state, one))
  throw new LockstepError(
    'NO_SUCH_STORE',
    `"${name}" is a volume, not a snapshot`,
    snapshots.length === 0
      ? `it has no snapshot yet: lockstep snapshot create ${name}@NAME`
      : `its snapshots: ${snapshots.slice(0, 10).join(', ')}`,
  )
}

export function snapshotsOf(state: GroupState, volume: Store): readonly Store[] {
  return [...state.stores.values()].filter((store) => store.volumeId === volume.id)
}
