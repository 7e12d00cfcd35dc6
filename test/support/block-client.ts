// A small NBD client of its own kind: EXPORT_NAME, simple replies, requests in flight. It shares no code with nbd/, so that the server
// and its judge cannot err together. A lost connection rejects everything that waits with `ConnectionLost`.
import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { withDeadline } from './process.js'

export class ConnectionLost extends Error {
  override readonly name = 'ConnectionLost'
}

const Command = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, WRITE_ZEROES: 6 } as const
type Waiting = {
  readonly readBytes: number
  readonly resolve: (data: Buffer) => void
  readonly reject: (error: Error) => void
}

export class BlockClient {
  readonly sizeBytes: number
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  #cookie = 0
  #unread: Buffer
  #isLost = false

  private constructor(socket: Socket, sizeBytes: number, unread: Buffer) {
    this.#socket = socket
    this.sizeBytes = sizeBytes
    this.#unread = unread
    socket.on('data', (data: Buffer) => {
      this.#unread = this.#unread.length === 0 ? data : Buffer.concat([this.#unread, data])
      this.#takeReplies()
    })
    socket.on('close', () => {
      this.#isLost = true
      for (const { reject } of this.#waiting.values()) reject(new ConnectionLost('closed'))
      this.#waiting.clear()
    })
  }

  static async open(socketPath: string, name: string): Promise<BlockClient> {
    const socket = connect(socketPath)
    const failed = new Promise<never>((_, reject) => {
      socket.once('error', () => reject(new ConnectionLost('no connection')))
      socket.once('close', () => reject(new ConnectionLost('closed in the handshake')))
    })
    failed.catch(() => {})
    socket.on('error', () => {})
    let received: Buffer = Buffer.alloc(0)
    let wake = (): void => {}
    const take = (data: Buffer): void => {
      received = Buffer.concat([received, data])
      wake()
    }
    socket.on('data', take)
    const atLeast = async (lengthBytes: number): Promise<void> => {
      while (received.length < lengthBytes) {
        const more = new Promise<void>((resolve) => {
          wake = resolve
        })
        await Promise.race([more, failed])
      }
    }
    await atLeast(18)
    assert.equal(received.toString('latin1', 0, 16), 'NBDMAGICIHAVEOPT')
    const option = Buffer.alloc(20)
    option.writeUInt32BE(3, 0) // Fixed newstyle, no zeroes.
    option.write('IHAVEOPT', 4, 'latin1')
    option.writeUInt32BE(1, 12) // EXPORT_NAME.
    option.writeUInt32BE(Buffer.byteLength(name), 16)
    socket.write(Buffer.concat([option, Buffer.from(name)]))
    await atLeast(28)
    socket.off('data', take)
    return new BlockClient(socket, Number(received.readBigUInt64BE(18)), received.subarray(28))
  }

  read(offset: number, lengthBytes: number): Promise<Buffer> {
    return this.#send({ command: Command.READ, offset, lengthBytes, readBytes: lengthBytes })
  }

  async write(offset: number, data: Buffer, options: { readonly fua: boolean }): Promise<void> {
    const { fua } = options
    await this.#send({ command: Command.WRITE, offset, lengthBytes: data.length, fua, data })
  }

  async zero(
    offset: number,
    lengthBytes: number,
    options: { readonly fua: boolean; readonly trim: boolean },
  ): Promise<void> {
    const command = options.trim ? Command.TRIM : Command.WRITE_ZEROES
    await this.#send({ command, offset, lengthBytes, fua: options.fua })
  }

  async flush(): Promise<void> {
    await this.#send({ command: Command.FLUSH, offset: 0, lengthBytes: 0 })
  }

  /** All of it, in pieces. */
  async readAll(): Promise<Buffer> {
    const pieceBytes = 1024 * 1024
    const count = Math.ceil(this.sizeBytes / pieceBytes)
    const pieces = Array.from({ length: count }, (_, index) => {
      const offset = index * pieceBytes
      return this.read(offset, Math.min(pieceBytes, this.sizeBytes - offset))
    })
    return Buffer.concat(await Promise.all(pieces))
  }

  /** Says goodbye and resolves when the server has closed the connection: the export is free again then. */
  async close(): Promise<void> {
    if (this.#isLost) return
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()))
    this.#send({ command: Command.DISC, offset: 0, lengthBytes: 0 }).catch(() => {}) // It has no answer.
    await withDeadline(closed, 30_000, () => 'the server closes after a goodbye')
  }

  #send(request: {
    readonly command: number
    readonly offset: number
    readonly lengthBytes: number
    readonly readBytes?: number
    readonly fua?: boolean
    readonly data?: Buffer
  }): Promise<Buffer> {
    if (this.#isLost) return Promise.reject(new ConnectionLost('closed'))
    const cookie = ++this.#cookie
    const header = Buffer.alloc(28)
    header.writeUInt32BE(0x25609513, 0)
    header.writeUInt16BE(request.fua ? 1 : 0, 4)
    header.writeUInt16BE(request.command, 6)
    header.writeBigUInt64BE(BigInt(cookie), 8)
    header.writeBigUInt64BE(BigInt(request.offset), 16)
    header.writeUInt32BE(request.lengthBytes, 24)
    const answer = new Promise<Buffer>((resolve, reject) => {
      this.#waiting.set(cookie, { readBytes: request.readBytes ?? 0, resolve, reject })
    })
    this.#socket.write(request.data ? Buffer.concat([header, request.data]) : header)
    return answer
  }

  #takeReplies(): void {
    let start = 0
    while (this.#unread.length - start >= 16) {
      assert.equal(this.#unread.readUInt32BE(start), 0x67446698, 'not a simple reply')
      const errno = this.#unread.readUInt32BE(start + 4)
      const cookie = Number(this.#unread.readBigUInt64BE(start + 8))
      const waiting = this.#waiting.get(cookie)
      assert(waiting, 'an answer to nothing')
      const readBytes = errno === 0 ? waiting.readBytes : 0
      if (this.#unread.length - start < 16 + readBytes) break
      this.#waiting.delete(cookie)
      const data = this.#unread.subarray(start + 16, start + 16 + readBytes)
      if (errno === 0) waiting.resolve(data)
      else waiting.reject(new Error(`the server answered with error ${errno}`))
      start += 16 + readBytes
    }
    this.#unread = this.#unread.subarray(start)
  }
}
