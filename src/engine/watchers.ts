// Those who wait for something to become true of the other node. Every wait has an end: it came true, its time is over, or whoever waits gives up.
import type { Clock } from '../core/clock.js'
import type { LockstepError } from '../core/errors.js'

export class Watchers {
  readonly #clock: Clock
  readonly #looks = new Set<() => void>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Something may have become true. Costs nothing when nobody waits. */
  look(): void {
    if (this.#looks.size === 0) return
    for (const look of [...this.#looks]) look()
  }

  /** Resolves when `holds` is true at a look, the first of which is now. Rejects with `tooLate()` after `timeoutMs`, and with the signal's reason in the step that aborts it. */
  until(
    holds: () => boolean,
    options: {
      readonly timeoutMs: number
      readonly tooLate: () => LockstepError
      readonly signal?: AbortSignal | undefined
    },
  ): Promise<void> {
    const { signal } = options
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason)
        return
      }
      const look = (): void => {
        if (!holds()) return
        end()
        resolve()
      }
      const timer = this.#clock.setTimer(options.timeoutMs, () => {
        end()
        reject(options.tooLate())
      })
      const giveUp = (): void => {
        end()
        reject(signal?.reason)
      }
      const end = (): void => {
        timer.cancel()
        this.#looks.delete(look)
        signal?.removeEventListener('abort', giveUp)
      }
      signal?.addEventListener('abort', giveUp)
      this.#looks.add(look)
      look()
    })
  }
}
