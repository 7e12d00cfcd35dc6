// Time and randomness as arguments: engine, storage and replication take these, so that a simulation can own both.

export interface Timer {
  /** After this the callback is not called any more. Cancelling twice is harmless. */
  cancel(): void
}

export interface Clock {
  /** Monotonic milliseconds. Nothing is ordered by wall time. */
  nowMs(): number
  /** Wall time for people: logs and creation dates only. */
  wallTime(): Date
  /** Calls `callback` once, not before `delayMs` have passed. Does not keep the process alive. */
  setTimer(delayMs: number, callback: () => void): Timer
  /** Calls `callback` in a later turn of the event loop, after pending I/O had its chance. */
  defer(callback: () => void): void
}

export interface Random {
  /** `lengthBytes` unpredictable bytes as lower-case hexadecimal. */
  hex(lengthBytes: number): string
}
