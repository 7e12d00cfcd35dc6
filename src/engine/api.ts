// What the engine offers to the control socket and the daemon, as types: status, operations, differences, events, exports.

import type { Duplex } from 'node:stream'
import type { SendNow } from '../../nbd/bytes/send-now.js'
import type { ExportList } from '../../nbd/export.js'
import type { MarkRequest, OperationRequest } from '../core/operation.js'
import type { Generation, Position, Sequence } from '../core/units.js'

export type StoreStatus = {
  readonly name: string
  readonly sizeBytes: number
  /** Chunks this store refers to, shared ones included. */
  readonly allocatedBytes: number
  readonly snapshotOf?: string
  /** True for a snapshot that this node keeps for itself: the other one does not have it. */
  readonly isLocal?: boolean
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
  readonly peers: readonly PeerStatus[]
  /** On a secondary: false while a resync is unfinished; what the primary had before it is kept in `before-resync` snapshots. */
  readonly isWhole?: boolean
  /** Something has waited for this node's disk for so long that it hangs, it seems. */
  readonly diskSilentSeconds?: number
  /** Law 7: set after a failed sync or journal write; nothing becomes durable until a restart. */
  readonly failure?: { readonly message: string; readonly action: string }
  readonly connections: number
}

/** When a client's write is complete: applied there too, received there too, or applied here. */
export type Mode = 'sync' | 'semi-sync' | 'async'

/** docs/LINK.md, "States". */
export type LinkName =
  | 'offline'
  | 'connecting'
  | 'greeting'
  | 'replaying'
  | 'resyncing'
  | 'streaming'
  | 'refused'

export type PeerStatus = {
  /** Where a primary connects to; on a secondary where the connection came from. */
  readonly uri: string
  readonly node?: string
  readonly link: LinkName
  /** Why it is in this state, one sentence. */
  readonly reason: string
  /** What to type, when something should be done. */
  readonly action?: string
  /** Of a refused link, where a greeting refused it: by which rule (docs/LINK.md). */
  readonly rule?: string
  /** Null on a secondary, like what follows where that is said: its primary knows. */
  readonly mode: Mode | null
  readonly appliedSequence: Sequence
  readonly durableSequence: Sequence
  /** Bytes that the peer has not durably acknowledged, in the outbox. Null on a secondary. */
  readonly lagBytes: number | null
  /** Age of the oldest change that the peer has not durably acknowledged, in the outbox or known by map only (then since the start of the program at the earliest). Null on a secondary. */
  readonly lagSeconds: number | null
  /** Data that the peer would lack if this node were lost now, at most: what is dirty and what is in the outbox and not applied there; a chunk that several stores share once. Null on a secondary. */
  readonly lacksBytes: number | null
  /** Known by map only: blocks of every store that may differ, what has left the outbox for good. Null on a secondary. */
  readonly dirtyBytes: number | null
  /** Null on a secondary. */
  readonly opLogEntries: number | null
  readonly sentBytes: number
  readonly receivedBytes: number
  /** What verify found to differ, in whole blocks: kept, across starts, until it is repaired, written over, or found to be the same. */
  readonly differences?: readonly { readonly store: string; readonly differingBytes: number }[]
  /** On a secondary without its primary: who wanted to be it a moment ago and could not prove that it may. */
  readonly turnedAway?: {
    readonly from: string
    readonly reason: string
    readonly action: string
    readonly secondsAgo: number
  }
  /** On a primary: the peer lives, and for so long has made nothing durable of what it was sent: longer than a disk takes that works. */
  readonly unconfirmedSeconds?: number
  /** Writers wait for the peer to make room in the outbox. */
  readonly isStalled?: boolean
  readonly resync?: {
    readonly doneBytes: number
    readonly totalBytes: number
    /** Null until something has gone over. */
    readonly bytesPerSecond: number | null
    /** Null while nobody can tell: nothing has gone over yet, or nothing does any more. */
    readonly secondsLeft: number | null
  }
}

/** Why somebody was not let in as the peer. Of a kind there may be any number. */
export type TurnedAway = {
  readonly kind: 'version' | 'secret' | 'no-secret'
  /** A clause. */
  readonly reason: string
  readonly action: string
}

/** What `peer set` may change while the node runs. */
export type PeerChange = {
  readonly uri?: string
  readonly mode?: Mode
  /** Bytes a second that a resync may use; 0: as many as there are. */
  readonly maxRate?: number
}

