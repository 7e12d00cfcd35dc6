// The logger that the layers below app take as an argument: pino's shape, so that they need not import pino.

export interface Log {
  fatal(bindings: object, message: string): void
  error(bindings: object, message: string): void
  warn(bindings: object, message: string): void
  info(bindings: object, message: string): void
  debug(bindings: object, message: string): void
  trace(bindings: object, message: string): void
  isLevelEnabled(level: string): boolean
  child(bindings: object): Log
}

/** Says nothing: for tests and for tools without a log. */
export const silentLog: Log = {
  fatal: () => {},
  error: () => {},
  warn: () => {},
  info: () => {},
  debug: () => {},
  trace: () => {},
  isLevelEnabled: () => false,
  child: () => silentLog,
}
