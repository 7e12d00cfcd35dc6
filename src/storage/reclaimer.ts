// Gives chunks back: when the record that freed them is durable, when no read that could use them is under way, and when their bytes are punched out.
//
// Invariant: a place reaches the allocator's free list only after all three. Until then it counts as used, so nobody writes there, and a chunk
// that two stores shared is not written in place before the release by one of them is durable (a crash would bring the other's reference back).
import assert from 'node:assert/strict'
import type { Clock } from '../core/clock.js'
import type { DiskFile } from '../core/disk.js'
import { FailureLog } from '../core/failure-log.js'
import { limits } from '../core/limits.js'
import type { Log } from '../core/log.js'
import type { ChunkAllocator } from './chunk-allocator.js'
import type { ChunkPage } from './chunk-map.js'

export type Releases = { readonly places: readonly number[]; readonly pages: readonly ChunkPage[] }
type Waiting = Releases & { readonly readEpoch: number }

export class Reclaimer {
  readonly #allocator: ChunkAllocator
  readonly #file: DiskFile
  readonly #chunkBytes: number
  readonly #clock: Clock
  readonly #failures: FailureLog
  #places: number[] = []
  #pages: ChunkPage[] = []
  /** Taken by commits that are not durable yet, or never will be. */
  readonly #inCommit = new Set<Releases>()
  readonly #queue: Waiting[] = []
  /** Reads under way by the epoch in which they began. */
  readonly #readers = new Map<number, number>()
  #epoch = 0
  #working: Promise<void> | undefined
  #canPunch = true
  #freeingCount = 0
  #isClosed = false
  /** Punches what recovery found free but never punched. Nobody waits for it but `close`: its places are free already. */
  #sweeping: Promise<void> | undefined
  /** Test switch: forget that reads are under way. */
  ignoresReaders = false

