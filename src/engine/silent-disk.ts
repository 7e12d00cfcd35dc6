// When a disk counts as one that does not answer: what status says of this node's own, and of its peer's.
//
// Nothing is measured for it but when something began to wait for the disk; it is looked at when somebody asks.
import type { Clock } from '../core/clock.js'

/** A sync takes milliseconds, on a busy disk a second or two; a frozen file system or a dead device does not come back. */
export const silentDiskMs = 5_000

/** For how long the disk has been waited for, in whole seconds, when that is longer than any that works takes; `sinceMs` of several: the oldest counts. */
export function silentSeconds(
  clock: Clock,
  ...sinceMs: readonly (number | undefined)[]
): number | undefined {
  const known = sinceMs.filter((since) => since !== undefined)
  const waitedMs = clock.nowMs() - Math.min(...known)
  return waitedMs >= silentDiskMs ? Math.floor(waitedMs / 1000) : undefined
}
