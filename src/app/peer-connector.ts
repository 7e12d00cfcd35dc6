// The calling side of a peer's connection: connects to the other node's NBD port, negotiates, proves the secret, and answers a stream whose next bytes are
// frames of the link. Whatever listens there is read with suspicion: little at a time, and not for long.
//
// Invariant: with a secret here, nothing is handed on before the other side has proven that it has the same.
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { ByteReader } from '../../nbd/bytes/byte-reader.js'
import { ConnectionEnded, ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { ClientFlag, HandshakeFlag, nameOf, OptionReply } from '../../nbd/constants.js'
import {
  ClientGreeting,
  OptionHeader,
  OptionReplyHeader,
  ServerGreeting,
} from '../../nbd/messages.js'
import type { Random } from '../core/clock.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import type { Connect } from '../engine/api.js'
import { isLoopback, parsePeerUri } from './listen.js'
import {
  GreetBody,
  GreetReply,
  isProof,
  type Nonces,
  nonceBytes,
  noProof,
  PeerFlag,
  PeerOption,
  Proof,
  peerProtocolVersion,
  proofOf,
} from './peer-protocol.js'
import { sameSecret } from './peer-secret.js'
import { calmConnection, enlargeSendBuffer } from './socket-options.js'

/** From the call to the last proof: two round trips, and a node that is busy. */
const connectTimeoutMs = 8_000
const otherAddress = 'give the address of the other node: lockstep peer set URI'

/** An answer is a few dozen bytes, a refusal at most a sentence. */
const answerBytesMax = 4096

export type ConnectorOptions = {
  readonly secret?: Buffer
  readonly random: Random
  readonly timeoutMs?: number
}

/** What ReplicationOptions.connect wants. Rejects with a LockstepError: one sentence without its full stop, and what to do. */
export function peerConnector(options: ConnectorOptions): Connect {
  return (uri, signal) => connectPeer(uri, signal, options)
}

async function connectPeer(
  uri: string,
  signal: AbortSignal,
  options: ConnectorOptions,
): Promise<Duplex> {
  const address = parsePeerUri(uri)
  const timeoutMs = options.timeoutMs ?? connectTimeoutMs
  const socket =
    address.kind === 'unix'
      ? connect({ path: address.path })
      : connect({ host: address.host, port: address.port, noDelay: true })
  // Whoever reads hears of it; between two owners it would end the process.
  socket.on('error', () => {})
  const late = setTimeout(() => socket.destroy(new TimedOut()), timeoutMs)
  const giveUp = (): void => {
    socket.destroy(new ConnectionEnded(0, 0))
  }
  signal.addEventListener('abort', giveUp)
  if (signal.aborted) giveUp()
  try {
    await connected(socket)
    checkAddress(socket, uri, options.secret)
    calmConnection(socket)
    enlargeSendBuffer(socket)
    const reader = ByteReader.over(socket, { bufferedBytesMax: answerBytesMax })
    await new Caller({ socket, reader, uri, ...options }).shakeHands()
    const rest = reader.detach()
    for (const piece of rest.reverse()) socket.unshift(piece)
    return socket
  } catch (error) {
    socket.destroy()
    throw explained(error, uri, timeoutMs)
  } finally {
    clearTimeout(late)
    signal.removeEventListener('abort', giveUp)
  }
}

function connected(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
    socket.once('close', () => reject(new ConnectionEnded(0, 0)))
  })
}

function checkAddress(socket: Socket, uri: string, secret: Buffer | undefined): void {
  const { remoteAddress } = socket
  if (secret !== undefined || remoteAddress === undefined || isLoopback(remoteAddress)) return
  throw unreachable(
    `the peer ${uri} is on another machine, and this node has no secret to prove itself with`,
    sameSecret,
  )
}

type Call = ConnectorOptions & {
  readonly socket: Socket
  readonly reader: ByteReader
  readonly uri: string
}

class Caller {
  readonly #o: Call

  constructor(options: Call) {
    this.#o = options
  }

