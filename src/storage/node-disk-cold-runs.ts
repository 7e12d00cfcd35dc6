// Which large reads are likely to find nothing in memory: those that go on where the reads before them, which had to wait, left off.
//
// Such a read is not tried on the event loop first. The kernel would find the part that its readahead has brought, begin more readahead and copy,
// all of it in the thread that asks; a worker does that beside the loop. The same holds where the readahead is fast enough, but copying out of
// pages that have just come is slow: on a virtual machine that gives free memory back to its host each of them must be handed out again first.
// Invariant: what is remembered is a few numbers for each of a few runs, and a wrong guess costs a hop to a worker, nothing else.

/** A read this long costs more than the hop to a worker. */
export const largeReadBytes = 64 * 1024
/** Requests of one reader arrive a little out of their order when it has several connections. */
const strayBytesMax = 4 * 1024 * 1024
/** After a read that had to wait, so much of its run is taken for cold; then one read is tried again. Several times the kernel's readahead. */
const coldBytes = 64 * 1024 * 1024
/** Readers at one time that are told apart. */
const runCountMax = 8
/** Copying slower than this is not what memory does: 2 GiB/s. */
const slowBytesPerMs = 2 * 1024 * 1024
/** Slow reads in a row: a single one may have lost its processor. */
const slowCountMax = 2

type Run = { end: number; coldLeftBytes: number; slowCount: number }

/** `unknown`: nothing speaks against trying. `cold`: it had better not be tried at once. `doubtful`: part of a run that had to wait before; `took` wants to know. */
export type Guess = 'unknown' | 'cold' | 'doubtful'

export class ColdRuns {
  readonly #runs: Run[] = []
  #next = 0

  /** Notes that a read of so many bytes begins. */
  begin(offset: number, lengthBytes: number): Guess {
    if (lengthBytes < largeReadBytes) return 'unknown'
    const run = this.#find(offset)
    if (run === undefined) return 'unknown'
    run.end = Math.max(run.end, offset + lengthBytes)
    if (run.coldLeftBytes === 0) return 'doubtful'
    run.coldLeftBytes = Math.max(0, run.coldLeftBytes - lengthBytes)
    return 'cold'
  }

  /** The read at `offset` was tried, and has to wait. */
  missed(offset: number, lengthBytes: number): void {
    if (lengthBytes < largeReadBytes) return
    const run = this.#find(offset)
    if (run !== undefined) {
      this.#isCold(run)
      return
    }
    this.#runs[this.#next] = { end: offset + lengthBytes, coldLeftBytes: coldBytes, slowCount: 0 }
    this.#next = (this.#next + 1) % runCountMax
  }

  /** A doubtful read was done at once, in so much time. */
  took(offset: number, lengthBytes: number, tookMs: number): void {
    const run = this.#find(offset)
    if (run === undefined) return
    run.slowCount = tookMs * slowBytesPerMs > lengthBytes ? run.slowCount + 1 : 0
    if (run.slowCount >= slowCountMax) this.#isCold(run)
  }

  #isCold(run: Run): void {
    run.coldLeftBytes = coldBytes
    run.slowCount = 0
  }

  #find(offset: number): Run | undefined {
    for (const run of this.#runs) if (Math.abs(offset - run.end) <= strayBytesMax) return run
    return undefined
  }
}
