// A client of the same library: for tests, which also send through it what no client should, and for talking to a peer. The handshake
// is driven option by option; requests are pipelined and answered in any order.
//
// Invariant: each request in `#pending` settles exactly once: by its last reply, or by the end of the connection.
import assert from 'node:assert/strict'
import { connect, type NetConnectOpts } from 'node:net'
import type { Duplex } from 'node:stream'
import { ByteReader } from './bytes/byte-reader.js'
import { ConnectionEnded, ProtocolError } from './bytes/protocol-error.js'
import {
  ChunkFlag,
  ChunkType,
  ClientFlag,
  Command,
  CommandFlag,
  nameOf,
  OptionCode,
  OptionReply,
} from './constants.js'
import { Errno, type ErrnoName, RequestError } from './errors.js'
import {
  ClientGreeting,
  ErrorPayload,
  ExportNameReply,
  ExtendedChunk,
  ExtendedRequestHeader,
  exportNamePaddingBytes,
  OptionHeader,
  OptionReplyHeader,
  RequestHeader,
  ServerGreeting,
  SimpleReply,
  StructuredChunk,
} from './messages.js'
import { contextBody, infoBody } from './option-bodies.js'
import type { ReplyStyle } from './replies.js'

/** A server's replies are believed up to here: 32 MiB of data and its headers. */
const replyBytesMax = 33 * 1024 * 1024
/** Answers to one option, and chunks of one reply: a server lists at most so many exports, and cuts a read at most so finely. */
const answerCountMax = 65_536

export type OptionAnswer = { readonly type: number; readonly data: Buffer }

/** One chunk of an answer; a simple reply is one chunk with DONE. */
export type Chunk = { readonly type: number; readonly flags: number; readonly payload: Buffer }

export type ClientRequest = {
  readonly command: number
  readonly flags?: number
  readonly offset?: number | bigint
  readonly lengthBytes?: number | bigint
  readonly payload?: Buffer
  /** Chosen by the client unless given. */
  readonly cookie?: bigint
}

export type Answer = { readonly chunks: readonly Chunk[]; readonly error?: RequestError }

type Pending = {
  readonly command: number
  readonly lengthBytes: number
  readonly chunks: Chunk[]
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: Error) => void
}

export class OptionError extends Error {
  override readonly name = 'OptionError'
  readonly type: number
  constructor(answer: OptionAnswer) {
    super(`${nameOf(OptionReply, answer.type)}: ${answer.data.toString()}`)
    this.type = answer.type
  }
}

function errnoName(value: number): ErrnoName {
  const found = Object.entries(Errno).find(([, number]) => number === value)
  return found ? (found[0] as ErrnoName) : 'EINVAL'
}

export class NbdClient {
  readonly stream: Duplex
  readonly reader: ByteReader
  style: ReplyStyle = 'simple'
  #clientFlags = 0
  #nextCookie = 1n
  #pending = new Map<bigint, Pending>()
  #ended: Error | undefined
  #isTransmitting = false
  /** Settles when the connection is closed. Never rejects. */
  readonly closed: Promise<void>

  constructor(stream: Duplex) {
    this.stream = stream
    this.reader = ByteReader.over(stream, { bufferedBytesMax: replyBytesMax })
    stream.on('error', () => {})
    this.closed = new Promise((resolve) => stream.once('close', resolve))
  }

  /** Connects and exchanges greetings. */
  static async connect(
    to: NetConnectOpts,
    options: { readonly clientFlags?: number } = {},
  ): Promise<NbdClient> {
    const client = new NbdClient(connect({ noDelay: true, ...to }))
    await client.greet(options.clientFlags ?? ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES)
    return client
  }

  /** Resolves to the server's handshake flags. */
  async greet(clientFlags: number): Promise<number> {
    const greeting = ServerGreeting.decode(await this.reader.read(ServerGreeting.lengthBytes))
    this.#clientFlags = clientFlags
    this.send(ClientGreeting.encode({ flags: clientFlags }))
    return greeting.handshakeFlags
  }

