// From bytes in pieces of any size to frames, one at a time. Payload of writes stays in the pieces it came in; its checksum is taken as
// it comes. Nothing is allocated from a length before the head's checksum and the table's bound were right.
//
// Invariants: a piece that is pushed is held by whoever pushes it, and released here when it was used up; the parts of a write are held for the receiver, who
// releases them; every other payload is a copy. After an error the reader is of no more use: where the next frame begins is not known.
import assert from 'node:assert/strict'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { crc32 } from '../core/crc32.js'
import { decodeFrame } from './frame-decoder.js'
import { type FrameHead, FrameType, headBytes, readHead, type Side } from './frame-head.js'
import type { Frame } from './frames.js'
import { linkLimits } from './limits.js'

const nothing = Buffer.alloc(0)

/** Whoever owns the memory of the pieces, and must know how long they are looked at. */
export interface PieceKeeper {
  hold(view: Buffer): void
  release(view: Buffer): void
}

const keepsNothing: PieceKeeper = { hold: () => {}, release: () => {} }

export class FrameReader {
  readonly #sender: Side
  readonly #keeper: PieceKeeper
  readonly #skipsCrc: boolean
  #piece: Buffer = nothing
  #at = 0
  #pieces: Buffer[] = []
  #bufferedBytes = 0
  readonly #headBuffer = Buffer.alloc(headBytes)
  #headFilled = 0
  #head: FrameHead | undefined
  #parts: Buffer[] = []
  #leftBytes = 0
  #crc = 0
  /** Where the rest of a payload goes that comes in too many pieces. */
  #gathered: Buffer | undefined
  #gatheredBytes = 0
  #isBroken = false

  /** `sender` is the side that the bytes come from. */
  constructor(
    sender: Side,
    options: { readonly skipsCrc?: boolean; readonly keeper?: PieceKeeper } = {},
  ) {
    this.#sender = sender
    this.#keeper = options.keeper ?? keepsNothing
    this.#skipsCrc = options.skipsCrc ?? false
  }

  /** Bytes that were pushed and are in no frame yet. */
  get bufferedBytes(): number {
    return this.#bufferedBytes
  }

  /** Whether the bytes end within a frame. */
  get isInsideFrame(): boolean {
    return this.#headFilled > 0 || this.#head !== undefined || this.#bufferedBytes > 0
  }

  /** Takes over a piece that is held for it. */
  push(piece: Buffer): void {
    if (piece.length === 0) {
      this.#keeper.release(piece)
      return
    }
    this.#pieces.push(piece)
    this.#bufferedBytes += piece.length
  }

  /** Lets go of everything that is in no frame yet. Nothing is pushed any more. */
  close(): void {
    const held = [this.#piece, ...this.#pieces, ...this.#parts]
    this.#piece = nothing
    this.#pieces = []
    this.#parts = []
    this.#bufferedBytes = 0
    this.#isBroken = true
    for (const view of held) if (view.length > 0) this.#keeper.release(view)
  }

  /** The next frame that is all there. Throws ProtocolError. */
  next(): Frame | undefined {
    assert(!this.#isBroken)
    try {
      return this.#next()
    } catch (error) {
      this.#isBroken = true
      throw error
    }
  }

  #next(): Frame | undefined {
    const head = this.#head ?? this.#takeHead()
    if (head === undefined) return undefined
    this.#head = head
    if (!this.#takePayload()) return undefined
    if (this.#crc !== head.payloadCrc && !this.#skipsCrc)
      throw new ProtocolError('the checksum of a payload is wrong')
    const parts = this.#parts
    this.#parts = []
    this.#head = undefined
    this.#gathered = undefined
    return decodeFrame(head, parts)
  }

  #takeHead(): FrameHead | undefined {
    while (this.#headFilled < headBytes) {
      if (this.#at === this.#piece.length && !this.#nextPiece()) return undefined
      const end = this.#at + headBytes - this.#headFilled
      const taken = this.#piece.copy(this.#headBuffer, this.#headFilled, this.#at, end)
      this.#headFilled += taken
      this.#use(taken)
    }
    const { head } = readHead(this.#headBuffer, this.#sender)
    this.#headFilled = 0
    this.#leftBytes = head.payloadBytes
    this.#crc = 0
    return head
  }

  /** Takes what is there of the payload; true when it is whole. */
  #takePayload(): boolean {
    while (this.#leftBytes > 0) {
      if (this.#at === this.#piece.length && !this.#nextPiece()) return false
      const view = this.#piece.subarray(this.#at, this.#at + this.#leftBytes)
      this.#crc = crc32(view, this.#crc)
      this.#keep(view)
      this.#leftBytes -= view.length
      this.#use(view.length)
    }
    return true
  }

  #keep(view: Buffer): void {
    const parts = this.#parts
    const isSmall = view.length < linkLimits.smallPartBytes && view.length < this.#leftBytes
    const isMany =
      this.#head?.type !== FrameType.WRITE ||
      parts.length >= linkLimits.payloadPartCountMax ||
      (isSmall && parts.length >= linkLimits.smallPartCountMax)
    if (this.#gathered === undefined && isMany) {
      this.#gathered = Buffer.allocUnsafeSlow(this.#leftBytes)
      this.#gatheredBytes = 0
      parts.push(this.#gathered)
    }
    if (this.#gathered === undefined) {
      this.#keeper.hold(view)
      parts.push(view)
    } else this.#gatheredBytes += view.copy(this.#gathered, this.#gatheredBytes)
  }

  #use(lengthBytes: number): void {
    this.#at += lengthBytes
    this.#bufferedBytes -= lengthBytes
    // A piece that was used up is not kept alive.
    if (this.#at < this.#piece.length) return
    const used = this.#piece
    this.#piece = nothing
    this.#at = 0
    this.#keeper.release(used)
  }

  #nextPiece(): boolean {
    const next = this.#pieces.shift()
    if (next === undefined) return false
    this.#piece = next
    this.#at = 0
    return true
  }
}
