// What happens to NBD clients, as lines in the log. A client that makes its requests fail, or comes and goes, cannot fill the log: beyond
// a few lines in a period, only their number is told.
import { type ErrnoName, RequestError } from '../../nbd/errors.js'
import type { Hooks, SessionEnd } from '../../nbd/index.js'
import type { Clock } from '../core/clock.js'
import type { Log } from '../core/log.js'

const periodMs = 10_000
/** Lines of one kind in one period. */
const linesMax = 20
/** A full disk refuses every write: one line in this time says it, and one how many more there were. */
const noSpacePeriodMs = 2000
/** Answers that a client may ask for and get all day: they tell of the client, not of the server. */
const ordinaryAnswers: ReadonlySet<ErrnoName> = new Set(['ENOTSUP', 'EINVAL', 'EPERM'])

/** Ends of a connection that is no client's of a store: the primary's link, who looked at what there is, and who knocked, such as a peer that was turned away. */
const quietEnds: ReadonlySet<SessionEnd['reason']> = new Set([
  'taken',
  'disconnect',
  'end-of-stream',
])

export function nbdHooks(options: {
  readonly log: Log
  readonly clock: Clock
  /** Ends the process. */
  readonly die: (error: unknown) => void
}): Hooks {
  const { log, die } = options
  const failed = new LineLimit(options)
  const refused = new LineLimit(options)
  const noSpace = new LineLimit({ ...options, periodMs: noSpacePeriodMs, linesMax: 1 })
  const came = new LineLimit({ ...options, level: 'info' })
  const left = new LineLimit({ ...options, level: 'info' })
  return {
    onSessionStart: ({ id, peer, exportName }) =>
      came.write({ connection: id, peer, store: exportName }, 'client connected'),
    onSessionEnd: ({ id, peer, exportName }, { reason, message, error }) => {
      const bindings = { connection: id, peer, store: exportName, reason, cause: message }
      if (reason === 'failed') log.error({ ...bindings, err: error }, 'client lost')
      else if (exportName === undefined && quietEnds.has(reason)) log.debug(bindings, 'client left')
      else left.write(bindings, 'client left')
    },
    onRequestFailed: ({ id, exportName }, { command, offset, lengthBytes, error }) => {
      const request = { connection: id, store: exportName, command, offset, lengthBytes }
      if (!(error instanceof RequestError)) {
        failed.write({ ...request, err: error }, 'request failed')
        return
      }
      // A declared refusal: where it was thrown says nothing.
      const { errno, message: cause } = error
      const limit = errno === 'ENOSPC' ? noSpace : failed
      if (ordinaryAnswers.has(errno)) log.debug({ ...request, errno, cause }, 'request refused')
      else limit.write({ ...request, errno, cause }, 'request failed')
    },
    onRefused: (peer, reason) => refused.write({ peer, reason }, 'client turned away'),
    onFatal: die,
  }
}

/** Lines of one kind, of which only so many are written in a period. */
export class LineLimit {
  readonly #log: Log
  readonly #level: 'warn' | 'info'
  readonly #clock: Clock
  readonly #periodMs: number
  readonly #linesMax: number
  #periodStartMs = Number.NEGATIVE_INFINITY
  #lineCount = 0

  constructor(options: {
    readonly log: Log
    readonly clock: Clock
    readonly periodMs?: number
    readonly linesMax?: number
    /** `warn` by default. */
    readonly level?: 'warn' | 'info'
  }) {
    this.#log = options.log
    this.#level = options.level ?? 'warn'
    this.#clock = options.clock
    this.#periodMs = options.periodMs ?? periodMs
    this.#linesMax = options.linesMax ?? linesMax
  }

  write(bindings: object, message: string): void {
    const nowMs = this.#clock.nowMs()
    if (nowMs - this.#periodStartMs >= this.#periodMs) {
      const untoldCount = this.#lineCount - this.#linesMax
      if (untoldCount > 0) this.#log[this.#level]({ untoldCount }, `${message}, and more like it`)
      this.#periodStartMs = nowMs
      this.#lineCount = 0
    }
    this.#lineCount++
    if (this.#lineCount <= this.#linesMax) this.#log[this.#level](bindings, message)
  }
}
