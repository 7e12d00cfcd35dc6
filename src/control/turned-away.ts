// Clients for which the control socket has no place: each is told so, as an answer to whatever it asks, and let go. They hold nothing but
// their sockets, a bounded number of them, for a bounded time.
import type { Socket } from 'node:net'
import { errorLine, RpcCode, RpcError } from './json-rpc.js'

export class TurnedAway {
  readonly #sockets = new Set<Socket>()
  readonly #line: string
  readonly #limits: TurnedAwayLimits

  constructor(limits: TurnedAwayLimits) {
    this.#limits = limits
    this.#line = errorLine(null, noPlace(limits.connectionCountMax))
  }

  /** Reads what the client says until it has gone: its request would fail, and cost it the answer, were the socket closed before. */
  take(socket: Socket): void {
    socket.on('error', () => socket.destroy())
    if (this.#sockets.size >= this.#limits.turnedAwayCountMax) {
      socket.end(this.#line, () => socket.destroy())
      return
    }
    this.#sockets.add(socket)
    const timer = setTimeout(() => socket.destroy(), this.#limits.stopTimeoutMs)
    socket.once('close', () => {
      clearTimeout(timer)
      this.#sockets.delete(socket)
    })
    socket.once('end', () => socket.destroySoon())
    socket.end(this.#line)
    socket.resume()
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
  }
}

type TurnedAwayLimits = {
  readonly connectionCountMax: number
  readonly turnedAwayCountMax: number
  readonly stopTimeoutMs: number
}

function noPlace(connectionCountMax: number): RpcError {
  const message = `all ${connectionCountMax} connections to the control socket are taken (control-connections)`
  const action =
    'wait a moment and try again, or end commands that keep one: lockstep events --follow, lockstep status --watch'
  return new RpcError(RpcCode.REFUSED, message, { code: 'LIMIT_REACHED', action })
}
