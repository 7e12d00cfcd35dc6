// From a checked head and a checked payload to a frame. What a head's row in the table cannot say is checked here: numbers that belong
// together, the shape of JSON. Everything that is wrong is a ProtocolError.

import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { comparePieceBytes } from '../core/entry.js'
import { limits } from '../core/limits.js'
import type { Sequence, StoreId } from '../core/units.js'
import { bitmapBytesOf, digestsBytesOf } from './frame-encoder.js'
import { FrameFlag, type FrameHead, FrameType } from './frame-head.js'
import type { Frame, ReplayPosition } from './frames.js'
import { type JsonObject, JsonReader, parseJsonObject } from './json-reader.js'
import { linkLimits } from './limits.js'
import { readOperationPayload } from './operation-codec.js'

type Decode = (head: FrameHead, parts: readonly Buffer[]) => Frame

/** One row a type. `frameTable` has their bounds. */
const decoders: { readonly [type in FrameType]: Decode } = {
  [FrameType.HELLO]: (_, parts) => ({ kind: 'hello', body: jsonOf(parts, 'hello') }),
  [FrameType.DECISION]: (_, parts) => ({ kind: 'decision', body: jsonOf(parts, 'decision') }),
  [FrameType.READY]: (_, parts) => ({ kind: 'ready', body: jsonOf(parts, 'ready') }),
  [FrameType.REFUSE]: (_, parts) => readRefuse(parts),
  [FrameType.WRITE]: (head, parts) => {
    if (head.payloadBytes !== head.lengthBytes)
      throw new ProtocolError('a write has another number of bytes than its range')
    return { kind: 'write', ...rangeOf(head), fua: hasFlag(head, FrameFlag.FUA), parts }
  },
  [FrameType.ZERO]: (head) => ({
    kind: 'zero',
    ...rangeOf(head),
    fua: hasFlag(head, FrameFlag.FUA),
    mayUnmap: hasFlag(head, FrameFlag.MAY_UNMAP),
  }),
  [FrameType.FLUSH]: (head) => ({ kind: 'flush', sequence: sequenceOf(head) }),
  [FrameType.COMPARE]: (head, parts) => {
    const range = rangeOf(head)
    if (range.lengthBytes > linkLimits.compareBytesMax)
      throw new ProtocolError('a compare covers too much')
    if (head.payloadBytes !== digestsBytesOf(range.lengthBytes))
      throw new ProtocolError('a compare has another number of digests than pieces')
    return { kind: 'compare', ...range, digests: joined(parts) }
  },
  [FrameType.OPERATION]: (head, parts) => ({
    kind: 'operation',
    sequence: sequenceOf(head),
    ...readOperationPayload(jsonOf(parts, 'operation')),
  }),
  [FrameType.NOTHING]: (head) => ({ kind: 'nothing', sequence: sequenceOf(head) }),
  [FrameType.REPLAY]: (head, parts) => ({
    kind: 'replay',
    sequence: sequenceOf(head),
    after: head.offset as ReplayPosition,
    ...readOperationPayload(jsonOf(parts, 'replay')),
  }),
  [FrameType.STREAM_FROM]: (head) => ({
    kind: 'stream-from',
    sequence: sequenceOf(head),
    after: head.offset as ReplayPosition,
  }),
  [FrameType.JOURNALED]: (head) => ({
    kind: 'journaled',
    batchNumber: head.sequence,
    isBarrier: (head.flags & FrameFlag.BARRIER) !== 0,
  }),
  [FrameType.ANSWER]: readAnswer,
  [FrameType.COMPARED]: readCompared,
  [FrameType.RESULT]: (head, parts) => ({
    kind: 'result',
    sequence: sequenceOf(head),
    body: jsonOf(parts, 'result'),
  }),
  [FrameType.DIGEST_REQUEST]: readDigestRequest,
  [FrameType.DIGEST_ANSWER]: (head, parts) => {
    if (head.payloadBytes % 32 !== 0) throw new ProtocolError('a digest is cut')
    return { kind: 'digest-answer', requestId: head.sequence, digests: joined(parts) }
  },
  [FrameType.READ_REQUEST]: readReadRequest,
  [FrameType.READ_ANSWER]: (head, parts) => ({
    kind: 'read-answer',
    requestId: head.sequence,
    bytes: joined(parts),
  }),
  [FrameType.PING]: (head) => ({ kind: 'ping', token: head.sequence }),
  [FrameType.PONG]: (head) => ({ kind: 'pong', token: head.sequence }),
  [FrameType.BYE]: (_, parts) => {
    const json = new JsonReader(jsonOf(parts, 'bye'), 'bye')
    const reason = json.text('reason', linkLimits.reasonBytesMax)
    json.end()
    return { kind: 'bye', reason }
  },
}

