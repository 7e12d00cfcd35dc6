// One element of the stream: what happens to the group at one sequence. The sequencer makes them on the primary, the link carries them, the replica applies them.
import type { Operation } from './operation.js'
import type { Sequence, StoreId } from './units.js'

/** A change of one store's bytes. */
export type WriteEntry = {
  readonly kind: 'write'
  readonly sequence: Sequence
  readonly storeId: StoreId
  readonly offset: number
  readonly lengthBytes: number
  /** Durable before it is acknowledged. */
  readonly fua: boolean
  readonly parts: readonly Buffer[]
}

/** Zeroes: a trim or write-zeroes. `mayUnmap`: the space is given back. */
export type ZeroEntry = {
  readonly kind: 'zero'
  readonly sequence: Sequence
  readonly storeId: StoreId
  readonly offset: number
  readonly lengthBytes: number
  readonly fua: boolean
  readonly mayUnmap: boolean
}

/** A barrier: everything before it is durable before anything behind it is applied. */
export type FlushEntry = { readonly kind: 'flush'; readonly sequence: Sequence }

/** What the primary's bytes are at this point, as digests of pieces of `pieceBytes` (the last may be shorter). The replica says which of its own differ. */
export type CompareEntry = {
  readonly kind: 'compare'
  readonly sequence: Sequence
  readonly storeId: StoreId
  readonly offset: number
  readonly lengthBytes: number
  /** One digest of 32 bytes (SHA-256) a piece, one after the other. */
  readonly digests: Buffer
}

export type OperationEntry = {
  readonly kind: 'operation'
  readonly sequence: Sequence
  /** Wall time for people, ISO 8601: the same on every node. */
  readonly at: string
  readonly operation: Operation
}

/** A sequence whose change was refused on the primary before anybody else saw it. */
export type NothingEntry = { readonly kind: 'nothing'; readonly sequence: Sequence }

export type Entry =
  | WriteEntry
  | ZeroEntry
  | FlushEntry
  | CompareEntry
  | OperationEntry
  | NothingEntry

/** How an entry that the peer has ended: here (`failed`: the change was ordered and sent, and failed on this node's medium), and for a compare there. */
export type EntryOutcome =
  | { readonly kind: 'done' }
  | { readonly kind: 'failed' }
  /** One bit a piece, the first in the lowest bit of the first byte: set where the peer's bytes differ. */
  | { readonly kind: 'compared'; readonly differing: Uint8Array }

/** A compare entry has one digest for each piece of this many bytes, counted from its offset. */
export const comparePieceBytes = 64 * 1024
export const digestBytes = 32
