// A group's state with no disk behind it: volumes and snapshots made by the operations themselves.
import type { Operation } from '../../src/core/operation.js'
import type { Generation, Sequence, StoreId } from '../../src/core/units.js'
import { applyOperation } from '../../src/storage/apply-operation.js'
import {
  firstLocalId,
  fullName,
  type GroupState,
  type Store,
} from '../../src/storage/group-state.js'
import { LooseKeeper } from './loose-keeper.js'

export class Group {
  readonly keeper = new LooseKeeper()
  readonly state: GroupState

  constructor(chunkBytes = 4096) {
    this.state = {
      nodeId: '0a'.repeat(16),
      isWhole: true,
      group: 'a group',
      node: 'a',
      chunkBytes,
      dataName: 'data',
      journalSalt: '00'.repeat(8),
      role: 'primary',
      generations: [{ generation: 'g1' as Generation, forkSequence: 0 }],
      sequence: 0,
      nextStoreId: 1,
      nextLocalId: firstLocalId,
      runs: [],
      primarySeen: undefined,
      peer: undefined,
      stores: new Map(),
    }
  }

  apply(operation: Operation): void {
    const sequence = (this.state.sequence + 1) as Sequence
    applyOperation(this.state, this.keeper, { kind: 'operation', sequence, at: 'now', operation })
  }

  volume(name: string, sizeBytes: number): Store {
    const storeId = this.state.nextStoreId as StoreId
    this.apply({ kind: 'create-volume', storeId, name, sizeBytes })
    return this.store(name)
  }

  /** `volume@name` of the volume, or of `source`. */
  snapshot(full: string, source?: Store): Store {
    const [volume = '', name = ''] = full.split('@')
    const sourceId = (source ?? this.store(volume)).id
    const storeId = this.state.nextStoreId as StoreId
    this.apply({ kind: 'create-snapshots', snapshots: [{ storeId, sourceId, name }] })
    return this.store(full)
  }

  store(name: string): Store {
    for (const store of this.state.stores.values())
      if (fullName(this.state, store) === name) return store
    throw new Error(`there is no ${name}`)
  }

  names(): readonly string[] {
    return [...this.state.stores.values()].map((store) => fullName(this.state, store))
  }
}

/** Places of a store's chunks from `first` on. */
export function placesOf(store: Store, first: number, end: number): readonly number[] {
  return Array.from({ length: end - first }, (_, index) => store.map.get(first + index))
}
