// Looks at what the peer lacks for operators and clients, who may ask often and at once, without keeping anybody waiting: long ones are cut into pieces, each in a
// turn of the event loop of its own, one look is under way at a time, and it serves all who asked for the same before it began.
//
// Invariant: whoever asks hears of a moment behind the question.
import type { Clock } from '../core/clock.js'
import type { Pool } from '../storage/pool.js'
import {
  entriesPerTurnMax,
  isShort,
  type Lacked,
  LackWalk,
  type LookOptions,
  lackedNow,
} from './lacks.js'
import type { PrimaryStream } from './primary-stream.js'

/** Makes an answer of it, in as many pieces as it likes. What it gets is good until it has returned. */
export type Use<T> = (lacked: Lacked | undefined) => Generator<undefined, T, undefined>

type Asked = {
  readonly options: LookOptions
  /** Never throws. */
  readonly serve: (lacked: Lacked | undefined) => Generator<undefined, void, undefined>
  readonly fail: (error: unknown) => void
}

export type LackLooksOptions = {
  readonly pool: Pool
  readonly stream: () => PrimaryStream | undefined
  readonly clock: Clock
  /** Fewer than usual: for tests. */
  readonly entriesPerTurnMax?: number
}

export class LackLooks {
  readonly #pool: Pool
  readonly #stream: () => PrimaryStream | undefined
  readonly #clock: Clock
  readonly #entriesPerTurnMax: number
  #asked: Asked[] = []
  #isUnderWay = false
  /** Spent so far on what was done in pieces. */
  #busyMs = 0

  constructor(options: LackLooksOptions) {
    this.#pool = options.pool
    this.#stream = options.stream
    this.#clock = options.clock
    this.#entriesPerTurnMax = options.entriesPerTurnMax ?? entriesPerTurnMax
  }

  get busyMs(): number {
    return this.#busyMs
  }

  /** What `use` makes of it: at once where there is little to look at. Throws or rejects as `use` does. */
  look<T>(options: LookOptions, use: (lacked: Lacked | undefined) => T): T | Promise<T> {
    if (!isShort(this.#stream(), this.#entriesPerTurnMax))
      // biome-ignore lint/correctness/useYield: an answer in one piece.
      return this.lookInPieces(options, function* (lacked) {
        return use(lacked)
      })
    using lacked = lackedNow(this.#pool, this.#stream(), options)
    return use(lacked)
  }

  /** The same where `use` itself may be long. */
  lookInPieces<T>(options: LookOptions, use: Use<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#asked.push({
        options,
        *serve(lacked) {
          try {
            resolve(yield* use(lacked))
          } catch (error) {
            reject(error)
          }
        },
        fail: reject,
      })
      if (!this.#isUnderWay) void this.#goOn()
    })
  }

  async #goOn(): Promise<void> {
    this.#isUnderWay = true
    while (this.#asked.length > 0) {
      const served = this.#takeAlike()
      try {
        await this.#serve(served)
      } catch (error) {
        for (const { fail } of served) fail(error)
      }
    }
    this.#isUnderWay = false
  }

  /** The oldest question, and those that the same look answers. */
  #takeAlike(): readonly Asked[] {
    const countsApplied = this.#asked[0]?.options.countsApplied
    const isAlike = ({ options }: Asked): boolean => options.countsApplied === countsApplied
    const served = this.#asked.filter(isAlike)
    this.#asked = this.#asked.filter((asked) => !isAlike(asked))
    return served
  }

  async #serve(served: readonly Asked[]): Promise<void> {
    using lacked = await this.#walk(commonOf(served.map(({ options }) => options)))
    for (const { serve } of served) {
      const work = serve(lacked)
      while (this.#timed(() => work.next().done) !== true) await this.#turn()
      await this.#turn()
    }
  }

  async #walk(options: LookOptions): Promise<Lacked | undefined> {
    const { tracking } = this.#pool
    const stream = this.#stream()
    if (stream === undefined || tracking === undefined || tracking.isLost) return undefined
    const walk = new LackWalk(this.#pool, stream, tracking, options)
    while (!this.#timed(() => walk.go(this.#entriesPerTurnMax))) await this.#turn()
    return walk.lacked
  }

  #timed<T>(piece: () => T): T {
    const beganMs = this.#clock.nowMs()
    const done = piece()
    this.#busyMs += this.#clock.nowMs() - beganMs
    return done
  }

  #turn(): Promise<void> {
    return new Promise((resolve) => this.#clock.defer(resolve))
  }
}

/** What is enough for all of them: a part when each wants one of the same store. */
function commonOf(all: readonly LookOptions[]): LookOptions {
  const [first = {}, ...others] = all
  if (others.length === 0) return first
  const { storeId, countsApplied } = first
  const isOfOne = storeId !== undefined && others.every((one) => one.storeId === storeId)
  return {
    ...(isOfOne ? { storeId } : {}),
    ...(countsApplied === undefined ? {} : { countsApplied }),
  }
}
