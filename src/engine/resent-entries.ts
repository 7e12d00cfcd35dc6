// What a resync sends beside the clients' changes, at its place in the order: bytes and digests that are read there, and zeroes that are still a hole there.
//
// Invariants: nothing changes on this node; a read runs under the entry's lease, so what the peer gets is what every entry before it left; such entries hold no extents.
import type { Sequence } from '../core/units.js'
import type { Outbox, Slot } from '../replication/outbox.js'
import { resyncLimits } from '../replication/resync-limits.js'
import type { Pool } from '../storage/pool.js'
import { digestsOf } from './digests.js'
import { checkRange } from './refusals.js'
import type { DataEntry } from './sequencer.js'

/** What is read at a time: used again, or the garbage collector would be as busy as the copying. */
const scratchBytes = resyncLimits.pieceBytesMax
/** Reads that wait for the disk together. */
const scratchCountMax = 8

export class ResentEntries {
  readonly #pool: Pool
  readonly #outbox: Outbox
  /** Of writes and zeroes that are in the outbox. */
  readonly #sequences = new Set<number>()
  readonly #scratch: Buffer[] = []

  constructor(pool: Pool, outbox: Outbox) {
    this.#pool = pool
    this.#outbox = outbox
  }

  /** A write or zeroing of a resync has taken its place. */
  ordered(sequence: Sequence): void {
    this.#sequences.add(sequence)
  }

  /** An entry leaves the outbox: true when it was one of these. */
  left(sequence: Sequence): boolean {
    return this.#sequences.delete(sequence)
  }

  /** Reads what is there now, under the entry's lease, for the peer. */
  async look(entry: DataEntry, slot: Slot): Promise<void> {
    const { store, offset, lengthBytes } = entry
    const scratch = this.#takeScratch(lengthBytes)
    const bytes = scratch.subarray(0, lengthBytes)
    try {
      checkRange(store, entry, 'EINVAL')
      await this.#pool.read(store, offset, bytes)
      // Switchable bug: they were read before.
      for (const part of entry.parts) part.copy(bytes)
      this.#outbox.fill(slot, entry.kind === 'compare' ? [digestsOf(bytes)] : [bytes])
      this.#outbox.ready(slot)
      if (entry.kind === 'resend') this.#outbox.settle(slot, { isFailed: false })
    } catch (error) {
      this.#sequences.delete(slot.sequence)
      this.#outbox.cancel(slot)
      throw error
    } finally {
      // The outbox has a copy, and no read is under way.
      if (scratch.length === scratchBytes && this.#scratch.length < scratchCountMax)
        this.#scratch.push(scratch)
    }
  }

  #takeScratch(lengthBytes: number): Buffer {
    if (lengthBytes > scratchBytes) return Buffer.allocUnsafe(lengthBytes)
    return this.#scratch.pop() ?? Buffer.allocUnsafeSlow(scratchBytes)
  }

  /** Zeroes of a resync: only what is a hole at its place in the order. A write that was ordered before it may have filled it. */
  confirmHole(entry: DataEntry, slot: Slot): undefined {
    const { store, offset, lengthBytes } = entry
    const { chunkBytes } = this.#pool.state
    const end = Math.ceil((offset + lengthBytes) / chunkBytes)
    const isHole =
      !store.isDeleted &&
      offset + lengthBytes <= store.sizeBytes &&
      store.map.isHole(Math.floor(offset / chunkBytes), end)
    if (isHole) {
      this.#outbox.ready(slot)
      this.#outbox.settle(slot, { isFailed: false })
      return
    }
    this.#sequences.delete(slot.sequence)
    this.#outbox.cancel(slot)
  }
}
