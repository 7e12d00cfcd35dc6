// Exactly as many bytes as asked for, from pieces of any size: the pull reader under the handshake, the client and the peer link.
// Never holds more than one piece above `bufferedBytesMax`: beyond that the stream is paused until somebody reads.
import assert from 'node:assert/strict'
import type { Readable } from 'node:stream'
import { ConnectionEnded } from './protocol-error.js'

type Waiter = {
  readonly lengthBytes: number
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

export class ByteReader {
  readonly #bufferedBytesMax: number
  readonly #pause: () => void
  readonly #resume: () => void
  #detach: () => void = () => {}
  #pieces: Buffer[] = []
  /** Bytes of the first piece that were read already. */
  #at = 0
  #bufferedBytes = 0
  #isPaused = false
  #end: Error | undefined
  #waiter: Waiter | undefined

  constructor(options: {
    readonly bufferedBytesMax: number
    readonly pause?: () => void
    readonly resume?: () => void
  }) {
    assert(options.bufferedBytesMax > 0)
    this.#bufferedBytesMax = options.bufferedBytesMax
    this.#pause = options.pause ?? (() => {})
    this.#resume = options.resume ?? (() => {})
  }

  /** Reads `stream` from now on. The end of the stream, an error and a close reject what is awaited. */
  static over(stream: Readable, options: { readonly bufferedBytesMax: number }): ByteReader {
    const reader = new ByteReader({
      bufferedBytesMax: options.bufferedBytesMax,
      pause: () => stream.pause(),
      resume: () => stream.resume(),
    })
    const onData = (piece: Buffer) => reader.push(piece)
    const onEnd = () => reader.end()
    const onError = (error: Error) => reader.end(error)
    stream.on('data', onData).on('end', onEnd).on('close', onEnd).on('error', onError)
    reader.#detach = () => {
      stream.off('data', onData).off('end', onEnd).off('close', onEnd).off('error', onError)
      stream.pause()
    }
    return reader
  }

  /** Bytes that came and were not read yet. */
  get bufferedBytes(): number {
    return this.#bufferedBytes
  }

  push(piece: Buffer): void {
    assert(this.#end === undefined)
    if (piece.length === 0) return
    this.#pieces.push(piece)
    this.#bufferedBytes += piece.length
    this.#wake()
    if (!this.#isPaused && this.#bufferedBytes > this.#bufferedBytesMax) {
      this.#isPaused = true
      this.#pause()
    }
  }

  /** No more bytes will come. What is buffered can still be read. */
  end(cause?: Error): void {
    if (this.#end) return
    this.#end = cause ?? new ConnectionEnded(this.#bufferedBytes, this.#waiter?.lengthBytes ?? 0)
    const waiter = this.#waiter
    this.#waiter = undefined
    waiter?.reject(cause ?? new ConnectionEnded(this.#bufferedBytes, waiter.lengthBytes))
  }

  /** Resolves to exactly `lengthBytes` bytes in one piece. Rejects with ConnectionEnded, or with the stream's error. One call at a time. */
  async read(lengthBytes: number): Promise<Buffer> {
    assert(lengthBytes >= 0)
    assert(lengthBytes <= this.#bufferedBytesMax)
    await this.#available(lengthBytes)
    return this.#take(lengthBytes)
  }

  /** Resolves to `lengthBytes` bytes as the pieces they came in, without joining them. */
  async readParts(lengthBytes: number): Promise<Buffer[]> {
    const parts: Buffer[] = []
    let leftBytes = lengthBytes
    while (leftBytes > 0) {
      await this.#available(1)
      const part = this.#takeFromFirst(leftBytes)
      parts.push(part)
      leftBytes -= part.length
    }
    return parts
  }

  /** Resolves once `lengthBytes` bytes were thrown away, however many that are. */
  async skip(lengthBytes: number): Promise<void> {
    let leftBytes = lengthBytes
    while (leftBytes > 0) {
      await this.#available(1)
      leftBytes -= this.#takeFromFirst(leftBytes).length
    }
  }

  /** Stops reading, pauses the stream and gives back the bytes nobody read. */
  detach(): Buffer[] {
    assert(this.#waiter === undefined)
    this.#detach()
    const rest: Buffer[] = []
    while (this.#bufferedBytes > 0) rest.push(this.#takeFromFirst(this.#bufferedBytes))
    return rest
  }

  #available(lengthBytes: number): Promise<void> | undefined {
    assert(this.#waiter === undefined)
    if (this.#bufferedBytes >= lengthBytes) return undefined
    if (this.#end) {
      const isClean = this.#end instanceof ConnectionEnded
      return Promise.reject(
        isClean ? new ConnectionEnded(this.#bufferedBytes, lengthBytes) : this.#end,
      )
    }
    this.#resumeStream()
    return new Promise((resolve, reject) => {
      this.#waiter = { lengthBytes, resolve, reject }
    })
  }

  #wake(): void {
    const waiter = this.#waiter
    if (!waiter || this.#bufferedBytes < waiter.lengthBytes) return
    this.#waiter = undefined
    waiter.resolve()
  }

  #resumeStream(): void {
    if (!this.#isPaused) return
    this.#isPaused = false
    this.#resume()
  }

  #take(lengthBytes: number): Buffer {
    const first = this.#pieces[0]
    if (first && first.length - this.#at >= lengthBytes) return this.#takeFromFirst(lengthBytes)
    const joined = Buffer.allocUnsafe(lengthBytes)
    let at = 0
    while (at < lengthBytes) at += this.#takeFromFirst(lengthBytes - at).copy(joined, at)
    return joined
  }

  #takeFromFirst(lengthBytesMax: number): Buffer {
    const first = this.#pieces[0]
    assert(first !== undefined)
    const end = Math.min(first.length, this.#at + lengthBytesMax)
    const taken = first.subarray(this.#at, end)
    this.#bufferedBytes -= taken.length
    this.#at = end
    if (end === first.length) {
      this.#pieces.shift()
      this.#at = 0
    }
    if (this.#bufferedBytes <= this.#bufferedBytesMax / 2) this.#resumeStream()
    return taken
  }
}
