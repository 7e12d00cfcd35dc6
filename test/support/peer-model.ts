// A peer as a naive model: stores are maps from sector to the number written there, and it performs entries one by one in their order.
import assert from 'node:assert/strict'
import { comparePieceBytes, type Entry } from '../../src/core/entry.js'
import type { Operation } from '../../src/core/operation.js'

export const sectorBytes = 512

export class ModelStore {
  sizeBytes: number
  /** Absent is zeroes. */
  readonly sectors: Map<number, number>

  constructor(sizeBytes: number, sectors: ReadonlyMap<number, number> = new Map()) {
    this.sizeBytes = sizeBytes
    this.sectors = new Map(sectors)
  }

  cut(sizeBytes: number): void {
    this.sizeBytes = sizeBytes
    for (const sector of this.sectors.keys())
      if (sector * sectorBytes >= sizeBytes) this.sectors.delete(sector)
  }

  copyFrom(source: ModelStore, offset: number, lengthBytes: number): void {
    this.zero(offset, lengthBytes)
    for (const [sector, value] of source.sectors)
      if (isInside(sector, offset, lengthBytes)) this.sectors.set(sector, value)
  }

  zero(offset: number, lengthBytes: number): void {
    for (const sector of this.sectors.keys())
      if (isInside(sector, offset, lengthBytes)) this.sectors.delete(sector)
  }

  /** One digest a piece would say the same. */
  pieceText(offset: number, lengthBytes: number): string {
    const found = [...this.sectors].filter(([sector]) => isInside(sector, offset, lengthBytes))
    return JSON.stringify(found.sort(([a], [b]) => a - b))
  }
}

export class PeerModel {
  readonly stores: Map<number, ModelStore>
  /** The newest entry it has. */
  position: number

  constructor(position = 0, stores: ReadonlyMap<number, ModelStore> = new Map()) {
    this.position = position
    this.stores = new Map(
      [...stores].map(([id, store]) => [id, new ModelStore(store.sizeBytes, store.sectors)]),
    )
  }

  clone(): PeerModel {
    return new PeerModel(this.position, this.stores)
  }

  store(id: number): ModelStore {
    const store = this.stores.get(id)
    assert(store, `the peer has store ${id}`)
    return store
  }

  /** `values` are the numbers of a write's sectors. */
  apply(entry: Entry, values: readonly number[]): void {
    assert(entry.sequence > this.position)
    this.position = entry.sequence
    if (entry.kind === 'operation') this.perform(entry.operation)
    else if (entry.kind === 'zero') this.store(entry.storeId).zero(entry.offset, entry.lengthBytes)
    else if (entry.kind === 'write') {
      const { sectors } = this.store(entry.storeId)
      for (const [index, value] of values.entries()) {
        if (value === 0) sectors.delete(entry.offset / sectorBytes + index)
        else sectors.set(entry.offset / sectorBytes + index, value)
      }
    }
  }

  /** One bit a piece of the range that is not as in `theirs`. */
  compare(
    storeId: number,
    range: { readonly offset: number; readonly lengthBytes: number },
    theirs: ModelStore,
  ): Uint8Array {
    const end = range.offset + range.lengthBytes
    const bits = new Uint8Array(Math.ceil(range.lengthBytes / comparePieceBytes / 8))
    for (let at = range.offset, piece = 0; at < end; at += comparePieceBytes, piece++) {
      const lengthBytes = Math.min(comparePieceBytes, end - at)
      const ours = this.store(storeId).pieceText(at, lengthBytes)
      if (ours !== theirs.pieceText(at, lengthBytes))
        bits[piece >> 3] = (bits[piece >> 3] ?? 0) | (1 << (piece & 7))
    }
    return bits
  }

  perform(operation: Operation): void {
    const { stores } = this
    switch (operation.kind) {
      case 'create-volume':
        stores.set(operation.storeId, new ModelStore(operation.sizeBytes))
        return
      case 'create-snapshots':
        for (const { storeId, sourceId } of operation.snapshots) {
          const source = this.store(sourceId)
          stores.set(storeId, new ModelStore(source.sizeBytes, source.sectors))
        }
        return
      case 'delete':
        assert(stores.delete(operation.storeId))
        return
      case 'resize':
        this.store(operation.storeId).cut(operation.sizeBytes)
        return
      case 'copy': {
        const source = this.store(operation.sourceId)
        const target = this.store(operation.targetId)
        if (operation.range === undefined) {
          target.cut(0)
          target.sizeBytes = source.sizeBytes
        }
        const { offset, lengthBytes } = operation.range ?? {
          offset: 0,
          lengthBytes: source.sizeBytes,
        }
        target.copyFrom(source, offset, lengthBytes)
        return
      }
      case 'batch':
        for (const one of operation.operations) this.perform(one)
        return
      case 'reset':
        stores.clear()
        for (const { id, sizeBytes } of operation.table.stores)
          stores.set(id, new ModelStore(sizeBytes))
        return
      default:
        return
    }
  }
}

function isInside(sector: number, offset: number, lengthBytes: number): boolean {
  const at = sector * sectorBytes
  return at >= offset && at < offset + lengthBytes
}
