// The reply of a large read, laid out in a buffer of its own: data where the export fills it in, and large holes told instead of sent, where the client
// understands that.
//
// Invariant: each piece lies at the place that its header says, behind the one before; the buffer is whole, or of no use, when all waits are over.
import { allocationContext, CommandFlag } from './constants.js'
import type { Export } from './export.js'
import { cutAtHoles, type Piece } from './holes.js'
import type { Limits } from './limits.js'
import type { ReplyEncoder } from './replies.js'
import type { Request } from './request.js'

export type ReadParts = {
  readonly target: Export
  readonly encoder: ReplyEncoder
  readonly limits: Limits
}

/**
 * Where the reply ends in `bytes`. What the export answers later is added to `waits`. Throws what the export throws: reads of earlier pieces, those in `waits`,
 * may still fill the buffer then.
 */
export function layOutRead(
  parts: ReadParts,
  request: Request,
  bytes: Buffer,
  waits: Promise<void>[],
): number {
  const { target, encoder } = parts
  let end = 0
  const pieces = piecesOf(parts, request)
  const last = pieces[pieces.length - 1]
  for (const piece of pieces) {
    const chunk = { ...piece, isLast: piece === last }
    if (piece.isHole) {
      end = encoder.holeChunk(bytes, end, request, chunk)
      continue
    }
    const dataAt = encoder.dataHeader(bytes, end, request, chunk)
    end = dataAt + piece.lengthBytes
    const wait = target.read({ offset: piece.offset, target: bytes.subarray(dataAt, end) })
    if (wait) waits.push(wait)
  }
  return end
}

/** Where a structured read has large holes, they are told instead of sent. */
export function piecesOf(
  { target, encoder, limits }: ReadParts,
  request: Request,
): readonly Piece[] {
  const { offset, lengthBytes } = request
  const whole = [{ offset, lengthBytes, isHole: false }]
  if (encoder.style === 'simple') return whole
  if (request.flags & CommandFlag.DF || lengthBytes < limits.holeReadBytesMin) return whole
  const extents = target.blockStatus({
    context: allocationContext,
    offset,
    lengthBytes,
    extentCountMax: limits.readPieceCountMax,
  })
  if (extents instanceof Promise) {
    extents.catch(() => {}) // Only a hint was asked for; the read itself will say what is wrong.
    return whole
  }
  return cutAtHoles(offset, lengthBytes, extents, limits.holeBytesMin)
}

/** Settles when all have: before that the buffer may not be used again, also when one has failed. */
export async function allOf(waits: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(waits)
  for (const result of results) if (result.status === 'rejected') throw result.reason
}
