// The handshake of one connection, from the greeting to transmission, as linear code over a pull reader. Everything a client can send
// here is bounded: options by number and length, the whole by a deadline that the caller sets.
//
// Invariant: nothing that came before STARTTLS counts after it, neither what was negotiated nor bytes that were sent too early.
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { ByteReader } from './bytes/byte-reader.js'
import { ProtocolError } from './bytes/protocol-error.js'
import { ClientFlag, HandshakeFlag, OptionCode, OptionReply } from './constants.js'
import type { Export, ExportList } from './export.js'
import type { Limits } from './limits.js'
import { ClientGreeting, OptionHeader, OptionReplyHeader, ServerGreeting } from './messages.js'
import {
  type Negotiated,
  newNegotiated,
  type OptionContext,
  type OptionHandler,
  type OptionOutcome,
  runOption,
} from './options.js'
import type { ReplyStyle } from './replies.js'
import type { MetaContext } from './status.js'
import { clipUtf8 } from './text.js'

/** How an embedder offers TLS. `start` makes the server's side on a socket that nobody reads; it resolves when the peer is proven. */
export type TlsOffer = {
  /** Refuses every other option until TLS is on. */
  readonly isRequired: boolean
  start(stream: Duplex): Promise<Duplex>
}

/** What a private option's handler has in hand. */
export type PrivateOptionContext = {
  readonly body: Buffer
  readonly isTls: boolean
  readonly peer: string
  /** The same object for every option of this connection, another one after STARTTLS: a key for what an option must remember until the next. */
  readonly conversation: object
  /** Sends a reply and resolves when the client's system has it. Types of ACK and the errors end the option. */
  reply(type: number, data?: Buffer): Promise<void>
  /** The connection is the caller's from now on: nothing here reads, writes, limits or closes it. `received` came already. */
  takeOver(): { readonly stream: Duplex; readonly received: readonly Buffer[] }
}

/** An option that the embedder adds. Resolving without `takeOver` goes on with the handshake: a final reply must have been sent. */
export type PrivateOption = {
  readonly option: number
  readonly name: string
  readonly bodyBytesMax: number
  readonly handle: (context: PrivateOptionContext) => Promise<void>
}

export type HandshakeOptions = {
  readonly stream: Duplex
  readonly peer: string
  readonly limits: Limits
  readonly exports: ExportList
  readonly options: ReadonlyMap<number, OptionHandler>
  readonly privateOptions: ReadonlyMap<number, PrivateOption>
  readonly tls?: TlsOffer
  /** True while the server is stopping: options are answered with ERR_SHUTDOWN. */
  readonly isStopping: () => boolean
}

export type HandshakeResult =
  | {
      readonly kind: 'transmission'
      readonly stream: Duplex
      readonly received: readonly Buffer[]
      readonly target: Export
      readonly release: () => void
      readonly style: ReplyStyle
      readonly contexts: readonly MetaContext[]
    }
  | { readonly kind: 'aborted' }
  | { readonly kind: 'taken' }

export class Handshake {
  readonly #o: HandshakeOptions
  readonly #limits: Limits
  #stream: Duplex
  #reader: ByteReader
  #negotiated: Negotiated
  #hasNoZeroes = false
  #outgoing: Buffer[] = []
  #isTaken = false
  #conversation: object = {}

  constructor(options: HandshakeOptions) {
    this.#o = options
    this.#limits = options.limits
    this.#stream = options.stream
    this.#reader = this.#readerOver(options.stream)
    this.#negotiated = newNegotiated(false)
  }

  /** The socket, or the TLS stream that took its place. */
  get stream(): Duplex {
    return this.#stream
  }

  /** Rejects with ProtocolError when the client is to be dropped, with ConnectionEnded when it went away. */
  async run(): Promise<HandshakeResult> {
    await this.#greet()
    for (let count = 0; count < this.#optionCountMax; count++) {
      const result = await this.#nextOption()
      if (result) return result
    }
    throw new ProtocolError(`more than ${this.#optionCountMax} options`)
  }

  /** From the first byte on; grows as the options do. */
  get timeoutMs(): number {
    const { handshakeTimeoutMs, handshakePerExportMs } = this.#limits
    return handshakeTimeoutMs + handshakePerExportMs * this.#negotiated.listedCount
  }

