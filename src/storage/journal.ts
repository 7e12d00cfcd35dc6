// The journal: batches of records in two preallocated files, written and synced one after the other.
//
// Invariants: at most one batch is under way, so a crash can tear the newest batch only; a batch starts on a block of its own, so writing it never
// rewrites a block that was committed; numbers go up by one. Recovery therefore takes the batches that continue the checkpoint's number without
// a gap, and a valid batch behind a gap proves damage: the node stops instead of going on with less. So does another pool's file in the place of
// one of these. A file is used again when a checkpoint covers all its batches. ON-DISK.md, "Journal".
import assert from 'node:assert/strict'
import { crc32 } from 'node:zlib'
import type { DiskFile } from '../core/disk.js'
import { LockstepError } from '../core/errors.js'
import { blockBytes, MiB } from '../core/units.js'
import { damaged } from './corrupt.js'
import { ReadWindow, writeFully } from './disk-io.js'

export const journalNames = ['journal-0', 'journal-1'] as const
export const journalVersion = 1

const headBytes = 44
/** What a batch takes of a file besides its payload, at most. */
export const batchExtraBytesMax = headBytes + blockBytes
const magic = 0x424a534c // "LSJB"

type Batch = {
  readonly number: number
  readonly sequence: number
  readonly offset: number
  readonly payloadBytes: number
}
type JournalFile = { readonly file: DiskFile; readonly sizeBytes: number; lastNumber: number }

const fileBytesOf = (batch: { readonly payloadBytes: number }): number =>
  Math.ceil((headBytes + batch.payloadBytes) / blockBytes) * blockBytes

export class Journal {
  readonly #files: readonly JournalFile[]
  readonly #salt: Buffer
  #active = 0
  #offset = 0
  #lastNumber: number
  #coveredNumber: number
  /** Test switch: a bug that the proofs must find. */
  skipsSync = false
  #newestBytes: Buffer | undefined
  #newestOffset = 0

  private constructor(files: readonly JournalFile[], salt: Buffer, coveredNumber: number) {
    this.#files = files
    this.#salt = salt
    this.#coveredNumber = coveredNumber
    this.#lastNumber = coveredNumber
  }

  /** Writes a new journal's files full of zeroes: their blocks are the file system's for good, so a full disk cannot stop a commit. */
  static async preallocate(file: DiskFile, sizeBytes: number): Promise<void> {
    assert.equal(sizeBytes % blockBytes, 0)
    const zeroes = Buffer.alloc(Math.min(MiB, sizeBytes))
    for (let offset = 0; offset < sizeBytes; offset += zeroes.length) {
      await writeFully(
        file,
        [zeroes.subarray(0, Math.min(zeroes.length, sizeBytes - offset))],
        offset,
      )
    }
    await file.sync()
  }

  /** Opens the journal behind a checkpoint and hands `replay` every batch that the checkpoint does not cover, in order. */
  static async open(
    files: readonly DiskFile[],
    options: { readonly salt: Buffer; readonly coveredNumber: number },
    replay: (payload: Buffer, sequence: number) => void,
  ): Promise<Journal> {
    const opened: JournalFile[] = []
    for (const file of files)
      opened.push({ file, sizeBytes: await file.sizeBytes(), lastNumber: 0 })
    checkSizes(opened)
    const journal = new Journal(opened, options.salt, options.coveredNumber)
    await journal.#replay(replay)
    await journal.#rewriteNewest()
    return journal
  }

  /** Number of the newest batch. */
  get lastNumber(): number {
    return this.#lastNumber
  }

  get sizeBytes(): number {
    return this.#files.reduce((sum, one) => sum + one.sizeBytes, 0)
  }

