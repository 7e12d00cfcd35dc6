// Performs operations at their place in the order, for the pool and for the stream: operators' own, and those that the stream needs itself.
//
// Invariant: in one synchronous step an operation takes its sequence, effect and slot in the outbox; it goes on the wire when its record is durable, not before
// (what the peer may have, this node must not be able to forget).

import type { Clock } from '../core/clock.js'
import { LockstepError } from '../core/errors.js'
import type { Operation } from '../core/operation.js'
import type { Sequence } from '../core/units.js'
import type { Pool } from '../storage/pool.js'
import type { Prepared } from '../storage/prepare-operation.js'
import type { FrozenStores } from './frozen.js'
import type { PrimaryStream } from './primary-stream.js'
import type { Sequencer } from './sequencer.js'

export type StreamOperationsOptions = {
  readonly pool: Pool
  readonly sequencer: Sequencer
  readonly clock: Clock
  readonly frozen: FrozenStores
  /** Absent until a peer is tracked. */
  readonly stream: () => PrimaryStream | undefined
  /** Switchable bug: an operation goes on the wire before its record is durable. */
  readonly sendsBeforeDurable: boolean
}

export type Described = {
  readonly operation: Operation
  readonly prepared?: Prepared
  /** Called when the operation is durable here, before the peer is told of it: what comes of it comes later. */
  readonly durable?: () => void
}

/** In the step that performs it. */
export type Describe<Plan> = (plan: Plan, sequence: Sequence) => Described

/** By the time of its place in the order there was nothing to do any more. */
class NothingToDo extends Error {}

export class StreamOperations {
  readonly #options: StreamOperationsOptions

  constructor(options: StreamOperationsOptions) {
    this.#options = options
  }

  /**
   * Resolves when the operation is durable here. `prepare` runs when everything before it is applied and nothing behind it has begun; `describe` in the step that
   * performs it. Rejects with what `prepare` rejects with, and nothing has happened then.
   */
  async perform<Plan>(
    prepare: () => Promise<Plan>,
    describe: Describe<Plan>,
  ): Promise<{ readonly sequence: Sequence; readonly plan: Plan }> {
    const { pool, sequencer, clock, frozen, stream, sendsBeforeDurable } = this.#options
    const at = clock.wallTime().toISOString()
    let tell: (() => void) | undefined
    let durable: (() => void) | undefined
    const done = await sequencer.operate({
      prepare,
      perform: (sequence, plan) => {
        const described = describe(plan, sequence)
        const { operation, prepared = [] } = described
        tell = described.durable
        pool.perform({ kind: 'operation', sequence, at, operation }, prepared)
        frozen.performed(operation)
        durable = stream()?.operation({ kind: 'operation', sequence, at, operation })
        if (sendsBeforeDurable) durable?.()
      },
    })
    await pool.commit()
    tell?.()
    if (!sendsBeforeDurable) durable?.()
    return done
  }

  /** An operation that needs no preparing. */
  async say(operation: Operation): Promise<Sequence> {
    const prepare = async (): Promise<void> => this.#check(operation)
    const { sequence } = await this.perform(prepare, () => ({ operation }))
    return sequence
  }

  /** At its place in the order: the store may have been deleted before it. */
  #check(operation: Operation): void {
    if (operation.kind !== 'freeze') return
    if (this.#options.pool.state.stores.has(operation.storeId)) return
    throw new LockstepError(
      'NO_SUCH_STORE',
      'the store was deleted before it could be compared',
      'lockstep verify compares those that are there',
    )
  }

  /** The operation that `choose` finds to be right at its place in the order, where it will have `sequence`; none when it finds none. */
  async sayIfAny(choose: (sequence: Sequence) => Operation | undefined): Promise<void> {
    const { sequencer } = this.#options
    const prepare = async (): Promise<Operation> => {
      const operation = choose((sequencer.lastSequence + 1) as Sequence)
      if (operation === undefined) throw new NothingToDo()
      return operation
    }
    try {
      await this.perform(prepare, (operation) => ({ operation }))
    } catch (error) {
      if (!(error instanceof NothingToDo)) throw error
    }
  }
}
