// The reply of a read that is too large for one turn of the event loop: laid out as any large read, but a slice at a time, so that other connections
// are served in between. Most of it comes from memory, at once: without slices nobody else would be, until all of it is copied.
//
// Invariants: as in nbd/large-read.ts, each piece lies at the place that its header says; nothing fills the buffer any more when it settles, also in failure.
import type { Piece } from './holes.js'
import { allOf, piecesOf, type ReadParts } from './large-read.js'
import type { Request } from './request.js'
import type { LongTurns } from './turns.js'

type SlicedParts = ReadParts & { readonly turns: LongTurns }

export class SlicedRead {
  readonly #parts: SlicedParts
  readonly #request: Request
  readonly #bytes: Buffer
  readonly #waits: Promise<void>[] = []
  #pieces: readonly Piece[] | undefined
  #index = 0
  /** Of the present piece. */
  #readBytes = 0
  #end = 0

  /** `request` and `bytes` stay as they are until it is over. */
  constructor(parts: SlicedParts, request: Request, bytes: Buffer) {
    this.#parts = parts
    this.#request = request
    this.#bytes = bytes
  }

  /** Where the reply ends in the buffer, once it is over. */
  get end(): number {
    return this.#end
  }

  /** Reads the first slice now, if it is not another's turn. Settles when all is read, or nobody wants it; rejects with what the export says. */
  async run(owner: object, isWanted: () => boolean): Promise<void> {
    try {
      await new Promise<void>((resolve, reject) => {
        this.#takeTurns(owner, { isWanted, resolve, reject })
      })
    } catch (error) {
      await Promise.allSettled(this.#waits)
      throw error
    }
    await allOf(this.#waits)
  }

  #takeTurns(
    owner: object,
    calls: {
      readonly isWanted: () => boolean
      readonly resolve: () => void
      readonly reject: (error: unknown) => void
    },
  ): void {
    const { turns, limits } = this.#parts
    const go = (): void => {
      try {
        const isOver = !calls.isWanted() || this.#goOn(limits.readSliceBytes)
        turns.spend(limits.readSliceSteps)
        if (isOver) calls.resolve()
        else turns.wait(owner, go)
      } catch (error) {
        calls.reject(error)
      }
    }
    if (turns.isUsedUp) turns.wait(owner, go)
    else go()
  }

  /** Reads at most `bytesMax` more; true when there is nothing left. Throws what the export throws. */
  #goOn(bytesMax: number): boolean {
    this.#pieces ??= piecesOf(this.#parts, this.#request)
    let leftBytes = bytesMax
    for (let piece = this.#pieces[this.#index]; piece; piece = this.#pieces[this.#index]) {
      if (piece.isHole) this.#layHole(piece)
      else if (leftBytes === 0) return false
      else leftBytes -= this.#readSlice(piece, leftBytes)
    }
    return true
  }

  #layHole(piece: Piece): void {
    const chunk = { ...piece, isLast: this.#isLast }
    this.#end = this.#parts.encoder.holeChunk(this.#bytes, this.#end, this.#request, chunk)
    this.#index++
  }

  /** Answers how much was read, or begun. */
  #readSlice(piece: Piece, bytesMax: number): number {
    const { encoder, target } = this.#parts
    if (this.#readBytes === 0) {
      const chunk = { ...piece, isLast: this.#isLast }
      this.#end = encoder.dataHeader(this.#bytes, this.#end, this.#request, chunk)
    }
    const lengthBytes = Math.min(bytesMax, piece.lengthBytes - this.#readBytes)
    const offset = piece.offset + this.#readBytes
    const slice = this.#bytes.subarray(this.#end, this.#end + lengthBytes)
    const wait = target.read({ offset, target: slice })
    if (wait) this.#owe(wait)
    this.#end += lengthBytes
    this.#readBytes += lengthBytes
    if (this.#readBytes === piece.lengthBytes) {
      this.#index++
      this.#readBytes = 0
    }
    return lengthBytes
  }

  #owe(wait: Promise<void>): void {
    // It may fail before all slices are begun, which is when it is asked.
    wait.catch(() => {})
    this.#waits.push(wait)
  }

  get #isLast(): boolean {
    return this.#index + 1 === this.#pieces?.length
  }
}