  /** Bytes that can be appended before a checkpoint must have ended. */
  get freeBytes(): number {
    const other = this.#other
    return (
      this.#activeFile.sizeBytes -
      this.#offset +
      (other.lastNumber <= this.#coveredNumber ? other.sizeBytes : 0)
    )
  }

  /** True when half of what there is has been used since the last checkpoint. */
  get wantsCheckpoint(): boolean {
    return this.#lastNumber > this.#coveredNumber && this.freeBytes * 2 <= this.sizeBytes
  }

  /** The largest payload that fits now; 0 when none does until a checkpoint covers the other file. */
  get payloadBytesMax(): number {
    const other = this.#other
    const here = this.#activeFile.sizeBytes - this.#offset
    const there = other.lastNumber <= this.#coveredNumber ? other.sizeBytes : 0
    return Math.max(0, Math.max(here, there) - headBytes)
  }

  /** Resolves when the batch is on stable storage. After a rejection what is on the medium is unknown: nothing may be appended any more. */
  async append(payload: Buffer, sequence: number): Promise<void> {
    assert(payload.length <= this.payloadBytesMax)
    const lengthBytes = fileBytesOf({ payloadBytes: payload.length })
    if (this.#offset + lengthBytes > this.#activeFile.sizeBytes) {
      assert(this.#other.lastNumber <= this.#coveredNumber)
      this.#active = 1 - this.#active
      this.#offset = 0
    }
    const number = this.#lastNumber + 1
    const head = this.#encodeHead({ number, sequence, payload })
    const padding = Buffer.alloc(lengthBytes - headBytes - payload.length)
    const { file } = this.#activeFile
    await writeFully(file, [head, payload, padding], this.#offset)
    if (!this.skipsSync) await file.sync()
    this.#lastNumber = number
    this.#activeFile.lastNumber = number
    this.#offset += lengthBytes
  }

  /** A checkpoint that holds everything up to batch `number` is durable. */
  cover(number: number): void {
    assert(number >= this.#coveredNumber)
    assert(number <= this.#lastNumber)
    this.#coveredNumber = number
  }

  async close(): Promise<void> {
    for (const { file } of this.#files) await file.close()
  }

  get #activeFile(): JournalFile {
    return this.#files[this.#active] as JournalFile
  }

  get #other(): JournalFile {
    return this.#files[1 - this.#active] as JournalFile
  }

  /** The sync of the newest batch may have failed before the restart, and the file system may show from memory what the medium never got. Written again it is either there or reported. */
  async #rewriteNewest(): Promise<void> {
    if (this.#newestBytes === undefined) return
    await writeFully(this.#activeFile.file, [this.#newestBytes], this.#newestOffset)
    await this.#activeFile.file.sync()
    this.#newestBytes = undefined
  }

  #encodeHead(batch: {
    readonly number: number
    readonly sequence: number
    readonly payload: Buffer
  }): Buffer {
    const { number, sequence, payload } = batch
    const head = Buffer.alloc(headBytes)
    head.writeUInt32LE(magic, 0)
    head.writeUInt16LE(journalVersion, 4)
    head.writeUInt16LE(headBytes, 6)
    this.#salt.copy(head, 8)
    head.writeBigUInt64LE(BigInt(number), 16)
    head.writeUInt32LE(payload.length, 24)
    head.writeBigUInt64LE(BigInt(sequence), 28)
    // 36..40 are reserved, and zero.
    head.writeUInt32LE(crc32(payload, crc32(head.subarray(0, 40))), 40)
    return head
  }

  /** The batch at a block's start, or undefined when there is none with a right checksum. Throws when a file begins with one of another pool. */
  async #decodeBatch(
    window: ReadWindow,
    offset: number,
    fileIndex: number,
  ): Promise<Batch | undefined> {
    const head = Buffer.from(await window.get(offset, headBytes))
    if (head.readUInt32LE(0) !== magic) return undefined
    const isOurs = head.subarray(8, 16).equals(this.#salt)
    // Behind the first block what looks like a strange batch may be part of an old payload.
    if (!isOurs && offset > 0) return undefined
    const payloadBytes = head.readUInt32LE(24)
    if (payloadBytes > window.sizeBytes - offset - headBytes) return undefined
    const payload = await window.get(offset + headBytes, payloadBytes)
    if (head.readUInt32LE(40) !== crc32(payload, crc32(head.subarray(0, 40)))) return undefined
    if (!isOurs) throw strangeFile(fileIndex)
    const version = head.readUInt16LE(4)
    if (version !== journalVersion) throw wrongVersion(version)
    const number = Number(head.readBigUInt64LE(16))
    const sequence = Number(head.readBigUInt64LE(28))
    return { number, sequence, offset, payloadBytes }
  }

  async #replay(replay: (payload: Buffer, sequence: number) => void): Promise<void> {
    const found = new Map<number, Batch & { readonly fileIndex: number }>()
    let newest = this.#coveredNumber
    for (const [fileIndex, journalFile] of this.#files.entries()) {
      const window = new ReadWindow(journalFile.file, journalFile.sizeBytes)
      for (let offset = 0; offset + headBytes <= journalFile.sizeBytes; ) {
        // Most blocks are empty: those are passed without a turn of the event loop.
        const isEmpty = window.peek(offset, headBytes)?.readUInt32LE(0) === 0
        const batch = isEmpty ? undefined : await this.#decodeBatch(window, offset, fileIndex)
        offset += batch === undefined ? blockBytes : fileBytesOf(batch)
        if (batch === undefined || batch.number <= this.#coveredNumber) continue
        found.set(batch.number, { ...batch, fileIndex })
        newest = Math.max(newest, batch.number)
      }
    }
    if (newest - this.#coveredNumber !== found.size) throw gapError(this.#coveredNumber, found)
    const windows = this.#files.map((one) => new ReadWindow(one.file, one.sizeBytes))
    for (let number = this.#coveredNumber + 1; number <= newest; number++) {
      const batch = found.get(number)
      assert(batch)
      const lengthBytes = fileBytesOf(batch)
      const bytes = await (windows[batch.fileIndex] as ReadWindow).get(batch.offset, lengthBytes)
      replay(bytes.subarray(headBytes, headBytes + batch.payloadBytes), batch.sequence)
      const journalFile = this.#files[batch.fileIndex] as JournalFile
      journalFile.lastNumber = number
      this.#active = batch.fileIndex
      this.#offset = batch.offset + lengthBytes
      this.#lastNumber = number
      if (number < newest) continue
      this.#newestBytes = Buffer.from(bytes)
      this.#newestOffset = batch.offset
    }
  }
}

/** A file that was cut may have lost its newest batches without a gap: their absence would look like the end of the journal. */
function checkSizes(files: readonly JournalFile[]): void {
  const sizes = files.map((one) => one.sizeBytes)
  if (sizes.every((size) => size === sizes[0] && size > 0 && size % blockBytes === 0)) return
  throw new LockstepError(
    'CORRUPT',
    `the files "${journalNames.join('" and "')}" have ${sizes.join(' and ')} bytes: they were made with equal, whole blocks, so one of them was cut`,
    'nothing was changed; put the whole file back, or restore the data directory from a backup',
  )
}

/** Without the file that belongs here nobody knows what came behind the checkpoint: going on would lose it. */
function strangeFile(fileIndex: number): LockstepError {
  return new LockstepError(
    'CORRUPT',
    `the file "${journalNames[fileIndex]}" is the journal of another node`,
    'nothing was changed; put the right file back, or restore the data directory from a backup',
  )
}

function wrongVersion(version: number): LockstepError {
  return new LockstepError(
    'WRONG_VERSION',
    `the journal has version ${version}, this program reads version ${journalVersion}`,
    'start this data directory with the program that wrote it, stop it cleanly, and try again',
  )
}

/** A batch lies behind the one before it, or at the start of the other file. */
function gapError(
  covered: number,
  found: ReadonlyMap<number, Batch & { readonly fileIndex: number }>,
): LockstepError {
  let missing = covered + 1
  while (found.has(missing)) missing++
  let later = missing + 1
  while (!found.has(later)) later++
  const [before, next] = [found.get(missing - 1), found.get(later)]
  assert(next)
  const nameOf = (batch: { readonly fileIndex: number }) => `"${journalNames[batch.fileIndex]}"`
  const place = before && ` (from byte ${before.offset + fileBytesOf(before)} of ${nameOf(before)})`
  return damaged(
    `the journal is damaged: batch ${missing}${place ?? ''} is unreadable, but a later one (${later}, at byte ${next.offset} of ${nameOf(next)}) is there: the medium lost data that was flushed`,
  )
}