  /** Bytes as they are. */
  send(...parts: readonly Buffer[]): void {
    for (const part of parts) this.stream.write(part)
  }

  /** Sends an option and resolves to its answers, the last of which is final: an ACK or an error. */
  async option(option: number, body: Buffer = Buffer.alloc(0)): Promise<readonly OptionAnswer[]> {
    this.send(Buffer.concat([OptionHeader.encode({ option, lengthBytes: body.length }), body]))
    const answers: OptionAnswer[] = []
    for (;;) {
      const answer = await this.readOptionReply(option)
      if (answers.length === answerCountMax) throw new ProtocolError('answers without end')
      answers.push(answer)
      if (answer.type === OptionReply.ACK || answer.type >= 0x8000_0000) return answers
    }
  }

  async readOptionReply(option: number): Promise<OptionAnswer> {
    const header = OptionReplyHeader.decode(await this.reader.read(OptionReplyHeader.lengthBytes))
    if (header.option !== option) throw new ProtocolError(`an answer to option ${header.option}`)
    if (header.lengthBytes > replyBytesMax) throw new ProtocolError('an answer that is too long')
    return { type: header.type, data: await this.reader.read(header.lengthBytes) }
  }

  /** As `option`, without the final ACK; an error reply is thrown. */
  async expectAck(option: number, body?: Buffer): Promise<readonly OptionAnswer[]> {
    const answers = await this.option(option, body)
    const last = answers[answers.length - 1]
    assert(last !== undefined)
    if (last.type !== OptionReply.ACK) throw new OptionError(last)
    return answers.slice(0, -1)
  }

  async negotiateStructured(): Promise<void> {
    await this.expectAck(OptionCode.STRUCTURED_REPLY)
    this.style = 'structured'
  }

  async negotiateExtended(): Promise<void> {
    await this.expectAck(OptionCode.EXTENDED_HEADERS)
    this.style = 'extended'
  }

  /** Names and descriptions. */
  async list(): Promise<readonly { readonly name: string; readonly description: string }[]> {
    const answers = await this.expectAck(OptionCode.LIST)
    return answers.map(({ data }) => {
      const nameEnd = 4 + atLeast(data, 4).readUInt32BE(0)
      atLeast(data, nameEnd)
      return {
        name: data.toString('utf8', 4, nameEnd),
        description: data.toString('utf8', nameEnd),
      }
    })
  }

  /** Context names with their ids. */
  async metaContexts(
    option: typeof OptionCode.LIST_META_CONTEXT | typeof OptionCode.SET_META_CONTEXT,
    name: string,
    queries: readonly string[],
  ): Promise<readonly { readonly id: number; readonly name: string }[]> {
    const answers = await this.expectAck(option, contextBody(name, queries))
    return answers.map(({ data }) => ({
      id: atLeast(data, 4).readUInt32BE(0),
      name: data.toString('utf8', 4),
    }))
  }

  /** Enters transmission; resolves to the information that the server gave, by type. */
  async go(name: string, infos: readonly number[] = []): Promise<ReadonlyMap<number, Buffer>> {
    const answers = await this.expectAck(OptionCode.GO, infoBody(name, infos))
    void this.#readReplies()
    return infosOf(answers)
  }

  async info(name: string, infos: readonly number[] = []): Promise<ReadonlyMap<number, Buffer>> {
    return infosOf(await this.expectAck(OptionCode.INFO, infoBody(name, infos)))
  }

