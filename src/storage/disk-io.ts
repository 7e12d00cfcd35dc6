// Whole reads and writes on a DiskFile, whose calls may do a part only; and a window for reading files from front to end.
import assert from 'node:assert/strict'
import type { DiskFile } from '../core/disk.js'
import { wouldBlock } from '../core/disk.js'
import { MiB } from '../core/units.js'

/** Fills `target`; what lies behind the end of the file reads as zeroes. */
export async function readFully(file: DiskFile, target: Buffer, offset: number): Promise<void> {
  let done = 0
  while (done < target.length) {
    const count = await file.read(target.subarray(done), offset + done)
    assert(count >= 0)
    if (count === 0) {
      target.fill(0, done)
      return
    }
    done += count
  }
}

/** The bytes of `target` that could be filled at once; all of them unless the medium is needed. */
export function readAtOnce(file: DiskFile, target: Buffer, offset: number): number {
  let done = 0
  while (done < target.length) {
    const count = file.readNow(done === 0 ? target : target.subarray(done), offset + done)
    if (count === wouldBlock) return done
    if (count === 0) {
      target.fill(0, done)
      return target.length
    }
    done += count
  }
  return done
}

export async function writeFully(
  file: DiskFile,
  parts: readonly Buffer[],
  offset: number,
): Promise<void> {
  let rest = parts
  let at = offset
  for (;;) {
    const lengthBytes = totalBytes(rest)
    if (lengthBytes === 0) return
    const count = await file.write(rest, at)
    if (count === lengthBytes) return
    assert(count > 0)
    at += count
    rest = skipBytes(rest, count)
  }
}

export function totalBytes(parts: readonly Buffer[]): number {
  let sum = 0
  for (const part of parts) sum += part.length
  return sum
}

/** What is left of `parts` behind the first `count` bytes. Shares their memory. */
export function skipBytes(parts: readonly Buffer[], count: number): readonly Buffer[] {
  return sliceBytes(parts, count, Number.POSITIVE_INFINITY)
}

/** The bytes `[from, end)` of `parts`. Shares their memory. */
export function sliceBytes(parts: readonly Buffer[], from: number, end: number): Buffer[] {
  const slices: Buffer[] = []
  let at = 0
  for (const part of parts) {
    const start = Math.max(0, from - at)
    const stop = Math.min(part.length, end - at)
    if (start < stop)
      slices.push(start === 0 && stop === part.length ? part : part.subarray(start, stop))
    at += part.length
    if (at >= end) break
  }
  return slices
}

const windowBytes = 4 * MiB

/** Reads a file in large pieces for a caller that goes through it in small ones. */
export class ReadWindow {
  readonly #file: DiskFile
  readonly sizeBytes: number
  #buffer = Buffer.alloc(0)
  #offset = 0

  constructor(file: DiskFile, sizeBytes: number) {
    this.#file = file
    this.sizeBytes = sizeBytes
  }

  /** As `get`, when the bytes were read already. */
  peek(offset: number, lengthBytes: number): Buffer | undefined {
    const from = offset - this.#offset
    return from >= 0 && from + lengthBytes <= this.#buffer.length
      ? this.#buffer.subarray(from, from + lengthBytes)
      : undefined
  }

  /** `lengthBytes` at `offset`, which lie inside the file. The answer is good until the next call. */
  async get(offset: number, lengthBytes: number): Promise<Buffer> {
    assert(offset + lengthBytes <= this.sizeBytes)
    const known = this.peek(offset, lengthBytes)
    if (known !== undefined) return known
    this.#buffer = Buffer.allocUnsafe(
      Math.min(Math.max(windowBytes, lengthBytes), this.sizeBytes - offset),
    )
    this.#offset = offset
    await readFully(this.#file, this.#buffer, offset)
    return this.#buffer.subarray(0, lengthBytes)
  }
}
