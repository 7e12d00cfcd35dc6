// One end of a link in the hands of a test, over TCP to a real daemon: as the primary that calls, or as the secondary that is called. It shakes hands as a node does, and
// then sends what the test says: frames, right or wrong, or any bytes.
//
// Invariant: its handshake and its frames are the real ones, so what it gets wrong is what the test meant to. It ends with the test.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { crc32 } from 'node:zlib'
import { ByteReader } from '../../nbd/bytes/byte-reader.js'
import {
  ClientGreeting,
  OptionHeader,
  OptionReplyHeader,
  ServerGreeting,
} from '../../nbd/messages.js'
import { peerConnector } from '../../src/app/peer-connector.js'
import { GreetReply, nonceBytes, noProof, PeerOption } from '../../src/app/peer-protocol.js'
import { systemRandom } from '../../src/app/system.js'
import type { Generation, Sequence } from '../../src/core/units.js'
import { encodeFrame } from '../../src/replication/frame-encoder.js'
import { type FrameHead, layHead } from '../../src/replication/frame-head.js'
import { FrameReader } from '../../src/replication/frame-reader.js'
import type { Frame, Side } from '../../src/replication/frames.js'
import type { Hello } from '../../src/replication/hello.js'
import { withDeadline } from './process.js'
import type { Owner } from './server.js'

const waitTimeoutMs = 20_000

export class ScriptedPeer {
  readonly socket: Socket
  readonly #reader: FrameReader
  readonly #frames: Frame[] = []
  #wake: () => void = () => {}
  #isClosed = false
  /** Resolves when the daemon, or the test, has ended the connection. */
  readonly closed: Promise<void>

