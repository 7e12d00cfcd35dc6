// Virtual time and the order in which things complete, for any number of nodes in one process. Nothing here looks at the real
// clock: a run is a function of its seed.
//
// The code under test uses native promises. The scheduler hands out one completion (a disk call's answer, a deferred callback, a
// timer) and then lets every microtask run out before it chooses the next.
import assert from 'node:assert/strict'
import type { Clock, Timer } from '../../src/core/clock.js'
import type { SeededRandom } from './random.js'

/** One incarnation of a node, from its start to its crash. After `end` nothing that it had under way completes. */
export class Life {
  readonly node: string
  #ended = false

  constructor(node = 'a') {
    this.node = node
  }

  get isEnded(): boolean {
    return this.#ended
  }

  end(): void {
    this.#ended = true
  }
}

/** Somebody waits for something that can never happen any more. */
export class HangError extends Error {
  override readonly name = 'HangError'
}

type Event = { readonly life: Life; readonly run: () => void; readonly isSlow?: boolean }
type SimTimer = Event & { readonly atMs: number; readonly serial: number; isCancelled: boolean }

/** More than any run of the test-suite needs: a loop that makes no progress ends here. */
const stepsMax = 1_000_000
/** Of completions in random order, those that let many others pass. */
const slowShare = 0.08
/** Virtual time that one wait may take. */
const waitMsMax = 600_000

export class Scheduler {
  readonly #order: SeededRandom | undefined
  readonly #queue: Event[] = []
  readonly #timers: SimTimer[] = []
  #nowMs = 0
  #serial = 0
  #trace = 0

  /** Completions come in the order they were posted, or, with `order`, in random order. */
  constructor(options: { readonly order?: SeededRandom } = {}) {
    this.#order = options.order
  }

  get nowMs(): number {
    return this.#nowMs
  }

  /** A number that differs when two runs were not the same, call by call. */
  get trace(): number {
    return this.#trace
  }

  /** Adds a fact to the trace. */
  note(value: number): void {
    this.#trace = (Math.imul(this.#trace ^ value, 0x01000193) ^ (value >>> 13)) >>> 0
  }

  /** Runs `run` in a later step, if `life` is not over by then. */
  post(life: Life, run: () => void): void {
    this.#queue.push({ life, run, isSlow: this.#order?.chance(slowShare) ?? false })
  }

  clockOf(life: Life): Clock {
    return {
      nowMs: () => this.#nowMs,
      wallTime: () => new Date(Date.UTC(2024, 0, 1) + this.#nowMs),
      setTimer: (delayMs, callback) => this.#setTimer(life, delayMs, callback),
      defer: (callback) => this.post(life, callback),
    }
  }

  /** Whether anything but timers is under way. */
  get isIdle(): boolean {
    return this.#queue.every((event) => event.life.isEnded)
  }

  /** The outcome of `work`, completing what is under way and, when nothing is, letting time pass. Throws HangError when nothing can happen any more. */
  async run<T>(work: Promise<T>): Promise<T> {
    let isSettled = false
    const settled = () => {
      isSettled = true
    }
    work.then(settled, settled)
    const untilMs = this.#nowMs + waitMsMax
    for (let step = 0; step < stepsMax; step++) {
      await turn()
      if (isSettled) return work
      if (!this.#stepEvent() && !this.#stepTimer(untilMs)) {
        throw new HangError('nothing is under way, and the result is still awaited')
      }
    }
    throw new HangError(`not settled after ${stepsMax} steps`)
  }

  /** Completes what is under way until nothing is, and with `forMs` lets that much time pass. Ends early when `isOver` says so before a step. */
  async settle(forMs = 0, isOver: () => boolean = () => false): Promise<void> {
    const untilMs = this.#nowMs + forMs
    for (let step = 0; step < stepsMax; step++) {
      await turn()
      if (isOver()) return
      if (this.#stepEvent()) continue
      if (forMs > 0 && this.#stepTimer(untilMs)) continue
      this.#nowMs = untilMs
      return
    }
    throw new HangError(`still not quiet after ${stepsMax} steps`)
  }

  /** Lets time pass, and timers fire, while what is under way stays so: the disk is slow. */
  async elapse(forMs: number): Promise<void> {
    const untilMs = this.#nowMs + forMs
    await turn()
    while (this.#stepTimer(untilMs)) await turn()
    this.#nowMs = Math.max(this.#nowMs, untilMs)
  }

  /** One completion, if there is one: for drivers that act between the completions. */
  async step(): Promise<boolean> {
    await turn()
    const isDone = this.#stepEvent()
    await turn()
    return isDone
  }

  #setTimer(life: Life, delayMs: number, callback: () => void): Timer {
    assert(delayMs >= 0)
    const timer: SimTimer = {
      life,
      run: callback,
      atMs: this.#nowMs + delayMs,
      serial: this.#serial++,
      isCancelled: false,
    }
    this.#timers.push(timer)
    return {
      cancel: () => {
        timer.isCancelled = true
      },
    }
  }

  #stepEvent(): boolean {
    while (this.#queue.length > 0) {
      const index = this.#nextIndex()
      const event = this.#queue[index]
      assert(event)
      this.#queue.splice(index, 1)
      if (event.life.isEnded) continue
      this.note(index)
      event.run()
      return true
    }
    return false
  }

  #nextIndex(): number {
    const order = this.#order
    if (!order) return 0
    let index = order.below(this.#queue.length)
    for (let tries = 0; tries < 20 && this.#queue[index]?.isSlow && !order.chance(0.02); tries++) {
      index = order.below(this.#queue.length)
    }
    return index
  }

  #stepTimer(untilMs: number): boolean {
    let next: SimTimer | undefined
    for (const timer of this.#timers) {
      if (timer.isCancelled || timer.life.isEnded) continue
      if (
        next &&
        (next.atMs < timer.atMs || (next.atMs === timer.atMs && next.serial < timer.serial))
      )
        continue
      next = timer
    }
    if (!next || next.atMs > untilMs) return false
    const live = this.#timers.filter((timer) => timer !== next && !timer.isCancelled)
    this.#timers.splice(0, this.#timers.length, ...live)
    this.#nowMs = Math.max(this.#nowMs, next.atMs)
    next.run()
    return true
  }
}

/** Ends when every microtask has run. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}
