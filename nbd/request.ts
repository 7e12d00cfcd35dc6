// A request's header, read without allocating, and everything that can be wrong with it before an export sees it.
//
// Invariant: a request that `refusalOf` lets pass has a known command, allowed flags, and a range inside the export.
import { ProtocolError } from './bytes/protocol-error.js'
import { Command, CommandFlag, nameOf } from './constants.js'
import { type ErrnoBeyondEnd, RequestError } from './errors.js'
import { ExtendedRequestHeader, RequestHeader } from './messages.js'

/** One request. A session reads every header into the same object; what outlives the turn is copied. */
export class Request {
  flags = 0
  type = 0
  /** The cookie as it lies on the wire: only echoed. */
  cookieHigh = 0
  cookieLow = 0
  offsetHigh = 0
  offsetLow = 0
  /** From 2^53 on not exact, and outside of every export. */
  offset = 0
  /** What the command works on; for a request with PAYLOAD_LEN the payload. */
  lengthBytes = 0

  copy(): Request {
    const copy = new Request()
    copy.flags = this.flags
    copy.type = this.type
    copy.cookieHigh = this.cookieHigh
    copy.cookieLow = this.cookieLow
    copy.offsetHigh = this.offsetHigh
    copy.offsetLow = this.offsetLow
    copy.offset = this.offset
    copy.lengthBytes = this.lengthBytes
    return copy
  }
}

export const magicBytes = 4
const compactMagic = 0x25609513
const extendedMagic = 0x21e41c71
const at = RequestHeader.offsetOf
const word = 0x1_0000_0000

/** Throws ProtocolError when no request begins at `start` of `source`: `magicBytes` are there. */
export function checkMagic(source: Buffer, start: number, isExtended: boolean): void {
  const magic = source.readUInt32BE(start)
  if (magic !== (isExtended ? extendedMagic : compactMagic)) {
    throw new ProtocolError(`a request begins with ${magic.toString(16).padStart(8, '0')}`)
  }
}

/** Reads the header at `start` of `source` into `request`. Throws ProtocolError when it is none. */
export function readRequest(
  source: Buffer,
  start: number,
  request: Request,
  isExtended: boolean,
): void {
  checkMagic(source, start, isExtended)
  request.flags = source.readUInt16BE(start + at.flags)
  request.type = source.readUInt16BE(start + at.type)
  request.cookieHigh = source.readUInt32BE(start + at.cookie)
  request.cookieLow = source.readUInt32BE(start + at.cookie + 4)
  request.offsetHigh = source.readUInt32BE(start + at.offset)
  request.offsetLow = source.readUInt32BE(start + at.offset + 4)
  request.offset = request.offsetHigh * word + request.offsetLow
  const length = source.readUInt32BE(start + at.lengthBytes)
  request.lengthBytes = isExtended
    ? length * word + source.readUInt32BE(start + ExtendedRequestHeader.offsetOf.lengthBytes + 4)
    : length
}

/** Bytes that follow the header on the wire, whatever becomes of the request. */
export function payloadBytesOf(request: Request, isExtended: boolean): number {
  if (isExtended) return request.flags & CommandFlag.PAYLOAD_LEN ? request.lengthBytes : 0
  return request.type === Command.WRITE ? request.lengthBytes : 0
}

/** What a session's requests are held against. */
export type RequestRules = {
  readonly isExtended: boolean
  readonly hasStructuredReplies: boolean
  /** Filtering block status by a payload was offered. */
  readonly hasStatusPayload: boolean
  readonly contextCount: number
  readonly payloadBytesMax: number
  readonly minimumBlockBytes: number
}

type Target = { readonly sizeBytes: number; readonly isReadOnly: boolean }

/** Flags by command: proto.md, "Command flags". FUA is harmless everywhere and must be accepted. */
export function allowedFlags(rules: RequestRules): readonly number[] {
  const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN } = CommandFlag
  const flags: number[] = []
  flags[Command.READ] = FUA | (rules.hasStructuredReplies ? DF : 0)
  flags[Command.WRITE] = FUA | (rules.isExtended ? PAYLOAD_LEN : 0)
  flags[Command.DISC] = FUA
  flags[Command.FLUSH] = FUA
  flags[Command.TRIM] = FUA
  flags[Command.CACHE] = FUA
  flags[Command.WRITE_ZEROES] = FUA | NO_HOLE | FAST_ZERO
  flags[Command.BLOCK_STATUS] = FUA | REQ_ONE | (rules.hasStatusPayload ? PAYLOAD_LEN : 0)
  return flags
}

