// A state machine as a table: one row a state, the compiler demands all of them. A transition that is not in the table is a fault of ours: an assertion.
import assert from 'node:assert/strict'

/** For each state the states that may follow it. */
export type Transitions<State extends string> = { readonly [from in State]: readonly State[] }

export type Transition<State extends string> = {
  readonly from: State
  readonly to: State
  /** One clause that says why, for people. */
  readonly reason: string
}

export class StateMachine<State extends string> {
  readonly #transitions: Transitions<State>
  readonly #onTransition: (transition: Transition<State>) => void
  #state: State
  #reason: string

  constructor(options: {
    readonly transitions: Transitions<State>
    readonly initial: State
    readonly reason: string
    /** Called after each transition. May cause the next one. */
    readonly onTransition?: (transition: Transition<State>) => void
  }) {
    this.#transitions = options.transitions
    this.#state = options.initial
    this.#reason = options.reason
    this.#onTransition = options.onTransition ?? (() => {})
  }

  get state(): State {
    return this.#state
  }

  /** Why it is in this state. */
  get reason(): string {
    return this.#reason
  }

  may(to: State): boolean {
    return this.#transitions[this.#state].includes(to)
  }

  go(to: State, reason: string): void {
    const from = this.#state
    assert(reason !== '')
    assert(this.may(to), `${from} -> ${to} (${reason})`)
    this.#state = to
    this.#reason = reason
    this.#onTransition({ from, to, reason })
  }

  /** The state is the same, the reason for it another. */
  explain(reason: string): void {
    assert(reason !== '')
    this.#reason = reason
  }
}
