// What a secondary keeps of itself while a resync overwrites it: the whole group as snapshots of its own, outside the stream (law 5).
import type { SnapshotSpec } from '../core/operation.js'
import type { StoreId } from '../core/units.js'
import { fullName, isLocalId, type Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import { beforeResyncName, isBeforeResync } from './local-stores.js'

export class BeforeResync {
  readonly #pool: Pool

  constructor(pool: Pool) {
    this.#pool = pool
  }

  /** Keeps the group as it is and says durably that it is not whole any more. A resync that was cut off keeps what was kept before it. Rejects with NO_SPACE. */
  async begin(): Promise<void> {
    const { state } = this.#pool
    if (state.isWhole) {
      const own = [...state.stores.values()].filter((store) => !isLocalId(store.id))
      await this.drop()
      await this.#keep(own)
    }
    await this.markUnfinished()
  }

  /** Says durably that this node's stores are no state of the primary's until the resync's end. */
  async markUnfinished(): Promise<void> {
    if (this.#pool.state.isWhole) this.#pool.markNotWhole()
    await this.#pool.commit()
  }

  /** The resync is done: lets go of what was kept. */
  async drop(): Promise<void> {
    const kept = [...this.#pool.state.stores.values()].filter(isBeforeResync)
    for (const store of kept) this.#pool.performLocal({ kind: 'delete', storeId: store.id })
    if (kept.length > 0) await this.#pool.commit()
  }

  async #keep(own: readonly Store[]): Promise<void> {
    if (own.length === 0) return
    const { state } = this.#pool
    const snapshots = own.map(
      (store, index): SnapshotSpec => ({
        storeId: (this.#pool.nextLocalId + index) as StoreId,
        sourceId: store.id,
        name: keptName(fullName(state, store)),
      }),
    )
    const operation = { kind: 'create-snapshots', snapshots } as const
    const prepared = await this.#pool.prepare(operation)
    this.#pool.performLocal(operation, prepared)
  }
}

/** `vol0@before-resync`; of a snapshot `vol0@before-resync.monday`. */
function keptName(name: string): string {
  const [volume, snapshot] = name.split('@')
  return `${volume}@${beforeResyncName}${snapshot === undefined ? '' : `.${snapshot}`}`
}
