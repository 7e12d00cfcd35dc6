// Words of the command line as values: sizes, ranges, store names, times. What cannot be read is a UsageError with an example.
import { type ByteRange, byteOffset, parseSize } from '../../core/units.js'
import { checkVolumeSize } from '../../core/volume-size.js'
import { ofWords, UsageError } from './usage-error.js'

/** A number, or what looks like one, below zero. */
const negativePattern = /^\s*-\s*[\d.]/

export function readSize(text: string, what: string): number {
  const sizeBytes = parseSize(text)
  if (sizeBytes !== undefined) return sizeBytes
  if (negativePattern.test(text)) throw belowZero(text, what)
  if (isTooLarge(text)) throw tooLarge(text, what, 'write less than 8P, such as 10G or 1T')
  throw new UsageError(
    `${what} "${text}" is not a size`,
    'write a whole number of bytes: 512, 64K, 10G or 1T',
    'INVALID_SIZE',
  )
}

/** A size in all but that no store has as many bytes. */
function isTooLarge(text: string): boolean {
  const whole = /^\d+(?=(?:\.\d+)?([KMGTP]?)(?:i?B)?$)/i.exec(text.trim())
  return whole !== null && parseSize(`${whole[0]}${whole[1] ?? ''}`) === undefined
}

function belowZero(text: string, what: string): UsageError {
  return new UsageError(
    `${what} "${text}" is below zero`,
    'write the number of bytes that it shall be: 512, 64K, 10G or 1T',
    'INVALID_SIZE',
  )
}

function tooLarge(text: string, what: string, action: string): UsageError {
  return new UsageError(`${what} "${text}" is too large`, action, 'INVALID_SIZE')
}

export function readVolumeSize(text: string): number {
  const sizeBytes = readSize(text, 'the size')
  return ofWords(() => checkVolumeSize(sizeBytes))
}

/** Bytes a second, at most `bytesMax`; 0 is none. */
export function readRate(text: string, bytesMax: number): number {
  const rate = readSize(text, 'the rate')
  if (rate > bytesMax)
    throw tooLarge(text, 'the rate', 'write at most 1T, or 0 for as much as there is')
  return rate
}

/** `OFFSET:LENGTH`, both sizes. */
export function readRange(text: string | undefined): ByteRange | undefined {
  if (text === undefined) return undefined
  const parts = text.split(':')
  const [offset, lengthBytes] = parts.map((part) => parseSize(part))
  const action = 'write OFFSET:LENGTH, such as 0:64K or 1G:512M'
  if (parts.some((part) => negativePattern.test(part)))
    throw new UsageError(`the range "${text}" is below zero`, action, 'OUT_OF_RANGE')
  if (parts.length === 2 && parts.some((part) => isTooLarge(part)))
    throw new UsageError(
      `the range "${text}" ends beyond what any store has`,
      action,
      'OUT_OF_RANGE',
    )
  if (parts.length !== 2 || offset === undefined || lengthBytes === undefined)
    throw new UsageError(`"${text}" is not a range`, action)
  return { offset: byteOffset(offset), lengthBytes }
}

/** `store@snapshot` of a snapshot that is to be made, in its two parts; the store may be a snapshot itself. */
export function readNewSnapshot(text: string): { readonly store: string; readonly name: string } {
  const at = text.lastIndexOf('@')
  if (at <= 0 || at === text.length - 1) {
    throw new UsageError(
      `"${text}" does not name a snapshot`,
      'write VOLUME@SNAPSHOT, such as vol0@monday',
      'INVALID_NAME',
    )
  }
  return { store: text.slice(0, at), name: text.slice(at + 1) }
}

/** At most `secondsMax`, when that is given. */
export function readSeconds(text: string, what: string, secondsMax?: number): number {
  const action = 'write a number, such as 60'
  if (negativePattern.test(text)) throw new UsageError(`${what} "${text}" is below zero`, action)
  const seconds = /^\d{1,7}(\.\d{1,3})?$/.test(text) ? Number(text) : undefined
  if (seconds === undefined)
    throw new UsageError(`${what} "${text}" is not a number of seconds`, action)
  if (secondsMax !== undefined && seconds > secondsMax)
    throw new UsageError(`${what} "${text}" is too long`, `write at most ${secondsMax}`)
  return seconds
}
