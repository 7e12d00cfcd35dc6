// What verify found to differ and nobody has repaired, for `status`: kept until a verify of that store finds nothing, or it is repaired, deleted, or begun anew.
//
// Invariant: in memory only. A start forgets it, and the event with it; the log of the node keeps both.
import type { StoreId } from '../core/units.js'
import { fullName, type GroupState } from '../storage/group-state.js'
import type { PeerStatus, VerifyReport } from './api.js'
import type { Repair } from './verify.js'

export class FoundDifferences {
  readonly #bytes = new Map<StoreId, number>()

  /** A store was compared; what could not be repaired differs yet. */
  verified(storeId: StoreId, report: VerifyReport, repairs: Repair | undefined): void {
    const leftBytes = repairs === undefined ? report.differingBytes : (report.skippedBytes ?? 0)
    if (leftBytes === 0) this.#bytes.delete(storeId)
    else this.#bytes.set(storeId, leftBytes)
  }

  clear(): void {
    this.#bytes.clear()
  }

  /** As `status` shows it: nothing when there is none. */
  describe(state: GroupState): Pick<PeerStatus, 'differences'> {
    const differences = [...this.#bytes].flatMap(([storeId, differingBytes]) => {
      const store = state.stores.get(storeId)
      return store === undefined ? [] : [{ store: fullName(state, store), differingBytes }]
    })
    return differences.length === 0 ? {} : { differences }
  }
}
