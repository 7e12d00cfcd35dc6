// How many bytes of data the peer lacks, for `status`: at once, where nobody waits, with an answer that may be too large; counted, a piece in a turn, where somebody does.
import type { Clock } from '../core/clock.js'
import type { Pool } from '../storage/pool.js'
import type { LackLooks } from './lack-looks.js'
import { lacksBytes } from './lacks.js'
import { moveBytesInPieces, pieceStepsMax } from './move-bytes.js'
import type { PrimaryStream } from './primary-stream.js'

/** An answer that took longer than this is not found anew each time somebody asks. */
const costlyMs = 5
/** The part of the time that may go into answers: one in twenty. */
const restFactor = 20

export type LacksMeterOptions = {
  readonly pool: Pool
  readonly stream: () => PrimaryStream | undefined
  readonly clock: Clock
  readonly looks: LackLooks
  /** What the peer has applied, but not made durable, counts as well: what a resync would move. */
  readonly countsApplied: boolean
}

export class LacksMeter {
  readonly #options: LacksMeterOptions
  #bytes = 0
  #validUntilMs = 0

  constructor(options: LacksMeterOptions) {
    this.#options = options
  }

  /** At once, and at most. */
  get bytes(): number {
    if (this.#isCalm) return 0
    const { pool, stream, countsApplied } = this.#options
    return lacksBytes(pool, stream(), { countsApplied, stepsMax: pieceStepsMax })
  }

  /** Counted; where that is a lot of work, as it was a moment ago. */
  async count(): Promise<number> {
    const { pool, clock, looks, countsApplied } = this.#options
    if (this.#isCalm) return 0
    if (clock.nowMs() < this.#validUntilMs) return this.#bytes
    const busyMs = looks.busyMs
    const options = countsApplied ? { countsApplied } : {}
    this.#bytes = await looks.lookInPieces(options, function* (lacked) {
      const moved = lacked && (yield* moveBytesInPieces(pool.state, lacked.stores))
      const { usedBytes } = pool.usage
      return Math.min(moved ?? usedBytes, usedBytes)
    })
    const tookMs = looks.busyMs - busyMs
    this.#validUntilMs = tookMs < costlyMs ? 0 : clock.nowMs() + tookMs * restFactor
    return this.#bytes
  }

  get #isCalm(): boolean {
    const { pool, stream } = this.#options
    const { tracking } = pool
    if (tracking === undefined || tracking.isLost || tracking.totals.dirtyBytes > 0) return false
    return (stream()?.outbox.entryCount ?? 0) === 0
  }
}
