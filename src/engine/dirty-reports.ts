// What `dirty` answers: of each store how much differs, and where. With a peer from what it may lack at this moment; without one from the newest snapshot.
import { changedPicture } from '../storage/extents.js'
import { fullName, type GroupState, type Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import { dirtyBytesOf, type TrackedStore } from '../storage/tracked-stores.js'
import type { DirtyReport } from './api.js'
import { lackedNow } from './lacks.js'
import { snapshotsOf, storeNamed, volumesOf } from './names.js'
import type { PrimaryStream } from './primary-stream.js'

export type DirtyParts = {
  readonly pool: Pool
  readonly stream: PrimaryStream | undefined
  /** A primary's: there is another node, or one is expected. */
  readonly hasPeer: boolean
}

/** One report per volume, or for one store. Throws NO_SUCH_STORE. */
export function dirtyReports(
  { pool, stream, hasPeer }: DirtyParts,
  name: string | undefined,
  cellCount: number,
): readonly DirtyReport[] {
  const { state } = pool
  const stores = name === undefined ? volumesOf(state) : [storeNamed(state, name)]
  using lacked = lackedNow(pool, stream)
  return stores.map((store) => {
    const { sizeBytes } = store
    const head = { store: fullName(state, store), sizeBytes }
    if (lacked !== undefined)
      return { ...head, ...lackedPicture(lacked.stores.get(store.id), sizeBytes, cellCount) }
    // A peer of which nothing is known lacks all that there is.
    const since = hasPeer ? undefined : newestSnapshotBefore(state, store)
    return {
      ...head,
      ...(since === undefined ? {} : { since: fullName(state, since) }),
      ...changedPicture(store, since, { chunkBytes: state.chunkBytes, cellCount }),
    }
  })
}

function lackedPicture(
  known: TrackedStore | undefined,
  sizeBytes: number,
  cellCount: number,
): Pick<DirtyReport, 'dirtyBytes' | 'picture'> {
  if (known === undefined) return { dirtyBytes: 0, picture: new Array<number>(cellCount).fill(0) }
  return { dirtyBytes: dirtyBytesOf(known), picture: known.dirty.picture(cellCount, sizeBytes) }
}

/** For a volume its newest snapshot; for a snapshot the one before it. */
function newestSnapshotBefore(state: GroupState, store: Store): Store | undefined {
  const volume = store.volumeId === undefined ? store : state.stores.get(store.volumeId)
  if (volume === undefined) return undefined
  const at = (one: Store): number => one.position?.sequence ?? Number.POSITIVE_INFINITY
  const earlier = snapshotsOf(state, volume).filter((one) => one !== store && at(one) < at(store))
  return earlier.sort((a, b) => at(b) - at(a) || b.id - a.id)[0]
}
