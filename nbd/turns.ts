// How much block status a server looks up in one turn of the event loop, how much it reads of what is too large for one turn, and how many requests it handles
// that came together. The answers come from memory, at once: without a bound, a client that asks for thousands of them together would keep every other client
// waiting until all are given.
//
// Invariants: what waits is called in later turns, in each at least one, until the budget of that turn is used up; connections take turns.

type Line = (() => void)[]

export type LongTurnsOptions = {
  readonly statusStepsMax: number
  /** Calls back in the next turn of the event loop. */
  readonly nextTurn?: (callback: () => void) => void
}

export class LongTurns {
  readonly #stepsMax: number
  readonly #nextTurn: (callback: () => void) => void
  #stepsLeft: number
  #isTurnDue = false
  /** Those of one owner in order; the owner that was served last is the last. */
  readonly #lines = new Map<object, Line>()

  constructor(options: LongTurnsOptions) {
    this.#stepsMax = options.statusStepsMax
    this.#stepsLeft = options.statusStepsMax
    this.#nextTurn = options.nextTurn ?? setImmediate
  }

  /** What comes now has to wait for a later turn. */
  get isUsedUp(): boolean {
    return this.#stepsLeft <= 0 || this.#lines.size > 0
  }

  /** So much was done in this turn. */
  spend(steps: number): void {
    this.#stepsLeft -= steps
    this.#expectTurn()
  }

  /** Calls `go` in a later turn; it must not throw. Bounded by what its callers count as in flight. */
  wait(owner: object, go: () => void): void {
    const line = this.#lines.get(owner)
    if (line === undefined) this.#lines.set(owner, [go])
    else line.push(go)
    this.#expectTurn()
  }

  #expectTurn(): void {
    if (this.#isTurnDue) return
    this.#isTurnDue = true
    this.#nextTurn(this.#turn)
  }

  readonly #turn = (): void => {
    this.#isTurnDue = false
    this.#stepsLeft = this.#stepsMax
    for (const [owner, line] of this.#lines) {
      this.#lines.delete(owner)
      const go = line.shift()
      // Behind the others: this loop comes to it again.
      if (line.length > 0) this.#lines.set(owner, line)
      go?.()
      if (this.#stepsLeft <= 0) break
    }
    if (this.#lines.size > 0) this.#expectTurn()
  }
}
