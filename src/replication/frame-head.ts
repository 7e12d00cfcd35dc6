// The head of every frame, and the table of frame types: what may be in the head of each, how long its payload may be, and who may
// send it. One check covers all of them before a byte of payload is read.
//
// The head has a checksum of its own: a length that was damaged on the way must not make the reader wait for bytes that never come.
import assert from 'node:assert/strict'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { type Decoded, magic32, struct, u16, u32, u53, writeU64 } from '../../nbd/bytes/wire.js'
import { crc32 } from '../core/crc32.js'
import { comparePieceBytes, digestBytes } from '../core/entry.js'
import { linkLimits } from './limits.js'

/** Big-endian, like everything on this port. */
export const FrameHead = struct('frame', {
  magic: magic32(0x4c6f636b),
  type: u16,
  flags: u16,
  storeId: u32,
  payloadBytes: u32,
  sequence: u53,
  offset: u53,
  lengthBytes: u53,
  /** CRC-32 (IEEE) of the payload; 0 when there is none. */
  payloadCrc: u32,
  /** CRC-32 of everything before it in the head. */
  headCrc: u32,
})
export type FrameHead = Omit<Decoded<typeof FrameHead>, 'headCrc'>
assert.equal(FrameHead.lengthBytes, 48)

export const headBytes = FrameHead.lengthBytes
const checkedBytes = FrameHead.offsetOf.headCrc
assert.equal(checkedBytes, headBytes - 4)

export const FrameType = {
  HELLO: 1,
  DECISION: 2,
  READY: 3,
  REFUSE: 4,
  WRITE: 16,
  ZERO: 17,
  FLUSH: 18,
  COMPARE: 19,
  OPERATION: 20,
  NOTHING: 21,
  REPLAY: 32,
  STREAM_FROM: 33,
  JOURNALED: 34,
  ANSWER: 48,
  COMPARED: 49,
  RESULT: 50,
  DIGEST_REQUEST: 64,
  DIGEST_ANSWER: 65,
  READ_REQUEST: 66,
  READ_ANSWER: 67,
  PING: 80,
  PONG: 81,
  BYE: 82,
} as const
export type FrameType = (typeof FrameType)[keyof typeof FrameType]

export const FrameFlag = {
  /** Of a write or zeroing: durable before it is acknowledged. */
  FUA: 1,
  /** Of a zeroing: the space is given back. */
  MAY_UNMAP: 2,
  /** Of what is told of the primary's journal: durable before what follows is applied. */
  BARRIER: 4,
} as const

/** Who may send a frame. The primary is the side that connected. */
export type Side = 'primary' | 'secondary'

/** The fields of a head that mean something in some frames; where they do not, they are 0. */
type NumberField = 'storeId' | 'sequence' | 'offset' | 'lengthBytes'

export type FrameRow = {
  readonly type: FrameType
  readonly name: string
  readonly sender: Side | 'both'
  readonly payloadBytesMin: number
  readonly payloadBytesMax: number
  readonly uses: readonly NumberField[]
  readonly flags: number
}

const pieceCountOf = (lengthBytes: number): number => Math.ceil(lengthBytes / comparePieceBytes)
const digestsMax = (lengthBytes: number): number => pieceCountOf(lengthBytes) * digestBytes
const { greetingBytesMax, operationBytesMax, writeBytesMax } = linkLimits

const row = (
  type: FrameType,
  name: string,
  sender: FrameRow['sender'],
  rest: Partial<Omit<FrameRow, 'type' | 'name' | 'sender'>> = {},
): FrameRow => ({
  type,
  name,
  sender,
  payloadBytesMin: 0,
  payloadBytesMax: 0,
  uses: [],
  flags: 0,
  ...rest,
})
/** JSON: at least `{}`. */
const json = (payloadBytesMax: number) => ({ payloadBytesMin: 2, payloadBytesMax })
const range: readonly NumberField[] = ['storeId', 'sequence', 'offset', 'lengthBytes']

