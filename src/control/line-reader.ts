// Lines out of a stream of pieces. Never holds more than one unfinished line of at most `lineBytesMax` bytes, and takes each byte once:
// a line that arrives a byte at a time costs no more than its length.

const newline = 0x0a

export class LineReader {
  readonly #lineBytesMax: number
  #pieces: Uint8Array[] = []
  #heldBytes = 0

  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax
  }

  /** Bytes of the line that has not ended yet. */
  get heldBytes(): number {
    return this.#heldBytes
  }

  /** The lines that `chunk` completes, without their ends; 'too-long' instead of a line above the limit, after which nothing more can be read. */
  *push(chunk: Uint8Array): Generator<Uint8Array | 'too-long'> {
    let start = 0
    for (;;) {
      const end = chunk.indexOf(newline, start)
      const piece = chunk.subarray(start, end === -1 ? chunk.length : end)
      if (this.#heldBytes + piece.length > this.#lineBytesMax) {
        this.#take()
        yield 'too-long'
        return
      }
      if (piece.length > 0) this.#hold(piece)
      if (end === -1) return
      yield this.#take()
      start = end + 1
    }
  }

  /** Small pieces are joined as they come, so that a line sent a byte at a time does not become a million buffers. */
  #hold(piece: Uint8Array): void {
    this.#heldBytes += piece.length
    const last = this.#pieces.at(-1)
    const before = this.#pieces.at(-2)
    this.#pieces.push(piece)
    if (last === undefined || before === undefined) return
    if (before.length <= last.length + piece.length) {
      this.#pieces.splice(-3, 3, Buffer.concat([before, last, piece]))
    }
  }

  #take(): Uint8Array {
    const line =
      this.#pieces.length === 1 ? (this.#pieces[0] ?? Buffer.alloc(0)) : Buffer.concat(this.#pieces)
    this.#pieces = []
    this.#heldBytes = 0
    return line
  }
}
