// Timers that run when the test says so.
import type { Timers } from '../../nbd/timers.js'

type Entry = { readonly atMs: number; readonly callback: () => void }

export class ManualTimers implements Timers {
  #nowMs = 0
  #entries = new Set<Entry>()

  get count(): number {
    return this.#entries.size
  }

  setTimer(delayMs: number, callback: () => void): { cancel(): void } {
    const entry = { atMs: this.#nowMs + delayMs, callback }
    this.#entries.add(entry)
    return { cancel: () => void this.#entries.delete(entry) }
  }

  /** Lets time pass: what is due is called in order, also what is set meanwhile. */
  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs
    for (;;) {
      const due = [...this.#entries]
        .filter((entry) => entry.atMs <= untilMs)
        .sort((a, b) => a.atMs - b.atMs)[0]
      if (!due) break
      this.#nowMs = due.atMs
      this.#entries.delete(due)
      due.callback()
    }
    this.#nowMs = untilMs
  }
}
