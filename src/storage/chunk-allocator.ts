// Which places of the data file are in use, and by how many map pages. In memory only: rebuilt from the maps at start.
//
// Invariant: count(place) = the pages that name it + the releases of it under way. A place with count 0 is free; it may be handed out
// at once, because releases arrive here only after the record that freed it is durable and no read uses it.
import assert from 'node:assert/strict'

const segmentPlaceCount = 65536
const countMax = 65535

type Segment = {
  readonly counts: Uint16Array
  /** One bit a place: may hold old bytes, so what a write leaves uncovered must be zeroed. */
  readonly stale: Uint8Array
  freeCount: number
}

export class ChunkAllocator {
  readonly #segments: Segment[] = []
  /** Places from here on were never used: nothing of them is in the file. */
  #highWater = 1
  #freeBelow = 0
  #cursor = 1
  #capacity: number

  /** `capacity` places fit in the data file; place 0 is never handed out. */
  constructor(capacity: number) {
    this.#capacity = capacity
    this.#extend(1)
    this.#segment(0).counts[0] = 1
    this.#segment(0).freeCount--
  }

  get highWater(): number {
    return this.#highWater
  }

  /** Places in use, those whose release is under way included. */
  get usedCount(): number {
    return this.#highWater - 1 - this.#freeBelow
  }

  get freeCount(): number {
    return this.#capacity - 1 - this.usedCount
  }

  count(place: number): number {
    return this.#segment(place).counts[place % segmentPlaceCount] as number
  }

  isStale(place: number): boolean {
    const at = place % segmentPlaceCount
    return ((this.#segment(place).stale[at >> 3] as number) & (1 << (at & 7))) !== 0
  }

  setStale(place: number, isStale: boolean): void {
    const stale = this.#segment(place).stale
    const at = place % segmentPlaceCount
    const byte = stale[at >> 3] as number
    stale[at >> 3] = isStale ? byte | (1 << (at & 7)) : byte & ~(1 << (at & 7))
  }

  /** A free place with count 1, or 0 when the pool is full. Neighbours in time are neighbours in the file. */
  allocate(): number {
    const place = this.#freeBelow > 0 ? this.#nextFree() : this.#highWater
    if (place >= this.#capacity) return 0
    const segment = this.#take(place)
    const at = place % segmentPlaceCount
    assert.equal(segment.counts[at], 0)
    segment.counts[at] = 1
    this.#cursor = place + 1
    return place
  }

  retain(place: number): void {
    const counts = this.#segment(place).counts
    const at = place % segmentPlaceCount
    const count = counts[at] as number
    assert(count > 0)
    assert(count < countMax)
    counts[at] = count + 1
  }

  /** One reference less. True when it was the last but for the caller's: the place is then `free`d, perhaps after its bytes were punched out. */
  release(place: number): boolean {
    const counts = this.#segment(place).counts
    const at = place % segmentPlaceCount
    const count = counts[at] as number
    assert(count > 0)
    if (count === 1) return true
    counts[at] = count - 1
    return false
  }

  /** Makes a place that has one reference left free. */
  free(place: number, isStale: boolean): void {
    const segment = this.#segment(place)
    const at = place % segmentPlaceCount
    assert.equal(segment.counts[at], 1)
    segment.counts[at] = 0
    segment.freeCount++
    this.#freeBelow++
    this.setStale(place, isStale)
  }

  /** For recovery: one more page names `place`. */
  countReference(place: number): void {
    if (place >= this.#highWater) this.raiseHighWater(place + 1)
    const segment = this.#segment(place)
    const at = place % segmentPlaceCount
    const count = segment.counts[at] as number
    assert(count < countMax)
    if (count === 0) {
      segment.freeCount--
      this.#freeBelow--
    }
    segment.counts[at] = count + 1
  }

  /** For recovery: the file may hold bytes in every place below `highWater`; what no map names is free and stale. */
  raiseHighWater(highWater: number): void {
    const bounded = Math.min(highWater, this.#capacity)
    while (this.#highWater < bounded) {
      const place = this.#highWater
      this.#extend(place)
      this.#highWater++
      this.#freeBelow++
      this.setStale(place, true)
    }
  }

  /**
   * The next run of free stale places in the segment of `from`, taken (count 1 each) so that nobody writes there while they are punched.
   * An empty run means none before its end; undefined: `from` is behind the last place.
   */
  takeStaleRun(from: number): { readonly first: number; readonly end: number } | undefined {
    if (from >= this.#highWater) return undefined
    const segmentEnd = Math.min(
      (Math.floor(from / segmentPlaceCount) + 1) * segmentPlaceCount,
      this.#highWater,
    )
    if (this.#segment(from).freeCount === 0) return { first: segmentEnd, end: segmentEnd }
    const isFreeAndStale = (place: number): boolean =>
      this.count(place) === 0 && this.isStale(place)
    let first = from
    while (first < segmentEnd && !isFreeAndStale(first)) first++
    let end = first
    for (; end < segmentEnd && isFreeAndStale(end); end++)
      this.#take(end).counts[end % segmentPlaceCount] = 1
    return { first, end }
  }

  #take(place: number): Segment {
    if (place === this.#highWater) {
      this.#extend(place)
      this.#highWater++
    } else {
      this.#freeBelow--
    }
    const segment = this.#segment(place)
    segment.freeCount--
    return segment
  }

  #nextFree(): number {
    let place = this.#cursor < this.#highWater ? this.#cursor : 1
    for (;;) {
      const index = Math.floor(place / segmentPlaceCount)
      const segment = this.#segments[index] as Segment
      const segmentEnd = Math.min((index + 1) * segmentPlaceCount, this.#highWater)
      if (segment.freeCount > 0) {
        for (; place < segmentEnd; place++)
          if (segment.counts[place % segmentPlaceCount] === 0) return place
      }
      place = segmentEnd < this.#highWater ? segmentEnd : 1
    }
  }

  #segment(place: number): Segment {
    const segment = this.#segments[Math.floor(place / segmentPlaceCount)]
    assert(segment)
    return segment
  }

  #extend(place: number): void {
    if (Math.floor(place / segmentPlaceCount) < this.#segments.length) return
    this.#segments.push({
      counts: new Uint16Array(segmentPlaceCount),
      stale: new Uint8Array(segmentPlaceCount / 8),
      freeCount: segmentPlaceCount,
    })
  }
}
