// One direction of a simulated connection: bytes in order, in random pieces, after random delays, and what can happen to them on the way.
//
// Invariant: what arrives is a prefix of what was sent, byte for byte, except for bits flipped and whole frames moved on purpose. No more than `capacityBytes` are on the way:
// a sender whose peer does not read is held back.
import assert from 'node:assert/strict'
import type { SeededRandom } from '../random.js'
import type { Life, Scheduler } from '../sim-clock.js'
import type { FrameTap } from './frame-tap.js'

export type PipeShape = {
  readonly capacityBytes: number
  /** The largest piece that arrives at once. */
  readonly pieceBytesMax: number
  /** How many of the pieces take up to `delayMsMax`; the others compete with disk calls for who comes first. */
  readonly delayShare: number
  readonly delayMsMax: number
}

/** Where the bytes come out. */
export type PipeEnd = {
  readonly life: Life
  readonly isGone: boolean
  /** False: no more until `pull`. */
  arrive(piece: Buffer): boolean
  arriveEnd(): void
}

type Unsent = { readonly chunk: Buffer; readonly before: string; readonly done: () => void }

export class Pipe {
  readonly #scheduler: Scheduler
  readonly #random: SeededRandom
  readonly #shape: PipeShape
  /** Owns the bytes on the way: they move although both nodes may be dead. */
  readonly #life: Life
  readonly #to: PipeEnd
  readonly #beforeArrival: () => void
  readonly #onMoved: () => void
  readonly #violations: string[]
  readonly tap: FrameTap | undefined
  #queue: Buffer[] = []
  #queuedBytes = 0
  #unsent: Unsent | undefined
  #unsentAt = 0
  #isEnding = false
  #isWanted = false
  #isScheduled = false
  #isSilent = false
  #stalledUntilMs = 0
  #flipAt = Number.POSITIVE_INFINITY
  /** Bytes that came out at the other end. */
  deliveredBytes = 0
  /** No piece goes across this many bytes: there the connection is to be cut. */
  cutAt = Number.POSITIVE_INFINITY
  sentBytes = 0

  constructor(options: {
    readonly scheduler: Scheduler
    readonly random: SeededRandom
    readonly shape: PipeShape
    readonly life: Life
    readonly to: PipeEnd
    /** Called before each piece. May end lives. */
    readonly beforeArrival?: () => void
    /** Called after each piece. */
    readonly onMoved: () => void
    readonly violations: string[]
    readonly tap?: FrameTap
  }) {
    this.#scheduler = options.scheduler
    this.#random = options.random
    this.#shape = options.shape
    this.#life = options.life
    this.#to = options.to
    this.#beforeArrival = options.beforeArrival ?? (() => {})
    this.#onMoved = options.onMoved
    this.#violations = options.violations
    this.tap = options.tap
  }

  /** Takes the bytes over as there is room, then calls `done`. The caller must leave `chunk` as it is until then. */
  send(chunk: Buffer, done: () => void): void {
    assert.equal(this.#unsent, undefined)
    this.#unsent = { chunk, before: sampleOf(chunk), done }
    this.#unsentAt = 0
    this.#fill()
  }

  /** No more bytes follow. */
  end(): void {
    this.#isEnding = true
    this.#schedule()
  }

  /** The other end can take more. */
  pull(): void {
    this.#isWanted = true
    this.#schedule()
  }

  /** From here on nothing arrives, and nobody is told. */
  silence(): void {
    this.#isSilent = true
  }

  /** What is on the way is lost; nothing can be sent any more. */
  discard(): void {
    this.silence()
    this.#queue = []
    this.#queuedBytes = 0
  }

  stall(untilMs: number): void {
    this.#stalledUntilMs = Math.max(this.#stalledUntilMs, untilMs)
  }

  /** One bit changes, after so many more bytes have arrived. */
  flip(afterBytes: number): void {
    this.#flipAt = this.deliveredBytes + afterBytes
  }

  get bytesOnTheWay(): number {
    return this.#queuedBytes
  }

  #fill(): void {
    const unsent = this.#unsent
    if (!unsent) return
    const room = this.#shape.capacityBytes - this.#queuedBytes
    const piece = unsent.chunk.subarray(this.#unsentAt, this.#unsentAt + room)
    if (piece.length > 0) {
      const copy = Buffer.from(piece)
      for (const part of this.tap?.pass(copy) ?? [copy]) {
        this.#queue.push(part)
        this.#queuedBytes += part.length
      }
      this.#unsentAt += piece.length
      this.sentBytes += piece.length
    }
    if (this.#unsentAt === unsent.chunk.length) {
      if (sampleOf(unsent.chunk) !== unsent.before)
        this.#violations.push('a buffer changed while it was being sent')
      this.#unsent = undefined
      unsent.done()
    }
    this.#schedule()
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isSilent || !this.#isWanted) return
    if (this.#queuedBytes === 0 && !this.#isEnding) return
    this.#isScheduled = true
    const run = () => {
      this.#isScheduled = false
      this.#deliver()
    }
    const { delayShare, delayMsMax } = this.#shape
    const stallMs = this.#stalledUntilMs - this.#scheduler.nowMs
    const delayMs = this.#random.chance(delayShare) ? this.#random.below(delayMsMax + 1) : 0
    const waitMs = Math.max(stallMs, delayMs)
    if (waitMs > 0) this.#scheduler.clockOf(this.#life).setTimer(waitMs, run)
    else this.#scheduler.post(this.#life, run)
  }

  #deliver(): void {
    if (this.#isSilent || this.#to.isGone) return
    if (this.#scheduler.nowMs < this.#stalledUntilMs) {
      this.#schedule()
      return
    }
    this.#beforeArrival()
    if (this.#isSilent || this.#to.isGone) return
    const piece = this.#take()
    if (!piece) {
      if (this.#isEnding) this.#arriveEnd()
      return
    }
    this.#scheduler.note(piece.length)
    this.deliveredBytes += piece.length
    this.#isWanted = this.#to.arrive(piece)
    this.#fill()
    this.#schedule()
    this.#onMoved()
  }

  #arriveEnd(): void {
    this.#isSilent = true
    this.#to.arriveEnd()
  }

  /** Some of the next bytes, never across the place of a cut. */
  #take(): Buffer | undefined {
    if (this.#queuedBytes === 0) return undefined
    const wanted = this.#random.chance(0.6)
      ? this.#shape.pieceBytesMax
      : 1 + this.#random.below(this.#shape.pieceBytesMax)
    const parts: Buffer[] = []
    const untilCut = this.cutAt - this.deliveredBytes
    let left = untilCut > 0 ? Math.min(wanted, untilCut) : wanted
    while (left > 0) {
      const [head] = this.#queue
      if (!head) break
      const part = head.subarray(0, left)
      if (part.length === head.length) this.#queue.shift()
      else this.#queue[0] = head.subarray(part.length)
      parts.push(part)
      left -= part.length
    }
    const piece = Buffer.concat(parts)
    this.#queuedBytes -= piece.length
    const flipAt = this.#flipAt - this.deliveredBytes
    if (flipAt < piece.length) {
      piece.writeUInt8(piece.readUInt8(flipAt) ^ (1 << this.#random.below(8)), flipAt)
      this.#flipAt = Number.POSITIVE_INFINITY
    }
    return piece
  }
}

/** Enough of the bytes to see that somebody wrote to them. */
function sampleOf(chunk: Buffer): string {
  return chunk.toString('latin1', 0, 16) + chunk.toString('latin1', Math.max(0, chunk.length - 16))
}