const rows: readonly FrameRow[] = [
  row(FrameType.HELLO, 'hello', 'both', json(greetingBytesMax)),
  row(FrameType.DECISION, 'decision', 'primary', json(greetingBytesMax)),
  row(FrameType.READY, 'ready', 'secondary', json(greetingBytesMax)),
  row(FrameType.REFUSE, 'refuse', 'both', json(3 * linkLimits.reasonBytesMax)),
  row(FrameType.WRITE, 'write', 'primary', {
    payloadBytesMin: 1,
    payloadBytesMax: writeBytesMax,
    uses: range,
    flags: FrameFlag.FUA,
  }),
  row(FrameType.ZERO, 'zero', 'primary', {
    uses: range,
    flags: FrameFlag.FUA | FrameFlag.MAY_UNMAP,
  }),
  row(FrameType.FLUSH, 'flush', 'primary', { uses: ['sequence'] }),
  row(FrameType.COMPARE, 'compare', 'primary', {
    payloadBytesMin: digestBytes,
    payloadBytesMax: digestsMax(linkLimits.compareBytesMax),
    uses: range,
  }),
  row(FrameType.OPERATION, 'operation', 'primary', {
    ...json(operationBytesMax),
    uses: ['sequence'],
  }),
  row(FrameType.NOTHING, 'nothing', 'primary', { uses: ['sequence'] }),
  row(FrameType.REPLAY, 'replay', 'primary', {
    ...json(operationBytesMax),
    uses: ['sequence', 'offset'],
  }),
  row(FrameType.STREAM_FROM, 'stream-from', 'primary', { uses: ['sequence', 'offset'] }),
  // The number of the batch is in the place of the sequence.
  row(FrameType.JOURNALED, 'journaled', 'primary', {
    uses: ['sequence'],
    flags: FrameFlag.BARRIER,
  }),
  // received, applied and durable are in the places of sequence, offset and length.
  row(FrameType.ANSWER, 'answer', 'secondary', { uses: ['sequence', 'offset', 'lengthBytes'] }),
  row(FrameType.COMPARED, 'compared', 'secondary', {
    payloadBytesMin: 1,
    payloadBytesMax: Math.ceil(pieceCountOf(linkLimits.compareBytesMax) / 8),
    uses: ['sequence', 'lengthBytes'],
  }),
  row(FrameType.RESULT, 'result', 'secondary', {
    ...json(linkLimits.resultBytesMax),
    uses: ['sequence'],
  }),
  // The number of a request or ping is in the place of the sequence, that of a frozen store in the place of the store's.
  row(FrameType.DIGEST_REQUEST, 'digest-request', 'primary', { uses: range }),
  row(FrameType.DIGEST_ANSWER, 'digest-answer', 'secondary', {
    payloadBytesMax: digestsMax(linkLimits.digestBytesMax),
    uses: ['sequence'],
  }),
  row(FrameType.READ_REQUEST, 'read-request', 'primary', { uses: range }),
  row(FrameType.READ_ANSWER, 'read-answer', 'secondary', {
    payloadBytesMax: linkLimits.readBytesMax,
    uses: ['sequence'],
  }),
  row(FrameType.PING, 'ping', 'both', { uses: ['sequence'] }),
  row(FrameType.PONG, 'pong', 'both', { uses: ['sequence'] }),
  row(FrameType.BYE, 'bye', 'both', json(2 * linkLimits.reasonBytesMax)),
]

export const frameTable: ReadonlyMap<number, FrameRow> = new Map(rows.map((one) => [one.type, one]))
assert.equal(frameTable.size, Object.keys(FrameType).length)

const at = FrameHead.offsetOf
const scratch = FrameHead.encode({
  ...{ type: 0, flags: 0, storeId: 0, payloadBytes: 0, sequence: 0 },
  ...{ offset: 0, lengthBytes: 0, payloadCrc: 0, headCrc: 0 },
})
const scratchChecked = scratch.subarray(0, checkedBytes)
const magic = scratch.readUInt32BE(at.magic)
/** Above this the high half of a number makes it larger than 2^53 - 1. */
const highMax = 0x1fffff

