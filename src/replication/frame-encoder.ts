// From frames to bytes. It asserts what the decoder checks: no frame leaves that the other side's reader would refuse. Payload is never
// copied here.
import assert from 'node:assert/strict'
import { crc32 } from '../core/crc32.js'
import {
  comparePieceBytes,
  digestBytes,
  type Entry,
  type OperationEntry,
  type WriteEntry,
} from '../core/entry.js'
import { unreachable } from '../core/errors.js'
import { FrameFlag, type FrameHead, FrameType, frameTable, layHead } from './frame-head.js'
import type { AnswerFrame, Frame, ReplayFrame } from './frames.js'
import { linkLimits } from './limits.js'

/** One UTF-16 unit is at most 6 bytes of JSON. */
const reasonLengthMax = Math.floor(linkLimits.reasonBytesMax / 6) - 20

/** A frame as bytes: `parts` are the payload's own memory, not copied. */
export type EncodedFrame = {
  readonly head: Buffer
  readonly parts: readonly Buffer[]
  readonly lengthBytes: number
}

type Numbers = Partial<Pick<FrameHead, 'flags' | 'storeId' | 'sequence' | 'offset' | 'lengthBytes'>>

const none: readonly Buffer[] = []

export function encodeFrame(frame: Frame): EncodedFrame {
  if (frame.kind === 'answer') return encodeAnswer(frame)
  const { type, numbers, parts } = partsOf(frame)
  const head = Buffer.from(layFrameHead(type, numbers, parts))
  return { head, parts, lengthBytes: head.length + lengthOf(parts) }
}

/** The most frequent one of a secondary. */
function encodeAnswer({ received, applied, durable }: AnswerFrame): EncodedFrame {
  const head = Buffer.from(
    layHead({
      type: FrameType.ANSWER,
      flags: 0,
      storeId: 0,
      payloadBytes: 0,
      sequence: received,
      offset: applied,
      lengthBytes: durable,
      payloadCrc: 0,
    }),
  )
  return { head, parts: none, lengthBytes: head.length }
}

/** The head of an entry with this payload, in memory that is used again by the next call. */
export function layEntryHead(entry: Entry, payload: readonly Buffer[]): Buffer {
  if (entry.kind === 'write') return layWriteHead(entry, payload)
  const { type, numbers } = partsOf(entry)
  return layFrameHead(type, numbers, payload)
}

/** The most frequent one of a primary. */
function layWriteHead(entry: WriteEntry, payload: readonly Buffer[]): Buffer {
  const { sequence, storeId, offset, lengthBytes, fua } = entry
  let payloadBytes = 0
  let payloadCrc = 0
  for (const part of payload) {
    payloadBytes += part.length
    payloadCrc = crc32(part, payloadCrc)
  }
  assert.equal(payloadBytes, lengthBytes)
  assert(payloadBytes > 0)
  assert(payloadBytes <= linkLimits.writeBytesMax)
  return layHead({
    type: FrameType.WRITE,
    flags: fua ? FrameFlag.FUA : 0,
    storeId,
    payloadBytes,
    sequence,
    offset,
    lengthBytes,
    payloadCrc,
  })
}

/** The payload of an entry, as it is on the wire. */
export function entryPayload(entry: Entry): readonly Buffer[] {
  if (entry.kind === 'write') return entry.parts
  return partsOf(entry).parts
}

/** Bytes of payload of an entry, whether they are there yet or not. */
export function digestsBytesOf(lengthBytes: number): number {
  return Math.ceil(lengthBytes / comparePieceBytes) * digestBytes
}

/** Bytes of the bitmap over the pieces of a compared range. */
export function bitmapBytesOf(lengthBytes: number): number {
  return Math.ceil(Math.ceil(lengthBytes / comparePieceBytes) / 8)
}

function layFrameHead(type: FrameType, numbers: Numbers, parts: readonly Buffer[]): Buffer {
  const row = frameTable.get(type)
  assert(row)
  const payloadBytes = lengthOf(parts)
  assert(payloadBytes >= row.payloadBytesMin)
  assert(payloadBytes <= row.payloadBytesMax, `${row.name} of ${payloadBytes} bytes`)
  let payloadCrc = 0
  for (const part of parts) payloadCrc = crc32(part, payloadCrc)
  return layHead({
    type,
    flags: numbers.flags ?? 0,
    storeId: numbers.storeId ?? 0,
    payloadBytes,
    sequence: numbers.sequence ?? 0,
    offset: numbers.offset ?? 0,
    lengthBytes: numbers.lengthBytes ?? 0,
    payloadCrc,
  })
}

function lengthOf(parts: readonly Buffer[]): number {
  let lengthBytes = 0
  for (const part of parts) lengthBytes += part.length
  return lengthBytes
}

type FrameParts = {
  readonly type: FrameType
  readonly numbers: Numbers
  readonly parts: readonly Buffer[]
}

