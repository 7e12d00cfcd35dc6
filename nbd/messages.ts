// The fixed-length messages of the protocol (proto.md), declared once; sizes are checked at load.
import assert from 'node:assert/strict'
import { type Decoded, magic32, magic64, struct, u16, u32, u53, u64 } from './bytes/wire.js'

const initPassword = 0x4e42444d41474943n // 'NBDMAGIC'
const haveOption = 0x49484156454f5054n // 'IHAVEOPT'

/** proto.md, "Newstyle negotiation": the first thing a server says. */
export const ServerGreeting = struct('NBD server greeting', {
  password: magic64(initPassword),
  magic: magic64(haveOption),
  handshakeFlags: u16,
})
assert.equal(ServerGreeting.lengthBytes, 18)

export const ClientGreeting = struct('NBD client flags', { flags: u32 })
assert.equal(ClientGreeting.lengthBytes, 4)

/** Followed by `lengthBytes` of body. */
export const OptionHeader = struct('NBD option', {
  magic: magic64(haveOption),
  option: u32,
  lengthBytes: u32,
})
assert.equal(OptionHeader.lengthBytes, 16)

/** proto.md, "Fixed newstyle negotiation". Followed by `lengthBytes` of data. */
export const OptionReplyHeader = struct('NBD option reply', {
  magic: magic64(0x3e889045565a9n),
  option: u32,
  type: u32,
  lengthBytes: u32,
})
assert.equal(OptionReplyHeader.lengthBytes, 20)

/** The answer to NBD_OPT_EXPORT_NAME; 124 zeroes follow unless the client said NO_ZEROES. */
export const ExportNameReply = struct('NBD export', { sizeBytes: u53, transmissionFlags: u16 })
assert.equal(ExportNameReply.lengthBytes, 10)
export const exportNamePaddingBytes = 124

export const InfoExport = struct('NBD_INFO_EXPORT', {
  type: u16,
  sizeBytes: u53,
  transmissionFlags: u16,
})
assert.equal(InfoExport.lengthBytes, 12)

export const InfoBlockSize = struct('NBD_INFO_BLOCK_SIZE', {
  type: u16,
  minimum: u32,
  preferred: u32,
  maximum: u32,
})
assert.equal(InfoBlockSize.lengthBytes, 14)

/** proto.md, "Request message". Followed by `lengthBytes` of payload when it is a WRITE. */
export const RequestHeader = struct('NBD request', {
  magic: magic32(0x25609513),
  flags: u16,
  type: u16,
  cookie: u64,
  offset: u64,
  lengthBytes: u32,
})
export type RequestHeader = Decoded<typeof RequestHeader>
assert.equal(RequestHeader.lengthBytes, 28)

/** The request after NBD_OPT_EXTENDED_HEADERS. Followed by a payload when it has the flag PAYLOAD_LEN. */
export const ExtendedRequestHeader = struct('NBD extended request', {
  magic: magic32(0x21e41c71),
  flags: u16,
  type: u16,
  cookie: u64,
  offset: u64,
  lengthBytes: u64,
})
assert.equal(ExtendedRequestHeader.lengthBytes, 32)

/** Followed by the data of a READ that succeeded. */
export const SimpleReply = struct('NBD simple reply', {
  magic: magic32(0x67446698),
  error: u32,
  cookie: u64,
})
assert.equal(SimpleReply.lengthBytes, 16)

/** proto.md, "Structured reply chunk message". Followed by `lengthBytes` of payload. */
export const StructuredChunk = struct('NBD structured reply', {
  magic: magic32(0x668e33ef),
  flags: u16,
  type: u16,
  cookie: u64,
  lengthBytes: u32,
})
assert.equal(StructuredChunk.lengthBytes, 20)

/** `offset` is the request's, whatever the payload says. */
export const ExtendedChunk = struct('NBD extended reply', {
  magic: magic32(0x6e8a278c),
  flags: u16,
  type: u16,
  cookie: u64,
  offset: u64,
  lengthBytes: u53,
})
assert.equal(ExtendedChunk.lengthBytes, 32)

export const HolePayload = struct('NBD_REPLY_TYPE_OFFSET_HOLE', { offset: u53, lengthBytes: u32 })
assert.equal(HolePayload.lengthBytes, 12)

/** Followed by the message. */
export const ErrorPayload = struct('NBD_REPLY_TYPE_ERROR', { error: u32, messageBytes: u16 })
assert.equal(ErrorPayload.lengthBytes, 6)

/** Followed by extents. */
export const StatusPayload = struct('NBD_REPLY_TYPE_BLOCK_STATUS', { contextId: u32 })
export const StatusExtent = struct('NBD extent', { lengthBytes: u32, flags: u32 })
assert.equal(StatusExtent.lengthBytes, 8)

export const ExtendedStatusPayload = struct('NBD_REPLY_TYPE_BLOCK_STATUS_EXT', {
  contextId: u32,
  extentCount: u32,
})
export const ExtendedStatusExtent = struct('NBD extended extent', { lengthBytes: u53, flags: u53 })
assert.equal(ExtendedStatusExtent.lengthBytes, 16)

/** The payload of a BLOCK_STATUS with PAYLOAD_LEN. Followed by 32-bit context ids. */
export const StatusFilter = struct('NBD block status payload', { lengthBytes: u64 })
