// A line between two nodes that counts what passes, both ways. Loopback only.
import net, { type AddressInfo } from 'node:net'

export class WireCounter {
  readonly #server: net.Server
  readonly #sockets = new Set<net.Socket>()
  bytes = 0

  private constructor(server: net.Server) {
    this.#server = server
  }

  /** To whoever listens on the Unix socket `targetPath` now or later. */
  static async start(targetPath: string): Promise<WireCounter> {
    const server = net.createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const counter = new WireCounter(server)
    server.on('connection', (socket) => counter.#carry(socket, net.connect({ path: targetPath })))
    return counter
  }

  get uri(): string {
    return `nbd://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
  }

  #carry(near: net.Socket, far: net.Socket): void {
    near.setNoDelay(true)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(from)
      from.on('data', (piece: Buffer) => {
        this.bytes += piece.length
      })
      from.on('error', () => to.destroy())
      from.on('close', () => {
        this.#sockets.delete(from)
        to.destroy()
      })
      from.pipe(to)
    }
  }
}
