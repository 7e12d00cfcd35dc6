// The daemon's log: JSON lines on stderr, or readable lines when stderr is a terminal. A reader that has stopped never stops the daemon:
// beyond a bound, lines are dropped; what is logged before an exit is written first.
import { pino } from 'pino'
import type { Log } from '../core/log.js'

/** Lines that wait for a slow reader; more are dropped. */
const waitingBytesMax = 4 * 1024 * 1024

export type Logger = { readonly log: Log; readonly flush: () => void }

export async function createLogger(options: {
  readonly level: string
  readonly isPretty: boolean
}): Promise<Logger> {
  const destination = pino.destination({
    fd: 2,
    sync: false,
    minLength: 0,
    maxLength: waitingBytesMax,
  })
  // Nothing can be said about a log that cannot be written.
  destination.on('error', () => {})
  const flush = () => {
    try {
      destination.flushSync()
    } catch {
      // Not open any more: the lines are lost, as their reader is.
    }
  }
  const settings = {
    level: options.level,
    base: { pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
  }
  if (!options.isPretty) return { log: pino(settings, destination), flush }
  const { NO_COLOR: noColor } = process.env
  const { prettyFactory } = await import('pino-pretty')
  const prettify = prettyFactory({
    colorize: noColor === undefined || noColor === '',
    ignore: 'pid',
    singleLine: true,
    translateTime: 'SYS:HH:MM:ss',
  })
  const write = (line: string) => destination.write(prettify(line) ?? line)
  return { log: pino(settings, { write }), flush }
}
