// What happens to NBD clients, as lines in the log. A client that makes its requests fail cannot fill the log: beyond a few lines
// in a period, only their number is told.
import type { Hooks } from '../../nbd/index.js'
import type { Clock } from '../core/clock.js'
import type { Log } from '../core/log.js'

const periodMs = 10_000
/** Lines of one kind in one period. */
const linesMax = 20

export function nbdHooks(options: {
  readonly log: Log
  readonly clock: Clock
  /** Ends the process. */
  readonly die: (error: unknown) => void
}): Hooks {
  const { log, die } = options
  const failed = new LineLimit(options)
  const refused = new LineLimit(options)
  return {
    onSessionStart: ({ id, peer, exportName }) =>
      log.info({ connection: id, peer, store: exportName }, 'client connected'),
    onSessionEnd: ({ id, peer, exportName }, { reason, message, error }) => {
      const bindings = { connection: id, peer, store: exportName, reason, cause: message }
      if (reason === 'failed') log.error({ ...bindings, err: error }, 'client lost')
      else log.info(bindings, 'client left')
    },
    onRequestFailed: ({ id, exportName }, { command, offset, lengthBytes, error }) => {
      const request = { connection: id, store: exportName, command, offset, lengthBytes }
      failed.warn({ ...request, err: error }, 'request failed')
    },
    onRefused: (peer, reason) => refused.warn({ peer, reason }, 'client turned away'),
    onFatal: die,
  }
}

/** Warnings of one kind, of which only so many are written in a period. */
export class LineLimit {
  readonly #log: Log
  readonly #clock: Clock
  #periodStartMs = 0
  #lineCount = 0

  constructor(options: { readonly log: Log; readonly clock: Clock }) {
    this.#log = options.log
    this.#clock = options.clock
  }

  warn(bindings: object, message: string): void {
    const nowMs = this.#clock.nowMs()
    if (nowMs - this.#periodStartMs >= periodMs) {
      const untoldCount = this.#lineCount - linesMax
      if (untoldCount > 0) this.#log.warn({ untoldCount }, `${message}, and more like it`)
      this.#periodStartMs = nowMs
      this.#lineCount = 0
    }
    this.#lineCount++
    if (this.#lineCount <= linesMax) this.#log.warn(bindings, message)
  }
}
