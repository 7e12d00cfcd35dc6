// Runs a resync: asks the planner, keeps a bounded amount under way, yields to clients, pass after pass until nothing is dirty. (Bodies follow.)
// It holds no state that matters: the dirty map is the state, so a resync that was cut off goes on where it was.
import type { Clock } from '../core/clock.js'
import type { ResyncItem, ResyncView } from './resync-plan.js'

export interface ResyncHost {
  readonly view: ResyncView
  readonly clock: Clock
  /**
   * Makes the item entries of the stream; called in the same turn in which it was planned. Resolves when its last entry has left the outbox; rejects when
   * it could not be read here, and the blocks stay dirty. May never settle when the link is lost: `stop` is called then.
   *
   * A share must be checked again when the copy has its lease and everything before it took effect here: a client's write that is ordered before it may
   * not have changed the map yet when it was planned. Copies whose chunks have different places by then are left out.
   */
  submit(item: ResyncItem): Promise<void>
  /** Clients have requests that wait: the resync goes down to its floor. */
  clientsWaiting(): boolean
  /** Of all stores of the stream, as of now. */
  dirtyBytes(): number
  /** True when nothing is in the outbox that could make blocks dirty when it leaves. */
  isDrained(): boolean
  /** Resolves when what is in the outbox now has left. */
  drained(): Promise<void>
  /** Nothing is dirty and `isDrained`, in this very step: orders `resync-end`. */
  end(): void
}

export type ResyncProgress = {
  readonly doneBytes: number
  readonly totalBytes: number
  readonly bytesPerSecond: number
  readonly secondsLeft: number
}

export declare class Resync {
  constructor(host: ResyncHost, options?: { readonly bytesPerSecondMax?: number })
  readonly progress: ResyncProgress
  /** From the next item on; undefined: no limit. */
  setRate(bytesPerSecondMax: number | undefined): void
  /** Resolves with 'done' after `end` was called, with 'stopped' after `stop`. Called once. */
  run(): Promise<'done' | 'stopped'>
  /** The link is lost, or somebody said so. `run` resolves without waiting for what is under way. */
  stop(): void
}
