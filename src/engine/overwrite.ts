// The write of a repair from the peer: an entry like a client's, at its own place in the order, that gives way to whatever was written since the store was kept.
//
// Invariant: no acknowledged write of a client is lost to it. A store that was kept shares its chunks, and a shared chunk is never written in place: so a chunk
// that still has the place it had then has the bytes it had then.
import { RequestError } from '../../nbd/errors.js'
import type { Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import type { PrimaryStream } from './primary-stream.js'
import type { DataEntry, Sequencer } from './sequencer.js'
import type { Overwrite } from './verify.js'

class ChangedMeanwhile extends RequestError {
  constructor() {
    super('EIO', 'the store was written to since it was compared')
  }
}

/** False when nothing was written, because something else was. Rejects as a write does. */
export async function overwrite(
  parts: { readonly pool: Pool; readonly sequencer: Sequencer; readonly stream: PrimaryStream },
  { storeId, kept, offset, bytes }: Overwrite,
): Promise<boolean> {
  const { pool, sequencer, stream } = parts
  const store = pool.state.stores.get(storeId)
  const end = offset + bytes.length
  if (store === undefined || end > store.sizeBytes) return false
  const { chunkBytes } = pool.state
  const entry: DataEntry = {
    kind: 'write',
    store,
    offset,
    lengthBytes: bytes.length,
    parts: [bytes],
    mayUnmap: false,
    check: () => {
      if (!isAsKept(store, kept, offset, end, chunkBytes)) throw new ChangedMeanwhile()
    },
  }
  try {
    for (let wait = stream.admit(); wait !== undefined; wait = stream.admit()) await wait
    await sequencer.submit(entry)
    return true
  } catch (error) {
    // Deleted or cut meanwhile is changed as well.
    if (error instanceof ChangedMeanwhile || store.isDeleted || end > store.sizeBytes) return false
    throw error
  }
}

function isAsKept(
  store: Store,
  kept: Store,
  offset: number,
  end: number,
  chunkBytes: number,
): boolean {
  for (let chunk = Math.floor(offset / chunkBytes); chunk * chunkBytes < end; chunk++)
    if (store.map.get(chunk) !== kept.map.get(chunk)) return false
  return true
}
