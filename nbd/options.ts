// The options of the handshake (proto.md, "Option types"): one table with a bound for every body. A handler answers with replies and
// says how the handshake goes on; it never touches the socket.
//
// Invariant: everything negotiated is in `Negotiated`, so that STARTTLS resets it by making a new one.
import { ProtocolError } from './bytes/protocol-error.js'
import { Info, OptionCode, OptionReply, TransmissionFlag } from './constants.js'
import { RequestError } from './errors.js'
import type { Export, ExportList } from './export.js'
import type { Limits } from './limits.js'
import { ExportNameReply, exportNamePaddingBytes, InfoBlockSize, InfoExport } from './messages.js'
import { parseContextBody, parseInfoBody } from './option-bodies.js'
import type { ReplyStyle } from './replies.js'
import type { MetaContext } from './status.js'
import { decodeString, quoted } from './text.js'

export type Negotiated = {
  isTls: boolean
  style: ReplyStyle
  /** Of the last SET_META_CONTEXT that succeeded: good for this export only. */
  contextExport: string
  contexts: readonly MetaContext[]
  /** Exports that the last LIST named: whoever lists may look at each. */
  listedCount: number
}

export function newNegotiated(isTls: boolean): Negotiated {
  return { isTls, style: 'simple', contextExport: '', contexts: [], listedCount: 0 }
}

/** How the handshake goes on after an option. */
export type OptionOutcome =
  | { readonly kind: 'continue' }
  | {
      readonly kind: 'transmission'
      readonly target: Export
      readonly release: () => void
      readonly contexts: readonly MetaContext[]
    }
  | { readonly kind: 'start-tls' }
  /** Close after the reply: the client wanted it. */
  | { readonly kind: 'abort' }
  /** Close: there is no way to say why (EXPORT_NAME). */
  | { readonly kind: 'close'; readonly message: string }

export type OptionContext = {
  readonly limits: Limits
  readonly exports: ExportList
  readonly negotiated: Negotiated
  readonly hasNoZeroes: boolean
  readonly hasTls: boolean
  reply(type: OptionReply, ...data: readonly Buffer[]): void
  refuse(type: OptionReply, message: string): void
  /** Bytes outside of the reply format: the answer to EXPORT_NAME. */
  send(data: Buffer): void
}

export type OptionHandler = {
  readonly name: string
  readonly bodyBytesMax: number
  readonly handle: (context: OptionContext, body: Buffer) => OptionOutcome
}

const goesOn: OptionOutcome = { kind: 'continue' }

/** A refusal that goes to the client as an option error. */
class OptionRefusal extends Error {
  readonly type: OptionReply
  constructor(type: OptionReply, message: string) {
    super(message)
    this.type = type
  }
}

/** Runs a handler: what is wrong with its body becomes an error reply, and the handshake goes on. */
export function runOption(
  handler: OptionHandler,
  context: OptionContext,
  body: Buffer,
): OptionOutcome {
  try {
    return handler.handle(context, body)
  } catch (error) {
    if (error instanceof OptionRefusal) context.refuse(error.type, error.message)
    else if (error instanceof ProtocolError) context.refuse(OptionReply.ERR_INVALID, error.message)
    else throw error
    return goesOn
  }
}

function requireEmpty(body: Buffer): void {
  if (body.length === 0) return
  throw new OptionRefusal(OptionReply.ERR_INVALID, 'this option takes no data')
}

function findExport(context: OptionContext, name: string): Export {
  const found = context.exports.find(name)
  if (found) return found
  const message =
    context.exports.explainMissing?.(name) ??
    `there is no export ${quoted(name)}; LIST names those there are`
  throw new OptionRefusal(OptionReply.ERR_UNKNOWN, message)
}

