// A clock that stands still until the test moves it.
import type { Clock, Timer } from '../../src/core/clock.js'

type Entry = { readonly atMs: number; readonly callback: () => void }

export class ManualClock implements Clock {
  #nowMs = 1_000_000
  readonly #timers = new Set<Entry>()
  #deferred: (() => void)[] = []

  get timerCount(): number {
    return this.#timers.size
  }

  nowMs(): number {
    return this.#nowMs
  }

  wallTime(): Date {
    return new Date(this.#nowMs)
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const entry = { atMs: this.#nowMs + delayMs, callback }
    this.#timers.add(entry)
    return { cancel: () => void this.#timers.delete(entry) }
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback)
  }

  /** Runs what was deferred until now. */
  runDeferred(): void {
    const deferred = this.#deferred
    this.#deferred = []
    for (const callback of deferred) callback()
  }

  /** Lets time pass: what is due is called in order, also what is set meanwhile, and after each what was deferred. */
  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs
    for (;;) {
      const due = [...this.#timers]
        .filter((entry) => entry.atMs <= untilMs)
        .sort((a, b) => a.atMs - b.atMs)[0]
      if (due === undefined) break
      this.#nowMs = Math.max(this.#nowMs, due.atMs)
      this.#timers.delete(due)
      due.callback()
      this.runDeferred()
    }
    this.#nowMs = untilMs
  }

  /** Time passes without any timer: the process was stopped. */
  sleep(byMs: number): void {
    this.#nowMs += byMs
  }
}
