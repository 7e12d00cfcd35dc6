// What each operation does to the stores and their maps: the same code when it is performed and when the journal is replayed, so both give the same state.
// No operation moves data here. Chunks that an operation shares only in part are prepared by the pool beforehand and follow as map records.
import assert from 'node:assert/strict'
import { unreachable } from '../core/errors.js'
import type { DataOperation, GroupTable, Operation } from '../core/operation.js'
import type { ByteRange, Sequence, StoreId } from '../core/units.js'
import { ChunkMap, type PageKeeper } from './chunk-map.js'
import {
  type GroupState,
  isLocalId,
  presentGeneration,
  Store,
  storeOf,
  withGeneration,
} from './group-state.js'

/** What the journal keeps of an operation. */
export type OperationEvent = {
  readonly kind: 'operation'
  readonly sequence: Sequence
  /** Wall time for people, ISO 8601. */
  readonly at: string
  readonly operation: Operation
}

/** What the journal keeps of a change of this node's own stores, which takes no sequence: snapshots before a resync, drills. */
export type LocalEvent = {
  readonly kind: 'local'
  readonly at: string
  readonly operation: LocalOperation
}

export type LocalOperation = Extract<DataOperation, { kind: 'create-snapshots' | 'delete' }>

/** Snapshots with local ids are named in full and belong to no volume: they outlive what they were taken of. */
export function applyLocal(state: GroupState, keeper: PageKeeper, event: LocalEvent): void {
  const { operation, at: createdAt } = event
  if (operation.kind === 'delete') {
    assert(isLocalId(operation.storeId))
    deleteStore(state, operation.storeId)
    return
  }
  const position = {
    generation: presentGeneration(state),
    sequence: state.sequence as Sequence,
  }
  for (const { storeId: id, sourceId, name } of operation.snapshots) {
    assert(isLocalId(id))
    assert(id >= state.nextLocalId)
    const source = storeOf(state, sourceId)
    const map = new ChunkMap(keeper)
    map.become(source.map)
    const { sizeBytes } = source
    state.stores.set(id, new Store({ id, name, sizeBytes, map, position, createdAt }))
    state.nextLocalId = id + 1
  }
}

export function applyOperation(state: GroupState, keeper: PageKeeper, event: OperationEvent): void {
  assert(event.sequence >= state.sequence)
  state.sequence = event.sequence
  applyOne(state, keeper, event, event.operation)
}

/** The chunks that a copy shares whole; the bytes of `range` before and behind them are copied by the pool. */
export function sharedChunks(
  range: ByteRange,
  sizes: {
    readonly sourceBytes: number
    readonly targetBytes: number
    readonly chunkBytes: number
  },
): { readonly first: number; readonly end: number } {
  const { chunkBytes } = sizes
  const rangeEnd = range.offset + range.lengthBytes
  const first = Math.ceil(range.offset / chunkBytes)
  // The last chunk of a store holds zeroes behind the store's end, in both when both end here.
  const isWholeTail = rangeEnd === sizes.sourceBytes && rangeEnd === sizes.targetBytes
  const end = isWholeTail ? Math.ceil(rangeEnd / chunkBytes) : Math.floor(rangeEnd / chunkBytes)
  return { first, end: Math.max(first, end) }
}

function applyOne(
  state: GroupState,
  keeper: PageKeeper,
  event: OperationEvent,
  operation: Operation,
): void {
  switch (operation.kind) {
    case 'create-volume': {
      const { storeId: id, name, sizeBytes } = operation
      addStore(
        state,
        new Store({ id, name, sizeBytes, map: new ChunkMap(keeper), createdAt: event.at }),
      )
      return
    }
    case 'create-snapshots': {
      const position = { generation: presentGeneration(state), sequence: event.sequence }
      for (const { storeId: id, sourceId, name } of operation.snapshots) {
        const source = storeOf(state, sourceId)
        const map = new ChunkMap(keeper)
        map.become(source.map)
        const volumeId = source.volumeId ?? source.id
        addStore(
          state,
          new Store({
            id,
            name,
            sizeBytes: source.sizeBytes,
            map,
            volumeId,
            position,
            createdAt: event.at,
          }),
        )
      }
      return
    }
    case 'delete':
      deleteStore(state, operation.storeId)
      return
    case 'rename':
      storeOf(state, operation.storeId).name = operation.name
      return
    case 'resize': {
      const store = storeOf(state, operation.storeId)
      const endBefore = Math.ceil(store.sizeBytes / state.chunkBytes)
      store.sizeBytes = operation.sizeBytes
      store.map.unmap(Math.ceil(operation.sizeBytes / state.chunkBytes), endBefore)
      return
    }
    case 'copy':
      applyCopy(state, event, operation)
      return
    case 'batch':
      for (const one of operation.operations) applyOne(state, keeper, event, one)
      return
    case 'new-generation':
      state.generations = withGeneration(state.generations, operation.record)
      return
    case 'reset':
      // A primary gives its table away and keeps what it has.
      if (state.role === 'secondary') becomeBlankCopy(state, keeper, operation.table)
      return
    case 'resync-end':
      state.isWhole = true
      return
    case 'mark':
    case 'freeze':
    case 'thaw':
      return
    default:
      unreachable(operation)
  }
}

/** Every store of the table is there afterwards, and reads as zeroes. */
function becomeBlankCopy(state: GroupState, keeper: PageKeeper, table: GroupTable): void {
  for (const store of [...state.stores.values()]) {
    if (isLocalId(store.id)) continue
    store.map.clear()
    store.isDeleted = true
    state.stores.delete(store.id)
  }
  state.group = table.group
  state.generations = table.generations
  for (const one of table.stores)
    state.stores.set(one.id, new Store({ ...one, map: new ChunkMap(keeper) }))
  state.nextStoreId = table.nextStoreId
}

function applyCopy(
  state: GroupState,
  event: OperationEvent,
  copy: Extract<Operation, { kind: 'copy' }>,
): void {
  const source = storeOf(state, copy.sourceId)
  const target = storeOf(state, copy.targetId)
  if (copy.reason === 'refresh')
    target.position = { generation: presentGeneration(state), sequence: event.sequence }
  if (copy.range === undefined) {
    target.map.become(source.map)
    target.sizeBytes = source.sizeBytes
    return
  }
  const sizes = {
    sourceBytes: source.sizeBytes,
    targetBytes: target.sizeBytes,
    chunkBytes: state.chunkBytes,
  }
  const { first, end } = sharedChunks(copy.range, sizes)
  target.map.copyFrom(source.map, first, end)
}

function deleteStore(state: GroupState, id: StoreId): void {
  const store = storeOf(state, id)
  store.map.clear()
  store.isDeleted = true
  state.stores.delete(store.id)
}

function addStore(state: GroupState, store: Store): void {
  assert(!state.stores.has(store.id))
  assert(store.id >= state.nextStoreId)
  state.nextStoreId = store.id + 1
  state.stores.set(store.id, store)
}
