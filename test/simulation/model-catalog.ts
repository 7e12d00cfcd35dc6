// The naive model of names: which stores exist, and what each request does to them. It says what is refused and why, and what
// a request that is performed does to bytes, without any bytes.
import assert from 'node:assert/strict'
import type { ErrorCode } from '../../src/core/errors.js'
import type { OperationRequest } from '../../src/core/operation.js'

export type ModelStore = {
  readonly id: number
  /** A volume's name, or the part behind the `@`. */
  readonly name: string
  readonly sizeBytes: number
  readonly volumeId: number | undefined
}

/** What a request does to bytes. A copy without a range takes the source's size too. */
export type Effect =
  | { readonly kind: 'create'; readonly id: number }
  | {
      readonly kind: 'copy'
      readonly source: number
      readonly target: number
      readonly range?: { readonly offset: number; readonly end: number }
    }
  | { readonly kind: 'resize'; readonly id: number; readonly sizeBytes: number }
  | { readonly kind: 'delete'; readonly id: number }

type SingleRequest = Exclude<OperationRequest, { kind: 'batch' }>

/** A request that the model expects to be refused. */
export class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string) {
    super(message)
    this.code = code
  }
}

export class Catalog {
  readonly stores: Map<number, ModelStore>
  readonly chunkBytes: number

  constructor(stores: Iterable<ModelStore> = [], chunkBytes = 4096) {
    this.chunkBytes = chunkBytes
    this.stores = new Map([...stores].map((store) => [store.id, store]))
  }

  clone(): Catalog {
    return new Catalog(this.stores.values(), this.chunkBytes)
  }

  fullName(store: ModelStore): string {
    if (store.volumeId === undefined) return store.name
    const volume = this.stores.get(store.volumeId)
    assert(volume)
    return `${volume.name}@${store.name}`
  }

  find(name: string): ModelStore | undefined {
    for (const store of this.stores.values()) if (this.fullName(store) === name) return store
    return undefined
  }

  names(): string[] {
    return [...this.stores.values()].map((store) => this.fullName(store)).sort()
  }

  /** Performs `request`, or throws a Refusal and changes nothing. New stores get the ids from `firstId` on. */
  perform(request: OperationRequest, firstId: number): readonly Effect[] {
    if (request.kind !== 'batch') return this.#performOne(request, firstId)
    // An unordered set: each one sees what was before the batch, and none touches what another one writes.
    const changed = this.clone()
    const effects: Effect[] = []
    for (const one of request.operations) {
      const trial = this.clone()
      const found = trial.#performOne(one, firstId + effects.length)
      effects.push(...found)
      for (const [id, store] of this.stores) {
        const after = trial.stores.get(id)
        if (!after) changed.stores.delete(id)
        else if (after !== store) changed.#set(after)
      }
      for (const store of trial.stores.values()) if (!this.stores.has(store.id)) changed.#set(store)
    }
    this.#checkConflicts(request.operations)
    this.stores.clear()
    for (const store of changed.stores.values()) this.#set(store)
    return effects
  }

