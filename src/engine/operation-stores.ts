// The stores that an operation of the primary was about, by the names that people know, for a secondary's events: an operation itself has numbers only.
//
// Invariant: names are those behind the operation; of what it deletes, those before it.
import type { Operation } from '../core/operation.js'
import type { StoreId } from '../core/units.js'
import { fullName, type GroupState } from '../storage/group-state.js'

/** Names in one event: a batch may be about thousands. */
export const storesToldMax = 64
/** Names in its sentence. */
const namesSaidMax = 4

/** Made before the operation takes effect, asked behind it. */
export class OperationStores {
  readonly #state: GroupState
  readonly #ids: readonly StoreId[]
  readonly #before: readonly (string | undefined)[]

  constructor(state: GroupState, operation: Operation) {
    this.#state = state
    this.#ids = [...new Set(idsOf(operation))]
    this.#before = this.#namesNow()
  }

  names(): readonly string[] {
    const names = this.#namesNow().map((name, index) => name ?? this.#before[index])
    return names.filter((name) => name !== undefined)
  }

  #namesNow(): readonly (string | undefined)[] {
    return this.#ids.map((id) => {
      const store = this.#state.stores.get(id)
      return store === undefined ? undefined : fullName(this.#state, store)
    })
  }
}

function idsOf(operation: Operation): readonly StoreId[] {
  switch (operation.kind) {
    case 'create-snapshots':
      return operation.snapshots.map(({ storeId }) => storeId)
    case 'copy':
      return [operation.targetId]
    case 'batch':
      return operation.operations.flatMap(idsOf)
    default:
      return 'storeId' in operation ? [operation.storeId] : []
  }
}

/** Nobody asked for it: chunks of stores that share them here as on the primary. */
export function isOfResync(operation: Operation): boolean {
  if (operation.kind === 'batch') return operation.operations.every(isOfResync)
  return operation.kind === 'copy' && operation.reason === 'share'
}

/** One sentence. */
export function describeForeign(kind: Operation['kind'], stores: readonly string[]): string {
  const said = stores.slice(0, namesSaidMax).join(', ')
  const more = stores.length > namesSaidMax ? ` and ${stores.length - namesSaidMax} more` : ''
  return `${kind} from the primary${said === '' ? '' : `: ${said}${more}`}`
}