function partsOf(frame: Frame): FrameParts {
  switch (frame.kind) {
    case 'write': {
      const { sequence, storeId, offset, lengthBytes, parts } = frame
      const flags = frame.fua ? FrameFlag.FUA : 0
      return {
        type: FrameType.WRITE,
        numbers: { flags, storeId, sequence, offset, lengthBytes },
        parts,
      }
    }
    case 'zero': {
      const { sequence, storeId, offset, lengthBytes } = frame
      const flags = (frame.fua ? FrameFlag.FUA : 0) | (frame.mayUnmap ? FrameFlag.MAY_UNMAP : 0)
      return {
        type: FrameType.ZERO,
        numbers: { flags, storeId, sequence, offset, lengthBytes },
        parts: none,
      }
    }
    case 'flush':
      return { type: FrameType.FLUSH, numbers: { sequence: frame.sequence }, parts: none }
    case 'compare': {
      const { sequence, storeId, offset, lengthBytes, digests } = frame
      const numbers = { storeId, sequence, offset, lengthBytes }
      return { type: FrameType.COMPARE, numbers, parts: [digests] }
    }
    case 'operation':
      return { ...operationParts(frame), type: FrameType.OPERATION }
    case 'nothing':
      return { type: FrameType.NOTHING, numbers: { sequence: frame.sequence }, parts: none }
    default:
      return controlParts(frame)
  }
}

function controlParts(frame: Exclude<Frame, Entry>): FrameParts {
  switch (frame.kind) {
    case 'hello':
      return { type: FrameType.HELLO, numbers: {}, parts: jsonParts(frame.body) }
    case 'decision':
      return { type: FrameType.DECISION, numbers: {}, parts: jsonParts(frame.body) }
    case 'ready':
      return { type: FrameType.READY, numbers: {}, parts: jsonParts(frame.body) }
    case 'refuse': {
      const { code, message, action } = frame
      const body = { code: cut(code), message: cut(message), action: cut(action) }
      return { type: FrameType.REFUSE, numbers: {}, parts: jsonParts(body) }
    }
    case 'replay': {
      const { sequence, after: offset } = frame
      const { parts } = operationParts(frame)
      return { type: FrameType.REPLAY, numbers: { sequence, offset }, parts }
    }
    case 'stream-from': {
      const { sequence, after: offset } = frame
      return { type: FrameType.STREAM_FROM, numbers: { sequence, offset }, parts: none }
    }
    case 'journaled':
      return {
        type: FrameType.JOURNALED,
        numbers: { sequence: frame.batchNumber, flags: frame.isBarrier ? FrameFlag.BARRIER : 0 },
        parts: none,
      }
    case 'answer': {
      const { received: sequence, applied: offset, durable: lengthBytes } = frame
      return { type: FrameType.ANSWER, numbers: { sequence, offset, lengthBytes }, parts: none }
    }
    case 'compared': {
      const { sequence, lengthBytes, differing } = frame
      const bitmap = Buffer.from(differing.buffer, differing.byteOffset, differing.length)
      return { type: FrameType.COMPARED, numbers: { sequence, lengthBytes }, parts: [bitmap] }
    }
    case 'result':
      return {
        type: FrameType.RESULT,
        numbers: { sequence: frame.sequence },
        parts: jsonParts(frame.body),
      }
    case 'digest-request': {
      const { requestId: sequence, frozenId: storeId, offset, lengthBytes } = frame
      const numbers = { sequence, storeId, offset, lengthBytes }
      return { type: FrameType.DIGEST_REQUEST, numbers, parts: none }
    }
    case 'digest-answer':
      return {
        type: FrameType.DIGEST_ANSWER,
        numbers: { sequence: frame.requestId },
        parts: frame.digests.length === 0 ? none : [frame.digests],
      }
    case 'read-request': {
      const { requestId: sequence, frozenId: storeId, offset, lengthBytes } = frame
      const numbers = { sequence, storeId, offset, lengthBytes }
      return { type: FrameType.READ_REQUEST, numbers, parts: none }
    }
    case 'read-answer':
      return {
        type: FrameType.READ_ANSWER,
        numbers: { sequence: frame.requestId },
        parts: frame.bytes.length === 0 ? none : [frame.bytes],
      }
    case 'ping':
      return { type: FrameType.PING, numbers: { sequence: frame.token }, parts: none }
    case 'pong':
      return { type: FrameType.PONG, numbers: { sequence: frame.token }, parts: none }
    case 'bye':
      return { type: FrameType.BYE, numbers: {}, parts: jsonParts({ reason: cut(frame.reason) }) }
    default:
      return unreachable(frame)
  }
}

function operationParts(frame: OperationEntry | ReplayFrame): Omit<FrameParts, 'type'> {
  const { sequence, at, operation } = frame
  return { numbers: { sequence }, parts: jsonParts({ at, operation }) }
}

function jsonParts(body: object): readonly Buffer[] {
  return [Buffer.from(JSON.stringify(body), 'utf8')]
}

/** Of a text that is for people: short enough for its frame however it is escaped. */
function cut(text: string): string {
  return text.slice(0, reasonLengthMax)
}
