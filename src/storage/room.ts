// What happens when the pool or the journal has no room: nobody is refused before everything that was freed has come back.
//
// Invariant: it takes nothing and frees nothing itself; committer, checkpoint and reclaimer do, each when it is durable.
import { LockstepError } from '../core/errors.js'
import type { Committer } from './committer.js'
import type { Reclaimer } from './reclaimer.js'

export type RoomOptions = {
  readonly committer: Committer
  readonly reclaimer: Reclaimer
  /** Resolves when no checkpoint is under way; never rejects. */
  readonly checkpointDone: () => Promise<void>
}

export class Room {
  readonly #committer: Committer
  readonly #reclaimer: Reclaimer
  readonly #checkpointDone: () => Promise<void>

  constructor(options: RoomOptions) {
    this.#committer = options.committer
    this.#reclaimer = options.reclaimer
    this.#checkpointDone = options.checkpointDone
  }

  /** Resolves when what was released before the call is free again, as far as reads under way allow, and the journal has all the room it can get. */
  async reclaim(): Promise<void> {
    await this.#committer.commit()
    await this.#checkpointDone()
    await this.#reclaimer.drain()
  }

  /** Whether what failed with `error` may succeed behind a `reclaim`: the disk is full, and something is on its way back. */
  mayComeFor(error: unknown): boolean {
    return (error as { code?: unknown }).code === 'ENOSPC' && this.#hasReclaimable
  }

  get #hasReclaimable(): boolean {
    return this.#reclaimer.isWorking || this.#reclaimer.hasUncommitted || !this.#committer.isClean
  }
}

export function poolFull(): LockstepError {
  return new LockstepError(
    'NO_SPACE',
    'the pool has no free chunk or no journal room left',
    'delete a snapshot, or give the pool more space',
  )
}
