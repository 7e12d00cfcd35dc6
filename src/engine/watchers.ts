// Those who wait for something to become true of the other node. Every wait has an end: it came true, its time is over, or whoever waits gives up.
import type { Clock, Timer } from '../core/clock.js'
import type { LockstepError } from '../core/errors.js'

type Watcher = { look(): void; fail(error: LockstepError): void }

export class Watchers {
  readonly #clock: Clock
  readonly #watchers = new Set<Watcher>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Something may have become true. Costs nothing when nobody waits. */
  look(): void {
    if (this.#watchers.size === 0) return
    for (const watcher of [...this.#watchers]) watcher.look()
  }

  /** Whoever waits now waits in vain. */
  fail(error: LockstepError): void {
    for (const watcher of [...this.#watchers]) watcher.fail(error)
  }

  /** Resolves when `holds` is true at a look, the first of which is now. Rejects with the error that it answers, with `tooLate()` after `timeoutMs`, and with the signal's reason in the step that aborts it. */
  until(
    holds: () => boolean | LockstepError,
    options: {
      readonly timeoutMs: number
      readonly tooLate: () => LockstepError
      readonly signal?: AbortSignal | undefined
      /** Looks by itself so often, for what nobody tells of. */
      readonly lookAgainMs?: number
    },
  ): Promise<void> {
    const { signal } = options
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason)
        return
      }
      const { lookAgainMs } = options
      let again: Timer | undefined
      const end = (): void => {
        timer.cancel()
        again?.cancel()
        this.#watchers.delete(watcher)
        signal?.removeEventListener('abort', giveUp)
      }
      const fail = (error: unknown): void => {
        end()
        reject(error)
      }
      const watcher: Watcher = {
        fail,
        look: () => {
          const answer = holds()
          if (answer === false) return
          if (answer !== true) return fail(answer)
          end()
          resolve()
        },
      }
      const giveUp = (): void => fail(signal?.reason)
      const timer = this.#clock.setTimer(options.timeoutMs, () => fail(options.tooLate()))
      signal?.addEventListener('abort', giveUp)
      this.#watchers.add(watcher)
      const lookOn = (): void => {
        watcher.look()
        if (lookAgainMs !== undefined && this.#watchers.has(watcher))
          again = this.#clock.setTimer(lookAgainMs, lookOn)
      }
      lookOn()
    })
  }
}