  /** Enters transmission the old way. */
  async exportName(name: string): Promise<{ sizeBytes: number; transmissionFlags: number }> {
    const body = Buffer.from(name)
    const option = OptionCode.EXPORT_NAME
    this.send(OptionHeader.encode({ option, lengthBytes: body.length }), body)
    const reply = ExportNameReply.decode(await this.reader.read(ExportNameReply.lengthBytes))
    if (!(this.#clientFlags & ClientFlag.NO_ZEROES)) {
      const padding = await this.reader.read(exportNamePaddingBytes)
      if (padding.some((byte) => byte !== 0)) throw new ProtocolError('padding that is not zero')
    }
    void this.#readReplies()
    return reply
  }

  /** Sends a request and resolves to its whole answer, an error included. Rejects when the connection ends before. */
  request(request: ClientRequest): Promise<Answer> {
    assert(this.#isTransmitting, 'requests come after GO')
    if (this.#ended) return Promise.reject(this.#ended)
    const cookie = request.cookie ?? this.#nextCookie++
    return new Promise((resolve, reject) => {
      const lengthBytes = Number(request.lengthBytes ?? request.payload?.length ?? 0)
      const { command } = request
      this.#pending.set(cookie, { command, lengthBytes, chunks: [], resolve, reject })
      this.send(this.encodeRequest({ ...request, cookie }))
      if (request.payload) this.send(request.payload)
    })
  }

  /** A request's header as this connection has negotiated it. */
  encodeRequest(request: ClientRequest): Buffer {
    const { command: type, flags = 0, cookie = 0n } = request
    const offset = BigInt(request.offset ?? 0)
    const lengthBytes = request.lengthBytes ?? request.payload?.length ?? 0
    if (this.style === 'extended') {
      const length = BigInt(lengthBytes)
      const header = { flags, type, cookie, offset, lengthBytes: length }
      return ExtendedRequestHeader.encode(header)
    }
    const header = { flags, type, cookie, offset, lengthBytes: Number(lengthBytes) }
    return RequestHeader.encode(header)
  }

  async read(range: { offset: number; lengthBytes: number; flags?: number }): Promise<Buffer> {
    const answer = await this.#succeed({ command: Command.READ, ...range })
    if (this.style === 'simple') return answer.chunks[0]?.payload ?? Buffer.alloc(0)
    return assemble(answer.chunks, range)
  }

  async write(request: { offset: number; data: Buffer; fua?: boolean }): Promise<void> {
    const payloadFlag = this.style === 'extended' ? CommandFlag.PAYLOAD_LEN : 0
    await this.#succeed({
      command: Command.WRITE,
      offset: request.offset,
      flags: payloadFlag | (request.fua ? CommandFlag.FUA : 0),
      payload: request.data,
    })
  }

  /** Everything without payload: throws the RequestError that the server answered. */
  async command(command: number, request: Partial<ClientRequest> = {}): Promise<readonly Chunk[]> {
    return (await this.#succeed({ ...request, command })).chunks
  }

  /** Says goodbye and resolves when the server has closed the connection. */
  async disconnect(): Promise<void> {
    this.send(this.encodeRequest({ command: Command.DISC }))
    await this.closed
  }

  destroy(): void {
    this.stream.destroy()
  }

  async #succeed(request: ClientRequest): Promise<Answer> {
    const answer = await this.request(request)
    if (answer.error) throw answer.error
    return answer
  }

  async #readReplies(): Promise<void> {
    this.#isTransmitting = true
    try {
      for (;;) await this.#readReply()
    } catch (error) {
      this.#ended = error instanceof Error ? error : new Error(String(error))
      for (const pending of this.#pending.values()) pending.reject(this.#ended)
      this.#pending.clear()
      if (error instanceof ConnectionEnded) this.stream.end()
      else this.stream.destroy()
    }
  }

  async #readReply(): Promise<void> {
    if (this.style === 'extended') {
      const header = ExtendedChunk.decode(await this.reader.read(ExtendedChunk.lengthBytes))
      return this.#readChunk(header)
    }
    const start = await this.reader.read(SimpleReply.lengthBytes)
    if (this.style === 'structured' && start.readUInt32BE(0) === 0x668e33ef) {
      const rest = await this.reader.read(StructuredChunk.lengthBytes - SimpleReply.lengthBytes)
      return this.#readChunk(StructuredChunk.decode(Buffer.concat([start, rest])))
    }
    const { error, cookie } = SimpleReply.decode(start)
    const pending = this.#pendingOf(cookie)
    const hasData = pending.command === Command.READ && error === 0
    const payload = await this.reader.read(hasData ? pending.lengthBytes : 0)
    this.#pending.delete(cookie)
    const chunks = [{ type: ChunkType.NONE, flags: ChunkFlag.DONE, payload }]
    const failure = error ? { error: new RequestError(errnoName(error), '') } : {}
    pending.resolve({ chunks, ...failure })
  }

