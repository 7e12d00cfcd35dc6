// The units of the whole program as branded numbers: a block index is not a byte offset, and the compiler knows it.
import assert from 'node:assert/strict'

declare const unit: unique symbol

/** A position in a store or a file, in bytes. At most 2^53 - 1 (8 PiB). */
export type ByteOffset = number & { readonly [unit]: 'ByteOffset' }
/** The number of an entry in the group's order. The first entry has 1; 0 is "before everything". */
export type Sequence = number & { readonly [unit]: 'Sequence' }
/** The number of a store in its group: given once, never used again, the same on every node. */
export type StoreId = number & { readonly [unit]: 'StoreId' }
/** 128 random bits in hexadecimal: one continuous writing history. */
export type Generation = string & { readonly [unit]: 'Generation' }

/** A state of the whole group. Two nodes at one position hold equal bytes. */
export type Position = { readonly generation: Generation; readonly sequence: Sequence }

/** A run of bytes of a store; `offset + lengthBytes` is its exclusive end. */
export type ByteRange = { readonly offset: ByteOffset; readonly lengthBytes: number }

export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB
export const TiB = 1024 * GiB

/** Unit of difference tracking, and the smallest chunk. */
export const blockBytes = 4 * KiB

/** Unit of what a crash may leave different between two nodes. */
export const extentBytes = 4 * MiB

export function byteOffset(value: number): ByteOffset {
  assert(Number.isSafeInteger(value))
  assert(value >= 0)
  return value as ByteOffset
}

const suffixes: Readonly<Record<string, number>> = {
  '': 1,
  K: KiB,
  M: MiB,
  G: GiB,
  T: TiB,
  P: 1024 * TiB,
}

/** The bytes that `text` (`512`, `64K`, `10G`, `1.5T`: binary) names, or undefined when it names no whole number of them below 2^53. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d{1,16})(\.\d{1,3})?([KMGTP]?)(?:i?B)?$/i.exec(text.trim())
  if (!match) return undefined
  const factor = suffixes[(match[3] ?? '').toUpperCase()] ?? 1
  const bytes = Number(`${match[1]}${match[2] ?? ''}`) * factor
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** `65536` as `64 KiB`, `1610612736` as `1.5 GiB`: for people; scripts read the bytes from --json. */
export function formatBytes(bytes: number): string {
  const names = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let index = 0
  // Rounded first: 1023.99 KiB would be shown as 1024.
  while (rounded(value) >= 1024 && index < names.length - 1) {
    value /= 1024
    index++
  }
  return `${rounded(value)} ${names[index]}`
}

function rounded(value: number): number {
  return Number(value.toFixed(value < 10 ? 2 : 1))
}
