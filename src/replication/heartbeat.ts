// When to show the peer that we are there, and when to take it for dead: nothing came, or nothing was taken, for too long.
//
// One timer, set for the earliest thing that can be due; what happens meanwhile only notes the time. An end is decided in a later turn
// than the timer's, after what waits in the system was read: a process that was stopped for a while must not blame the peer.
import type { Clock, Timer } from '../core/clock.js'

export class Heartbeat {
  readonly #clock: Clock
  readonly #pingAfterMs: number
  readonly #silenceTimeoutMs: number
  readonly #stallTimeoutMs: number
  readonly #takenBytes: () => number
  readonly #ping: () => void
  readonly #expired: (kind: 'silent' | 'stalled', message: string) => void
  #receivedAtMs = 0
  #sentAtMs = 0
  /** Since when the system took nothing; undefined when nothing waits. */
  #blockedAtMs: number | undefined
  #seenBytes = 0
  #isHeld = false
  #isClosed = false
  #timer: Timer | undefined

  constructor(options: {
    readonly clock: Clock
    readonly pingAfterMs: number
    readonly silenceTimeoutMs: number
    readonly stallTimeoutMs: number
    /** Grows with whatever the system takes. */
    readonly takenBytes: () => number
    /** Nothing was sent for `pingAfterMs`. */
    readonly ping: () => void
    readonly expired: (kind: 'silent' | 'stalled', message: string) => void
  }) {
    this.#clock = options.clock
    this.#pingAfterMs = options.pingAfterMs
    this.#silenceTimeoutMs = options.silenceTimeoutMs
    this.#stallTimeoutMs = options.stallTimeoutMs
    this.#takenBytes = options.takenBytes
    this.#ping = options.ping
    this.#expired = options.expired
  }

  start(): void {
    this.#receivedAtMs = this.#clock.nowMs()
    this.#sentAtMs = this.#receivedAtMs
    this.#arm()
  }

  received(): void {
    this.#receivedAtMs = this.#clock.nowMs()
  }

  /** Bytes were given to the system; `isBlocked`: it did not take all of them. */
  sent(isBlocked: boolean): void {
    this.#sentAtMs = this.#clock.nowMs()
    if (isBlocked) this.#blockedAtMs ??= this.#sentAtMs
    else this.#blockedAtMs = undefined
  }

  /** The system took some; `isMore`: others wait. */
  taken(isMore: boolean): void {
    this.#blockedAtMs = isMore ? this.#clock.nowMs() : undefined
  }

  /** We do not read: the peer's silence means nothing. */
  hold(): void {
    this.#isHeld = true
  }

  unhold(): void {
    this.#isHeld = false
    this.received()
  }

  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
  }

  #arm(): void {
    const nowMs = this.#clock.nowMs()
    let dueAtMs = this.#sentAtMs + this.#pingAfterMs
    if (!this.#isHeld) dueAtMs = Math.min(dueAtMs, this.#receivedAtMs + this.#silenceTimeoutMs)
    if (this.#blockedAtMs !== undefined)
      dueAtMs = Math.min(dueAtMs, this.#blockedAtMs + this.#stallTimeoutMs)
    // A little later than due, so that it is due whatever the clock rounds to.
    this.#timer = this.#clock.setTimer(Math.max(1, Math.ceil(dueAtMs - nowMs) + 1), () =>
      this.#look(),
    )
  }

  #look(): void {
    if (this.#isClosed) return
    const nowMs = this.#clock.nowMs()
    if (nowMs - this.#sentAtMs >= this.#pingAfterMs) {
      this.#sentAtMs = nowMs
      this.#ping()
      if (this.#isClosed) return
    }
    if (this.#overdue() === undefined) this.#arm()
    else this.#clock.defer(() => this.#lookAgain())
  }

  #lookAgain(): void {
    if (this.#isClosed) return
    const overdue = this.#overdue()
    if (overdue === undefined) this.#arm()
    else if (overdue === 'silent')
      this.#expired('silent', `nothing came from the peer for ${this.#silenceTimeoutMs} ms`)
    else this.#expired('stalled', `the peer took nothing for ${this.#stallTimeoutMs} ms`)
  }

  #overdue(): 'silent' | 'stalled' | undefined {
    const nowMs = this.#clock.nowMs()
    if (!this.#isHeld && nowMs - this.#receivedAtMs >= this.#silenceTimeoutMs) return 'silent'
    if (this.#blockedAtMs === undefined) return undefined
    const takenBytes = this.#takenBytes()
    if (takenBytes !== this.#seenBytes) this.#blockedAtMs = nowMs
    this.#seenBytes = takenBytes
    return nowMs - this.#blockedAtMs >= this.#stallTimeoutMs ? 'stalled' : undefined
  }
}