  async #readChunk(header: {
    flags: number
    type: number
    cookie: bigint
    lengthBytes: number
  }): Promise<void> {
    if (header.lengthBytes > replyBytesMax) throw new ProtocolError('a reply that is too long')
    const payload = await this.reader.read(header.lengthBytes)
    const pending = this.#pendingOf(header.cookie)
    if (pending.chunks.length === answerCountMax) throw new ProtocolError('chunks without end')
    pending.chunks.push({ type: header.type, flags: header.flags, payload })
    if (!(header.flags & ChunkFlag.DONE)) return
    const failed = pending.chunks.find(({ type }) => type & 0x8000)
    const failure = failed ? { error: errorOf(failed) } : {}
    this.#pending.delete(header.cookie)
    pending.resolve({ chunks: pending.chunks, ...failure })
  }

  #pendingOf(cookie: bigint): Pending {
    const pending = this.#pending.get(cookie)
    if (!pending) throw new ProtocolError(`an answer to ${cookie}, which was not asked`)
    return pending
  }
}

function errorOf(chunk: Chunk): RequestError {
  const { error, messageBytes } = ErrorPayload.decode(
    atLeast(chunk.payload, ErrorPayload.lengthBytes),
  )
  const start = ErrorPayload.lengthBytes
  if (start + messageBytes > chunk.payload.length) throw new ProtocolError('an error message')
  const message = chunk.payload.toString('utf8', start, start + messageBytes)
  return new RequestError(errnoName(error), message)
}

/** The data of a structured read. Throws ProtocolError unless the chunks cover the range exactly once. */
function assemble(
  chunks: readonly Chunk[],
  range: { readonly offset: number; readonly lengthBytes: number },
): Buffer {
  const data = Buffer.alloc(range.lengthBytes)
  const covered: { readonly at: number; readonly end: number }[] = []
  for (const { type, payload } of chunks) {
    if (type === ChunkType.NONE) continue
    const isHole = type === ChunkType.OFFSET_HOLE
    if (!isHole && type !== ChunkType.OFFSET_DATA)
      throw new ProtocolError(`a chunk of type ${type}`)
    const at = Number(atLeast(payload, isHole ? 12 : 8).readBigUInt64BE(0)) - range.offset
    const lengthBytes = isHole ? payload.readUInt32BE(8) : payload.length - 8
    if (at < 0 || at + lengthBytes > range.lengthBytes) throw new ProtocolError('a stray chunk')
    if (!isHole) payload.copy(data, at, 8)
    covered.push({ at, end: at + lengthBytes })
  }
  let end = 0
  for (const chunk of covered.sort((a, b) => a.at - b.at)) {
    if (chunk.at !== end) throw new ProtocolError('chunks that overlap or leave a gap')
    end = chunk.end
  }
  if (end !== range.lengthBytes) throw new ProtocolError('chunks that overlap or leave a gap')
  return data
}

function atLeast(bytes: Buffer, lengthBytes: number): Buffer {
  if (bytes.length < lengthBytes) throw new ProtocolError('an answer that is too short')
  return bytes
}

function infosOf(answers: readonly OptionAnswer[]): ReadonlyMap<number, Buffer> {
  return new Map(answers.map(({ data }) => [atLeast(data, 2).readUInt16BE(0), data.subarray(2)]))
}