/** A connection to the node that listens at `uri`, identity proven, handshake done: what follows are frames. Rejects with the reason, and soon when the signal is aborted; nothing of it is left then. */
export type Connect = (uri: string, signal: AbortSignal) => Promise<Duplex>

/** What replication needs of the world. Without it a node neither connects nor lets anybody connect. */
export type ReplicationOptions = {
  readonly connect: Connect
  /** Where the peer listens; only a primary connects. */
  readonly peerUri?: string
  /** `sync` by default. */
  readonly mode?: Mode
  /** 256 MiB by default. */
  readonly outboxBytesMax?: number
  /** Entries of the outbox that are looked at in one turn of the event loop, to tell what the peer lacks; for tests. */
  readonly lookEntriesMax?: number
  /** Entries of a folded outbox that leave it in one turn of the event loop; for tests. */
  readonly foldEntriesMax?: number
  /** A full outbox is folded into the dirty maps (the default), or makes writers wait. */
  readonly congestion?: 'fold' | 'stall'
  /** A peer from which nothing came for this long is gone; 5 s by default. */
  readonly deadlineMs?: number
  /** A secondary has performed what came over the link in one piece: more comes soon, perhaps. `isCrowd`: it was several entries. */
  readonly onEntries?: (isCrowd: boolean) => void
  /** Writes to a connection's socket without its stream: the bytes that the system took at once, 0 when it cannot. */
  readonly sendNow?: SendNow
  /** Bytes a second that a resync may use. */
  readonly maxRate?: number
  /** False: a secondary without room for what it had before a resync gives that up, instead of stopping. True by default. */
  readonly isBeforeResyncRequired?: boolean
  /** Runs the hooks of marks, on a secondary. */
  readonly runHook?: RunHook
}

/** What a greeting would decide, for `peer connect --explain`. */
export type Explanation = {
  readonly rule: string
  readonly kind: string
  readonly direction?: string
  readonly operations: number
  readonly bytes: number
  readonly reason: string
  readonly action?: string
}

/** What was known of a node that was let go of. */
export type ForgottenPeer = {
  readonly node?: string
  readonly dirtyBytes: number
  readonly opLogEntries: number
}

/** What the peer did at a mark. */
export type MarkResult = {
  readonly name: string
  /** Snapshots of its own that it took there: the first of them, by their full names. */
  readonly snapshots: readonly string[]
  readonly snapshotCount: number
  readonly hook?: HookOutcome
  /** What of it was not done. */
  readonly problems: readonly MarkProblem[]
}

export type MarkProblem = { readonly message: string; readonly action: string }

/** How a hook ended: with an exit code, or by a signal. */
export type HookOutcome = {
  readonly name: string
  readonly exitCode?: number
  readonly signal?: string
  /** It was ended because it took too long. */
  readonly isTimedOut: boolean
  /** The end of what it wrote to its standard output and error. */
  readonly output: string
}

/** Runs an allow-listed program. Rejects with a LockstepError when it is not allowed or cannot be started. */
export type RunHook = (request: {
  readonly hook: string
  /** Of the mark. */
  readonly name: string
  readonly message?: string
  readonly position: Position
  /** The part behind the @ of the snapshots that were taken there. */
  readonly snapshot?: string
}) => Promise<HookOutcome>

export type VerifyProgress = {
  readonly store: string
  readonly doneBytes: number
  readonly totalBytes: number
}

