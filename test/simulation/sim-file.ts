// One simulated file: what its readers see, what is on the medium for sure, and every sector version in between.
//
// Invariant: after a crash each 512-byte sector holds its durable content or one of its unsynced versions, each sector by
// itself. A sync makes durable what was complete when it was called, and nothing else. Pages are never changed in place, so
// a copy of a file costs its page table.
import assert from 'node:assert/strict'

export const sectorBytes = 512
export const pageBytes = 4096
const sectorsPerPage = pageBytes / sectorBytes

const zeroPage = Buffer.alloc(pageBytes)
const zeroSector = Buffer.alloc(sectorBytes)

/** Undefined is a hole. */
type Page = Buffer | undefined

/** A write, punch or truncation that may or may not be on the medium. Covers whole sectors; no bytes are zeroes. */
type Version = {
  readonly serial: number
  readonly offset: number
  readonly end: number
  bytes: Buffer | undefined
  /** Undefined: the call did not change the length. */
  readonly fileBytes: number | undefined
  /** `fileBytes` is the length, not only its minimum. */
  isCut: boolean
  isDone: boolean
  /** Durable, or lost by a failed sync: in either case no crash can choose it any more. */
  isGone: boolean
}

/** A write under way. */
export type Pending = {
  readonly version: Version
  readonly offset: number
  readonly end: number
  readonly parts: readonly Buffer[] | undefined
}

/** What a sync that was called will make durable. */
export type SyncMark = readonly Version[]

/** A crash may leave one of `options` (the first is the durable content). `serials` say which write each is from. */
export type SectorChoice = {
  readonly sector: number
  readonly options: readonly Buffer[]
  readonly serials: readonly number[]
}

/** A file at the moment of a crash. */
export type FileCapture = {
  readonly pages: readonly Page[]
  readonly lengthBytes: number
  readonly versions: readonly Version[]
}

/** What a crash left of a file. */
export type FileContent = { readonly pages: readonly Page[]; readonly lengthBytes: number }

let serials = 0

export class SimFile {
  #pages: Page[]
  #lengthBytes: number
  #durable: readonly Page[]
  #durableBytes: number
  #durableCut = 0
  #versions: Version[] = []
  /** Counts every change of what a crash could leave. */
  changeCount = 0

  constructor(content: FileContent = { pages: [], lengthBytes: 0 }) {
    this.#pages = content.pages.slice()
    this.#lengthBytes = content.lengthBytes
    this.#durable = content.pages
    this.#durableBytes = content.lengthBytes
  }

  get lengthBytes(): number {
    return this.#lengthBytes
  }