/** Lays a head out at the start of a buffer that is this module's own: good until the next call. */
export function layHead(head: FrameHead): Buffer {
  // Field by field: one for each small write of a client, and the struct's loop would cost more than the rest of it.
  scratch.writeUInt16BE(head.type, at.type)
  scratch.writeUInt16BE(head.flags, at.flags)
  scratch.writeUInt32BE(head.storeId, at.storeId)
  scratch.writeUInt32BE(head.payloadBytes, at.payloadBytes)
  writeNumber(head.sequence, at.sequence)
  writeNumber(head.offset, at.offset)
  writeNumber(head.lengthBytes, at.lengthBytes)
  scratch.writeUInt32BE(head.payloadCrc, at.payloadCrc)
  scratch.writeUInt32BE(crc32(scratchChecked), at.headCrc)
  return scratch
}

function writeNumber(value: number, place: number): void {
  assert(Number.isSafeInteger(value) && value >= 0)
  writeU64(scratch, place, value)
}

/** The head in `bytes`, which are `headBytes` long, and its row. Throws ProtocolError for everything that the table does not allow `sender` to say. */
export function readHead(bytes: Buffer, sender: Side): { head: FrameHead; row: FrameRow } {
  assert.equal(bytes.length, headBytes)
  const head = decodeHead(bytes)
  if (crc32(bytes.subarray(0, checkedBytes)) !== head.headCrc)
    throw new ProtocolError('the checksum of a head is wrong')
  const found = frameTable.get(head.type)
  if (found === undefined) throw new ProtocolError(`frame type ${head.type} is unknown`)
  checkHead(head, found, sender)
  return { head, row: found }
}

/** As the struct does; whatever it would refuse, it refuses. */
function decodeHead(bytes: Buffer): Decoded<typeof FrameHead> {
  const sequenceHigh = bytes.readUInt32BE(at.sequence)
  const offsetHigh = bytes.readUInt32BE(at.offset)
  const lengthHigh = bytes.readUInt32BE(at.lengthBytes)
  const isUsual = bytes.readUInt32BE(at.magic) === magic
  if (!isUsual || sequenceHigh > highMax || offsetHigh > highMax || lengthHigh > highMax)
    return FrameHead.decode(bytes)
  return {
    type: bytes.readUInt16BE(at.type),
    flags: bytes.readUInt16BE(at.flags),
    storeId: bytes.readUInt32BE(at.storeId),
    payloadBytes: bytes.readUInt32BE(at.payloadBytes),
    sequence: sequenceHigh * 2 ** 32 + bytes.readUInt32BE(at.sequence + 4),
    offset: offsetHigh * 2 ** 32 + bytes.readUInt32BE(at.offset + 4),
    lengthBytes: lengthHigh * 2 ** 32 + bytes.readUInt32BE(at.lengthBytes + 4),
    payloadCrc: bytes.readUInt32BE(at.payloadCrc),
    headCrc: bytes.readUInt32BE(at.headCrc),
  }
}

function checkHead(head: FrameHead, row: FrameRow, sender: Side): void {
  if (row.sender !== 'both' && row.sender !== sender)
    throw new ProtocolError(`a ${sender} must not send ${row.name}`)
  if (head.payloadBytes < row.payloadBytesMin || head.payloadBytes > row.payloadBytesMax)
    throw new ProtocolError(
      `${row.name} has ${head.payloadBytes} bytes of payload, not ${row.payloadBytesMin} to ${row.payloadBytesMax}`,
    )
  if ((head.flags & ~row.flags) !== 0)
    throw new ProtocolError(`${row.name} has flags ${head.flags}`)
  if (head.payloadBytes === 0 && head.payloadCrc !== 0)
    throw new ProtocolError(`${row.name} has a checksum of nothing`)
  const { uses } = row
  if (
    (head.storeId !== 0 && !uses.includes('storeId')) ||
    (head.sequence !== 0 && !uses.includes('sequence')) ||
    (head.offset !== 0 && !uses.includes('offset')) ||
    (head.lengthBytes !== 0 && !uses.includes('lengthBytes'))
  )
    throw new ProtocolError(`${row.name} has a number where there is none`)
}
