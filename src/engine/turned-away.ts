// Who wanted to be this node's peer and was turned away before it could say who it is: it does not know the secret, or speaks another version. Such a caller tries again
// every few seconds, and anybody who reaches the port can be one.
//
// Invariant: whatever callers do, one event of each kind in ten minutes, and one caller in memory.
import type { Clock } from '../core/clock.js'
import type { PeerStatus, TurnedAway } from './api.js'

/** A primary that is turned away tries again after 10 s at most: who has not come for so long has gone. */
const rememberedMs = 30_000
const toldAgainMs = 600_000

export class TurnedAwayCallers {
  readonly #clock: Clock
  readonly #onEvent: (message: string) => void
  #last: { readonly from: string; readonly why: TurnedAway; readonly atMs: number } | undefined
  readonly #told = new Map<TurnedAway['kind'], { readonly atMs: number; untoldCount: number }>()

  constructor(clock: Clock, onEvent: (message: string) => void) {
    this.#clock = clock
    this.#onEvent = onEvent
  }

  came(from: string, why: TurnedAway): void {
    const atMs = this.#clock.nowMs()
    this.#last = { from, why, atMs }
    const told = this.#told.get(why.kind)
    if (told !== undefined && atMs - told.atMs < toldAgainMs) {
      told.untoldCount++
      return
    }
    const more =
      told === undefined || told.untoldCount === 0
        ? ''
        : ` (and ${told.untoldCount} like it since the last was told)`
    this.#told.set(why.kind, { atMs, untoldCount: 0 })
    this.#onEvent(`a peer's connection from ${from} was turned away: ${why.reason}${more}`)
  }

  /** The last of them, as `status` shows it; undefined when there is none that still tries. */
  get last(): PeerStatus['turnedAway'] {
    if (this.#last === undefined) return undefined
    const { from, why, atMs } = this.#last
    const agoMs = this.#clock.nowMs() - atMs
    if (agoMs > rememberedMs) return undefined
    return { from, reason: why.reason, action: why.action, secondsAgo: Math.round(agoMs / 1000) }
  }
}
