// When a checkpoint is written, and that there is one at a time: the state is frozen in the step that takes a batch, and written when that batch is durable.
//
// Invariant: the journal is let go of up to a batch only when a checkpoint of it is durable under its name.
import assert, { AssertionError } from 'node:assert/strict'
import type { Clock } from '../core/clock.js'
import type { Disk } from '../core/disk.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { FailureLog } from '../core/failure-log.js'
import { limits } from '../core/limits.js'
import type { Log } from '../core/log.js'
import {
  checkpointTemporaryName,
  describeState,
  saveCheckpoint,
  type writeCheckpoint,
} from './checkpoint.js'
import type { GroupState } from './group-state.js'
import type { Journal } from './journal.js'
import type { PoolKeeper } from './page-keeper.js'
import type { PoolTracking } from './pool-tracking.js'
import { thawTracking } from './tracking-sections.js'

type Frozen = Parameters<typeof writeCheckpoint>[1]

export type CheckpointerParts = {
  readonly disk: Disk
  readonly clock: Clock
  readonly log: Log
  readonly state: GroupState
  readonly keeper: PoolKeeper
  readonly journal: Journal
  readonly appliedSequence: () => number
  readonly peer: () => PoolTracking | undefined
  readonly onEvent: (event: {
    readonly kind: 'checkpoint' | 'no-space'
    readonly message: string
  }) => void
}

export class Checkpointer {
  readonly #parts: CheckpointerParts
  readonly #failures: FailureLog
  #underWay: Promise<void> | undefined
  /** After one failed: not tried again before this batch or this time. */
  #afterBatch = 0
  #afterMs = 0
  #isForced = false
  /** The last one is written by `writeNow`. */
  #isClosing = false

  constructor(parts: CheckpointerParts) {
    this.#parts = parts
    this.#failures = new FailureLog(parts.log, {
      first: 'checkpoint failed; the journal goes on',
      again: 'checkpoints go on failing',
    })
  }

  /** Resolves when none is under way. */
  get done(): Promise<void> {
    return this.#underWay ?? Promise.resolve()
  }

  /** The next batch is followed by a checkpoint, whatever the journal's fill. */
  force(): void {
    this.#isForced = true
  }

  close(): void {
    this.#isClosing = true
  }

  /** In the committer's synchronous step: freezes the state if a checkpoint is due. The answer writes it, or gives it up when the batch is not durable. */
  at(batchNumber: number): ((isDurable: boolean) => void) | undefined {
    if (!this.#isDue(batchNumber) || this.#isClosing || this.#underWay !== undefined)
      return undefined
    this.#isForced = false
    const frozen = this.#freeze(batchNumber, false)
    let settle: (isDurable: boolean) => void = () => {}
    const isDurable = new Promise<boolean>((resolve) => {
      settle = resolve
    })
    this.#underWay = isDurable
      .then((canWrite) => (canWrite ? this.#save(frozen, batchNumber) : undefined))
      .catch((error: unknown) => this.#failed(error, batchNumber))
      .finally(() => {
        this.#parts.keeper.thaw()
        if (frozen.tracking !== undefined) thawTracking(frozen.tracking)
        this.#underWay = undefined
      })
    return settle
  }

  /** Of the state as it is, when nothing changes. Rejects when it cannot be written; the pages stay frozen. */
  async writeNow(batchNumber: number, options: { readonly isClean: boolean }): Promise<void> {
    assert.equal(this.#underWay, undefined)
    await this.#save(this.#freeze(batchNumber, options.isClean), batchNumber)
  }

  /** The clean one, when the node stops. Rejects with a LockstepError; what is in the journal stays. */
  async writeLast(batchNumber: number): Promise<void> {
    await this.writeNow(batchNumber, { isClean: true }).catch((error: unknown) => {
      throw error instanceof AssertionError ? error : lastFailed(error)
    })
  }

  /** As `writeNow`, while the pool is opened: when it fails the journal goes on. */
  async tryNow(batchNumber: number): Promise<void> {
    await this.writeNow(batchNumber, { isClean: false })
      .catch((error: unknown) => this.#failed(error, batchNumber))
      .finally(() => this.#parts.keeper.thaw())
  }

  #isDue(batchNumber: number): boolean {
    const { journal, clock } = this.#parts
    // By time as well: when the journal is full there are no further batches to count.
    const isHeldBack = batchNumber < this.#afterBatch && clock.nowMs() < this.#afterMs
    return this.#isForced || (journal.wantsCheckpoint && !isHeldBack)
  }

  #freeze(batchNumber: number, isClean: boolean): Frozen {
    const { state, keeper, appliedSequence, peer } = this.#parts
    const maps = [...state.stores.values()].map((store) => ({
      storeId: store.id,
      pages: [...store.map.pages],
    }))
    // The state's own number is that of the last operation: what the journal says of the writes behind it goes with the journal.
    const sequence = Math.max(state.sequence, appliedSequence())
    const tracking = peer()?.freeze(isClean)
    return {
      state: describeState({ ...state, sequence }, { batchNumber, isClean }, tracking),
      maps,
      entriesOf: keeper.freeze(),
      ...(tracking === undefined ? {} : { tracking }),
    }
  }

  async #save(frozen: Frozen, batchNumber: number): Promise<void> {
    const { disk, journal, peer, onEvent } = this.#parts
    await saveCheckpoint(disk, frozen)
    this.#failures.worked()
    journal.cover(batchNumber)
    if (frozen.tracking !== undefined) peer()?.checkpointed(frozen.tracking)
    onEvent({
      kind: 'checkpoint',
      message: `checkpoint of journal batch ${batchNumber} written`,
    })
  }

  #failed(error: unknown, batchNumber: number): void {
    if (error instanceof AssertionError) throw error
    const { clock, onEvent } = this.#parts
    this.#failures.failed(error, { batchNumber })
    this.#afterBatch = batchNumber + limits.checkpointRetryBatchCount
    this.#afterMs = clock.nowMs() + limits.checkpointRetryMs
    onEvent({
      kind: 'no-space',
      message: `a checkpoint could not be written (${errnoNameOf(error)}); it is tried again`,
    })
  }
}

function lastFailed(error: unknown): LockstepError {
  const errno = errnoNameOf(error)
  const isFull = errno === 'ENOSPC' || errno === 'EDQUOT'
  return new LockstepError(
    isFull ? 'NO_SPACE' : 'IO_ERROR',
    `the last checkpoint could not be written (${checkpointTemporaryName}: ${errno}); nothing is lost: the journal has everything, and the next start recovers from it`,
    isFull
      ? 'make room in the file system of DIR, then start again'
      : 'check the medium of DIR, then start again',
  )
}
