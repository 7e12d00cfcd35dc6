// A TCP proxy between two nodes that does what lines do: counts, cuts at a byte of its choice, stalls, throttles, flips a bit. Loopback only; it ends with the test.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Owner } from './server.js'

export type Way = 'out' | 'back'

type Pipe = { readonly client: Socket; readonly server: Socket }

/** Bytes that one read of a socket may bring; a throttle shares its time out over them. */
const pieceBytes = 64 * 1024

export class LineProxy {
  readonly #server: Server
  readonly #target: string
  readonly #pipes = new Set<Pipe>()
  readonly bytes: Record<Way, number> = { out: 0, back: 0 }
  connectionCount = 0
  /** New connections are closed at once. */
  isDown = false
  /** Nothing passes, and nobody is told. */
  isStalled = false
  /** Above 0: so many bytes a second, each way. */
  bytesPerSecondMax = 0
  /** Bytes, both ways together, behind which the connection is cut. */
  cutAfterBytes: number | undefined
  /** The same, of the way back only. */
  cutBackAfterBytes: number | undefined
  /** Bytes of the way out behind which the next one is changed, once. */
  flipAfterBytes: number | undefined
  flippedCount = 0

  private constructor(server: Server, target: string) {
    this.#server = server
    this.#target = target
    server.on('connection', (socket) => this.#connected(socket))
  }

  /** To whoever listens on the Unix socket `targetPath`, which outlives a restart as no port of the system would. */
  static async start(owner: Owner, targetPath: string): Promise<LineProxy> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const proxy = new LineProxy(server, targetPath)
    owner.teardown(() => proxy.end())
    return proxy
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  get uri(): string {
    return `nbd://127.0.0.1:${this.port}`
  }

  get totalBytes(): number {
    return this.bytes.out + this.bytes.back
  }

  /** No more faults. */
  calm(): void {
    this.cutAfterBytes = undefined
    this.cutBackAfterBytes = undefined
    this.flipAfterBytes = undefined
    this.isStalled = false
    this.bytesPerSecondMax = 0
  }

  /** Ends every connection now, as a cable does: without a word. */
  cut(): void {
    for (const { client, server } of this.#pipes) {
      client.destroy()
      server.destroy()
    }
  }

  end(): void {
    this.isDown = true
    this.#server.close()
    this.cut()
  }

  #connected(client: Socket): void {
    client.on('error', () => {})
    if (this.isDown) {
      client.destroy()
      return
    }
    this.connectionCount++
    const server = connect(this.#target)
    server.on('error', () => {})
    const pipe = { client, server }
    this.#pipes.add(pipe)
    const close = (): void => {
      this.#pipes.delete(pipe)
      client.destroy()
      server.destroy()
    }
    client.once('close', close)
    server.once('close', close)
    client.setNoDelay(true)

    void this.#carry(client, server, 'out').then(close, close)
    void this.#carry(server, client, 'back').then(close, close)
  }

  async #carry(from: Socket, to: Socket, way: Way): Promise<void> {
    for await (const read of from) {
      let piece = read as Buffer
      while (this.isStalled && !from.destroyed) await delay(5)
      if (this.bytesPerSecondMax > 0) {
        await delay((Math.min(piece.length, pieceBytes) / this.bytesPerSecondMax) * 1000)
      }
      piece = this.#spoilt(piece, way)
      this.bytes[way] += piece.length
      if (this.#isCutIn(piece, way)) {
        // What is left of the piece arrives: the cut is inside it.
        to.write(piece.subarray(0, piece.length >> 1), () => this.cut())
        return
      }
      if (!to.write(piece)) await drained(to)
    }
    to.end()
  }

  #isCutIn(piece: Buffer, way: Way): boolean {
    if (this.cutAfterBytes !== undefined) this.cutAfterBytes -= piece.length
    if (this.cutBackAfterBytes !== undefined && way === 'back')
      this.cutBackAfterBytes -= piece.length
    const isCut = (this.cutAfterBytes ?? 1) <= 0 || (this.cutBackAfterBytes ?? 1) <= 0
    if (isCut) {
      this.cutAfterBytes = undefined
      this.cutBackAfterBytes = undefined
    }
    return isCut
  }

  #spoilt(piece: Buffer, way: Way): Buffer {
    if (way !== 'out' || this.flipAfterBytes === undefined) return piece
    if (this.flipAfterBytes >= piece.length) {
      this.flipAfterBytes -= piece.length
      return piece
    }
    const changed = Buffer.from(piece)
    const at = this.flipAfterBytes
    changed[at] = (changed[at] ?? 0) ^ 0x10
    this.flipAfterBytes = undefined
    this.flippedCount++
    return changed
  }
}

/** Takes bytes again, or never will. */
function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      socket.off('drain', end).off('close', end)
      resolve()
    }
    socket.on('drain', end).on('close', end)
    if (socket.destroyed) end()
  })
}