function u32Of(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function u16Of(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(2)
  bytes.writeUInt16BE(value)
  return bytes
}

/** proto.md, "Transmission flags". */
function transmissionFlags(target: Export, negotiated: Negotiated, contextCount: number): number {
  const flag = TransmissionFlag
  let flags =
    flag.HAS_FLAGS | flag.SEND_FLUSH | flag.SEND_FUA | flag.CAN_MULTI_CONN | flag.SEND_CACHE
  flags |= target.isReadOnly
    ? flag.READ_ONLY
    : flag.SEND_TRIM | flag.SEND_WRITE_ZEROES | flag.SEND_FAST_ZERO
  if (negotiated.style !== 'simple') flags |= flag.SEND_DF
  if (negotiated.style === 'extended' && contextCount > 0) flags |= flag.BLOCK_STATUS_PAYLOAD
  return flags
}

function contextsFor(negotiated: Negotiated, exportName: string): readonly MetaContext[] {
  return negotiated.contextExport === exportName ? negotiated.contexts : []
}

function attach(context: OptionContext, target: Export): () => void {
  try {
    return context.exports.attach(target)
  } catch (error) {
    if (!(error instanceof RequestError)) throw error
    throw new OptionRefusal(OptionReply.ERR_POLICY, error.message)
  }
}

/** The one option without an error reply: what cannot be granted ends the connection. */
function exportName(context: OptionContext, body: Buffer): OptionOutcome {
  const { negotiated } = context
  if (negotiated.style === 'extended') {
    return { kind: 'close', message: 'EXPORT_NAME after EXTENDED_HEADERS' }
  }
  try {
    const name = decodeString(body)
    const target = findExport(context, name)
    const contexts = contextsFor(negotiated, name)
    const release = attach(context, target)
    const flags = transmissionFlags(target, negotiated, contexts.length)
    context.send(ExportNameReply.encode({ sizeBytes: target.sizeBytes, transmissionFlags: flags }))
    if (!context.hasNoZeroes) context.send(Buffer.alloc(exportNamePaddingBytes))
    return { kind: 'transmission', target, release, contexts }
  } catch (error) {
    if (!(error instanceof OptionRefusal || error instanceof ProtocolError)) throw error
    return { kind: 'close', message: error.message }
  }
}

function abort(context: OptionContext): OptionOutcome {
  context.reply(OptionReply.ACK)
  return { kind: 'abort' }
}

function list(context: OptionContext, body: Buffer): OptionOutcome {
  requireEmpty(body)
  const exports = context.exports.list()
  context.negotiated.listedCount = exports.length
  for (const { name, description } of exports) {
    const nameBytes = Buffer.from(name)
    const lengthBytes = u32Of(nameBytes.length)
    context.reply(OptionReply.SERVER, lengthBytes, nameBytes, Buffer.from(description))
  }
  context.reply(OptionReply.ACK)
  return goesOn
}

function startTls(context: OptionContext, body: Buffer): OptionOutcome {
  requireEmpty(body)
  if (!context.hasTls) {
    throw new OptionRefusal(OptionReply.ERR_POLICY, 'this server has no TLS configured')
  }
  if (context.negotiated.isTls) {
    throw new OptionRefusal(OptionReply.ERR_INVALID, 'TLS is on already')
  }
  context.reply(OptionReply.ACK)
  return { kind: 'start-tls' }
}

function replyInfo(
  context: OptionContext,
  target: Export,
  request: { readonly infos: ReadonlySet<number>; readonly contextCount: number },
): void {
  const { infos, contextCount } = request
  const { minimum, preferred, maximum } = target.blockSizes
  if (infos.has(Info.NAME)) {
    context.reply(OptionReply.INFO, u16Of(Info.NAME), Buffer.from(target.name))
  }
  if (infos.has(Info.DESCRIPTION)) {
    context.reply(OptionReply.INFO, u16Of(Info.DESCRIPTION), Buffer.from(target.description))
  }
  if (infos.has(Info.BLOCK_SIZE) || minimum > 1) {
    const size = {
      type: Info.BLOCK_SIZE,
      minimum,
      preferred,
      maximum: Math.min(maximum, context.limits.payloadBytesMax),
    }
    context.reply(OptionReply.INFO, InfoBlockSize.encode(size))
  }
  const transmission = transmissionFlags(target, context.negotiated, contextCount)
  const { sizeBytes } = target
  const answer = { type: Info.EXPORT, sizeBytes, transmissionFlags: transmission }
  context.reply(OptionReply.INFO, InfoExport.encode(answer))
}

function info(context: OptionContext, body: Buffer): OptionOutcome {
  const { name, infos } = parseInfoBody(body, context.limits)
  const target = findExport(context, name)
  const contextCount = contextsFor(context.negotiated, name).length
  replyInfo(context, target, { infos, contextCount })
  context.reply(OptionReply.ACK)
  return goesOn
}

function go(context: OptionContext, body: Buffer): OptionOutcome {
  const { name, infos } = parseInfoBody(body, context.limits)
  const target = findExport(context, name)
  const contexts = contextsFor(context.negotiated, name)
  const release = attach(context, target)
  replyInfo(context, target, { infos, contextCount: contexts.length })
  context.reply(OptionReply.ACK)
  return { kind: 'transmission', target, release, contexts }
}

function structuredReply(context: OptionContext, body: Buffer): OptionOutcome {
  requireEmpty(body)
  if (context.negotiated.style === 'extended') {
    const message = 'extended headers are on already'
    throw new OptionRefusal(OptionReply.ERR_EXT_HEADER_REQD, message)
  }
  context.negotiated.style = 'structured'
  context.reply(OptionReply.ACK)
  return goesOn
}

function extendedHeaders(context: OptionContext, body: Buffer): OptionOutcome {
  requireEmpty(body)
  if (context.negotiated.style === 'extended') {
    throw new OptionRefusal(OptionReply.ERR_INVALID, 'extended headers are on already')
  }
  context.negotiated.style = 'extended'
  context.reply(OptionReply.ACK)
  return goesOn
}

function requireStructured(context: OptionContext): void {
  if (context.negotiated.style !== 'simple') return
  throw new OptionRefusal(OptionReply.ERR_INVALID, 'negotiate STRUCTURED_REPLY first')
}

function requireFewQueries(context: OptionContext, queries: readonly string[]): void {
  const countMax = context.limits.contextQueryCountMax
  if (queries.length <= countMax) return
  throw new OptionRefusal(OptionReply.ERR_TOO_BIG, `at most ${countMax} queries`)
}

function listMetaContext(context: OptionContext, body: Buffer): OptionOutcome {
  requireStructured(context)
  const { name, queries } = parseContextBody(body, context.limits)
  requireFewQueries(context, queries)
  const target = findExport(context, name)
  const isWanted = (found: string): boolean =>
    queries.length === 0 ||
    queries.some((query) => (query.endsWith(':') ? found.startsWith(query) : found === query))
  for (const found of target.metaContexts()) {
    if (isWanted(found)) context.reply(OptionReply.META_CONTEXT, u32Of(0), Buffer.from(found))
  }
  context.reply(OptionReply.ACK)
  return goesOn
}

function setMetaContext(context: OptionContext, body: Buffer): OptionOutcome {
  const { negotiated, limits } = context
  // proto.md: this replaces what was selected before, also when it fails.
  negotiated.contexts = []
  negotiated.contextExport = ''
  requireStructured(context)
  const { name, queries } = parseContextBody(body, limits)
  requireFewQueries(context, queries)
  const target = findExport(context, name)
  const wanted = new Set(queries)
  const selected = target
    .metaContexts()
    .filter((found) => wanted.has(found))
    .map((found, index) => ({ id: index + 1, name: found }))
  if (selected.length > limits.contextCountMax) {
    const message = `at most ${limits.contextCountMax} contexts`
    throw new OptionRefusal(OptionReply.ERR_TOO_BIG, message)
  }
  for (const { id, name: selectedName } of selected) {
    context.reply(OptionReply.META_CONTEXT, u32Of(id), Buffer.from(selectedName))
  }
  context.reply(OptionReply.ACK)
  negotiated.contexts = selected
  negotiated.contextExport = name
  return goesOn
}

/** The options that every server knows, by number. */
export function standardOptions(limits: Limits): ReadonlyMap<number, OptionHandler> {
  const nameBytes = limits.nameBytesMax
  const anyBytes = limits.optionBytesMax
  // What takes no data is still read, so that the refusal can say so.
  const noneBytes = nameBytes
  return new Map<number, OptionHandler>([
    [OptionCode.EXPORT_NAME, { name: 'EXPORT_NAME', bodyBytesMax: nameBytes, handle: exportName }],
    [OptionCode.ABORT, { name: 'ABORT', bodyBytesMax: anyBytes, handle: abort }],
    [OptionCode.LIST, { name: 'LIST', bodyBytesMax: noneBytes, handle: list }],
    [OptionCode.STARTTLS, { name: 'STARTTLS', bodyBytesMax: noneBytes, handle: startTls }],
    [OptionCode.INFO, { name: 'INFO', bodyBytesMax: anyBytes, handle: info }],
    [OptionCode.GO, { name: 'GO', bodyBytesMax: anyBytes, handle: go }],
    [
      OptionCode.STRUCTURED_REPLY,
      { name: 'STRUCTURED_REPLY', bodyBytesMax: noneBytes, handle: structuredReply },
    ],
    [
      OptionCode.LIST_META_CONTEXT,
      { name: 'LIST_META_CONTEXT', bodyBytesMax: anyBytes, handle: listMetaContext },
    ],
    [
      OptionCode.SET_META_CONTEXT,
      { name: 'SET_META_CONTEXT', bodyBytesMax: anyBytes, handle: setMetaContext },
    ],
    [
      OptionCode.EXTENDED_HEADERS,
      { name: 'EXTENDED_HEADERS', bodyBytesMax: noneBytes, handle: extendedHeaders },
    ],
  ])
}