/** What differed between the nodes at one position. `ranges` are the first 1,000, in pieces of 64 KiB. */
export type VerifyReport = {
  readonly store: string
  readonly comparedBytes: number
  readonly differingBytes: number
  /** Other stores that share chunks with this one where it differs: they differ there too. The first 64. */
  readonly sharedWith?: readonly string[]
  readonly ranges: readonly { readonly offset: number; readonly lengthBytes: number }[]
  /** Of a repair from the peer: what clients have written to meanwhile, and was left as it is. */
  readonly skippedBytes?: number
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

/** With a peer: bytes that may differ there, at block granularity: what it may lack, what it has not applied of the outbox among them, and `differingBytes` that verify found and nobody has repaired. Without one: bytes that differ from `since`, the newest snapshot, at chunk granularity. `picture` has one number from 0 to 1 a cell: the changed part of that slice of the store. */
export type DirtyReport = {
  readonly store: string
  readonly sizeBytes: number
  readonly since?: string
  readonly dirtyBytes: number
  /** Absent when there are none. */
  readonly differingBytes?: number
  /** With a peer, of a volume: the full names of its snapshots that may differ there. Absent when there are none. */
  readonly dirtySnapshots?: readonly string[]
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
    | 'link'
    | 'resync'
    | 'mark'
    | 'verify'
  /** One sentence. */
  readonly message: string
  readonly sequence?: Sequence
  readonly stores?: readonly string[]
}

export interface EngineApi {
  readonly exports: ExportList
  /** At once: what a peer lacks at most. */
  status(): GroupStatus
  /** With what a peer lacks counted, as of one moment before the answer. Clients do not wait for it. */
  countedStatus(): Promise<GroupStatus>
  /** Performs a request: resolves once it is durable here, rejects with a LockstepError and nothing changed. The same `requestId` again returns the first answer. */
  perform(
    request: OperationRequest,
    options?: { readonly requestId?: string },
  ): Promise<OperationResult>
  /** Throws what `perform` would reject with if it came now. For whoever asks people first: what is ordered meanwhile may change the answer. */
  check(request: OperationRequest): void
  /** One report per volume, or for one store, all as of one moment between question and answer. Rejects with NO_SUCH_STORE. */
  dirty(store?: string, cellCount?: number): Promise<readonly DirtyReport[]>
  /** Recent events, oldest first (the last 1,000), and a subscription to further ones. */
  recentEvents(): readonly EngineEvent[]
  onEvent(listener: (event: EngineEvent) => void): () => void
  /** Finishes requests under way, flushes, writes a clean checkpoint, closes. Rejects when the flush failed. */
  close(): Promise<void>
}

/** What concerns the other node. */
export interface ReplicationApi {
  /** The other end of a peer's connection, on a secondary: settles when the connection has ended. Never rejects. */
  acceptPeer(stream: Duplex, from: string): Promise<void>
  /** Somebody wanted to be the peer and was not let in: events tell it, and `status` for a while, however many they are. */
  peerTurnedAway(from: string, why: TurnedAway): void
  /** Connects now instead of after the next delay, and resolves to what the greeting decided. With `explain` nothing is moved. */
  connectPeer(options?: { readonly explain?: boolean }): Promise<Explanation>
  /** Ends the link until `connectPeer`. */
  disconnectPeer(): Promise<void>
  /** Another address or mode of the peer; the mode counts from the next write. */
  setPeer(change: PeerChange): Promise<void>
  /** Lets go of the node that is tracked: of its dirty maps, its op log, and the link, until `connectPeer`. It needs everything again when it returns. */
  forgetPeer(): Promise<ForgottenPeer>
  /** Resolves when the condition holds; rejects with TIMED_OUT, or at once when it never can: with NODES_DIFFER when everything was sent and a difference is known that nobody repairs. */
  waitFor(condition: 'in-sync' | 'promotable', timeoutMs: number): Promise<void>
}

/** Markers in the stream. */
export interface MarkApi {
  /** Orders a marker: it takes effect on the peer at its position. The same `requestId` again returns the first answer. */
  mark(
    request: MarkRequest,
    options?: {
      readonly requestId?: string
      /** Somebody will ask for its result: refused when there is no peer that could tell. */
      readonly isAwaited?: boolean
    },
  ): Promise<OperationResult>
  /** What the peer did at a mark. Rejects with TIMED_OUT. */
  markResult(sequence: Sequence, timeoutMs: number): Promise<MarkResult>
}

export interface VerifyApi {
  /** Throws what a verify would be refused for now: NOT_PRIMARY, NO_SUCH_STORE, INVALID_ARGUMENT without a peer, PEER_UNREACHABLE, BUSY. */
  checkVerify(store?: string): void
  /** Compares one store, or all, with the peer's while writes go on. With `repair` what differs is copied to the peer afterwards, or from it at once. */
  verify(options?: {
    readonly store?: string
    readonly repair?: boolean
    /** Whose bytes are right where they differ: this node's, by default, or the peer's. */
    readonly from?: 'self' | 'peer'
    readonly onProgress?: (progress: VerifyProgress) => void
    /** Aborted, it stops at the next piece, or while it waits for the nodes to be in sync, and rejects with CANCELLED. */
    readonly signal?: AbortSignal
  }): Promise<readonly VerifyReport[]>
}
