// Bytes that arrived and were not used yet, in the pieces they came in. Headers are read where they lie; payload is handed on as views
// of the pieces; nothing is joined except a header that lies in two pieces.
import assert from 'node:assert/strict'

/** Whoever owns the memory of the pieces, and must know how long they are looked at. */
export interface Keeper {
  hold(view: Buffer): void
  release(view: Buffer): void
}

const keepsNothing: Keeper = { hold: () => {}, release: () => {} }
const nothing = Buffer.alloc(0)

export class Input {
  #piece: Buffer = nothing
  #at = 0
  #pieces: Buffer[] = []
  readonly #split: Buffer
  #splitBytes = 0

  readonly #keeper: Keeper

  /** `headerBytesMax` is the longest header that will be asked for. Each piece is held for the input when it is pushed; it releases it when all of it was used. */
  constructor(headerBytesMax: number, keeper: Keeper = keepsNothing) {
    this.#split = Buffer.alloc(headerBytesMax)
    this.#keeper = keeper
  }

  push(piece: Buffer): void {
    this.#pieces.push(piece)
  }

  /** True when a part of a header was taken and the rest has not come. */
  get isInsideHeader(): boolean {
    return this.#splitBytes > 0
  }

  /** A header that has begun and is not whole, when `lengthBytes` of it are there. */
  beginningOfHeader(lengthBytes: number): Buffer | undefined {
    return this.#splitBytes >= lengthBytes ? this.#split : undefined
  }

  /** Where the last header that `takeHeader` found lies. */
  headerPiece: Buffer = nothing
  headerAt = 0

  /** Takes `lengthBytes` of header; false when they are not all there (then the next call goes on). */
  takeHeader(lengthBytes: number): boolean {
    assert(lengthBytes <= this.#split.length)
    for (;;) {
      const at = this.#at
      if (this.#splitBytes === 0 && this.#piece.length - at >= lengthBytes) {
        this.headerPiece = this.#piece
        this.headerAt = at
        this.#at = at + lengthBytes
        return true
      }
      const end = Math.min(this.#piece.length, at + lengthBytes - this.#splitBytes)
      this.#splitBytes += this.#piece.copy(this.#split, this.#splitBytes, at, end)
      this.#at = end
      if (this.#splitBytes === lengthBytes) {
        this.#splitBytes = 0
        this.headerPiece = this.#split
        this.headerAt = 0
        return true
      }
      if (!this.#nextPiece()) return false
    }
  }

  /** True when the next `lengthBytes` lie in the piece being read. */
  hasInOnePiece(lengthBytes: number): boolean {
    return this.#piece.length - this.#at >= lengthBytes
  }

  /** Moves up to `lengthBytes` onto `parts`, as views that are held until the caller releases them; returns how many. */
  takeParts(lengthBytes: number, parts: Buffer[]): number {
    let leftBytes = lengthBytes
    while (leftBytes > 0 && (this.#at < this.#piece.length || this.#nextPiece())) {
      const end = Math.min(this.#piece.length, this.#at + leftBytes)
      const part = this.#piece.subarray(this.#at, end)
      this.#keeper.hold(part)
      parts.push(part)
      leftBytes -= end - this.#at
      this.#at = end
    }
    return lengthBytes - leftBytes
  }

  /** Throws away up to `lengthBytes`; returns how many. */
  skip(lengthBytes: number): number {
    let leftBytes = lengthBytes
    while (leftBytes > 0 && (this.#at < this.#piece.length || this.#nextPiece())) {
      const end = Math.min(this.#piece.length, this.#at + leftBytes)
      leftBytes -= end - this.#at
      this.#at = end
    }
    return lengthBytes - leftBytes
  }

  /** Forgets a piece that was used up, so that an idle connection keeps no socket buffer. */
  tidy(): void {
    this.headerPiece = nothing
    if (this.#at < this.#piece.length) return
    this.#forgetPiece()
  }

  clear(): void {
    this.#forgetPiece()
    for (const piece of this.#pieces) this.#keeper.release(piece)
    this.#pieces = []
    this.#splitBytes = 0
    this.headerPiece = nothing
  }

  #nextPiece(): boolean {
    const next = this.#pieces.shift()
    if (!next) return false
    this.#forgetPiece()
    this.#piece = next
    return true
  }

  #forgetPiece(): void {
    const piece = this.#piece
    this.#piece = nothing
    this.#at = 0
    if (piece !== nothing) this.#keeper.release(piece)
  }
}