/** `head` has passed `readHead`, and `parts` are its payload with the right checksum. The frame keeps `parts`. */
export function decodeFrame(head: FrameHead, parts: readonly Buffer[]): Frame {
  return decoders[head.type as FrameType](head, parts)
}

function readRefuse(parts: readonly Buffer[]): Frame {
  const json = new JsonReader(jsonOf(parts, 'refuse'), 'refuse')
  const code = json.text('code', linkLimits.reasonBytesMax)
  const message = json.text('message', linkLimits.reasonBytesMax)
  const action = json.textOrNothing('action', linkLimits.reasonBytesMax)
  json.end()
  return { kind: 'refuse', code, message, action }
}

function readAnswer(head: FrameHead): Frame {
  const { sequence: received, offset: applied, lengthBytes: durable } = head
  if (durable > applied || applied > received)
    throw new ProtocolError('an answer has its positions in the wrong order')
  return {
    kind: 'answer',
    received: received as Sequence,
    applied: applied as Sequence,
    durable: durable as Sequence,
  }
}

function readCompared(head: FrameHead, parts: readonly Buffer[]): Frame {
  const { lengthBytes } = head
  if (lengthBytes === 0 || lengthBytes > linkLimits.compareBytesMax)
    throw new ProtocolError('an outcome of a compare covers nothing, or too much')
  const differing = joined(parts)
  if (differing.length !== bitmapBytesOf(lengthBytes))
    throw new ProtocolError('an outcome of a compare has another number of pieces')
  const pieceCount = Math.ceil(lengthBytes / comparePieceBytes)
  const lastByte = differing[differing.length - 1] ?? 0
  if (pieceCount % 8 !== 0 && lastByte >> (pieceCount % 8) !== 0)
    throw new ProtocolError('an outcome of a compare has pieces behind its end')
  return { kind: 'compared', sequence: sequenceOf(head), lengthBytes, differing }
}

function readDigestRequest(head: FrameHead): Frame {
  const { sequence: requestId, storeId: frozenId, offset, lengthBytes } = head
  checkRange(offset, lengthBytes)
  if (lengthBytes > linkLimits.digestBytesMax)
    throw new ProtocolError('a request for digests covers too much')
  return { kind: 'digest-request', requestId, frozenId, offset, lengthBytes }
}

function readReadRequest(head: FrameHead): Frame {
  const { sequence: requestId, storeId: frozenId, offset, lengthBytes } = head
  checkRange(offset, lengthBytes)
  if (lengthBytes > linkLimits.readBytesMax)
    throw new ProtocolError('a request for bytes covers too much')
  return { kind: 'read-request', requestId, frozenId, offset, lengthBytes }
}

function rangeOf(head: FrameHead) {
  const { storeId, offset, lengthBytes } = head
  if (storeId === 0 || storeId >= linkLimits.storeIdEnd)
    throw new ProtocolError(`store ${storeId} is none of the stream`)
  checkRange(offset, lengthBytes)
  return { sequence: sequenceOf(head), storeId: storeId as StoreId, offset, lengthBytes }
}

function checkRange(offset: number, lengthBytes: number): void {
  if (lengthBytes === 0) throw new ProtocolError('a range is empty')
  if (offset > limits.storeSizeBytesMax - lengthBytes)
    throw new ProtocolError('a range ends beyond any store')
}

function sequenceOf(head: FrameHead): Sequence {
  if (head.sequence === 0) throw new ProtocolError('sequence 0 is before everything')
  return head.sequence as Sequence
}

function hasFlag(head: FrameHead, flag: number): boolean {
  return (head.flags & flag) !== 0
}

function jsonOf(parts: readonly Buffer[], what: string): JsonObject {
  return parseJsonObject(joined(parts), what)
}

function joined(parts: readonly Buffer[]): Buffer {
  const first = parts[0]
  return parts.length === 1 && first !== undefined ? first : Buffer.concat(parts)
}
