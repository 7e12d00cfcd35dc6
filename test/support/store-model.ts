// The naive model of a group's stores with their bytes, by the book: what clients read behind each change that was asked for.
//
// Invariant: bytes are never changed in place, so that a copy of the model costs two maps.
import assert from 'node:assert/strict'
import type { OperationRequest } from '../../src/core/operation.js'
import { Catalog, type Effect } from '../simulation/model-catalog.js'

/** Stores by full name. */
export type Images = ReadonlyMap<string, Buffer>

/** More than one request creates. */
const idsPerRequest = 16

export class StoreModel {
  readonly catalog: Catalog
  readonly #bytes: Map<number, Buffer>
  #nextId: number

  private constructor(catalog: Catalog, bytes: ReadonlyMap<number, Buffer>, nextId: number) {
    this.catalog = catalog
    this.#bytes = new Map(bytes)
    this.#nextId = nextId
  }

  /** Without any store. */
  static empty(chunkBytes: number): StoreModel {
    return new StoreModel(new Catalog([], chunkBytes), new Map(), 1)
  }

  clone(): StoreModel {
    return new StoreModel(this.catalog.clone(), this.#bytes, this.#nextId)
  }

  get images(): Images {
    const { stores } = this.catalog
    return new Map(
      [...stores.values()].map((store) => [this.catalog.fullName(store), this.#bytesOf(store.id)]),
    )
  }

  /** Throws a Refusal when that cannot be done, and nothing has changed then. */
  perform(request: OperationRequest): void {
    const effects = this.catalog.perform(request, this.#nextId)
    this.#nextId += idsPerRequest
    // What a batch copies is what was there before it.
    const before = new Map(this.#bytes)
    for (const effect of effects) this.#apply(effect, before)
    for (const { id, sizeBytes } of this.catalog.stores.values()) this.#fit(id, sizeBytes)
  }

  write(name: string, offset: number, data: Buffer): void {
    const store = this.catalog.find(name)
    assert(store)
    const changed = Buffer.from(this.#bytesOf(store.id))
    assert(offset + data.length <= changed.length)
    data.copy(changed, offset)
    this.#bytes.set(store.id, changed)
  }

  #apply(effect: Effect, before: ReadonlyMap<number, Buffer>): void {
    if (effect.kind === 'create') this.#bytes.set(effect.id, Buffer.alloc(0))
    if (effect.kind === 'delete') this.#bytes.delete(effect.id)
    if (effect.kind !== 'copy') return
    const source = before.get(effect.source)
    assert(source)
    const { target, range } = effect
    if (range === undefined) {
      this.#bytes.set(target, source)
      return
    }
    const changed = Buffer.from(this.#bytesOf(target))
    source.copy(changed, range.offset, range.offset, range.end)
    this.#bytes.set(target, changed)
  }

  /** What is cut is gone, what is added is zeroes. */
  #fit(id: number, sizeBytes: number): void {
    const bytes = this.#bytesOf(id)
    if (bytes.length === sizeBytes) return
    const fitted = Buffer.alloc(sizeBytes)
    bytes.copy(fitted)
    this.#bytes.set(id, fitted)
  }

  #bytesOf(id: number): Buffer {
    const bytes = this.#bytes.get(id)
    assert(bytes)
    return bytes
  }
}

/** Undefined when they are the same, or the first thing that is not. */
export function differenceOf(expected: Images, found: Images): string | undefined {
  const names = (images: Images): string => [...images.keys()].sort().join()
  if (names(expected) !== names(found)) return `stores are ${names(found)}, not ${names(expected)}`
  for (const [name, bytes] of expected) {
    const other = found.get(name)
    assert(other)
    if (other.equals(bytes)) continue
    if (other.length !== bytes.length)
      return `${name} has ${other.length} bytes, not ${bytes.length}`
    const at = bytes.findIndex((byte, index) => byte !== other[index])
    return `${name} differs at ${at}`
  }
  return undefined
}
