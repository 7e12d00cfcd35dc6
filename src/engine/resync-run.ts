// The resync of a primary's peer: at most one at a time, begun by the link, with the rate that operators allow and what they are told of it.
//
// Invariant: the peer is told that it is whole only by a resync that ended with everything sent, and the resync has not ended before that is durable there. It is told so
// once: it refuses the end of a resync where none is under way.
import type { Clock } from '../core/clock.js'
import { LockstepError } from '../core/errors.js'
import type { Log } from '../core/log.js'
import type { DataOperation, Operation } from '../core/operation.js'
import { blockBytes, type Sequence } from '../core/units.js'
import { Resync, type ResyncProgress } from '../replication/resync.js'
import type { Pool } from '../storage/pool.js'
import type { FollowingState } from './link-host.js'
import type { PrimaryStream } from './primary-stream.js'
import { resyncHost } from './resync-host.js'
import type { Sequencer } from './sequencer.js'
import type { StreamOperations } from './stream-operations.js'

export type ResyncRunParts = {
  readonly pool: Pool
  readonly sequencer: Sequencer
  readonly clock: Clock
  readonly log: Log
  readonly operations: StreamOperations
  readonly outboxBytesMax: number
  /** Bytes a second; 0: no limit. */
  readonly maxRate: number
  readonly onEvent: (message: string) => void
  readonly mutants: ReadonlySet<string>
}

export class ResyncRun {
  readonly #parts: ResyncRunParts
  #maxRate: number
  #resync: Resync | undefined
  /** Of the newest `resync-end` of this life of the node. */
  #endSequence = 0 as Sequence

  constructor(parts: ResyncRunParts) {
    this.#parts = parts
    this.#maxRate = parts.maxRate
  }

  get isUnderWay(): boolean {
    return this.#resync !== undefined
  }

  /** Absent when none is under way. `leftBytes`: what somebody has counted that it has yet to move. */
  progress(leftBytes?: number): ResyncProgress | undefined {
    return this.#resync?.progressWith(leftBytes)
  }

  /** Bytes a second, from now on; 0: no limit. */
  set maxRate(bytesPerSecond: number) {
    this.#maxRate = bytesPerSecond
    this.#resync?.setRate(bytesPerSecond === 0 ? undefined : bytesPerSecond)
  }

  start(
    stream: PrimaryStream,
    { isPeerWhole, position }: FollowingState,
  ): { readonly done: Promise<'done' | 'stopped'>; readonly stop: () => void } {
    let ended: Promise<unknown> = Promise.resolve()
    const resync = this.#newResync(stream, () => {
      // Nothing known to be dirty is not nothing dirty: the link sees that too, and ends.
      const isAllSent = stream.tracking?.isLost === false
      const isNeeded = (): boolean => !resync.isStopped && this.#endSequence <= position
      if (!isPeerWhole && isAllSent) ended = this.#end(stream, isNeeded)
    })
    this.#resync = resync
    this.#parts.onEvent('copying what differs')
    const done = resync.run().then(async (end) => {
      await ended
      this.#resync = undefined
      this.#parts.onEvent(end === 'done' ? 'the peer has everything' : 'the copying was cut off')
      return end
    })
    return { done, stop: () => resync.stop() }
  }

  stop(): void {
    this.#resync?.stop()
  }

  #newResync(stream: PrimaryStream, end: () => void): Resync {
    const { pool, sequencer, clock, operations, outboxBytesMax, mutants } = this.#parts
    const host = resyncHost({
      pool,
      sequencer,
      stream,
      clock,
      // Clients' entries need room as well: a resync that fills the outbox ends itself.
      pieceBytesMax: Math.max(blockBytes, 2 ** Math.floor(Math.log2(outboxBytesMax / 8))),
      operate: (choose) => operations.sayIfAny(() => operationOf(choose())),
      mutants,
      end,
    })
    return new Resync(host, {
      bytesInFlightMax: outboxBytesMax / 2,
      endsEarly: mutants.has('whole-before-end'),
      ...(this.#maxRate === 0 ? {} : { bytesPerSecondMax: this.#maxRate }),
    })
  }

  /**
   * Resolves when the peer is whole, durably, or nobody waits for it any more. At its place in the order the connection may be another, or the end of an earlier resync
   * be among what the peer is sent: it was ordered, and the link lost before the peer had it.
   */
  async #end(stream: PrimaryStream, isNeeded: () => boolean): Promise<void> {
    try {
      await this.#parts.operations.sayIfAny((sequence) => {
        if (!isNeeded()) return undefined
        this.#endSequence = sequence
        return { kind: 'resync-end' }
      })
      await stream.progress.whenDurable(this.#endSequence)
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error
      this.#parts.log.error({ err: error }, 'the end of a resync could not be made durable')
    }
  }
}

/** One batch of several; nothing when there is none: a batch of none is none. */
function operationOf(operations: readonly DataOperation[]): Operation | undefined {
  const [only] = operations
  return operations.length > 1 ? { kind: 'batch', operations } : only
}