  /** Pages that hold data or written zeroes, for `disk full`. */
  get allocatedPages(): number {
    let count = 0
    for (const page of this.#pages) if (page) count++
    return count
  }

  /** Pages that a write of this range would allocate. */
  newPages(offset: number, end: number): number {
    let count = 0
    for (let page = Math.floor(offset / pageBytes); page * pageBytes < end; page++) {
      if (!this.#pages[page]) count++
    }
    return count
  }

  read(target: Buffer, offset: number): number {
    const end = Math.min(offset + target.length, this.#lengthBytes)
    if (end <= offset) return 0
    copyOut(this.#pages, target, offset, end)
    return end - offset
  }

  /** From now on any of the sectors may be on the medium. The write is visible to readers once `finish` was called. */
  begin(offset: number, parts: readonly Buffer[]): Pending {
    const lengthBytes = parts.reduce((sum, part) => sum + part.length, 0)
    const end = offset + lengthBytes
    const fileBytes = end > this.#lengthBytes ? end : undefined
    const version = this.#version(floorSector(offset), ceilSector(end), fileBytes)
    version.bytes = this.#composed(version, offset, parts)
    return { version, offset, end, parts }
  }

  beginPunch(offset: number, end: number): Pending {
    assert(offset % sectorBytes === 0)
    assert(end % sectorBytes === 0)
    const stop = Math.min(end, ceilSector(this.#lengthBytes))
    const version = this.#version(offset, Math.max(offset, stop), undefined)
    return { version, offset, end: version.end, parts: undefined }
  }

  /** Cutting makes what is behind the new end zeroes, so that growing again cannot bring it back. */
  beginTruncate(sizeBytes: number): Pending {
    const version = this.#version(
      floorSector(sizeBytes),
      Math.max(floorSector(sizeBytes), ceilSector(this.#lengthBytes)),
      sizeBytes,
    )
    version.isCut = true
    if (sizeBytes % sectorBytes !== 0 && version.end > version.offset) {
      const bytes = Buffer.alloc(version.end - version.offset)
      this.#readRaw(bytes.subarray(0, sizeBytes - version.offset), version.offset)
      version.bytes = bytes
    }
    return { version, offset: version.offset, end: version.end, parts: undefined }
  }

  finish(pending: Pending): void {
    const { version, parts } = pending
    if (parts) version.bytes = this.#composed(version, pending.offset, parts)
    applyTo(this.#pages, version)
    if (version.fileBytes !== undefined) {
      this.#lengthBytes = version.isCut
        ? version.fileBytes
        : Math.max(this.#lengthBytes, version.fileBytes)
    }
    version.isDone = true
    this.changeCount++
  }

  /** The call failed and left nothing. */
  abandon(pending: Pending): void {
    pending.version.isGone = true
    this.#dropGone()
  }

  beginSync(): SyncMark {
    return this.#versions.filter((version) => version.isDone)
  }

  finishSync(mark: SyncMark): void {
    const durable = this.#durable.slice()
    for (const version of mark) {
      if (version.isGone) continue
      applyTo(durable, version)
      this.#keepLength(version)
      version.isGone = true
    }
    this.#durable = durable
    this.#dropGone()
  }

  /** A sync that failed: what `isLost` chooses will never be on the medium, though readers go on seeing it. */
  failSync(mark: SyncMark, isLost: () => boolean): void {
    for (const version of mark) if (isLost()) version.isGone = true
    this.#dropGone()
  }

  capture(): FileCapture {
    return {
      pages: this.#durable,
      lengthBytes: this.#durableBytes,
      versions: this.#versions.map((version) => ({ ...version })),
    }
  }

  /** As a crash would leave it that loses nothing: what a killed process finds again. */
  get content(): FileContent {
    return { pages: this.#pages.slice(), lengthBytes: this.#lengthBytes }
  }

  #version(offset: number, end: number, fileBytes: number | undefined): Version {
    const version: Version = {
      serial: ++serials,
      offset,
      end,
      bytes: undefined,
      fileBytes,
      isCut: false,
      isDone: false,
      isGone: false,
    }
    this.#versions.push(version)
    this.changeCount++
    return version
  }

  /** The whole sectors that the write leaves behind, what was in their other bytes included. */
  #composed(version: Version, offset: number, parts: readonly Buffer[]): Buffer {
    const bytes = Buffer.allocUnsafe(version.end - version.offset)
    const end = parts.reduce((sum, part) => sum + part.length, offset)
    if (offset !== version.offset) this.#readRaw(bytes.subarray(0, sectorBytes), version.offset)
    if (end !== version.end) {
      this.#readRaw(bytes.subarray(bytes.length - sectorBytes), version.end - sectorBytes)
    }
    let at = offset - version.offset
    for (const part of parts) at += part.copy(bytes, at)
    return bytes
  }

  #readRaw(target: Buffer, offset: number): void {
    copyOut(this.#pages, target, offset, offset + target.length)
  }

  #keepLength(version: Version): void {
    if (version.fileBytes === undefined || version.serial < this.#durableCut) return
    if (version.isCut) this.#durableCut = version.serial
    this.#durableBytes = version.isCut
      ? version.fileBytes
      : Math.max(this.#durableBytes, version.fileBytes)
  }

  #dropGone(): void {
    this.#versions = this.#versions.filter((version) => !version.isGone)
    this.changeCount++
  }
}

/** The sectors of which a crash can leave more than one content. */
export function sectorChoices(capture: FileCapture): readonly SectorChoice[] {
  const choices = new Map<number, { sector: number; options: Buffer[]; serials: number[] }>()
  for (const version of capture.versions) {
    for (let offset = version.offset; offset < version.end; offset += sectorBytes) {
      const sector = offset / sectorBytes
      const bytes = version.bytes
        ? version.bytes.subarray(offset - version.offset, offset - version.offset + sectorBytes)
        : zeroSector
      let choice = choices.get(sector)
      if (!choice) {
        choice = { sector, options: [sectorOf(capture.pages, sector)], serials: [0] }
        choices.set(sector, choice)
      }
      if (choice.options.some((option) => option.equals(bytes))) continue
      choice.options.push(bytes)
      choice.serials.push(version.serial)
    }
  }
  return [...choices.values()].filter((choice) => choice.options.length > 1)
}

/** The lengths a crash can leave, the durable one first. */
export function lengthChoices(capture: FileCapture): readonly number[] {
  const lengths = new Set([capture.lengthBytes])
  for (const { fileBytes, isCut } of capture.versions) {
    // A write that ends before what is durable by now makes nothing shorter.
    if (fileBytes === undefined) continue
    lengths.add(isCut ? fileBytes : Math.max(capture.lengthBytes, fileBytes))
  }
  return [...lengths]
}

/** The file with the chosen sectors and length. */
export function contentAfterCrash(
  capture: FileCapture,
  sectors: readonly { readonly sector: number; readonly bytes: Buffer }[],
  lengthBytes: number,
): FileContent {
  const pages = capture.pages.slice()
  const fresh = new Set<number>()
  for (const { sector, bytes } of sectors) {
    const index = Math.floor(sector / sectorsPerPage)
    if (!fresh.has(index)) {
      pages[index] = Buffer.from(pages[index] ?? zeroPage)
      fresh.add(index)
    }
    pages[index]?.set(bytes, (sector % sectorsPerPage) * sectorBytes)
  }
  const count = Math.ceil(lengthBytes / pageBytes)
  if (pages.length > count) pages.length = count
  const tail = lengthBytes % pageBytes
  const last = pages[count - 1]
  if (tail !== 0 && last) {
    const cut = Buffer.from(last)
    cut.fill(0, tail)
    pages[count - 1] = cut
  }
  return { pages, lengthBytes }
}

function sectorOf(pages: readonly Page[], sector: number): Buffer {
  const start = (sector % sectorsPerPage) * sectorBytes
  const page = pages[Math.floor(sector / sectorsPerPage)] ?? zeroPage
  return page.subarray(start, start + sectorBytes)
}

function copyOut(pages: readonly Page[], target: Buffer, offset: number, end: number): void {
  let at = offset
  while (at < end) {
    const index = Math.floor(at / pageBytes)
    const stop = Math.min(end, (index + 1) * pageBytes)
    const page = pages[index]
    const from = at - index * pageBytes
    if (page) page.copy(target, at - offset, from, from + stop - at)
    else target.fill(0, at - offset, stop - offset)
    at = stop
  }
}

function applyTo(pages: Page[], version: Version): void {
  let at = version.offset
  while (at < version.end) {
    const index = Math.floor(at / pageBytes)
    const stop = Math.min(version.end, (index + 1) * pageBytes)
    const isWhole = stop - at === pageBytes
    if (isWhole && !version.bytes) pages[index] = undefined
    else if (version.bytes || pages[index]) {
      const source = version.bytes?.subarray(at - version.offset, stop - version.offset)
      pages[index] = replaced(pages[index], source, at - index * pageBytes, stop - at)
    }
    at = stop
  }
}

function replaced(
  page: Page,
  source: Buffer | undefined,
  start: number,
  lengthBytes: number,
): Buffer {
  if (source && lengthBytes === pageBytes && source.equals(zeroPage)) return zeroPage
  const copy = Buffer.from(page ?? zeroPage)
  if (source) source.copy(copy, start)
  else copy.fill(0, start, start + lengthBytes)
  return copy
}

function floorSector(offset: number): number {
  return offset - (offset % sectorBytes)
}

function ceilSector(offset: number): number {
  return floorSector(offset + sectorBytes - 1)
}
