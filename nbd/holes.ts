// Where a read is cut so that its holes need not be sent. Pure.
import { AllocationFlag } from './constants.js'
import type { Extent } from './export.js'

export type Piece = {
  readonly offset: number
  readonly lengthBytes: number
  readonly isHole: boolean
}

/** The pieces of a range in order: zeroes of at least `holeBytesMin` are holes, everything else is data, in as few pieces as possible. */
export function cutAtHoles(
  offset: number,
  lengthBytes: number,
  extents: readonly Extent[],
  holeBytesMin: number,
): readonly Piece[] {
  const pieces: Piece[] = []
  const end = offset + lengthBytes
  let dataStart = offset
  let at = offset
  for (const extent of extents) {
    const extentEnd = Math.min(end, at + extent.lengthBytes)
    if (extent.flags & AllocationFlag.ZERO && extentEnd - at >= holeBytesMin) {
      if (at > dataStart) {
        pieces.push({ offset: dataStart, lengthBytes: at - dataStart, isHole: false })
      }
      pieces.push({ offset: at, lengthBytes: extentEnd - at, isHole: true })
      dataStart = extentEnd
    }
    at = extentEnd
  }
  if (end > dataStart) {
    pieces.push({ offset: dataStart, lengthBytes: end - dataStart, isHole: false })
  }
  return pieces
}
