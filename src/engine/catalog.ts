// The group's stores as the list of exports: every volume and every snapshot, found by name, '' when there is only one volume.
import { RequestError } from '../../nbd/errors.js'
import type { Export, ExportList } from '../../nbd/export.js'
import { FailureLog } from '../core/failure-log.js'
import type { Log } from '../core/log.js'
import { fullName, type Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import { isHidden } from './local-stores.js'
import { findStore, volumesOf } from './names.js'
import { type ExportOptions, StoreExport } from './store-export.js'

/** Of the names in one answer: with the words around them it stays below what a client is sent. */
const namesLettersMax = 160

export type CatalogOptions = Omit<ExportOptions, 'store' | 'failures'> & {
  readonly log: Log
  readonly pool: Pool
  /** Connections that one export may have at once. */
  readonly connectionsPerExportMax: number
}

export class Catalog implements ExportList {
  readonly #options: CatalogOptions
  readonly #failures: FailureLog
  readonly #exports = new Map<Store, StoreExport>()

  constructor(options: CatalogOptions) {
    this.#options = options
    this.#failures = new FailureLog(options.log, {
      first: 'request failed',
      again: 'requests go on failing',
    })
  }

  get connectionCount(): number {
    let sum = 0
    for (const one of this.#exports.values()) sum += one.connectionCount
    return sum
  }

  connectionsOf(store: Store): number {
    return this.#exports.get(store)?.connectionCount ?? 0
  }

  list(): readonly { readonly name: string; readonly description: string }[] {
    const { state } = this.#options.pool
    return [...state.stores.values()]
      .filter((store) => !isHidden(store))
      .map((store) => ({
        name: fullName(state, store),
        description: this.#exportOf(store).description,
      }))
  }

  find(name: string): Export | undefined {
    const { state } = this.#options.pool
    if (name !== '') {
      const store = findStore(state, name)
      return store === undefined ? undefined : this.#exportOf(store)
    }
    const [volume, ...others] = volumesOf(state)
    return volume === undefined || others.length > 0 ? undefined : this.#exportOf(volume)
  }

  explainMissing(name: string): string | undefined {
    if (name !== '') return undefined
    const { state } = this.#options.pool
    const names = volumesOf(state).map((volume) => fullName(state, volume))
    return names.length === 0
      ? 'there is no volume yet, so none is the default'
      : `there are ${names.length} volumes, so none is the default: name ${oneOf(names)}`
  }

  attach(found: Export): () => void {
    const one = found as StoreExport
    if (one.store.isDeleted) throw new RequestError('EIO', 'the store was deleted')
    if (one.connectionCount >= this.#options.connectionsPerExportMax) {
      throw new RequestError('EPERM', `the export has ${one.connectionCount} connections already`)
    }
    one.connectionCount++
    let isAttached = true
    return () => {
      if (isAttached) one.connectionCount--
      isAttached = false
    }
  }

  #exportOf(store: Store): StoreExport {
    let found = this.#exports.get(store)
    if (found === undefined) {
      for (const known of this.#exports.keys()) if (known.isDeleted) this.#exports.delete(known)
      found = new StoreExport({ ...this.#options, failures: this.#failures, store })
      this.#exports.set(store, found)
    }
    return found
  }
}

/** As many of the names as an answer has room for. */
function oneOf(names: readonly string[]): string {
  const all = names.join(', ')
  if (all.length <= namesLettersMax) return `one of ${all}`
  const shown = all.slice(0, all.lastIndexOf(', ', namesLettersMax))
  return `${shown} or another (LIST tells)`
}
