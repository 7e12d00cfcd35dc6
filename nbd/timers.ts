// Deadlines as an argument, so that tests and embedders can own the clock.

export interface Timers {
  /** Calls `callback` once, not before `delayMs` have passed, unless cancelled. Cancelling twice is harmless. */
  setTimer(delayMs: number, callback: () => void): { cancel(): void }
}

/** Node's own timers. They do not keep the process alive. */
export const nodeTimers: Timers = {
  setTimer(delayMs, callback) {
    const timeout = setTimeout(callback, delayMs)
    timeout.unref()
    return { cancel: () => clearTimeout(timeout) }
  },
}