  /** Grows with what was listed: nbdinfo and qemu-nbd ask for each export that LIST names on the one connection. */
  get #optionCountMax(): number {
    const { optionCountMax, optionsPerExportMax } = this.#limits
    return optionCountMax + optionsPerExportMax * this.#negotiated.listedCount
  }

  #readerOver(stream: Duplex): ByteReader {
    return ByteReader.over(stream, { bufferedBytesMax: this.#limits.optionBytesMax })
  }

  async #greet(): Promise<void> {
    const handshakeFlags = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
    await this.#send([ServerGreeting.encode({ handshakeFlags })])
    const { flags } = ClientGreeting.decode(await this.#reader.read(ClientGreeting.lengthBytes))
    // proto.md: the server MUST drop a client that sets a flag it does not know.
    const unknown = flags & ~(ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES)
    if (unknown !== 0) throw new ProtocolError(`unknown client flags ${unknown >>> 0}`)
    this.#hasNoZeroes = (flags & ClientFlag.NO_ZEROES) !== 0
  }

  async #nextOption(): Promise<HandshakeResult | undefined> {
    const header = OptionHeader.decode(await this.#reader.read(OptionHeader.lengthBytes))
    const { option, lengthBytes } = header
    const handler = this.#o.options.get(option)
    const privateOption = this.#o.privateOptions.get(option)
    const bodyBytesMax = handler?.bodyBytesMax ?? privateOption?.bodyBytesMax
    if (lengthBytes > (bodyBytesMax ?? this.#limits.optionBytesMax)) {
      return this.#refuseTooBig(option, lengthBytes)
    }
    if (bodyBytesMax === undefined) await this.#reader.skip(lengthBytes)
    const body = bodyBytesMax === undefined ? undefined : await this.#reader.read(lengthBytes)

    const refusal = this.#policyRefusal(option)
    if (refusal) return this.#refuse(option, refusal.type, refusal.message)
    if (privateOption && body) return this.#runPrivate(privateOption, body)
    if (!handler || !body) {
      return this.#refuse(option, OptionReply.ERR_UNSUP, 'this option is not known')
    }
    const outcome = runOption(handler, this.#contextOf(option), body)
    // Before the client can know that TLS begins: what is here by now was sent in the clear.
    if (outcome.kind === 'start-tls' && this.#reader.detach().length > 0) {
      throw new ProtocolError('bytes behind STARTTLS')
    }
    try {
      await this.#flush()
    } catch (error) {
      if (outcome.kind === 'transmission') outcome.release()
      throw error
    }
    return this.#after(outcome)
  }

  /** What is refused whatever the option says. */
  #policyRefusal(option: number): { type: OptionReply; message: string } | undefined {
    if (option === OptionCode.ABORT) return undefined
    if (this.#o.isStopping()) {
      return { type: OptionReply.ERR_SHUTDOWN, message: 'the server is stopping' }
    }
    if (!this.#o.tls?.isRequired || this.#negotiated.isTls) return undefined
    if (option === OptionCode.STARTTLS) return undefined
    return { type: OptionReply.ERR_TLS_REQD, message: 'start TLS first' }
  }

  /** A body that is too long for its option is thrown away; one that is too long for any ends the connection. */
  async #refuseTooBig(option: number, lengthBytes: number): Promise<undefined> {
    if (lengthBytes <= this.#limits.optionBytesMax) {
      await this.#reader.skip(lengthBytes)
      return this.#refuse(option, OptionReply.ERR_TOO_BIG, 'this option has too much data')
    }
    const message = `an option has at most ${this.#limits.optionBytesMax} bytes of data`
    await this.#refuse(option, OptionReply.ERR_TOO_BIG, message)
    throw new ProtocolError(`option ${option} with ${lengthBytes} bytes of data`)
  }

  async #refuse(option: number, type: OptionReply, message: string): Promise<undefined> {
    // EXPORT_NAME has no error reply: proto.md wants the connection closed.
    if (option === OptionCode.EXPORT_NAME) throw new ProtocolError(`EXPORT_NAME: ${message}`)
    this.#contextOf(option).refuse(type, message)
    await this.#flush()
    return undefined
  }

  async #after(outcome: OptionOutcome): Promise<HandshakeResult | undefined> {
    switch (outcome.kind) {
      case 'continue':
        return undefined
      case 'abort':
        return { kind: 'aborted' }
      case 'close':
        throw new ProtocolError(outcome.message)
      case 'start-tls':
        await this.#startTls()
        return undefined
      case 'transmission': {
        const { target, release, contexts } = outcome
        const { style } = this.#negotiated
        const received = this.#reader.detach()
        return { ...outcome, stream: this.#stream, received, target, release, style, contexts }
      }
    }
  }

  async #startTls(): Promise<void> {
    assert(this.#o.tls !== undefined)
    this.#stream = await this.#o.tls.start(this.#stream)
    this.#stream.on('error', () => {}) // Whoever reads or writes hears of it too.
    this.#reader = this.#readerOver(this.#stream)
    this.#stream.resume()
    this.#negotiated = newNegotiated(true)
    this.#conversation = {}
  }

  async #runPrivate(option: PrivateOption, body: Buffer): Promise<HandshakeResult | undefined> {
    await option.handle({
      body,
      isTls: this.#negotiated.isTls,
      peer: this.#o.peer,
      conversation: this.#conversation,
      reply: (type, data) => {
        assert(!this.#isTaken)
        this.#contextOf(option.option).reply(type as OptionReply, ...(data ? [data] : []))
        return this.#flush()
      },
      takeOver: () => {
        assert(!this.#isTaken)
        this.#isTaken = true
        return { stream: this.#stream, received: this.#reader.detach() }
      },
    })
    return this.#isTaken ? { kind: 'taken' } : undefined
  }

  #contextOf(option: number): OptionContext {
    const reply = (type: OptionReply, ...data: readonly Buffer[]): void => {
      let lengthBytes = 0
      for (const part of data) lengthBytes += part.length
      this.#outgoing.push(OptionReplyHeader.encode({ option, type, lengthBytes }), ...data)
    }
    return {
      limits: this.#limits,
      exports: this.#o.exports,
      negotiated: this.#negotiated,
      hasNoZeroes: this.#hasNoZeroes,
      hasTls: this.#o.tls !== undefined,
      reply,
      refuse: (type, message) => reply(type, clipUtf8(message, this.#limits.messageBytesMax)),
      send: (data) => void this.#outgoing.push(data),
    }
  }

  #flush(): Promise<void> {
    const outgoing = this.#outgoing
    this.#outgoing = []
    return this.#send(outgoing)
  }

  /** Resolves once the system has the bytes: a client that does not read gets no second answer. */
  #send(parts: readonly Buffer[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#stream.write(Buffer.concat(parts), (error) => {
        if (error) reject(new ProtocolError(`the client went away: ${error.message}`))
        else resolve()
      })
    })
  }
}
