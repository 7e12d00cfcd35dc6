// Signals and failures of the whole process: the first SIGTERM or SIGINT stops cleanly, a second one exits at once; an assertion that failed
// or an error that nobody caught exits at once with 70, without another reply or disk write.
import { ExitCode } from '../core/errors.js'
import type { Log } from '../core/log.js'

export type ProcessEnd = {
  /** Logs, and ends the process now. For hooks that meet a failed assertion. */
  readonly die: (error: unknown) => never
  /** Resolves with the first signal that asks to stop. */
  readonly asked: Promise<NodeJS.Signals>
}

export function handleProcessEnd(options: {
  readonly log: Log
  readonly flush: () => void
}): ProcessEnd {
  const { log, flush } = options
  const die = (error: unknown): never => {
    log.fatal({ err: error }, 'internal error: the daemon ends at once; restarting it recovers')
    flush()
    process.exit(ExitCode.ASSERTION)
  }
  process.on('uncaughtException', die)
  process.on('unhandledRejection', die)
  process.on('SIGHUP', () => log.info({}, 'SIGHUP: there are no certificates to read again'))
  const asked = new Promise<NodeJS.Signals>((resolve) => {
    let isStopping = false
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        if (isStopping) {
          log.warn({ signal }, 'second signal: ending at once')
          flush()
          process.exit(ExitCode.INTERRUPTED)
        }
        isStopping = true
        resolve(signal)
      })
    }
  })
  return { die, asked }
}
