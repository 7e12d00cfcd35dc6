// What `dirty` answers: of each store how much differs, and where. With a peer from what it may lack at this moment; without one from the newest snapshot.
import { changedPicture } from '../storage/extents.js'
import { fullName, type GroupState, type Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import { dirtyBytesOf, type TrackedStore } from '../storage/tracked-stores.js'
import type { DirtyReport } from './api.js'
import type { LackLooks } from './lack-looks.js'
import type { Lacked } from './lacks.js'
import { absent, snapshotsOf, storeNamed, volumesOf } from './names.js'

export type DirtyParts = {
  readonly pool: Pool
  readonly looks: LackLooks
  /** A primary's: there is another node, or one is expected. */
  readonly hasPeer: boolean
}

/** One report per volume, or for one store. Rejects with NO_SUCH_STORE. */
export async function dirtyReports(
  { pool, looks, hasPeer }: DirtyParts,
  name: string | undefined,
  cellCount: number,
): Promise<readonly DirtyReport[]> {
  const { state } = pool
  const asked = name === undefined ? undefined : storeNamed(state, name)
  const options = asked === undefined ? {} : { storeId: asked.id }
  return looks.look(options, (lacked) => {
    // It may be gone by now, and another one have its name.
    if (name !== undefined && asked?.isDeleted === true) throw absent(state, name)
    const stores = asked === undefined ? volumesOf(state) : [asked]
    if (lacked !== undefined)
      return stores.flatMap((store) => lackedReport(lacked, { state, store, cellCount }))
    return stores.map((store) => changedReport({ state, hasPeer }, store, cellCount))
  })
}

type About = { readonly state: GroupState; readonly store: Store; readonly cellCount: number }

/** As it was at the moment of the look: it may have another size now. None of what was made since. */
function lackedReport(lacked: Lacked, { state, store, cellCount }: About): readonly DirtyReport[] {
  const known = lacked.stores.get(store.id)
  if (known === undefined) return []
  const { sizeBytes, dirty, differing } = known
  const differingBytes = dirtyBytesOf(known, differing)
  const dirtyBytes = Math.min(sizeBytes, dirtyBytesOf(known) + differingBytes)
  const found = differing.picture(cellCount, sizeBytes)
  const picture = dirty
    .picture(cellCount, sizeBytes)
    .map((part, cell) => Math.min(1, part + (found[cell] ?? 0)))
  const dirtySnapshots = snapshotsOf(state, store)
    .filter((snapshot) => isLacked(lacked.stores.get(snapshot.id)))
    .map((snapshot) => fullName(state, snapshot))
  const report = { store: fullName(state, store), sizeBytes, dirtyBytes, picture }
  return [
    {
      ...report,
      ...(differingBytes > 0 && { differingBytes }),
      ...(dirtySnapshots.length > 0 && { dirtySnapshots }),
    },
  ]
}

function isLacked(store: TrackedStore | undefined): boolean {
  if (store === undefined) return false
  return store.dirty.dirtyBlockCount > 0 || store.differing.dirtyBlockCount > 0
}

function changedReport(
  { state, hasPeer }: Pick<About, 'state'> & { readonly hasPeer: boolean },
  store: Store,
  cellCount: number,
): DirtyReport {
  // A peer of which nothing is known lacks all that there is.
  const since = hasPeer ? undefined : newestSnapshotBefore(state, store)
  return {
    store: fullName(state, store),
    sizeBytes: store.sizeBytes,
    ...(since === undefined ? {} : { since: fullName(state, since) }),
    ...changedPicture(store, since, { chunkBytes: state.chunkBytes, cellCount }),
  }
}

/** For a volume its newest snapshot; for a snapshot the one before it. */
function newestSnapshotBefore(state: GroupState, store: Store): Store | undefined {
  const volume = store.volumeId === undefined ? store : state.stores.get(store.volumeId)
  if (volume === undefined) return undefined
  const at = (one: Store): number => one.position?.sequence ?? Number.POSITIVE_INFINITY
  const earlier = snapshotsOf(state, volume).filter((one) => one !== store && at(one) < at(store))
  return earlier.sort((a, b) => at(b) - at(a) || b.id - a.id)[0]
}
