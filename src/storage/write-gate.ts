// Decides whether a write may be done on the event loop: only while such writes are quick.
//
// A buffered write is a copy into the page cache, a microsecond or two for 4 KiB, and a thread hop costs ten times that. But a kernel
// that has too many dirty pages makes the writer wait for the medium, for up to 200 ms a call. Invariant: waiting inside synchronous
// writes takes at most a fifth of the loop's time, and less the longer the disk stays slow.
import type { RunDelayMs } from './node-disk-run-delay.js'

/** A write that took longer than this did not only copy: throttling stops a writer for 10 ms and more. */
const slowWriteMs = 8
/** After a slow write the loop is left alone for this many times as long as it was stopped. */
const backOffFactor = 4
/** The longest rest before another try: throttling rarely ends sooner, and a try costs up to 200 ms. */
const backOffMsMax = 10_000

export class WriteGate {
  readonly #nowMs: () => number
  readonly #runDelayMs: RunDelayMs
  #closedUntilMs = Number.NEGATIVE_INFINITY
  #backOffMs = 0
  /** At the last slow write. */
  #knownRunDelayMs = 0

  constructor(nowMs: () => number, runDelayMs: RunDelayMs) {
    this.#nowMs = nowMs
    this.#runDelayMs = runDelayMs
  }

  /** The time at which a synchronous write may start, to be given to `wrote`; undefined: not now. */
  enter(): number | undefined {
    const nowMs = this.#nowMs()
    return nowMs < this.#closedUntilMs ? undefined : nowMs
  }

  /** Says that the write which `enter` allowed at `startedMs` is done. */
  wrote(startedMs: number): void {
    const nowMs = this.#nowMs()
    const tookMs = nowMs - startedMs
    if (tookMs < slowWriteMs) return
    if (this.#waitedForProcessor(tookMs)) return
    // Slow again within a back-off of the last one: the disk is still busy, so wait longer than last time.
    const isStillSlow = startedMs < this.#closedUntilMs + this.#backOffMs
    const againMs = isStillSlow ? 2 * this.#backOffMs : 0
    this.#backOffMs = Math.min(Math.max(backOffFactor * tookMs, againMs), backOffMsMax)
    this.#closedUntilMs = nowMs + this.#backOffMs
  }

  /**
   * True when the thread lost its processor often enough since the last slow write to explain this one. After a long time without slow
   * writes that is always so; the next slow write then soon follows, and shows what it was.
   */
  #waitedForProcessor(tookMs: number): boolean {
    const runDelayMs = this.#runDelayMs()
    if (runDelayMs === undefined) return false
    const lostMs = runDelayMs - this.#knownRunDelayMs
    this.#knownRunDelayMs = runDelayMs
    return lostMs >= tookMs / 2
  }
}