  constructor(options: {
    readonly allocator: ChunkAllocator
    readonly file: DiskFile
    readonly chunkBytes: number
    readonly clock: Clock
    readonly log: Log
  }) {
    this.#allocator = options.allocator
    this.#file = options.file
    this.#chunkBytes = options.chunkBytes
    this.#clock = options.clock
    this.#failures = new FailureLog(options.log, {
      first: 'freed chunks could not be punched out',
      again: 'freed chunks still cannot be punched out',
    })
  }

  releaseLater(place: number): void {
    this.#places.push(place)
  }

  releasePageLater(page: ChunkPage): void {
    this.#pages.push(page)
  }

  /** True when something was released that no commit has taken. */
  get hasUncommitted(): boolean {
    return this.#places.length > 0 || this.#pages.length > 0
  }

  /** True while committed releases are not done. */
  get isWorking(): boolean {
    return this.#queue.length > 0 || this.#working !== undefined
  }

  /** What was released since the last call: the commit that makes it durable takes it. */
  take(): Releases {
    const taken = { places: this.#places, pages: this.#pages }
    this.#places = []
    this.#pages = []
    this.#inCommit.add(taken)
    return taken
  }

  /** The records of these releases are durable. */
  durable(releases: Releases): void {
    this.#inCommit.delete(releases)
    if (releases.places.length === 0 && releases.pages.length === 0) return
    this.#queue.push({ ...releases, readEpoch: this.#epoch++ })
    this.#start()
  }

  /** A read that is not done at once begins: what is released from now on waits for it. Give the answer to `endRead`. */
  beginRead(): number {
    const epoch = this.#epoch
    this.#readers.set(epoch, (this.#readers.get(epoch) ?? 0) + 1)
    return epoch
  }

  endRead(epoch: number): void {
    const count = this.#readers.get(epoch)
    assert(count !== undefined)
    if (count > 1) this.#readers.set(epoch, count - 1)
    else this.#readers.delete(epoch)
    if (this.#queue.length > 0) this.#start()
  }

  /** Resolves when everything that was durable at the call, and that no read holds, is free. */
  async drain(): Promise<void> {
    while (this.#working !== undefined) await this.#working
  }

  /** After recovery: punches what is free but may hold old bytes, a run at a time, so that a crash leaks no space. */
  sweep(): void {
    if (!this.#file.isFixedSize) this.#sweeping ??= this.#sweep()
  }

  /** Stops after the step under way. What is not done is found by the next start. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.drain()
    await this.#sweeping
  }

  /** References that wait for their release, for the check of the allocator's counts. */
  pendingReleases(): readonly Releases[] {
    return [{ places: this.#places, pages: this.#pages }, ...this.#inCommit, ...this.#queue]
  }

  /** Places between their last release and the free list. */
  get freeingCount(): number {
    return this.#freeingCount
  }

  #start(): void {
    if (this.#working !== undefined || this.#isClosed) return
    this.#working = this.#work().finally(() => {
      this.#working = undefined
      if (this.#nextReady() !== undefined) this.#start()
    })
  }

  #nextReady(): Waiting | undefined {
    const head = this.#queue[0]
    if (head === undefined || this.#isClosed) return undefined
    if (!this.ignoresReaders)
      for (const epoch of this.#readers.keys()) if (epoch <= head.readEpoch) return undefined
    return head
  }

  async #work(): Promise<void> {
    for (let batch = this.#nextReady(); batch !== undefined; batch = this.#nextReady()) {
      // Taken off only when done: until then its references are pending, and every turn leaves the counts right.
      await this.#releasePlaces(batch.places as number[])
      const pages = batch.pages as ChunkPage[]
      // Gathered over many pages: chunks that were written one after the other lie side by side, however far apart their pages are.
      let freed: number[] = []
      while (pages.length > 0 && !this.#isClosed) {
        for (const page of pages.splice(-limits.releasePagesPerTurn)) this.#releasePage(page, freed)
        if (freed.length >= limits.punchGatherCount || pages.length === 0) {
          await this.#punchAndFree(freed)
          freed = []
        }
        await new Promise<void>((resolve) => this.#clock.defer(resolve))
      }
      await this.#punchAndFree(freed)
      if (this.#isClosed) return
      this.#queue.shift()
    }
  }

  async #sweep(): Promise<void> {
    for (let from = 1; this.#canPunch && !this.#isClosed; ) {
      // Releases come first.
      await this.drain()
      const run = this.#isClosed ? undefined : this.#allocator.takeStaleRun(from)
      if (run === undefined) return
      from = run.end
      this.#freeingCount += run.end - run.first
      if (run.first < run.end) await this.#punchAndFreeRun(run.first, run.end)
      await new Promise<void>((resolve) => this.#clock.defer(resolve))
    }
  }

  async #releasePlaces(places: number[]): Promise<void> {
    const freed: number[] = []
    for (const place of places.splice(0)) this.#release(place, freed)
    await this.#punchAndFree(freed)
  }

  #releasePage(page: ChunkPage, freed: number[]): void {
    page.holders--
    assert(page.holders >= 0)
    if (page.holders > 0) return
    for (const place of page.entries) if (place !== 0) this.#release(place, freed)
  }

  #release(place: number, freed: number[]): void {
    if (!this.#allocator.release(place)) return
    this.#freeingCount++
    freed.push(place)
  }

  async #punchAndFree(freed: number[]): Promise<void> {
    if (freed.length === 0) return
    freed.sort((a, b) => a - b)
    const countMax = Math.max(1, Math.floor(limits.punchBytesMax / this.#chunkBytes))
    for (let first = 0; first < freed.length; ) {
      const endMax = Math.min(freed.length, first + countMax)
      let end = first + 1
      while (end < endMax && freed[end] === (freed[first] as number) + (end - first)) end++
      const firstPlace = freed[first] as number
      await this.#punchAndFreeRun(firstPlace, firstPlace + (end - first))
      first = end
    }
  }

  async #punchAndFreeRun(first: number, end: number): Promise<void> {
    const isPunched = this.#canPunch && !this.#isClosed && (await this.#punchRun(first, end))
    for (let place = first; place < end; place++) this.#allocator.free(place, !isPunched)
    this.#freeingCount -= end - first
  }

  /** True when the places read as zeroes now. A file that cannot punch is not asked again. */
  async #punchRun(first: number, end: number): Promise<boolean> {
    try {
      const isPunched = await this.#file.punch(
        first * this.#chunkBytes,
        (end - first) * this.#chunkBytes,
      )
      if (!isPunched) this.#canPunch = false
      return isPunched
    } catch (error) {
      this.#failures.failed(error, { first, end })
      return false
    }
  }
}
