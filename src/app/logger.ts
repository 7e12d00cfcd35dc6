// The daemon's log: JSON lines on stderr, or readable lines when stderr is a terminal. Neither a reader that has stopped nor a full disk
// stops the daemon: lines are dropped then, and their number is told; what is logged before an exit is written first.
import { pino } from 'pino'
import type { Log } from '../core/log.js'
import { LogWriter, openLogTarget } from './log-writer.js'

export type Logger = { readonly log: Log; readonly flush: () => void }

export async function createLogger(options: {
  readonly level: string
  readonly isPretty: boolean
}): Promise<Logger> {
  const settings = {
    level: options.level,
    base: { pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
  }
  const format = options.isPretty ? await prettyFormat() : (line: string) => line
  const writer = new LogWriter({
    target: openLogTarget(2),
    onTaken: (lostCount) => log.warn({ lostCount }, 'lines of the log were lost'),
  })
  const log = pino(settings, { write: (line) => writer.write(format(line)) })
  return { log, flush: () => writer.flush() }
}

async function prettyFormat(): Promise<(line: string) => string> {
  const { prettyFactory } = await import('pino-pretty')
  const { NO_COLOR: noColor } = process.env
  const prettify = prettyFactory({
    colorize: noColor === undefined || noColor === '',
    ignore: 'pid',
    singleLine: true,
    translateTime: 'SYS:HH:MM:ss',
  })
  return (line) => prettify(line) ?? line
}
