// When an asynchronous primary sends: not beside each request of its clients, but what has gathered, together. A burst is taken at the speed of a node without a
// peer, and the peer gets it right behind, in few large pieces, which cost both nodes a fraction of many small ones.
//
// Invariant: what is gathered is due as soon as nothing was added for a tick, at the latest after `gatherMsMax`, or when it is a good part of what may be kept.
import type { Clock, Timer } from '../core/clock.js'

/** A pause of the clients of this length is the end of a burst. */
const tickMs = 4
/** How far an asynchronous peer may be behind for the sake of speed: as long as it may take to make durable what it has. */
const gatherMsMax = 1000

export class Gathering {
  readonly #clock: Clock
  readonly #due: () => void
  #timer: Timer | undefined
  #endsAtMs = 0
  #seen = 0

  constructor(options: { readonly clock: Clock; readonly due: () => void }) {
    this.#clock = options.clock
    this.#due = options.due
  }

  /** There is something to send. `added` changes whenever there is more; `isPressing`: it must not wait any longer. Calls `due` when it is time. */
  begin(look: () => { readonly added: number; readonly isPressing: boolean }): void {
    if (this.#timer !== undefined) return
    this.#endsAtMs = this.#clock.nowMs() + gatherMsMax
    this.#seen = look().added
    this.#tick(look)
  }

  close(): void {
    this.#timer?.cancel()
  }

  #tick(look: () => { readonly added: number; readonly isPressing: boolean }): void {
    const lateMs = this.#clock.nowMs() + 2 * tickMs
    this.#timer = this.#clock.setTimer(tickMs, () => {
      const { added, isPressing } = look()
      const nowMs = this.#clock.nowMs()
      // A late tick tells of a pause of this loop, in which no client was read, and not of the clients'.
      const isPause = added === this.#seen && nowMs < lateMs
      if (isPressing || isPause || nowMs >= this.#endsAtMs) {
        this.#timer = undefined
        this.#due()
        return
      }
      this.#seen = added
      this.#tick(look)
    })
  }
}
