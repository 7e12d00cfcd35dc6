// The real clock and the real randomness, for the layers that take them as arguments.
import { randomBytes } from 'node:crypto'
import type { Clock, Random } from '../core/clock.js'

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallTime: () => new Date(),
  setTimer: (delayMs, callback) => {
    const timeout = setTimeout(callback, delayMs)
    timeout.unref()
    return { cancel: () => clearTimeout(timeout) }
  },
  defer: (callback) => {
    setImmediate(callback)
  },
}

export const systemRandom: Random = {
  hex: (lengthBytes) => randomBytes(lengthBytes).toString('hex'),
}