  #performOne(request: SingleRequest, firstId: number): readonly Effect[] {
    switch (request.kind) {
      case 'volume.create':
        this.#checkFree(request.name)
        this.#set({
          id: firstId,
          name: request.name,
          sizeBytes: request.sizeBytes,
          volumeId: undefined,
        })
        return [{ kind: 'create', id: firstId }]
      case 'volume.delete':
        return this.#delete(this.#volume(request.name))
      case 'volume.rename':
        this.#checkFree(request.newName)
        this.#set({ ...this.#volume(request.name), name: request.newName })
        return []
      case 'volume.resize': {
        const { sizeBytes } = request
        const store = this.#volume(request.name)
        this.#set({ ...store, sizeBytes })
        return [{ kind: 'resize', id: store.id, sizeBytes }]
      }
      case 'snapshot.create':
        return this.#snapshots(request, firstId)
      case 'snapshot.delete':
        return this.#delete(this.#snapshot(request.store))
      case 'snapshot.rename': {
        const store = this.#snapshot(request.store)
        const volume = request.store.split('@')[0]
        this.#checkFree(`${volume}@${request.newName}`)
        this.#set({ ...store, name: request.newName })
        return []
      }
      case 'snapshot.restore': {
        const store = this.#snapshot(request.store)
        return this.#copy(store, this.#volumeOf(store), request.range)
      }
      case 'snapshot.refresh': {
        const store = this.#snapshot(request.store)
        return this.#copy(this.#volumeOf(store), store, undefined)
      }
      case 'sync':
        return this.#copy(this.#store(request.source), this.#store(request.target), request.range)
    }
  }

  /** Throws a Refusal when two operations touch the same store or name, one of them writing. */
  #checkConflicts(operations: readonly SingleRequest[]): void {
    const seen: Access[] = []
    for (const operation of operations) {
      const own = this.#accesses(operation)
      for (const access of own) {
        const other = seen.find(
          (one) =>
            one.name === access.name &&
            one.offset < access.end &&
            access.offset < one.end &&
            (one.isWrite || access.isWrite),
        )
        if (other) throw new Refusal('CONFLICT', access.name)
      }
      seen.push(...own)
    }
  }

  #accesses(request: SingleRequest): readonly Access[] {
    const reads = (name: string, range?: Range) => accessOf(name, range, false)
    const writes = (name: string, range?: Range) => accessOf(name, range && this.#wide(range), true)
    switch (request.kind) {
      case 'volume.create':
      case 'volume.delete':
      case 'volume.resize':
        return [writes(request.name)]
      case 'volume.rename':
        return [writes(request.name), writes(request.newName)]
      case 'snapshot.create': {
        assert(request.stores !== 'all', 'the model knows no batch with all')
        return request.stores.flatMap((name) => {
          const volume = volumeOf(name)
          return [reads(name), reads(volume), writes(`${volume}@${request.name}`)]
        })
      }
      case 'snapshot.delete':
        return [writes(request.store)]
      case 'snapshot.rename':
        return [writes(request.store), writes(`${volumeOf(request.store)}@${request.newName}`)]
      case 'snapshot.restore':
        return [reads(request.store, request.range), writes(volumeOf(request.store), request.range)]
      case 'snapshot.refresh':
        return [reads(volumeOf(request.store)), writes(request.store)]
      case 'sync':
        return [reads(request.source, request.range), writes(request.target, request.range)]
    }
  }

  /** Copies conflict by whole chunks of their targets. */
  #wide(range: NonNullable<Range>): NonNullable<Range> {
    const offset = Math.floor(range.offset / this.chunkBytes) * this.chunkBytes
    const end = Math.ceil((range.offset + range.lengthBytes) / this.chunkBytes) * this.chunkBytes
    return { offset, lengthBytes: end - offset }
  }

  #snapshots(
    request: Extract<OperationRequest, { kind: 'snapshot.create' }>,
    firstId: number,
  ): readonly Effect[] {
    const sources =
      request.stores === 'all'
        ? [...this.stores.values()].filter((store) => store.volumeId === undefined)
        : request.stores.map((name) => this.#store(name))
    const created: ModelStore[] = []
    for (const source of sources) {
      const volumeId = source.volumeId ?? source.id
      const volume = this.stores.get(volumeId)
      assert(volume)
      this.#checkFree(`${volume.name}@${request.name}`)
      if (created.some((other) => other.volumeId === volumeId)) {
        throw new Refusal('NAME_TAKEN', 'two snapshots of one name')
      }
      const { sizeBytes } = source
      created.push({ id: firstId + created.length, name: request.name, sizeBytes, volumeId })
    }
    for (const store of created) this.#set(store)
    return created.map(({ id }, index) => {
      const source = sources[index]
      assert(source)
      return { kind: 'copy', source: source.id, target: id }
    })
  }

  #copy(
    source: ModelStore,
    target: ModelStore,
    range: { readonly offset: number; readonly lengthBytes: number } | undefined,
  ): readonly Effect[] {
    if (source.id === target.id) throw new Refusal('INVALID_ARGUMENT', 'source is target')
    if (!range) {
      this.#set({ ...target, sizeBytes: source.sizeBytes })
      return [{ kind: 'copy', source: source.id, target: target.id }]
    }
    const end = range.offset + range.lengthBytes
    if (end > source.sizeBytes || end > target.sizeBytes) {
      throw new Refusal('OUT_OF_RANGE', 'range past the end')
    }
    const { offset } = range
    return [{ kind: 'copy', source: source.id, target: target.id, range: { offset, end } }]
  }

  #delete(store: ModelStore): readonly Effect[] {
    for (const other of this.stores.values()) {
      if (other.volumeId === store.id) throw new Refusal('HAS_SNAPSHOTS', this.fullName(other))
    }
    this.stores.delete(store.id)
    return [{ kind: 'delete', id: store.id }]
  }

  #set(store: ModelStore): void {
    this.stores.set(store.id, store)
  }

  #checkFree(name: string): void {
    if (this.find(name)) throw new Refusal('NAME_TAKEN', name)
  }

  #store(name: string): ModelStore {
    const store = this.find(name)
    if (!store) throw new Refusal('NO_SUCH_STORE', name)
    return store
  }

  #volume(name: string): ModelStore {
    const store = this.#store(name)
    if (store.volumeId !== undefined) throw new Refusal('INVALID_ARGUMENT', `${name} is a snapshot`)
    return store
  }

  #snapshot(name: string): ModelStore {
    const store = this.#store(name)
    if (store.volumeId === undefined) throw new Refusal('INVALID_ARGUMENT', `${name} is a volume`)
    return store
  }

  #volumeOf(snapshot: ModelStore): ModelStore {
    const volume = this.stores.get(snapshot.volumeId ?? -1)
    assert(volume)
    return volume
  }
}

function volumeOf(name: string): string {
  return name.split('@')[0] ?? ''
}

type Access = { name: string; offset: number; end: number; isWrite: boolean }
type Range = { readonly offset: number; readonly lengthBytes: number } | undefined

function accessOf(name: string, range: Range, isWrite: boolean): Access {
  const offset = range?.offset ?? 0
  const end = range ? range.offset + range.lengthBytes : Number.MAX_SAFE_INTEGER
  return { name, offset, end, isWrite }
}
