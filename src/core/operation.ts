// The operations of the stream: what one entry asks a node to do to its own stores. Stores are named by id, because names change.
// An operation here has been accepted: it is whole, checked and will be performed on every node. `OperationRequest` is what people ask for, by name.
import type { ByteRange, StoreId } from './units.js'

export type Operation =
  | {
      readonly kind: 'create-volume'
      readonly storeId: StoreId
      readonly name: string
      readonly sizeBytes: number
    }
  /** All snapshots of one operation are at one position. */
  | { readonly kind: 'create-snapshots'; readonly snapshots: readonly SnapshotSpec[] }
  | { readonly kind: 'delete'; readonly storeId: StoreId }
  /** `name` is the new full name: `volume`, or `volume@snapshot`. Renaming a volume renames its snapshots' first part. */
  | { readonly kind: 'rename'; readonly storeId: StoreId; readonly name: string }
  | { readonly kind: 'resize'; readonly storeId: StoreId; readonly sizeBytes: number }
  /** Restore, refresh and sync are this one primitive. Without a range the target becomes the source, its size included. */
  | {
      readonly kind: 'copy'
      readonly reason: 'restore' | 'refresh' | 'sync'
      readonly sourceId: StoreId
      readonly targetId: StoreId
      readonly range?: ByteRange
    }
  /** An unordered set between two adjacent ordered points: all or none. */
  | {
      readonly kind: 'batch'
      readonly operations: readonly Exclude<Operation, { kind: 'batch' }>[]
    }

export type SnapshotSpec = {
  readonly storeId: StoreId
  readonly sourceId: StoreId
  readonly name: string
}

/** What a person or script asks for, stores by name. The JSON of `batch` is an array of these without `batch`. */
export type OperationRequest =
  | { readonly kind: 'volume.create'; readonly name: string; readonly sizeBytes: number }
  | { readonly kind: 'volume.delete'; readonly name: string }
  | { readonly kind: 'volume.rename'; readonly name: string; readonly newName: string }
  | { readonly kind: 'volume.resize'; readonly name: string; readonly sizeBytes: number }
  /** `stores` are volumes or snapshots (a snapshot of a snapshot belongs to the same volume); 'all' is every volume. */
  | {
      readonly kind: 'snapshot.create'
      readonly stores: readonly string[] | 'all'
      readonly name: string
    }
  | { readonly kind: 'snapshot.delete'; readonly store: string }
  | { readonly kind: 'snapshot.rename'; readonly store: string; readonly newName: string }
  | { readonly kind: 'snapshot.restore'; readonly store: string; readonly range?: ByteRange }
  | { readonly kind: 'snapshot.refresh'; readonly store: string }
  | {
      readonly kind: 'sync'
      readonly source: string
      readonly target: string
      readonly range?: ByteRange
    }
  | {
      readonly kind: 'batch'
      readonly operations: readonly Exclude<OperationRequest, { kind: 'batch' }>[]
    }
