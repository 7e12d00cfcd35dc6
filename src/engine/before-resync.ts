// What a secondary keeps of itself while a resync overwrites it: the whole group as snapshots of its own, outside the stream (law 5).
//
// Invariant: unless the administrator said otherwise, nothing is overwritten without it, and it goes only when the resync is done.
import { errnoNameOf, LockstepError } from '../core/errors.js'
import type { SnapshotSpec } from '../core/operation.js'
import { beforeResyncName } from '../core/store-name.js'
import type { StoreId } from '../core/units.js'
import { fullName, isLocalId, type Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import { isBeforeResync } from './local-stores.js'

const allowGivingUp = 'or let it go: before-resync = "if-room" in lockstep.toml of this node'

export class BeforeResync {
  readonly #pool: Pool
  readonly #isRequired: boolean
  readonly #onGivenUp: (reason: string) => void

  constructor(
    pool: Pool,
    options: {
      /** Without room for it a resync stops. */
      readonly isRequired: boolean
      readonly onGivenUp: (reason: string) => void
    },
  ) {
    this.#pool = pool
    this.#isRequired = options.isRequired
    this.#onGivenUp = options.onGivenUp
  }

  /** Keeps the group as it is and says durably that it is not whole any more. A resync that was cut off keeps what was kept before it. Rejects with NO_SPACE. */
  async begin(): Promise<void> {
    const { state } = this.#pool
    if (state.isWhole) {
      const own = [...state.stores.values()].filter((store) => !isLocalId(store.id))
      await this.drop()
      await this.#keepIfPossible(own)
    }
    await this.markUnfinished()
  }

  /** Says durably that this node's stores are no state of the primary's until the resync's end. */
  async markUnfinished(): Promise<void> {
    if (this.#pool.state.isWhole) this.#pool.markNotWhole()
    await this.#pool.commit()
  }

  /** The resync is done: lets go of what was kept. */
  async drop(): Promise<void> {
    const kept = [...this.#pool.state.stores.values()].filter(isBeforeResync)
    for (const store of kept) this.#pool.performLocal({ kind: 'delete', storeId: store.id })
    if (kept.length > 0) await this.#pool.commit()
  }

  /** At a start: a crash came between the end of a resync and letting go of what was kept for it. */
  dropLeftOver(): void {
    if (!this.#pool.state.isWhole) return
    this.drop().catch((error: unknown) => {
      // The next start tries again.
      if (!(error instanceof LockstepError)) throw error
    })
  }

  /** The resync found no room. Answers what to say of it: what is kept takes some, and may be given up for it. */
  noRoom(): { readonly message: string; readonly action: string } | undefined {
    const { state } = this.#pool
    const kept = [...state.stores.values()].filter(isBeforeResync)
    if (kept.length === 0) return undefined
    if (this.#isRequired)
      return {
        message: 'there is no room for the resync beside what this replica had before it',
        action: `make room where its data is, ${allowGivingUp}`,
      }
    // Nothing waits for it: the next connection goes on with the resync.
    this.drop().catch(() => {})
    const message =
      'what this replica had before the resync is given up: there was no room for both'
    this.#onGivenUp(message)
    return { message, action: 'lockstep wait --for in-sync: it goes on by itself' }
  }

  async #keepIfPossible(own: readonly Store[]): Promise<void> {
    try {
      await this.#keep(own)
    } catch (error) {
      if (!isNoRoom(error)) throw error
      if (this.#isRequired)
        throw new LockstepError(
          'NO_SPACE',
          'there is no room to keep what this replica has before the resync overwrites it',
          `delete snapshots of its own (lockstep snapshot list), make room, ${allowGivingUp}`,
        )
      this.#onGivenUp('what this replica had before the resync is not kept: there was no room')
    }
  }

  async #keep(own: readonly Store[]): Promise<void> {
    if (own.length === 0) return
    const { state } = this.#pool
    const snapshots = own.map(
      (store, index): SnapshotSpec => ({
        storeId: (this.#pool.nextLocalId + index) as StoreId,
        sourceId: store.id,
        name: keptName(fullName(state, store)),
      }),
    )
    const operation = { kind: 'create-snapshots', snapshots } as const
    const prepared = await this.#pool.prepare(operation)
    this.#pool.performLocal(operation, prepared)
  }
}

/** `vol0@before-resync`; of a snapshot `vol0@before-resync.monday`. */
function keptName(name: string): string {
  const [volume, snapshot] = name.split('@')
  return `${volume}@${beforeResyncName}${snapshot === undefined ? '' : `.${snapshot}`}`
}

/** Whatever layer says so. */
export function isNoRoom(error: unknown): boolean {
  const { code, errno } = (error ?? {}) as { readonly code?: unknown; readonly errno?: unknown }
  return (
    code === 'NO_SPACE' ||
    errno === 'ENOSPC' ||
    ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(errnoNameOf(error))
  )
}
