// What the engine offers to the control socket and the daemon, as types: status, operations, differences, events, exports.
import type { ExportList } from '../../nbd/export.js'
import type { OperationRequest } from '../core/operation.js'
import type { Generation, Position, Sequence } from '../core/units.js'

export type StoreStatus = {
  readonly name: string
  readonly sizeBytes: number
  /** Chunks this store refers to, shared ones included. */
  readonly allocatedBytes: number
  readonly snapshotOf?: string
  /** Where the snapshot was taken; absent for a volume. */
  readonly position?: Position
  /** Wall time for people only. ISO 8601. */
  readonly createdAt: string
}

export type GroupStatus = {
  readonly node: string
  readonly group: string
  readonly role: 'primary' | 'secondary'
  readonly generation: Generation
  readonly sequence: Sequence
  readonly durableSequence: Sequence
  readonly chunkBytes: number
  readonly stores: readonly StoreStatus[]
  readonly pool: PoolStatus
  readonly peers: readonly never[]
  /** Law 7: set after a failed sync or journal write; nothing becomes durable until a restart. */
  readonly failure?: { readonly message: string; readonly action: string }
  readonly connections: number
}

export type PoolStatus = {
  /** A block device's capacity; absent for a sparse file. */
  readonly sizeBytes?: number
  readonly usedBytes: number
  /** Bytes that the stores would need beyond `usedBytes` if they shared nothing. */
  readonly sharedBytes: number
  readonly journalBytes: number
  readonly journalUsedBytes: number
}

/** The position of the operation, and that it is durable on this node. `stores` are the full names it created or changed. */
export type OperationResult = { readonly position: Position; readonly stores: readonly string[] }

/** Bytes that differ from `since` (the newest snapshot when no peer is configured), at chunk granularity. `picture` has one number from 0 to 1 a cell: the changed part of that slice of the store. */
export type DirtyReport = {
  readonly store: string
  readonly sizeBytes: number
  readonly since?: string
  readonly dirtyBytes: number
  readonly picture: readonly number[]
}

export type EngineEvent = {
  /** ISO 8601 wall time, for people. */
  readonly at: string
  readonly kind:
    | 'operation'
    | 'refused'
    | 'checkpoint'
    | 'failure'
    | 'started'
    | 'stopping'
    | 'no-space'
  /** One sentence. */
  readonly message: string
  readonly sequence?: Sequence
  readonly stores?: readonly string[]
}

export interface EngineApi {
  readonly exports: ExportList
  status(): GroupStatus
  /** Performs a request: resolves once it is durable here, rejects with a LockstepError and nothing changed. The same `requestId` again returns the first answer. */
  perform(
    request: OperationRequest,
    options?: { readonly requestId?: string },
  ): Promise<OperationResult>
  /** One report per volume, or for one store. */
  dirty(store?: string, cellCount?: number): readonly DirtyReport[]
  /** Recent events, oldest first (the last 1,000), and a subscription to further ones. */
  recentEvents(): readonly EngineEvent[]
  onEvent(listener: (event: EngineEvent) => void): () => void
  /** Finishes requests under way, flushes, writes a clean checkpoint, closes. Rejects when the flush failed. */
  close(): Promise<void>
}