/** Why the request must not reach the export, or undefined. `allowed` is of `allowedFlags`. */
export function refusalOf(
  request: Request,
  target: Target,
  rules: RequestRules,
  allowed: readonly number[],
): RequestError | undefined {
  const allowedHere = allowed[request.type]
  if (allowedHere === undefined) {
    return new RequestError('EINVAL', `command ${request.type} is not known`)
  }
  if (request.flags & ~allowedHere) {
    return new RequestError(
      'EINVAL',
      `${nameOf(Command, request.type)} does not take flags ${request.flags}`,
    )
  }
  switch (request.type) {
    case Command.READ:
      return rangeRefusal(request, target, rules, 'EINVAL') ?? payloadRefusal(request, rules)
    case Command.WRITE:
      return writeRefusal(request, target, rules)
    case Command.WRITE_ZEROES:
      return readOnlyRefusal(target) ?? rangeRefusal(request, target, rules, 'ENOSPC')
    case Command.TRIM:
      return readOnlyRefusal(target) ?? rangeRefusal(request, target, rules, 'EINVAL')
    case Command.CACHE:
      return rangeRefusal(request, target, rules, 'EINVAL')
    case Command.BLOCK_STATUS:
      return statusRefusal(request, target, rules)
    case Command.FLUSH:
      if (request.offset === 0 && request.lengthBytes === 0) return undefined
      return new RequestError('EINVAL', 'FLUSH takes neither offset nor length')
    default:
      return undefined
  }
}

function readOnlyRefusal(target: Target): RequestError | undefined {
  return target.isReadOnly ? new RequestError('EPERM', 'the export is read-only') : undefined
}

function payloadRefusal(request: Request, rules: RequestRules): RequestError | undefined {
  if (request.lengthBytes <= rules.payloadBytesMax) return undefined
  return new RequestError('EINVAL', `at most ${rules.payloadBytesMax} bytes go into one request`)
}

function writeRefusal(
  request: Request,
  target: Target,
  rules: RequestRules,
): RequestError | undefined {
  if (rules.isExtended && !(request.flags & CommandFlag.PAYLOAD_LEN)) {
    return new RequestError('EINVAL', 'WRITE needs the flag PAYLOAD_LEN with extended headers')
  }
  return (
    readOnlyRefusal(target) ??
    payloadRefusal(request, rules) ??
    rangeRefusal(request, target, rules, 'ENOSPC')
  )
}

function statusRefusal(
  request: Request,
  target: Target,
  rules: RequestRules,
): RequestError | undefined {
  if (rules.contextCount === 0) {
    return new RequestError('EINVAL', 'no metadata context was selected with SET_META_CONTEXT')
  }
  // With a payload the range is in it: what takes the payload in (nbd/intake.ts) checks that one.
  if (request.flags & CommandFlag.PAYLOAD_LEN)
    return request.lengthBytes > 0 ? undefined : statusPayloadRefusal()
  return statusRangeRefusal(request.offset, request.lengthBytes, target, rules)
}

export function statusPayloadRefusal(): RequestError {
  return new RequestError('EINVAL', 'a block status payload is a length and a list of context ids')
}

/** A block status of nothing has no answer: each reply has at least one extent. */
export function statusRangeRefusal(
  offset: number,
  lengthBytes: number,
  target: Target,
  rules: RequestRules,
): RequestError | undefined {
  if (lengthBytes === 0) return new RequestError('EINVAL', 'block status of no bytes')
  return rangeRefusal({ offset, lengthBytes }, target, rules, 'EINVAL')
}

function rangeRefusal(
  range: { readonly offset: number; readonly lengthBytes: number },
  target: Target,
  rules: RequestRules,
  errno: ErrnoBeyondEnd,
): RequestError | undefined {
  const { offset, lengthBytes } = range
  // Above 2^53 the sum is not exact, but it is above every size then.
  if (offset + lengthBytes > target.sizeBytes) {
    return new RequestError(errno, `the range ends beyond the export's ${target.sizeBytes} bytes`)
  }
  const minimum = rules.minimumBlockBytes
  if (minimum > 1 && (offset % minimum !== 0 || lengthBytes % minimum !== 0)) {
    return new RequestError('EINVAL', `offset and length must be multiples of ${minimum}`)
  }
  return undefined
}
