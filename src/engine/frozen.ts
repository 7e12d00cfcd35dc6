// Stores as they were at one position of the stream, kept under a number on both nodes so that verify can read them in peace: snapshots of this node's own.
// They last until `thaw` or the next start.
import type { Operation } from '../core/operation.js'
import type { StoreId } from '../core/units.js'
import { type Store, storeOf } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import { frozenPrefix, isHidden } from './local-stores.js'

/** One verify keeps one; what an earlier run of the primary left is replaced by number. A peer that asks for more is no primary of ours. */
export const frozenCountMax = 16

export class FrozenStores {
  readonly #pool: Pool
  readonly #frozen = new Map<number, StoreId>()
  #runId: string | undefined
  #lastId = 0

  constructor(pool: Pool) {
    this.#pool = pool
  }

  /** For the next store to be kept. Numbers that an earlier run gave out are used again: it ended with them. */
  nextId(): number {
    return ++this.#lastId
  }

  /** In the step that performs an operation of the stream. */
  performed(operation: Operation): void {
    if (operation.kind === 'freeze') this.#freeze(operation.frozenId, operation.storeId)
    else if (operation.kind === 'thaw') this.#thaw(operation.frozenId)
  }

  find(frozenId: number): Store | undefined {
    const id = this.#frozen.get(frozenId)
    return id === undefined ? undefined : this.#pool.state.stores.get(id)
  }

  /** False when one more than `frozenCountMax` would be kept. */
  hasRoomFor(frozenId: number): boolean {
    return this.#frozen.has(frozenId) || this.#frozen.size < frozenCountMax
  }

  /** On a secondary: the run of the primary that asks from here on. One that has ended thaws nothing any more. */
  belongTo(runId: string | undefined): void {
    if (runId === this.#runId) return
    this.#runId = runId
    this.clear()
  }

  /** What an earlier run left. */
  clear(): void {
    for (const store of [...this.#pool.state.stores.values()]) {
      if (isHidden(store)) this.#pool.performLocal({ kind: 'delete', storeId: store.id })
    }
    this.#frozen.clear()
  }

  #freeze(frozenId: number, sourceId: StoreId): void {
    this.#thaw(frozenId)
    const source = storeOf(this.#pool.state, sourceId)
    const storeId = this.#pool.nextLocalId as StoreId
    const name = `${frozenPrefix}${frozenId}.${source.id}`
    this.#pool.performLocal({ kind: 'create-snapshots', snapshots: [{ storeId, sourceId, name }] })
    this.#frozen.set(frozenId, storeId)
  }

  #thaw(frozenId: number): void {
    const storeId = this.#frozen.get(frozenId)
    this.#frozen.delete(frozenId)
    if (storeId !== undefined && this.#pool.state.stores.has(storeId))
      this.#pool.performLocal({ kind: 'delete', storeId })
  }
}
