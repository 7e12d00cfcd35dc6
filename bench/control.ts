// A client of the control socket for the bench: one connection, so that a command's time is the daemon's and not a program's start.
import net from 'node:net'
import { createInterface } from 'node:readline'

type Answer = {
  readonly id?: number
  readonly result?: unknown
  readonly error?: { readonly message: string }
}

export class ControlClient {
  readonly #socket: net.Socket
  readonly #waiting = new Map<number, (answer: Answer) => void>()
  #lastId = 0

  private constructor(socket: net.Socket) {
    this.#socket = socket
    createInterface({ input: socket }).on('line', (line) => {
      const answer = JSON.parse(line) as Answer
      if (answer.id !== undefined) this.#waiting.get(answer.id)?.(answer)
    })
  }

  static async connect(path: string): Promise<ControlClient> {
    const socket = net.connect({ path })
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve).once('error', reject)
    })
    return new ControlClient(socket)
  }

  async call(method: string, params: object): Promise<unknown> {
    const id = ++this.#lastId
    this.#socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`)
    const answer = await new Promise<Answer>((resolve) => this.#waiting.set(id, resolve))
    this.#waiting.delete(id)
    if (answer.error !== undefined) throw new Error(`${method}: ${answer.error.message}`)
    return answer.result
  }

  close(): void {
    this.#socket.destroy()
  }
}
