// The bytes of replies in the three styles a client can negotiate: simple, structured, extended. Writes into buffers it is given and
// keeps nothing; the layout of each header is checked against messages.ts by the tests.
import assert from 'node:assert/strict'
import { writeU64 } from './bytes/wire.js'
import { ChunkFlag, ChunkType } from './constants.js'
import { Errno, type RequestError } from './errors.js'
import type { Extent } from './export.js'
import {
  ErrorPayload,
  ExtendedChunk,
  ExtendedStatusExtent,
  ExtendedStatusPayload,
  HolePayload,
  SimpleReply,
  StatusExtent,
  StatusPayload,
  StructuredChunk,
} from './messages.js'
import type { Request } from './request.js'
import { clipUtf8 } from './text.js'

export type ReplyStyle = 'simple' | 'structured' | 'extended'

const simpleMagic = 0x67446698
const structuredMagic = 0x668e33ef
const extendedMagic = 0x6e8a278c
const offsetBytes = 8
const structuredAt = StructuredChunk.offsetOf
const extendedAt = ExtendedChunk.offsetOf

export class ReplyEncoder {
  readonly style: ReplyStyle
  /** Room for the answer to anything that brings no data, without an error's text. */
  readonly statusBytes: number
  /** What stands before the data of a READ. */
  readonly dataHeaderBytes: number
  readonly holeChunkBytes: number
  readonly #chunkBytes: number
  readonly #messageBytesMax: number

  constructor(style: ReplyStyle, messageBytesMax: number) {
    this.style = style
    this.#messageBytesMax = messageBytesMax
    this.#chunkBytes =
      style === 'extended' ? ExtendedChunk.lengthBytes : StructuredChunk.lengthBytes
    this.statusBytes = style === 'extended' ? this.#chunkBytes : SimpleReply.lengthBytes
    this.dataHeaderBytes =
      style === 'simple' ? SimpleReply.lengthBytes : this.#chunkBytes + offsetBytes
    this.holeChunkBytes = this.#chunkBytes + HolePayload.lengthBytes
  }

  /** The request succeeded and there is nothing more to say: `statusBytes` from `at` on. Not for READ unless simple. */
  success(target: Buffer, at: number, request: Request): number {
    if (this.style === 'extended') return this.done(target, at, request)
    return this.#simple(target, at, request, 0)
  }

  /** An empty last chunk. */
  done(target: Buffer, at: number, request: Request): number {
    return this.#chunk(target, at, request, ChunkFlag.DONE, ChunkType.NONE, 0)
  }

  get doneBytes(): number {
    return this.#chunkBytes
  }

  /** Room that `failure` may need. */
  get failureBytesMax(): number {
    if (this.style === 'simple') return SimpleReply.lengthBytes
    return this.#chunkBytes + ErrorPayload.lengthBytes + this.#messageBytesMax
  }

  /** The request failed; returns the end. */
  failure(target: Buffer, at: number, request: Request, error: RequestError): number {
    const errno = Errno[error.errno]
    if (this.style === 'simple') return this.#simple(target, at, request, errno)
    const message = clipUtf8(error.message, this.#messageBytesMax)
    const lengthBytes = ErrorPayload.lengthBytes + message.length
    const body = this.#chunk(target, at, request, ChunkFlag.DONE, ChunkType.ERROR, lengthBytes)
    const end = ErrorPayload.write(target, body, { error: errno, messageBytes: message.length })
    return end + message.copy(target, end)
  }

  /** What stands before `lengthBytes` of data that begin at `offset`. The data follows at the returned place. */
  dataHeader(
    target: Buffer,
    at: number,
    request: Request,
    data: { readonly offset: number; readonly lengthBytes: number; readonly isLast: boolean },
  ): number {
    if (this.style === 'simple') return this.#simple(target, at, request, 0)
    const flags = data.isLast ? ChunkFlag.DONE : 0
    const lengthBytes = offsetBytes + data.lengthBytes
    const body = this.#chunk(target, at, request, flags, ChunkType.OFFSET_DATA, lengthBytes)
    writeU64(target, body, data.offset)
    return body + offsetBytes
  }

  /** As `dataHeader` for the usual case, one chunk with all of the request's data. */
  wholeDataHeader(target: Buffer, at: number, request: Request): number {
    if (this.style === 'simple') return this.#simple(target, at, request, 0)
    const body = this.#chunk(
      target,
      at,
      request,
      ChunkFlag.DONE,
      ChunkType.OFFSET_DATA,
      offsetBytes + request.lengthBytes,
    )
    target.writeUInt32BE(request.offsetHigh, body)
    target.writeUInt32BE(request.offsetLow, body + 4)
    return body + offsetBytes
  }

