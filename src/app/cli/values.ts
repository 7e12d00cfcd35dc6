// Words of the command line as values: sizes, ranges, store names. What cannot be read is a UsageError with an example.
import { type ByteRange, byteOffset, parseSize } from '../../core/units.js'
import { checkVolumeSize } from '../../core/volume-size.js'
import { UsageError } from './usage-error.js'

export function readSize(text: string, what: string): number {
  const sizeBytes = parseSize(text)
  if (sizeBytes !== undefined) return sizeBytes
  const whole = /^\d+(?=(?:\.\d+)?([KMGTP]?)(?:i?B)?$)/i.exec(text.trim())
  if (whole !== null && parseSize(`${whole[0]}${whole[1] ?? ''}`) === undefined)
    throw new UsageError(`${what} "${text}" is too large`, 'write less than 8P, such as 10G or 1T')
  throw new UsageError(
    `${what} "${text}" is not a size`,
    'write a whole number of bytes: 512, 64K, 10G or 1T',
  )
}

/** Refused before anything is asked. Throws UsageError, and LockstepError INVALID_SIZE. */
export function readVolumeSize(text: string): number {
  return checkVolumeSize(readSize(text, 'the size'))
}

/** `OFFSET:LENGTH`, both sizes. */
export function readRange(text: string | undefined): ByteRange | undefined {
  if (text === undefined) return undefined
  const parts = text.split(':')
  const [offset, lengthBytes] = parts.map((part) => parseSize(part))
  if (parts.length !== 2 || offset === undefined || lengthBytes === undefined) {
    throw new UsageError(
      `"${text}" is not a range`,
      'write OFFSET:LENGTH, such as 0:64K or 1G:512M',
    )
  }
  if (lengthBytes === 0) {
    throw new UsageError(`the range "${text}" is empty`, 'give it a length, such as 0:64K')
  }
  return { offset: byteOffset(offset), lengthBytes }
}

/** `volume@snapshot` in its two parts; the volume's part may hold a snapshot of its own. */
export function readSnapshotName(text: string): { readonly store: string; readonly name: string } {
  const at = text.lastIndexOf('@')
  if (at <= 0 || at === text.length - 1) {
    throw new UsageError(
      `"${text}" does not name a snapshot`,
      'write VOLUME@SNAPSHOT, such as vol0@monday',
    )
  }
  return { store: text.slice(0, at), name: text.slice(at + 1) }
}

export function readSeconds(text: string, what: string): number {
  const seconds = /^\d{1,7}(\.\d{1,3})?$/.test(text) ? Number(text) : undefined
  if (seconds === undefined) {
    throw new UsageError(
      `${what} "${text}" is not a number of seconds`,
      'write a number, such as 60',
    )
  }
  return seconds
}