  /** `socket` has shaken hands. */
  constructor(socket: Socket, side: Side) {
    this.socket = socket
    this.#reader = new FrameReader(side === 'primary' ? 'secondary' : 'primary')
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#isClosed = true
        resolve()
        this.#wake()
      })
    })
    socket.on('error', () => {})
    socket.on('data', (piece: Buffer) => this.#take(piece))
    socket.resume()
  }

  /** A primary's connection to the node that listens there. */
  static async dial(owner: Owner, uri: string): Promise<ScriptedPeer> {
    const socket = await peerConnector({ random: systemRandom })(uri, new AbortController().signal)
    owner.teardown(() => socket.destroy())
    return new ScriptedPeer(socket as Socket, 'primary')
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  send(frame: Frame): void {
    this.raw(bytesOf(frame))
  }

  raw(bytes: Buffer): void {
    if (!this.socket.destroyed) this.socket.write(bytes)
  }

  hello(hello: Hello): void {
    this.send({ kind: 'hello', body: { ...hello } })
  }

  /** The oldest frame of this kind that nobody has asked for; waits for it. Rejects when the connection ends. */
  async next<Kind extends Frame['kind']>(kind: Kind): Promise<Extract<Frame, { kind: Kind }>> {
    const find = async (): Promise<Extract<Frame, { kind: Kind }>> => {
      for (;;) {
        const index = this.#frames.findIndex((frame) => frame.kind === kind)
        if (index >= 0) return this.#frames.splice(index, 1)[0] as Extract<Frame, { kind: Kind }>
        assert(!this.#isClosed, `the connection ended before a ${kind} frame`)
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    }
    return withDeadline(find(), waitTimeoutMs, () => `a ${kind} frame`)
  }

  /** Resolves when the daemon has ended the connection. */
  ended(): Promise<void> {
    return withDeadline(this.closed, waitTimeoutMs, () => 'the daemon ends the connection')
  }

  #take(piece: Buffer): void {
    this.#reader.push(piece)
    for (let frame = this.#reader.next(); frame !== undefined; frame = this.#reader.next())
      this.#frames.push(frame)
    this.#wake()
  }
}

/** Listens where a primary looks for its secondary. What it does with a call that has shaken hands is the test's affair. */
export class ScriptedListener {
  readonly #server: Server
  /** Instead of the handshake. */
  onCall: ((socket: Socket) => void) | undefined
  onPeer: (peer: ScriptedPeer) => void = () => {}
  callCount = 0

  private constructor(server: Server) {
    this.#server = server
    server.on('connection', (socket) => {
      socket.on('error', () => {})
      this.callCount++
      if (this.onCall !== undefined) this.onCall(socket)
      else void this.#shakeHands(socket)
    })
  }

  static async start(owner: Owner): Promise<ScriptedListener> {
    const sockets = new Set<Socket>()
    const server = createServer((socket) => sockets.add(socket)).listen(0, '127.0.0.1')
    await once(server, 'listening')
    owner.teardown(() => {
      server.close()
      for (const socket of sockets) socket.destroy()
    })
    return new ScriptedListener(server)
  }

  get uri(): string {
    return `nbd://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** As a node without a secret does. */
  async #shakeHands(socket: Socket): Promise<void> {
    const reader = ByteReader.over(socket, { bufferedBytesMax: 65536 })
    const answer = async (option: number, data: Buffer): Promise<void> => {
      const header = OptionHeader.decode(await reader.read(OptionHeader.lengthBytes))
      assert.equal(header.option, option)
      await reader.read(header.lengthBytes)
      const reply = OptionReplyHeader.encode({ option, type: 1, lengthBytes: data.length })
      socket.write(Buffer.concat([reply, data]))
    }
    try {
      socket.write(ServerGreeting.encode({ handshakeFlags: 3 }))
      await reader.read(ClientGreeting.lengthBytes)
      const nonce = Buffer.alloc(nonceBytes, 7)
      await answer(PeerOption.GREET, GreetReply.encode({ version: 1, flags: 0, nonce }))
      await answer(PeerOption.JOIN, noProof)
    } catch {
      // The caller went away.
      socket.destroy()
      return
    }
    for (const piece of reader.detach().reverse()) socket.unshift(piece)
    this.onPeer(new ScriptedPeer(socket, 'secondary'))
  }
}

/** Any head, right or wrong but for its checksum, and any payload behind it. */
export function oddFrame(
  head: Partial<FrameHead> & Pick<FrameHead, 'type'>,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const numbers = { flags: 0, storeId: 0, sequence: 0, offset: 0, lengthBytes: 0 }
  const payloadCrc = crc32(payload)
  const laid = layHead({ ...numbers, payloadBytes: payload.length, payloadCrc, ...head })
  return Buffer.concat([laid, payload])
}

/** One bit of it is another one. */
export function flipped(bytes: Buffer, at: number): Buffer {
  const changed = Buffer.from(bytes)
  changed[at] = (changed[at] ?? 0) ^ 1
  return changed
}

export function bytesOf(frame: Frame): Buffer {
  const { head, parts } = encodeFrame(frame)
  return Buffer.concat([head, ...parts])
}

/** What a node says of itself when a primary calls it; whoever called goes away again. */
export async function helloFrom(owner: Owner, uri: string, mine: Hello): Promise<Hello> {
  const peer = await ScriptedPeer.dial(owner, uri)
  peer.hello(mine)
  const { body } = await peer.next('hello')
  peer.socket.destroy()
  await peer.closed
  return body as unknown as Hello
}

/** Of a primary of a group of its own. */
export function strangerHello(of: Partial<Hello> = {}): Hello {
  return {
    versionMin: 1,
    versionMax: 1,
    nodeId: 'a-stranger',
    node: 'stranger',
    group: 'a-group-of-strangers',
    role: 'primary',
    isBlank: false,
    isWhole: true,
    chunkBytes: 65536,
    generations: [{ generation: 'a'.repeat(32) as Generation, forkSequence: 0 }],
    sequence: 0 as Sequence,
    runs: [],
    batchNumber: 0,
    ...of,
  }
}
