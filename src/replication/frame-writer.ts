// What waits to be sent, and how it leaves: everything of one turn together, at most `socketWriteBytesMax` with the socket at a time, so
// that progress can be seen. Buffers are handed to the stream as they are.
//
// Invariant: `unsentBytes` counts what was queued and not taken by the system. One write is with the stream at a time.
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import type { SendNow } from '../../nbd/bytes/send-now.js'
import { linkLimits } from './limits.js'

export class FrameWriter {
  readonly #stream: Duplex
  readonly #onTurnEnd: () => void
  readonly #onProgress: () => void
  readonly #sendNow: SendNow | undefined
  #queue: Buffer[] = []
  #head = 0
  /** Bytes of the first buffer in the queue that were given to the stream. */
  #at = 0
  #queuedBytes = 0
  #writtenBytes = 0
  #sentBytes = 0
  #writeCount = 0
  #isScheduled = false
  #isClosed = false

  constructor(options: {
    readonly stream: Duplex
    /** The turn ends: the last chance to queue something for this write. */
    readonly onTurnEnd: () => void
    /** The system took something. */
    readonly onProgress: () => void
    readonly sendNow?: SendNow | undefined
  }) {
    this.#stream = options.stream
    this.#onTurnEnd = options.onTurnEnd
    this.#onProgress = options.onProgress
    this.#sendNow = options.sendNow
  }

  /** Bytes that the system has taken. */
  get sentBytes(): number {
    return this.#sentBytes
  }

  /** The same with those of the write under way, as far as the stream tells. */
  get takenBytes(): number {
    return this.#sentBytes + Math.max(0, this.#writtenBytes - this.#stream.writableLength)
  }

  get unsentBytes(): number {
    return this.#queuedBytes + this.#writtenBytes
  }

  /** True while the stream has bytes that the system did not take. */
  get isBlocked(): boolean {
    return this.#writtenBytes > 0
  }

  queue(bytes: Buffer): void {
    assert(!this.#isClosed)
    if (bytes.length === 0) return
    this.#queue.push(bytes)
    this.#queuedBytes += bytes.length
    this.schedule()
  }

  /** `flush` at the end of the turn. */
  schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    queueMicrotask(() => {
      this.#isScheduled = false
      if (this.#isClosed) return
      this.#onTurnEnd()
      this.flush()
      // Whoever waits for room waited for this: what is taken at once calls nobody back.
      if (!this.#isClosed && this.#writtenBytes === 0) this.#onProgress()
    })
  }

  /** Gives the stream what it takes. */
  flush(): void {
    while (!this.#isClosed && this.#queuedBytes > 0 && this.#writtenBytes === 0) this.#writeSome()
  }

  close(): void {
    this.#isClosed = true
    this.#queue = []
    this.#head = 0
    this.#at = 0
    this.#queuedBytes = 0
    this.#writtenBytes = 0
  }

  #writeSome(): void {
    const writing = this.#rest(this.#takeSome())
    if (writing.length === 0) {
      this.#taken()
      return
    }
    const writeCount = ++this.#writeCount
    const stream = this.#stream
    const last = writing.length - 1
    if (last > 0) stream.cork()
    for (const [index, bytes] of writing.entries()) {
      if (index < last) stream.write(bytes)
      else stream.write(bytes, () => this.#onWritten(writeCount))
    }
    if (last > 0) stream.uncork()
    // The system took everything at once: no need to wait for the callback, which comes later in the same turn.
    if (!this.#isClosed && stream.writableLength === 0) this.#taken()
  }

  /** What is left of `writing` for the stream when the system has taken what it takes at once. */
  #rest(writing: Buffer[]): Buffer[] {
    if (this.#sendNow === undefined || this.#stream.writableLength > 0) return writing
    let takenBytes = this.#sendNow(this.#stream, writing)
    assert(takenBytes <= this.#writtenBytes)
    this.#sentBytes += takenBytes
    this.#writtenBytes -= takenBytes
    let count = 0
    for (const { length } of writing) {
      if (length > takenBytes) break
      takenBytes -= length
      count++
    }
    const rest = writing.slice(count)
    if (takenBytes > 0 && rest[0] !== undefined) rest[0] = rest[0].subarray(takenBytes)
    return rest
  }

  #takeSome(): Buffer[] {
    const writing: Buffer[] = []
    let leftBytes = Math.min(this.#queuedBytes, linkLimits.socketWriteBytesMax)
    this.#queuedBytes -= leftBytes
    this.#writtenBytes = leftBytes
    while (leftBytes > 0) {
      const first = this.#queue[this.#head]
      assert(first !== undefined)
      const end = Math.min(first.length, this.#at + leftBytes)
      writing.push(this.#at === 0 && end === first.length ? first : first.subarray(this.#at, end))
      leftBytes -= end - this.#at
      this.#at = end
      if (end < first.length) break
      this.#head++
      this.#at = 0
    }
    if (this.#head === this.#queue.length) {
      this.#queue = []
      this.#head = 0
    } else if (this.#head >= queueHeadMax) {
      this.#queue = this.#queue.slice(this.#head)
      this.#head = 0
    }
    return writing
  }

  #onWritten(writeCount: number): void {
    // After an error 'close' follows; what was taken at once is done already.
    if (this.#isClosed || this.#writtenBytes === 0 || writeCount !== this.#writeCount) return
    this.#taken()
    this.flush()
    if (!this.#isClosed) this.#onProgress()
  }

  #taken(): void {
    this.#sentBytes += this.#writtenBytes
    this.#writtenBytes = 0
  }
}

/** Used-up places at the front of the queue after which it is copied. */
const queueHeadMax = 1024
