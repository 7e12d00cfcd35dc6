// Signals and failures of the whole process: the first SIGTERM or SIGINT stops cleanly, a second one exits at once (but who asks once may be heard
// twice: timeout(1) signals its child, and then its whole process group). An assertion that failed or an error that nobody caught exits at once
// with 70, without another reply or disk write. SIGHUP asks a service to read certificates again; to a daemon in a terminal it says that the
// terminal has gone.
import { ExitCode } from '../core/errors.js'
import type { Log } from '../core/log.js'

export type ProcessEnd = {
  /** Logs, and ends the process now. For hooks that meet a failed assertion. */
  readonly die: (error: unknown) => never
  /** Resolves with the first signal that asks to stop. */
  readonly asked: Promise<NodeJS.Signals>
}

/** Within this time the same signal again is the same request. A person's second Ctrl-C comes later. */
const echoMsMax = 250

const stopSignals: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGHUP']

export function handleProcessEnd(options: {
  readonly log: Log
  readonly flush: () => void
  /** The log goes to a terminal. */
  readonly isInTerminal: boolean
  readonly nowMs?: () => number
}): ProcessEnd {
  const { log, flush } = options
  const nowMs = options.nowMs ?? (() => performance.now())
  const die = (error: unknown): never => {
    log.fatal({ err: error }, 'internal error: the daemon ends at once; restarting it recovers')
    flush()
    process.exit(ExitCode.ASSERTION)
  }
  process.on('uncaughtException', die)
  process.on('unhandledRejection', die)
  if (!options.isInTerminal) {
    process.on('SIGHUP', () => log.info({}, 'SIGHUP: there are no certificates to read again'))
  }
  const signals = options.isInTerminal
    ? stopSignals
    : stopSignals.filter((name) => name !== 'SIGHUP')
  const asked = new Promise<NodeJS.Signals>((resolve) => {
    let first: { readonly signal: NodeJS.Signals; readonly atMs: number } | undefined
    for (const signal of signals) {
      process.on(signal, () => {
        if (first?.signal === signal && nowMs() - first.atMs <= echoMsMax) {
          log.debug({ signal }, 'the same signal again: it counts once')
          return
        }
        if (first !== undefined) {
          log.warn({ signal }, 'second signal: ending at once')
          flush()
          process.exit(ExitCode.INTERRUPTED)
        }
        first = { signal, atMs: nowMs() }
        resolve(signal)
      })
    }
  })
  return { die, asked }
}
