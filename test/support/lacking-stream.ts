// What a look at what the peer lacks looks at, without an engine: tracking and outbox of a primary, and a peer that is as far as a test says.
import assert from 'node:assert/strict'
import type { Entry } from '../../src/core/entry.js'
import type { Operation } from '../../src/core/operation.js'
import { blockBytes, KiB, type Sequence, type StoreId } from '../../src/core/units.js'
import type { Lacked } from '../../src/engine/lacks.js'
import type { PrimaryStream } from '../../src/engine/primary-stream.js'
import { Outbox, type Slot } from '../../src/replication/outbox.js'
import type { Pool } from '../../src/storage/pool.js'
import { Tracking } from '../../src/storage/tracking.js'
import { Group } from './group.js'
import { ManualClock } from './manual-clock.js'
import type { SeededRandom } from './random.js'

const volumeBytes = 256 * KiB
const storeCountMax = 5

export class LackingStream {
  readonly clock = new ManualClock()
  readonly tracking = new Tracking({ nodeId: 'b', acknowledged: undefined })
  readonly outbox: Outbox
  readonly random: SeededRandom
  readonly progress = { isWaiting: true, applied: 1, durable: 1 }
  /** As of the newest entry. */
  readonly sizes = new Map<StoreId, number>()
  /** Not ready or not settled yet. */
  #open: Slot[] = []
  #sequence = 1
  #lastId = 1
  /** Something that was kept is not any more, or failed. */
  isDisturbed = false

  constructor(random: SeededRandom) {
    this.random = random
    const group = new Group()
    group.volume('v', volumeBytes)
    this.sizes.set(1 as StoreId, volumeBytes)
    this.outbox = new Outbox({
      clock: this.clock,
      lastSequence: 1 as Sequence,
      events: {
        had: (entry, { isFailed }) =>
          this.tracking.had(entry, { kind: isFailed ? 'failed' : 'done' }),
        lacked: (entry) => this.tracking.lacked(entry),
        sendable: () => {},
        overflow: () => {},
      },
    })
    const table = { group: 'g', generations: [], nextStoreId: 2, stores: [] }
    const reset = { kind: 'reset', table } as const
    const event = { kind: 'operation', sequence: 1 as Sequence, at: '', operation: reset } as const
    this.tracking.reset(event, group.state.stores.values(), 4096)
    this.outbox.collect()
  }

  /** As the engine's. */
  get pool(): Pool {
    const state = { stores: new Map(), chunkBytes: 4096 }
    return { tracking: this.tracking, state, usage: { usedBytes: 0 } } as unknown as Pool
  }

  get stream(): PrimaryStream {
    return this as unknown as PrimaryStream
  }

  /** Something happens. */
  act(): void {
    const { random, outbox } = this
    const choice = random.below(40)
    if (choice < 18) this.change()
    else if (choice < 20) this.operate()
    else if (choice < 28) this.#close()
    else if (choice < 32) {
      const { applied } = this.progress
      this.progress.applied = applied + random.below(outbox.lastSequence - applied + 1)
    } else if (choice < 37) this.acknowledge()
    else if (choice === 37 && random.below(8) === 0) this.fold()
    else if (!outbox.isCollecting && this.tracking.pending.length === 0) {
      outbox.collect()
      this.progress.isWaiting = true
      this.progress.applied = outbox.lastSequence
      this.progress.durable = outbox.lastSequence
    }
  }

  /** A write or a zeroing is ordered. */
  change(): void {
    const { random } = this
    const storeId = random.pick([...this.sizes.keys()])
    const sizeBytes = this.sizes.get(storeId) ?? 0
    const offset = random.below(sizeBytes / 512) * 512
    const lengthBytes = Math.min(sizeBytes - offset, 512 * (1 + random.below(20)))
    const sequence = ++this.#sequence as Sequence
    const place = { sequence, storeId, offset, lengthBytes, fua: false }
    const entry: Entry =
      random.below(4) === 0
        ? { kind: 'zero', ...place, mayUnmap: true }
        : { kind: 'write', ...place, parts: [Buffer.alloc(lengthBytes)] }
    this.#open.push(this.outbox.reserve(entry))
  }

  operate(operation = this.#operation()): void {
    const sequence = ++this.#sequence as Sequence
    const event = { kind: 'operation', sequence, at: '', operation } as const
    this.tracking.performed(event)
    this.#open.push(this.outbox.reserve(event))
  }

  /** Everything that is ordered is settled, and the peer has it. */
  settleAll(): void {
    while (this.#open.length > 0) this.#close()
    this.outbox.take(Number.MAX_SAFE_INTEGER)
    this.progress.applied = this.outbox.lastSequence
    this.acknowledge(this.outbox.lastSequence)
  }

  acknowledge(durable = this.progress.durable + this.random.below(8)): void {
    const { outbox, progress } = this
    if (!outbox.isCollecting) return
    outbox.take(Number.MAX_SAFE_INTEGER)
    progress.durable = Math.max(
      progress.durable,
      Math.min(durable, progress.applied, outbox.sentSequence),
    )
    outbox.acknowledge(progress.durable as Sequence)
  }

  fold(): void {
    this.isDisturbed = true
    this.progress.isWaiting = false
    this.outbox.fold()
  }

  /** The oldest that is open is done, or fails. */
  #close(): void {
    const [slot] = this.#open
    if (slot === undefined) return
    this.#open = this.#open.slice(1)
    this.outbox.ready(slot)
    const { kind } = slot.entry
    if (kind !== 'write' && kind !== 'zero') return
    const isFailed = this.random.below(30) === 0
    this.isDisturbed ||= isFailed
    this.outbox.settle(slot, { isFailed })
  }

  #operation(): Operation {
    const { random } = this
    const ids = [...this.sizes.keys()]
    const sourceId = random.pick(ids)
    const sizeBytes = this.sizes.get(sourceId) ?? 0
    const targetId = random.pick(ids)
    const choice = random.below(4)
    if (choice === 0 && ids.length > 1) {
      this.sizes.delete(sourceId)
      return { kind: 'delete', storeId: sourceId }
    }
    if (choice === 1 && targetId !== sourceId) {
      this.sizes.set(targetId, sizeBytes)
      return { kind: 'copy', reason: 'sync', sourceId, targetId }
    }
    if (choice === 2 || ids.length >= storeCountMax) {
      const resized = blockBytes * (1 + random.below(64))
      this.sizes.set(sourceId, resized)
      return { kind: 'resize', storeId: sourceId, sizeBytes: resized }
    }
    return this.snapshot(sourceId)
  }

  snapshot(sourceId: StoreId): Operation {
    const storeId = ++this.#lastId as StoreId
    this.sizes.set(storeId, this.sizes.get(sourceId) ?? 0)
    return { kind: 'create-snapshots', snapshots: [{ storeId, sourceId, name: `s${storeId}` }] }
  }
}

/** Every dirty block, as `store block`, and the sizes of the stores. */
export function blocksOf(lacked: Lacked | undefined): ReadonlySet<string> {
  assert(lacked)
  const found = new Set<string>()
  for (const [id, { dirty, sizeBytes }] of lacked.stores) {
    found.add(`${id} has ${sizeBytes}`)
    const end = Math.ceil(sizeBytes / blockBytes)
    for (let block = 0; block < end; block++) if (dirty.isDirty(block)) found.add(`${id} ${block}`)
  }
  return found
}
