// Zeroes that are written because their space stays allocated, of more than a piece: few bytes of a request can ask for terabytes of writing. One piece at a time is
// ordered, of all such requests in turn, so that operations, other clients and a stop wait for a piece and not for a request.
//
// Invariant: at most one piece is under way; a request that nobody waits for any more ends behind its piece.
import { limits } from '../core/limits.js'

const pieceBytes = limits.zeroPieceBytes

export type LongZero = {
  readonly offset: number
  readonly lengthBytes: number
  /** Orders and writes a piece. Throws or rejects when that is refused or fails: the request ends with it. */
  readonly write: (
    piece: { readonly offset: number; readonly lengthBytes: number },
    isLast: boolean,
  ) => Promise<void> | undefined
  /** False when nobody waits for the answer. */
  readonly isWanted: () => boolean
}

type Task = {
  readonly zero: LongZero
  at: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

export class LongZeroes {
  readonly #line: Task[] = []
  #isWorking = false

  /** Settles when all of it was written, or nobody waits for it. */
  run(zero: LongZero): Promise<void> {
    const done = new Promise<void>((resolve, reject) => {
      this.#line.push({ zero, at: zero.offset, resolve, reject })
    })
    if (!this.#isWorking) void this.#work()
    return done
  }

  async #work(): Promise<void> {
    this.#isWorking = true
    for (let task = this.#line.shift(); task !== undefined; task = this.#line.shift()) {
      try {
        if (await this.#isOver(task)) task.resolve()
        else this.#line.push(task)
      } catch (error) {
        task.reject(error)
      }
    }
    this.#isWorking = false
  }

  /** Writes the next piece; pieces end at multiples of their size. */
  async #isOver(task: Task): Promise<boolean> {
    const { offset, lengthBytes, write, isWanted } = task.zero
    if (!isWanted()) return true
    const from = task.at
    const end = Math.min(offset + lengthBytes, from - (from % pieceBytes) + pieceBytes)
    task.at = end
    const isLast = end === offset + lengthBytes
    await write({ offset: from, lengthBytes: end - from }, isLast)
    return isLast
  }
}
