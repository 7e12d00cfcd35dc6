// Which ranges of one store are being written. Overlapping ranges are granted in arrival order; others do not wait for each other.
import assert from 'node:assert/strict'

type Entry = { readonly offset: number; readonly end: number; start: (() => void) | undefined }

/** A range that is being written. Hand it back to `release`. */
export type Lease = Entry

export class RangeLock {
  /** In arrival order; those with `start` wait for an overlapping one before them. */
  readonly #entries: Entry[] = []

  get isIdle(): boolean {
    return this.#entries.length === 0
  }

  /** True when nothing that is under way or waits overlaps the range. */
  isFree(offset: number, end: number): boolean {
    for (const entry of this.#entries) if (entry.offset < end && offset < entry.end) return false
    return true
  }

  /** Takes a range that is free. */
  take(offset: number, end: number): Lease {
    const lease: Entry = { offset, end, start: undefined }
    this.#entries.push(lease)
    return lease
  }

  /** Takes a range when everything before it that overlaps is released: `start` is called then, in the releasing step. */
  wait(offset: number, end: number, start: (lease: Lease) => void): void {
    const lease: Entry = { offset, end, start: () => start(lease) }
    this.#entries.push(lease)
  }

  release(lease: Lease): void {
    const index = this.#entries.indexOf(lease)
    assert(index >= 0)
    assert.equal(lease.start, undefined)
    this.#entries.splice(index, 1)
    // Whoever starts may release at once: the list is looked at anew after each.
    for (let at = 0; at < this.#entries.length; at++) {
      const entry = this.#entries[at] as Entry
      if (entry.start === undefined || this.#overlapsEarlier(at)) continue
      const { start } = entry
      entry.start = undefined
      start()
      at = -1
    }
  }

  #overlapsEarlier(index: number): boolean {
    const entry = this.#entries[index] as Entry
    for (let at = 0; at < index; at++) {
      const earlier = this.#entries[at] as Entry
      if (earlier.offset < entry.end && entry.offset < earlier.end) return true
    }
    return false
  }
}
