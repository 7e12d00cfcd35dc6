// What a node knows of its group: the stores with their maps, the writing histories, the counters. Plain data, changed by apply-operation.ts only.
import assert from 'node:assert/strict'
import type { RunRecord, Sighting } from '../core/node-runs.js'
import type { GenerationRecord, StoreDescription } from '../core/operation.js'
import type { Generation, Position, StoreId } from '../core/units.js'
import type { ChunkMap } from './chunk-map.js'
import { RangeLock } from './range-lock.js'

/** A run of bytes that can be read and written: a volume, or a snapshot of one. */
export class Store {
  readonly id: StoreId
  /** A volume's name, or the part of a snapshot's behind the `@`. */
  name: string
  sizeBytes: number
  readonly map: ChunkMap
  /** The volume a snapshot belongs to; absent for a volume. */
  readonly volumeId: StoreId | undefined
  /** Where the snapshot was taken, or last refreshed. */
  position: Position | undefined
  /** Wall time for people, ISO 8601. */
  readonly createdAt: string
  isDeleted = false
  /** The ranges being written now. */
  readonly lock = new RangeLock()

  constructor(options: {
    readonly id: StoreId
    readonly name: string
    readonly sizeBytes: number
    readonly map: ChunkMap
    readonly volumeId?: StoreId | undefined
    readonly position?: Position | undefined
    readonly createdAt: string
  }) {
    this.id = options.id
    this.name = options.name
    this.sizeBytes = options.sizeBytes
    this.map = options.map
    this.volumeId = options.volumeId
    this.position = options.position
    this.createdAt = options.createdAt
  }
}

/** The node that takes part in this primary's stream. Tracking exists as long as this does. */
export type PeerState = {
  readonly nodeId: string
  /** Its newest durable position that this node knows of. Journaled no later than anything that was let go of because of it. */
  acknowledged: Position | undefined
}

export type GroupState = {
  /** Random, made by init: names this node's pool, whatever its group and its name are. In the data file's label. */
  readonly nodeId: string
  /** Empty on a blank secondary, which takes the group of the first primary. */
  group: string
  readonly node: string
  readonly chunkBytes: number
  /** Name of the data file in the data directory, or an absolute path. */
  readonly dataName: string
  /** 16 hexadecimal digits that are in every batch of this journal and in no other. */
  readonly journalSalt: string
  role: 'primary' | 'secondary'
  /** False on a secondary from the first entry of a resync to its end: its stores are no state that the primary ever had. */
  isWhole: boolean
  /** Oldest first; the last one is the present. */
  generations: readonly GenerationRecord[]
  sequence: number
  nextStoreId: number
  /** The next number for a store outside the stream. */
  nextLocalId: number
  peer: PeerState | undefined
  /** Of this node, oldest first; the last one is the present. */
  runs: readonly RunRecord[]
  /** Of a secondary: what its primary was seen to have. */
  primarySeen: Sighting | undefined
  readonly stores: Map<StoreId, Store>
}

export function presentGeneration(state: GroupState): Generation {
  const record = state.generations.at(-1)
  assert(record)
  return record.generation
}

/** As many as a table of a group may have; the oldest are forgotten, on each node alike. */
const generationCountMax = 1024

export function withGeneration(
  generations: readonly GenerationRecord[],
  record: GenerationRecord,
): readonly GenerationRecord[] {
  return [...generations, record].slice(-generationCountMax)
}

/** Stores that a secondary keeps for itself, outside the stream: snapshots before a resync, drills. */
export const firstLocalId = 2 ** 31

export function isLocalId(id: number): boolean {
  return id >= firstLocalId
}

export function storeOf(state: GroupState, id: StoreId): Store {
  const store = state.stores.get(id)
  assert(store)
  return store
}

/** A store without its bytes. */
export function describeStore(store: Store): StoreDescription {
  const { id, name, sizeBytes, volumeId, position, createdAt } = store
  return {
    id,
    name,
    sizeBytes,
    ...(volumeId === undefined ? {} : { volumeId }),
    ...(position === undefined ? {} : { position }),
    createdAt,
  }
}

/** `volume`, or `volume@snapshot`. */
export function fullName(state: GroupState, store: Store): string {
  return store.volumeId === undefined
    ? store.name
    : `${storeOf(state, store.volumeId).name}@${store.name}`
}
