// The operations of the stream: what one entry asks a node to do to its own stores. Stores are named by id, because names change.
// An operation here has been accepted: it is whole, checked and will be performed on every node. `OperationRequest` is what people ask for, by name.
import type { ByteRange, Generation, Position, StoreId } from './units.js'

/** Changes stores, by their bytes or their names. */
export type DataOperation =
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
      /** `share`: source and target hold the same bytes here already; on the peer the target takes them from the source. */
      readonly reason: 'restore' | 'refresh' | 'sync' | 'share'
      readonly sourceId: StoreId
      readonly targetId: StoreId
      readonly range?: ByteRange
    }

export type Operation =
  | DataOperation
  /** An unordered set between two adjacent ordered points: all or none. */
  | {
      readonly kind: 'batch'
      readonly operations: readonly DataOperation[]
    }
  | StreamOperation

/** Operations that concern the stream itself. They change no bytes of any store. */
export type StreamOperation =
  /** A new writing history begins here. */
  | { readonly kind: 'new-generation'; readonly record: GenerationRecord }
  /** A blank secondary becomes a member of the group: these stores, all of them holes. */
  | { readonly kind: 'reset'; readonly table: GroupTable }
  /** The secondary is whole at this position. */
  | { readonly kind: 'resync-end' }
  /** An in-band marker; the secondary may take a snapshot of its own and run a hook here. */
  | {
      readonly kind: 'mark'
      readonly name: string
      readonly message?: string
      readonly hook?: string
      readonly snapshot?: string
    }
  /** Keeps a store as it is here, under a number, for verify; `thaw` lets go of it. */
  | { readonly kind: 'freeze'; readonly frozenId: number; readonly storeId: StoreId }
  | { readonly kind: 'thaw'; readonly frozenId: number }

/** One continuous writing history: it began after entry `forkSequence` of its parent. */
export type GenerationRecord = {
  readonly generation: Generation
  readonly parent?: Generation
  readonly forkSequence: number
  /** Begun by a start after an unclean stop: a peer may have writes (no operations) of the parent beyond the fork. */
  readonly isUnclean?: boolean
}

/** The stores of a group without their bytes. */
export type GroupTable = {
  readonly group: string
  readonly generations: readonly GenerationRecord[]
  readonly nextStoreId: number
  readonly stores: readonly StoreDescription[]
}

export type StoreDescription = {
  readonly id: StoreId
  readonly name: string
  readonly sizeBytes: number
  readonly volumeId?: StoreId
  readonly position?: Position
  readonly createdAt: string
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

export type MarkRequest = {
  readonly name: string
  /** For people, and for the hook. */
  readonly message?: string
  /** One of those that the secondary allows. */
  readonly hook?: string
  /** The secondary keeps every volume as it is at the mark. */
  readonly snapshot?: string
}
