// Which large reads are likely to find nothing in memory: those that go on where the reads before them, which had to wait, left off.
//
// Such a read is not tried on the event loop first. The kernel would find the part that its readahead has brought, begin more readahead and copy,
// all of it in the thread that asks; a worker does that beside the loop. Invariant: what is remembered is a few numbers for each of a
// few runs, and a wrong guess costs a hop to a worker, nothing else.

/** A read this long costs more than the hop to a worker. */
export const largeReadBytes = 64 * 1024
/** Requests of one reader arrive a little out of their order when it has several connections. */
const strayBytesMax = 4 * 1024 * 1024
/** After a read that had to wait, so much of its run is taken for cold; then one read is tried again. Several times the kernel's readahead. */
const coldBytes = 64 * 1024 * 1024
/** Readers at one time that are told apart. */
const runCountMax = 8

type Run = { end: number; coldLeftBytes: number }

export class ColdRuns {
  readonly #runs: Run[] = []
  #next = 0

  /** Notes that a read of so many bytes begins; true when it had better not be tried at once. */
  begin(offset: number, lengthBytes: number): boolean {
    if (lengthBytes < largeReadBytes) return false
    const run = this.#find(offset)
    if (run === undefined) return false
    run.end = Math.max(run.end, offset + lengthBytes)
    if (run.coldLeftBytes === 0) return false
    run.coldLeftBytes = Math.max(0, run.coldLeftBytes - lengthBytes)
    return true
  }

  /** The read that ends at `end` was tried, and has to wait. */
  missed(offset: number, lengthBytes: number): void {
    if (lengthBytes < largeReadBytes) return
    const run = this.#find(offset)
    if (run !== undefined) {
      run.coldLeftBytes = coldBytes
      return
    }
    this.#runs[this.#next] = { end: offset + lengthBytes, coldLeftBytes: coldBytes }
    this.#next = (this.#next + 1) % runCountMax
  }

  #find(offset: number): Run | undefined {
    for (const run of this.#runs) if (Math.abs(offset - run.end) <= strayBytesMax) return run
    return undefined
  }
}
