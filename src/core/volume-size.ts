// The sizes that a volume can have. Who asks for another one hears what to write instead, before anything is asked or done.
import { LockstepError } from './errors.js'
import { limits } from './limits.js'

/** `sizeBytes` itself. Throws INVALID_SIZE. */
export function checkVolumeSize(sizeBytes: number): number {
  const { storeSizeAlignment: alignment, storeSizeBytesMax } = limits
  const isInside =
    Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes <= storeSizeBytesMax
  if (isInside && sizeBytes % alignment === 0) return sizeBytes
  const above = Math.ceil(sizeBytes / alignment) * alignment
  const example = isInside && above <= storeSizeBytesMax ? String(above) : '10G'
  throw new LockstepError(
    'INVALID_SIZE',
    `a volume cannot have ${Number.isInteger(sizeBytes) ? BigInt(sizeBytes) : sizeBytes} bytes`,
    `give a multiple of ${alignment} bytes below 8P, such as ${example}`,
  )
}