  holeChunk(
    target: Buffer,
    at: number,
    request: Request,
    hole: { readonly offset: number; readonly lengthBytes: number; readonly isLast: boolean },
  ): number {
    assert(this.style !== 'simple')
    const flags = hole.isLast ? ChunkFlag.DONE : 0
    const type = ChunkType.OFFSET_HOLE
    const body = this.#chunk(target, at, request, flags, type, HolePayload.lengthBytes)
    return HolePayload.write(target, body, { offset: hole.offset, lengthBytes: hole.lengthBytes })
  }

  statusChunkBytes(extentCount: number): number {
    return this.style === 'extended'
      ? this.#chunkBytes +
          ExtendedStatusPayload.lengthBytes +
          extentCount * ExtendedStatusExtent.lengthBytes
      : this.#chunkBytes + StatusPayload.lengthBytes + extentCount * StatusExtent.lengthBytes
  }

  /** One context's extents: as 32-bit lengths, or as 64-bit ones with extended headers (proto.md demands that then). */
  statusChunk(
    target: Buffer,
    at: number,
    request: Request,
    status: {
      readonly contextId: number
      readonly extents: readonly Extent[]
      readonly isLast: boolean
    },
  ): number {
    const { contextId, extents, isLast } = status
    const flags = isLast ? ChunkFlag.DONE : 0
    const lengthBytes = this.statusChunkBytes(extents.length) - this.#chunkBytes
    if (this.style === 'extended') {
      const type = ChunkType.BLOCK_STATUS_EXT
      const body = this.#chunk(target, at, request, flags, type, lengthBytes)
      let end = ExtendedStatusPayload.write(target, body, {
        contextId,
        extentCount: extents.length,
      })
      for (const extent of extents) end = ExtendedStatusExtent.write(target, end, extent)
      return end
    }
    const body = this.#chunk(target, at, request, flags, ChunkType.BLOCK_STATUS, lengthBytes)
    let end = StatusPayload.write(target, body, { contextId })
    for (const extent of extents) end = StatusExtent.write(target, end, extent)
    return end
  }

  #simple(target: Buffer, at: number, request: Request, errno: number): number {
    target.writeUInt32BE(simpleMagic, at)
    target.writeUInt32BE(errno, at + 4)
    target.writeUInt32BE(request.cookieHigh, at + 8)
    return target.writeUInt32BE(request.cookieLow, at + 12)
  }

  #chunk(
    target: Buffer,
    at: number,
    request: Request,
    flags: number,
    type: number,
    lengthBytes: number,
  ): number {
    const isExtended = this.style === 'extended'
    target.writeUInt32BE(isExtended ? extendedMagic : structuredMagic, at)
    target.writeUInt16BE(flags, at + structuredAt.flags)
    target.writeUInt16BE(type, at + structuredAt.type)
    target.writeUInt32BE(request.cookieHigh, at + structuredAt.cookie)
    target.writeUInt32BE(request.cookieLow, at + structuredAt.cookie + 4)
    if (!isExtended) return target.writeUInt32BE(lengthBytes, at + structuredAt.lengthBytes)
    target.writeUInt32BE(request.offsetHigh, at + extendedAt.offset)
    target.writeUInt32BE(request.offsetLow, at + extendedAt.offset + 4)
    target.writeUInt32BE(0, at + extendedAt.lengthBytes)
    return target.writeUInt32BE(lengthBytes, at + extendedAt.lengthBytes + 4)
  }
}
