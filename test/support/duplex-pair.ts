// Two ends of a connection in memory: what is written to one is read from the other, in the pieces it was written in.
import { Duplex } from 'node:stream'

class End extends Duplex {
  other: End | undefined
  #unread: (() => void) | undefined

  constructor() {
    super({ allowHalfOpen: true })
  }

  override _read(): void {
    const unread = this.#unread
    this.#unread = undefined
    unread?.()
  }

  override _write(chunk: Buffer, _: BufferEncoding, callback: () => void): void {
    const other = this.other
    if (!other || other.destroyed) callback()
    else if (other.push(Buffer.from(chunk))) callback()
    else other.#unread = callback
  }

  override _final(callback: () => void): void {
    this.other?.push(null)
    callback()
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    const other = this.other
    callback(error)
    if (other && !other.destroyed) setImmediate(() => other.destroy())
  }
}

export function duplexPair(): [Duplex, Duplex] {
  const a = new End()
  const b = new End()
  a.other = b
  b.other = a
  return [a, b]
}
