// What happened to the group, for people: the last thousand events, and those who want to hear further ones.
import type { Clock } from '../core/clock.js'
import type { EngineEvent } from './api.js'

const eventCountMax = 1000

export class EventLog {
  readonly #clock: Clock
  #events: EngineEvent[] = []
  readonly #listeners = new Set<(event: EngineEvent) => void>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(event: Omit<EngineEvent, 'at'>): void {
    const dated = { at: this.#clock.wallTime().toISOString(), ...event }
    this.#events.push(dated)
    if (this.#events.length > eventCountMax) this.#events = this.#events.slice(-eventCountMax)
    for (const listener of this.#listeners) listener(dated)
  }

  /** What happened so far; the answer does not grow. */
  recent(): readonly EngineEvent[] {
    return [...this.#events]
  }

  subscribe(listener: (event: EngineEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
