// What the checker of two nodes asks of an implementation: everything that may move in the engine's interface for replication is named here and in
// real-pair.ts, and nowhere else.
import type { Clock, Random } from '../../../src/core/clock.js'
import type { Disk } from '../../../src/core/disk.js'
import type { Log } from '../../../src/core/log.js'
import type { Operation } from '../../../src/core/operation.js'
import type {
  MarkApi,
  PeerStatus,
  ReplicationApi,
  ReplicationOptions,
  VerifyApi,
} from '../../../src/engine/api.js'
import type { ActiveLimits } from '../../../src/storage/pool-tracking.js'
import type { StoreImage } from '../oracle.js'
import type { SimMedium } from '../sim-medium.js'
import type { SubjectEngine } from '../subject.js'

/** Marks and verify are for the real one only. */
export type PairEngine = SubjectEngine &
  Pick<ReplicationApi, 'acceptPeer' | 'connectPeer' | 'disconnectPeer' | 'setPeer' | 'waitFor'> &
  Partial<MarkApi & VerifyApi>

export type Role = 'primary' | 'secondary'

export type PairSubject = {
  readonly name: string
  /** False for one that knows only everything or nothing: law 2 is not asked. */
  readonly tracksDifferences: boolean
  init(
    disk: Disk,
    options: {
      readonly node: string
      readonly role?: Role
      readonly chunkBytes?: number
      readonly journalBytes?: number
      readonly random: Random
      readonly clock: Clock
    },
  ): Promise<void>
  open(options: {
    readonly disk: Disk
    readonly clock: Clock
    readonly random: Random
    readonly log: Log
    readonly mutants?: ReadonlySet<string>
    readonly replication?: ReplicationOptions
    readonly activeLimits?: ActiveLimits
  }): Promise<PairEngine>
  /** Recovers a copy of what the medium holds, by itself and without a network, and says what is there. */
  inspect(medium: SimMedium): Promise<Inspection>
}

/** What one medium holds, as its own recovery sees it. */
export type Inspection = {
  /** Those of the stream. */
  readonly stores: readonly InspectedStore[]
  /** What a secondary keeps of the whole group from before a resync, under the names that the stores had. */
  readonly beforeResync: readonly StoreImage[] | undefined
  /** False from the first change of a resync to its end. */
  readonly isWhole: boolean
  /** Everything up to here is on this medium. */
  readonly position: { readonly generation: string; readonly sequence: number }
  /** Oldest first, the present one last. */
  readonly generations: readonly { readonly generation: string; readonly forkSequence: number }[]
  /** Present when differences to a peer are tracked. */
  readonly tracking?: {
    /** Operations that the peer has not durably performed, oldest first. */
    readonly opLog: readonly { readonly sequence: number; readonly operation: Operation }[]
    /** Whether the peer's copy may differ here: dirty or active, or found by verify. */
    mayDiffer(storeId: number, offset: number): boolean
    /** The peer is too far away to be described: it will get everything. */
    readonly isLost: boolean
  }
}

export type InspectedStore = {
  readonly id: number
  readonly name: string
  readonly sizeBytes: number
  readonly bytes: Buffer
}

/** The state of the link as the primary sees it; `offline` when there is no peer. */
export function linkOf(engine: PairEngine): PeerStatus['link'] {
  return engine.status().peers[0]?.link ?? 'offline'
}

/** Nothing is left to be done: what the primary has, the peer has on stable storage. */
export function isInSync(engine: PairEngine): boolean {
  const [peer] = engine.status().peers
  if (!peer) return false
  return peer.link === 'streaming' && peer.dirtyBytes === 0 && peer.opLogEntries === 0
}
