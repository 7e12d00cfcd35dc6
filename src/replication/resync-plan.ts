// What a resync sends next, as a pure function of what is dirty and of which chunks stores share. No I/O. (Bodies follow.)
import type { ByteRange, StoreId } from '../core/units.js'

export type ResyncStore = {
  readonly id: StoreId
  readonly sizeBytes: number
  readonly isVolume: boolean
}

/** Dirty maps and chunk maps as the planner sees them. Answers about a store that is gone are: nothing is dirty, all are holes. */
export interface ResyncView {
  readonly chunkBytes: number
  /** All stores of the stream, in any order. The same array as long as nothing was created, deleted or resized. */
  stores(): readonly ResyncStore[]
  /** The next run of dirty bytes at or behind `fromOffset`, cut to at most `lengthBytesMax` and at the store's end. */
  nextDirty(
    storeId: StoreId,
    fromOffset: number,
    lengthBytesMax: number,
  ): { readonly offset: number; readonly lengthBytes: number } | undefined
  /** True when a block of the range is dirty. */
  isDirty(storeId: StoreId, offset: number, lengthBytes: number): boolean
  /** True when digests should be compared before the block is sent. */
  isSuspect(storeId: StoreId, offset: number): boolean
  /** The place of one chunk; 0 is a hole. */
  place(storeId: StoreId, chunk: number): number
}

export type ShareCopy = {
  readonly sourceId: StoreId
  readonly targetId: StoreId
  readonly range: ByteRange
}

export type ResyncItem =
  /** The bytes as they are when the entry gets its sequence. */
  | {
      readonly kind: 'send'
      readonly storeId: StoreId
      readonly offset: number
      readonly lengthBytes: number
    }
  /** A hole: `mayUnmap`. */
  | {
      readonly kind: 'zero'
      readonly storeId: StoreId
      readonly offset: number
      readonly lengthBytes: number
    }
  /** Digests of pieces. Blocks that differ stay dirty, are suspect no more, and go over in the next pass. */
  | {
      readonly kind: 'compare'
      readonly storeId: StoreId
      readonly offset: number
      readonly lengthBytes: number
    }
  /** Copies of reason `share` in one batch, all to one store, none to a source of another. */
  | { readonly kind: 'share'; readonly copies: readonly ShareCopy[] }

/** One walk over everything that is dirty: volumes first, then snapshots, oldest first. Dirt that appears behind it is for the next pass. */
export declare class ResyncPass {
  constructor(view: ResyncView)
  /** The next item; 'pause' when many chunks were looked at without one (let others run, then ask again); undefined at the end. */
  next(): ResyncItem | 'pause' | undefined
}

/** Data of an item on the wire: 0 for zeroes and shares. */
export declare function dataBytesOf(item: ResyncItem): number
