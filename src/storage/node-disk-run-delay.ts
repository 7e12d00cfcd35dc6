// How long the main thread has waited for a processor, from the kernel's scheduler statistics.
//
// A call that took long either waited for the medium or lost its processor to somebody else: only this number tells them apart.
import fs from 'node:fs'

/** Milliseconds that this process's main thread was ready to run and did not, since it began; undefined where the kernel does not count them. */
export type RunDelayMs = () => number | undefined

/** Call it once: it keeps a file open for the life of the process. */
export function openRunDelay(path = `/proc/self/task/${process.pid}/schedstat`): RunDelayMs {
  let fd: number
  try {
    fd = fs.openSync(path, 'r')
  } catch {
    return () => undefined
  }
  const text = Buffer.alloc(128)
  return () => {
    const lengthBytes = fs.readSync(fd, text, 0, text.length, 0)
    // Nanoseconds on a processor, nanoseconds waiting for one, time slices.
    const delayNs = Number(text.toString('latin1', 0, lengthBytes).split(' ')[1])
    return Number.isFinite(delayNs) ? delayNs / 1e6 : undefined
  }
}
