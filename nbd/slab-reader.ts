// Makes a plain socket read into slabs instead of into a new buffer for each read.
//
// Node has this for sockets that are made with `onread`, which those of a server are not. What `onread` sets on a socket is set here on
// one that is connected already. Those names are Node's own affair: where one is missing the answer is undefined, and the caller reads
// 'data' events as from any other stream. From then on the socket emits no 'data'; pause, resume, 'end' and 'close' stay as they are.
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Slab, Slabs } from './slabs.js'

/** A connection that has little to say has little memory: requests without payload, and small writes one at a time. */
const smallSlabBytes = 16 * 1024
/** Twice what Node reads at a time otherwise. Each socket has one on top of the budget: see `processBytesMax`. */
const largeSlabBytes = 128 * 1024
/**
 * All that a Unix socket holds. Its client is woken when three quarters have been taken: in one read it is, before we work on what came,
 * and sends on meanwhile. TCP's clients are woken earlier, and larger reads only use more of the processor's cache.
 */
const wholeSlabBytes = 256 * 1024
/** Small reads in a row after which a large slab is given back. */
const smallReadsToShrink = 64

type Handle = { useUserBuffer(bytes: Buffer): void }
type Innards = { [key: symbol]: unknown; readonly _handle?: Partial<Handle> | null }

export class SlabReader {
  readonly #slabs: Slabs
  readonly #onPiece: (piece: Buffer) => void
  #slab: Slab
  #smallReadCount = 0
  readonly #isUnix: boolean
  #hasSeat = false
  #isClosed = false

  private constructor(slabs: Slabs, isUnix: boolean, onPiece: (piece: Buffer) => void) {
    this.#slabs = slabs
    this.#isUnix = isUnix
    this.#onPiece = onPiece
    this.#slab = slabs.take(smallSlabBytes)
  }

  /** Begins when the socket is resumed. Each piece is held for the receiver, who releases it. */
  static over(
    stream: Duplex,
    slabs: Slabs,
    onPiece: (piece: Buffer) => void,
  ): SlabReader | undefined {
    // A TLS socket has a handle of another kind, and what is derived from a socket may read in its own way.
    if (!isPlainSocket(stream)) return undefined
    const socket = stream as unknown as Innards
    const handle = socket._handle
    const buffer = symbolOf(stream, 'kBuffer')
    const callback = symbolOf(stream, 'kBufferCb')
    const generator = symbolOf(stream, 'kBufferGen')
    if (typeof handle?.useUserBuffer !== 'function') return undefined
    if (buffer === undefined || callback === undefined || generator === undefined) return undefined
    const reader = new SlabReader(slabs, stream.remoteFamily === undefined, onPiece)
    const first = reader.#room()
    socket[buffer] = first
    socket[callback] = (lengthBytes: number) => reader.#onRead(lengthBytes)
    socket[generator] = () => reader.#next()
    handle.useUserBuffer(first)
    return reader
  }

  /** The socket is closed: nothing is read any more. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#leaveSeat()
    this.#slabs.leave(this.#slab)
  }

  #onRead(lengthBytes: number): void {
    const slab = this.#slab
    const start = slab.filledBytes
    slab.filledBytes += lengthBytes
    this.#smallReadCount = lengthBytes < smallSlabBytes / 2 ? this.#smallReadCount + 1 : 0
    const piece = slab.bytes.subarray(start, slab.filledBytes)
    slab.holds++
    this.#onPiece(piece)
  }

  /** Where the next read goes: the same slab from its start when nobody looks at it any more. */
  #next(): Buffer {
    const slab = this.#slab
    const isLarge = slab.bytes.length >= largeSlabBytes
    const wasFull = slab.filledBytes === slab.bytes.length
    const isUnheld = slab.holds === 1
    if (isUnheld && !slab.isSealed) slab.filledBytes = 0
    if (isLarge && this.#smallReadCount >= smallReadsToShrink) {
      this.#leaveSeat()
      this.#change(smallSlabBytes)
    } else if (wasFull && (!isLarge || this.#mayHaveWhole())) this.#change(this.#largestBytes())
    else if (this.#slab.filledBytes > slab.bytes.length * (3 / 4)) this.#change(slab.bytes.length)
    return this.#room()
  }

  /** True when a socket with a large slab would get a larger one. */
  #mayHaveWhole(): boolean {
    return this.#isUnix && !this.#isClosed && !this.#hasSeat && this.#slabs.hasSeat
  }

  #largestBytes(): number {
    if (this.#mayHaveWhole()) this.#hasSeat = this.#slabs.takeSeat()
    return this.#hasSeat ? wholeSlabBytes : largeSlabBytes
  }

  #leaveSeat(): void {
    if (this.#hasSeat) this.#slabs.leaveSeat()
    this.#hasSeat = false
  }

  #room(): Buffer {
    const { bytes, filledBytes } = this.#slab
    return filledBytes === 0 ? bytes : bytes.subarray(filledBytes)
  }

  #change(lengthBytes: number): void {
    this.#smallReadCount = 0
    if (this.#isClosed) return
    const used = this.#slab
    this.#slab = this.#slabs.take(lengthBytes)
    this.#slabs.leave(used)
  }
}

const isPlainSocket = (stream: Duplex): stream is Socket =>
  Object.getPrototypeOf(stream) === Socket.prototype

function symbolOf(stream: Duplex, name: string): symbol | undefined {
  return Object.getOwnPropertySymbols(stream).find((symbol) => symbol.description === name)
}
