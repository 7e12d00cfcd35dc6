// Random actions that make sense most of the time: they use stores that exist, in ranges that exist, and now and then names that are
// taken or missing, so that refusals happen too.
import type { OperationRequest } from '../../src/core/operation.js'
import type { ByteRange } from '../../src/core/units.js'
import type { Action } from './client.js'
import type { Catalog, ModelStore } from './model-catalog.js'
import type { SeededRandom } from './random.js'

type SingleRequest = Exclude<OperationRequest, { kind: 'batch' }>

const volumeNames = ['a', 'b', 'c', 'd']
const snapshotNames = ['s', 't', 'u']
/** Above this many stores, deleting becomes likely. */
const storesWanted = 7

export class ActionSource {
  readonly #random: SeededRandom
  readonly #chunkBytes: number
  readonly #chunkCountMax: number

  constructor(
    random: SeededRandom,
    options: { readonly chunkBytes: number; readonly chunkCountMax: number },
  ) {
    this.#random = random
    this.#chunkBytes = options.chunkBytes
    this.#chunkCountMax = options.chunkCountMax
  }

  /** A whole number of sectors up to the largest store: sometimes whole chunks. */
  sizeBytes(): number {
    const chunks = 1 + this.#random.below(this.#chunkCountMax)
    const cut = this.#random.chance(0.5) ? 512 * this.#random.below(this.#chunkBytes / 512) : 0
    return chunks * this.#chunkBytes - cut
  }

  /** A write or zeroing somewhere in a store of that size. */
  data(store: string, sizeBytes: number): Action {
    const { offset, lengthBytes } = this.range(sizeBytes)
    const fua = this.#random.chance(0.1)
    if (this.#random.chance(0.75)) return { kind: 'write', store, offset, lengthBytes, fua }
    return { kind: 'zero', store, offset, lengthBytes, fua, keep: this.#random.chance(0.3) }
  }

  /** Unaligned, in sectors or in chunks; often small, sometimes all. */
  range(sizeBytes: number): { readonly offset: number; readonly lengthBytes: number } {
    return this.rangeFrom(this.#random, sizeBytes)
  }

  /** The same with somebody else's randomness. */
  rangeFrom(
    random: SeededRandom,
    sizeBytes: number,
  ): { readonly offset: number; readonly lengthBytes: number } {
    const unit = random.pick([1, 512, 512, this.#chunkBytes])
    const spanMax = random.pick([600, 2000, this.#chunkBytes, 3 * this.#chunkBytes, sizeBytes])
    const offset = Math.min(sizeBytes - 1, unit * random.below(Math.ceil(sizeBytes / unit)))
    const wanted = unit * (1 + random.below(Math.ceil(spanMax / unit)))
    return { offset, lengthBytes: Math.max(1, Math.min(wanted, sizeBytes - offset)) }
  }

  request(catalog: Catalog): OperationRequest {
    if (this.#random.chance(0.12)) {
      const count = 1 + this.#random.below(3)
      const operations: SingleRequest[] = []
      while (operations.length < count) {
        const one = this.#single(catalog)
        if (isForBatch(one)) operations.push(one)
      }
      return { kind: 'batch', operations }
    }
    return this.#single(catalog)
  }

  #single(catalog: Catalog): SingleRequest {
    const random = this.#random
    const stores = [...catalog.stores.values()]
    const volumes = stores.filter((store) => store.volumeId === undefined)
    const snapshots = stores.filter((store) => store.volumeId !== undefined)
    const create: SingleRequest = {
      kind: 'volume.create',
      name: random.pick(volumeNames),
      sizeBytes: this.sizeBytes(),
    }
    if (volumes.length === 0) return create
    const volume = catalog.fullName(random.pick(volumes))
    const snapshot = snapshots.length > 0 ? catalog.fullName(random.pick(snapshots)) : `${volume}@s`
    const deletion: SingleRequest = random.chance(0.7)
      ? { kind: 'snapshot.delete', store: snapshot }
      : { kind: 'volume.delete', name: volume }
    if (stores.length > storesWanted && random.chance(0.6)) return deletion
    const name = random.pick(snapshotNames)
    const any = catalog.fullName(random.pick(stores))
    return random.pick<() => SingleRequest>([
      () => create,
      () => deletion,
      () => deletion,
      () => ({ kind: 'snapshot.create', stores: [volume], name }),
      () => ({ kind: 'snapshot.create', stores: [volume], name }),
      () => ({ kind: 'snapshot.create', stores: [any], name }),
      () => ({ kind: 'snapshot.create', stores: 'all', name }),
      () => ({ kind: 'snapshot.restore', store: snapshot }),
      () => this.#ranged(catalog, { kind: 'snapshot.restore', store: snapshot }, snapshot),
      () => this.#ranged(catalog, { kind: 'snapshot.restore', store: snapshot }, snapshot),
      () => ({ kind: 'snapshot.refresh', store: snapshot }),
      () => ({ kind: 'sync', source: any, target: volume }),
      () => this.#ranged(catalog, { kind: 'sync', source: any, target: volume }, any),
      () => ({ kind: 'volume.resize', name: volume, sizeBytes: this.sizeBytes() }),
      () => ({ kind: 'volume.resize', name: volume, sizeBytes: this.sizeBytes() }),
      () => ({ kind: 'volume.rename', name: volume, newName: random.pick(volumeNames) }),
      () => ({ kind: 'snapshot.rename', store: snapshot, newName: random.pick(snapshotNames) }),
    ])()
  }

  #ranged(
    catalog: Catalog,
    request: Extract<SingleRequest, { kind: 'snapshot.restore' | 'sync' }>,
    source: string,
  ): SingleRequest {
    const store: ModelStore | undefined = catalog.find(source)
    return { ...request, range: this.range(store?.sizeBytes ?? 512) as ByteRange }
  }
}

/** What the model of batches knows. */
function isForBatch(request: SingleRequest): boolean {
  return !(request.kind === 'snapshot.create' && request.stores === 'all')
}
