// Digests of a store's bytes, piece by piece, as compare entries carry them.
import { createHash } from 'node:crypto'
import { comparePieceBytes, digestBytes } from '../core/entry.js'

/** SHA-256 of each piece of `comparePieceBytes`, one after the other; the last piece may be shorter. */
export function digestsOf(bytes: Buffer): Buffer {
  const pieceCount = Math.ceil(bytes.length / comparePieceBytes)
  const digests = Buffer.allocUnsafe(pieceCount * digestBytes)
  for (let piece = 0; piece < pieceCount; piece++) {
    const from = piece * comparePieceBytes
    const part = bytes.subarray(from, Math.min(bytes.length, from + comparePieceBytes))
    createHash('sha256')
      .update(part)
      .digest()
      .copy(digests, piece * digestBytes)
  }
  return digests
}

/** One bit a piece, from the lowest of the first byte: set where the digests differ, or something else does. */
export function differingPieces(
  ours: Buffer,
  theirs: Buffer,
  differsAnyway: (piece: number) => boolean = () => false,
): Buffer {
  const pieceCount = ours.length / digestBytes
  const bits = Buffer.alloc(Math.ceil(pieceCount / 8))
  for (let piece = 0; piece < pieceCount; piece++) {
    const from = piece * digestBytes
    const isEqual = ours.compare(theirs, from, from + digestBytes, from, from + digestBytes) === 0
    if (isEqual && !differsAnyway(piece)) continue
    bits[piece >> 3] = (bits[piece >> 3] as number) | (1 << (piece & 7))
  }
  return bits
}