  async shakeHands(): Promise<void> {
    const { reader, socket, random } = this.#o
    const greeting = ServerGreeting.decode(await reader.read(ServerGreeting.lengthBytes))
    if ((greeting.handshakeFlags & HandshakeFlag.FIXED_NEWSTYLE) === 0) {
      throw new ProtocolError('it does not speak the fixed newstyle negotiation')
    }
    socket.write(ClientGreeting.encode({ flags: ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES }))
    const version = { versionMin: peerProtocolVersion, versionMax: peerProtocolVersion }
    const caller = Buffer.from(random.hex(nonceBytes), 'hex')
    const greet = GreetBody.encode({ ...version, nonce: caller })
    const answer = GreetReply.decode(await this.#ask(PeerOption.GREET, greet, GreetReply))
    if (answer.version !== peerProtocolVersion) {
      throw new ProtocolError(`it speaks version ${answer.version}`)
    }
    await this.#prove({ caller, listener: Buffer.from(answer.nonce) }, answer.flags)
  }

  async #prove(nonces: Nonces, flags: number): Promise<void> {
    const { secret, uri } = this.#o
    const wantsProof = (flags & PeerFlag.HAS_SECRET) !== 0
    // It turns this node away for that, and so both know why.
    if (wantsProof && secret === undefined)
      await this.#ask(PeerOption.JOIN, noProof, Proof).catch((error: unknown) => {
        if (!(error instanceof LockstepError)) throw error
      })
    if (wantsProof !== (secret !== undefined)) {
      const [without, owner] = wantsProof
        ? ['this node', `the node at ${uri}`]
        : [`the node at ${uri}`, 'this node']
      throw unreachable(`${without} has no secret, and ${owner} has one`, sameSecret)
    }
    const proof = secret === undefined ? noProof : proofOf('caller', secret, nonces)
    const answer = await this.#ask(PeerOption.JOIN, proof, Proof)
    if (secret !== undefined && !isProof(answer, 'listener', secret, nonces)) {
      throw unreachable(
        `what listens at ${uri} does not know the secret: it is another node, or in between`,
        'find out who listens there before anything else',
      )
    }
  }

  /** The data behind the ACK of an option. */
  async #ask(
    option: number,
    body: Buffer,
    reply: { readonly lengthBytes: number },
  ): Promise<Buffer> {
    const { reader, socket, uri } = this.#o
    socket.write(Buffer.concat([OptionHeader.encode({ option, lengthBytes: body.length }), body]))
    const header = OptionReplyHeader.decode(await reader.read(OptionReplyHeader.lengthBytes))
    if (header.option !== option) throw new ProtocolError(`it answers option ${header.option}`)
    if (header.lengthBytes > answerBytesMax) throw new ProtocolError('its answer is too long')
    const data = await reader.read(header.lengthBytes)
    if (header.type !== OptionReply.ACK) throw refusalOf(option, header.type, data, uri)
    if (data.length !== reply.lengthBytes) throw new ProtocolError('its answer is cut')
    return data
  }
}

class TimedOut extends Error {}

function refusalOf(option: number, type: number, data: Buffer, uri: string): LockstepError {
  switch (type) {
    case OptionReply.ERR_UNSUP:
      return unreachable(
        `the NBD server at ${uri} is no Lockstep node, or one without replication`,
        otherAddress,
      )
    case OptionReply.ERR_TLS_REQD:
      return unreachable(
        `the node at ${uri} wants TLS, which this version does not speak`,
        'give the nodes a listener without TLS on a network of their own',
      )
    default: {
      const said = readable(data) || nameOf(OptionReply, type)
      const isSecret = option === PeerOption.JOIN && type === OptionReply.ERR_POLICY
      return unreachable(
        `the node at ${uri} refuses: ${said}`,
        isSecret ? sameSecret : 'lockstep status on the other node',
      )
    }
  }
}

/** What a stranger says, for a log and a terminal. */
function readable(data: Buffer): string {
  return data.toString('utf8', 0, 256).replaceAll(/[^\x20-\x7e\xa0-\uffff]/g, ' ')
}

/** Every failure as a sentence. */
function explained(error: unknown, uri: string, timeoutMs: number): unknown {
  const look = 'check that the other node runs and listens there: lockstep status on the other node'
  if (error instanceof LockstepError) return error
  if (error instanceof TimedOut) {
    return unreachable(`no answer from ${uri} within ${timeoutMs / 1000} s`, look)
  }
  if (error instanceof ConnectionEnded) {
    return unreachable(`the server at ${uri} closed the connection`, look)
  }
  if (error instanceof ProtocolError) {
    return unreachable(`what answers at ${uri} is no node: ${error.message}`, otherAddress)
  }
  const code = (error as { code?: unknown } | null)?.code
  if (typeof code !== 'string') return error
  return unreachable(sentenceOf(errnoNameOf(error), uri), look)
}

/** Begins with a word, not with the address: `status` puts it behind a full stop. */
function sentenceOf(errno: string, uri: string): string {
  switch (errno) {
    case 'ECONNREFUSED':
      return `nobody listens at ${uri} (ECONNREFUSED)`
    case 'ENOENT':
      return `there is no socket for ${uri} (ENOENT)`
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `the name in ${uri} has no address (${errno})`
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return `there is no way to ${uri} (${errno})`
    case 'ECONNRESET':
    case 'EPIPE':
      return `the connection to ${uri} was cut (${errno})`
    default:
      return `the connection to ${uri} failed (${errno})`
  }
}

function unreachable(message: string, action: string): LockstepError {
  return new LockstepError('PEER_UNREACHABLE', message, action)
}
