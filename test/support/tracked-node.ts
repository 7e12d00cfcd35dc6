// A primary without an engine: a pool on a simulated disk, an outbox in its simplest form, and a peer model that gets what is sent. For law 2: what the two
// have differs only where the tracking says so, at any moment and after any crash.
import assert from 'node:assert/strict'
import type { Entry, EntryOutcome } from '../../src/core/entry.js'
import { silentLog } from '../../src/core/log.js'
import type { Operation } from '../../src/core/operation.js'
import { blockBytes, byteOffset, type Sequence, type StoreId } from '../../src/core/units.js'
import { isLocalId, presentGeneration, type Store, storeOf } from '../../src/storage/group-state.js'
import { initPool } from '../../src/storage/init-pool.js'
import { Pool } from '../../src/storage/pool.js'
import type { Tracking } from '../../src/storage/tracking.js'
import type { SeededRandom } from '../simulation/random.js'
import { Life, Scheduler } from '../simulation/sim-clock.js'
import { SimDisk } from '../simulation/sim-disk.js'
import type { SimMedium } from '../simulation/sim-medium.js'
import { ModelStore, PeerModel, sectorBytes } from './peer-model.js'

export const trackedChunkBytes = 4096

type Slot = {
  readonly entry: Entry
  readonly values: readonly number[]
  readonly isHeld: boolean
  isReady: boolean
  isDone: boolean
  outcome: EntryOutcome
}

export type TrackedNodeOptions = {
  readonly random: SeededRandom
  readonly mutants?: ReadonlySet<string>
  readonly itemsMax?: number
  readonly journalBytes?: number
}

export class TrackedNode {
  readonly random: SeededRandom
  readonly #options: TrackedNodeOptions
  readonly #scheduler: Scheduler
  #life = new Life()
  #disk: SimDisk
  #pool: Pool | undefined
  /** Entries that have not left, in order. */
  readonly outbox: Slot[] = []
  /** How many of them the peer has been sent. */
  sentCount = 0
  isConnected = false
  /** The peer as of the newest entry that it is known to have durably, and as it is now. */
  durablePeer = new PeerModel()
  peer = new PeerModel()
  readonly #inFlight = new Set<Promise<void>>()
  readonly #underWay = new Set<number>()
  readonly #busyChunks = new Set<string>()
  sequence = 0
  #value = 0
  diskCalls = 0
  /** The life ends before this disk call. */
  crashAtCall = Number.POSITIVE_INFINITY

  constructor(options: TrackedNodeOptions) {
    this.#options = options
    this.random = options.random
    this.#scheduler = new Scheduler({ order: this.random.fork('order') })
    this.#disk = this.#newDisk()
  }

  get pool(): Pool {
    assert(this.#pool)
    return this.#pool
  }

  get tracking(): Tracking {
    const { tracking } = this.pool
    assert(tracking)
    return tracking
  }

  get hasCrashed(): boolean {
    return this.#life.isEnded
  }

  run<T>(work: Promise<T>): Promise<T> {
    return this.#scheduler.run(work)
  }

  step(): Promise<boolean> {
    return this.#scheduler.step()
  }

  async init(): Promise<void> {
    await this.run(
      initPool(this.#disk, {
        node: 'a',
        random: this.random.fork('init'),
        chunkBytes: trackedChunkBytes,
        journalBytes: this.#options.journalBytes ?? 256 * 1024,
      }),
    )
    await this.open()
  }

  async open(): Promise<void> {
    this.#pool = await this.run(
      Pool.open({
        disk: this.#disk,
        clock: this.#scheduler.clockOf(this.#life),
        random: this.random.fork('open'),
        log: silentLog,
        mutants: this.#options.mutants ?? new Set(),
        appliedSequence: () => (this.#pool === undefined ? undefined : this.#applied()),
        onEvent: () => {},
        activeLimits: { itemsMax: this.#options.itemsMax ?? 8, itemsPerEviction: 2 },
      }),
    )
    this.sequence = this.pool.state.sequence
  }

  /** The peer begins as a blank node. */
  async attachBlank(): Promise<void> {
    await this.settle()
    const { state } = this.pool
    this.pool.beginTracking('b'.repeat(32))
    const stores = [...state.stores.values()].map(({ id, name, sizeBytes, createdAt }) => ({
      id,
      name,
      sizeBytes,
      createdAt,
    }))
    const { group, generations, nextStoreId } = state
    const sequence = ++this.sequence as Sequence
    const operation: Operation = {
      kind: 'reset',
      table: { group, generations, nextStoreId, stores },
    }
    this.pool.perform({ kind: 'operation', sequence, at: 'now', operation }, [])
    await this.run(this.pool.commit())
  }

  // --- Changes. ---

  /** Begins a write or a zeroing; it goes on by itself. */
  change(kind: 'write' | 'zero', store: Store, offset: number, lengthBytes: number): void {
    const chunks = chunksOf(store, offset, lengthBytes)
    if (chunks.some((chunk) => this.#busyChunks.has(chunk))) return
    const values = Array.from({ length: lengthBytes / sectorBytes }, () => ++this.#value)
    const sequence = ++this.sequence as Sequence
    const range = { sequence, storeId: store.id, offset, lengthBytes, fua: false }
    const parts = [bytesOf(values)]
    const entry: Entry =
      kind === 'write' ? { kind, ...range, parts } : { kind, ...range, mayUnmap: true }
    const slot = this.#reserve(entry, values, true)
    const held = this.pool.hold(store.id, offset, lengthBytes)
    for (const chunk of chunks) this.#busyChunks.add(chunk)
    this.#underWay.add(sequence)
    this.#background(
      (async () => {
        await held
        slot.isReady = true
        if (kind === 'write') await this.pool.write(store, offset, lengthBytes, parts)
        else await this.pool.zero(store, offset, lengthBytes, true)
        slot.isDone = true
        for (const chunk of chunks) this.#busyChunks.delete(chunk)
        this.#underWay.delete(sequence)
        this.#pump()
      })(),
    )
  }

  /** Performs an operation behind everything that is under way. */
  async operate(operation: Operation): Promise<void> {
    await this.settle()
    const prepared = await this.run(this.pool.prepare(operation))
    const sequence = ++this.sequence as Sequence
    const event = { kind: 'operation', sequence, at: 'now', operation } as const
    this.pool.perform(event, prepared)
    const slot = this.#reserve(event, [], false)
    slot.isDone = true
    this.#background(
      this.pool.commit().then(() => {
        slot.isReady = true
        this.#pump()
      }),
    )
    if (!this.isConnected) slot.isReady = true
    this.#pump()
  }

  /** A flush: an entry of the stream, and a commit. */
  flush(): void {
    const slot = this.#reserve({ kind: 'flush', sequence: ++this.sequence as Sequence }, [], false)
    slot.isReady = true
    slot.isDone = true
    this.#background(this.pool.commit())
    this.#pump()
  }

  /** What the peer has is not what is dirty here: the resync's entries. */
  async resend(store: Store, offset: number, lengthBytes: number): Promise<void> {
    await this.settle()
    const values = await this.read(store, offset, lengthBytes)
    const range = { storeId: store.id, offset, lengthBytes }
    const sequence = ++this.sequence as Sequence
    const slot = this.#reserve(
      { kind: 'write', sequence, ...range, fua: false, parts: [] },
      values,
      false,
    )
    slot.isReady = true
    slot.isDone = true
  }

  async compare(store: Store, offset: number, lengthBytes: number): Promise<void> {
    await this.settle()
    const here = new ModelStore(store.sizeBytes)
    const values = await this.read(store, offset, lengthBytes)
    for (const [index, value] of values.entries())
      if (value !== 0) here.sectors.set(offset / sectorBytes + index, value)
    const sequence = ++this.sequence as Sequence
    const range = { offset, lengthBytes }
    const digests = Buffer.alloc(0)
    const slot = this.#reserve(
      { kind: 'compare', sequence, storeId: store.id, ...range, digests },
      [],
      false,
    )
    slot.isReady = true
    slot.isDone = true
    // The peer compares when it gets there: what is in the outbox before is applied by then.
    this.send(this.outbox.length)
    slot.outcome = { kind: 'compared', differing: this.peer.compare(store.id, range, here) }
  }

  // --- The link. ---

  /** Sends up to `count` entries. */
  send(count: number): void {
    for (let sent = 0; this.isConnected && sent < count; sent++) {
      const slot = this.outbox[this.sentCount]
      if (slot === undefined || !slot.isReady) return
      this.peer.apply(slot.entry, slot.values)
      this.sentCount++
    }
  }

  /** The peer has what it was sent on stable storage: up to `count` entries leave as had. */
  acknowledge(count: number): void {
    for (let left = 0; left < count; left++) {
      const slot = this.outbox[0]
      if (slot === undefined || this.sentCount === 0 || !slot.isDone) return
      this.durablePeer.apply(slot.entry, slot.values)
      const { sequence } = slot.entry
      this.tracking.acknowledged({ generation: presentGeneration(this.pool.state), sequence })
      this.outbox.shift()
      this.sentCount--
      this.tracking.had(slot.entry, slot.outcome)
      if (slot.isHeld) this.#drop(slot)
    }
  }

  /** The link goes, and perhaps the peer crashes: it has some of what it was sent. The outbox may stay for a resumption. */
  disconnect(options: { readonly folds: boolean }): void {
    if (!this.isConnected) return
    this.#rollBackPeer()
    this.isConnected = !options.folds
    if (options.folds) {
      this.durablePeer = this.peer.clone()
      this.sentCount = 0
      this.#pump()
    }
  }

  /** The peer is back: it performs the op log. What is dirty is to be sent. */
  async connect(): Promise<void> {
    if (this.isConnected) return
    await this.settle()
    assert.equal(this.outbox.length, 0)
    this.#replayOpLog(this.peer)
    await this.run(this.pool.commit())
    this.durablePeer = this.peer.clone()
    const sequence = this.sequence as Sequence
    this.tracking.acknowledged({ generation: presentGeneration(this.pool.state), sequence })
    this.isConnected = true
  }

  // --- What a medium loses, and verify finds. ---

  /** Both are at one position: nothing is in the outbox. */
  async #inStep(): Promise<boolean> {
    await this.settle()
    this.send(this.outbox.length)
    this.acknowledge(this.outbox.length)
    return this.isConnected && this.outbox.length === 0
  }

  /** The peer's medium has something else in a range, as verify found. Answers whether that was so: not without the peer. */
  async spoil(store: Store, offset: number, lengthBytes: number): Promise<boolean> {
    if (!(await this.#inStep())) return false
    this.tracking.differs(store.id, { offset: byteOffset(offset), lengthBytes })
    // Nobody was told of it before it was durable.
    await this.run(this.pool.commit())
    for (const peer of [this.peer, this.durablePeer])
      for (let at = offset; at < offset + lengthBytes; at += sectorBytes)
        peer.store(store.id).sectors.set(at / sectorBytes, ++this.#value)
    return true
  }

  /** Verifies a store at this position; the answer tells the tracking what was the same, at any time later. */
  async verify(store: Store): Promise<(() => void) | undefined> {
    if (!(await this.#inStep())) return undefined
    const differing = await this.#differingBlocks(store, this.peer.store(store.id))
    const { id, sizeBytes } = store
    const { sequence } = this
    const same = new Set<number>()
    const blockCount = Math.ceil(sizeBytes / blockBytes)
    // Where no store is known to differ there is nothing to say now, nor behind a copy.
    for (const { differing: map } of this.tracking.stores.values())
      for (let run = map.nextRun(0, blockCount, 1); run; run = map.nextRun(run.end, blockCount, 1))
        if (!differing.has(run.first)) same.add(run.first)
    return () => {
      for (const block of same) {
        const offset = byteOffset(block * blockBytes)
        const lengthBytes = Math.min(blockBytes, sizeBytes - offset)
        this.tracking.same(id, { offset, lengthBytes }, sequence)
      }
    }
  }

  /** Everything that was found goes over. */
  repairAll(): void {
    for (const [id, { differing, sizeBytes }] of this.tracking.stores) {
      const end = Math.ceil(sizeBytes / blockBytes)
      for (let run = differing.nextRun(0, end, 64); run; run = differing.nextRun(0, end, 64)) {
        const offset = byteOffset(run.first * blockBytes)
        const lengthBytes = Math.min(run.end * blockBytes, sizeBytes) - offset
        this.tracking.mark(id, { offset, lengthBytes })
      }
    }
  }

  // --- Ends. ---

  /** The machine stops. Some of what was not synced is there for the next start. */
  async crashAndRecover(isPowerCut: boolean): Promise<void> {
    this.#life.end()
    if (this.isConnected) this.#rollBackPeer()
    this.durablePeer = this.peer.clone()
    const medium = isPowerCut ? this.#afterPowerCut() : this.#disk.medium.afterKill()
    await this.#restart(medium)
  }

  async restartCleanly(): Promise<void> {
    await this.settle()
    this.disconnect({ folds: true })
    await this.settle()
    await this.run(this.pool.close({ sequence: this.sequence }))
    this.#life.end()
    await this.#restart(this.#disk.medium.afterKill())
  }

  // --- Looking. ---

  /** Resolves when no change is under way here. */
  async settle(): Promise<void> {
    while (this.#inFlight.size > 0) {
      this.send(this.outbox.length)
      this.acknowledge(this.outbox.length)
      await this.run(Promise.race(this.#inFlight))
    }
  }

  async read(store: Store, offset: number, lengthBytes: number): Promise<readonly number[]> {
    const bytes = Buffer.alloc(lengthBytes)
    await this.run(Promise.resolve(this.pool.read(store, offset, bytes)))
    return Array.from({ length: lengthBytes / sectorBytes }, (_, index) =>
      bytes.readUInt32LE(index * sectorBytes),
    )
  }

  /** Law 2, with nothing in the outbox: throws where a store differs from the peer's, is not dirty, and was not found to differ. Answers how many blocks are dirty and how many differ. */
  async checkLaw2(): Promise<{ readonly dirtyBlocks: number; readonly differingBlocks: number }> {
    assert.equal(this.outbox.length, 0)
    const peer = this.peer.clone()
    this.#replayOpLog(peer)
    const ours = [...this.pool.state.stores.values()].filter((store) => !isLocalId(store.id))
    assert.deepEqual(
      ours.map((store) => [store.id, store.sizeBytes]).sort(byNumber),
      [...peer.stores].map(([id, store]) => [id, store.sizeBytes]).sort(byNumber),
      'the same stores',
    )
    let dirtyBlocks = 0
    let differingBlocks = 0
    for (const store of ours) {
      dirtyBlocks += Math.ceil(this.tracking.dirtyBytes(store.id) / blockBytes)
      for (const block of await this.#differingBlocks(store, peer.store(store.id))) {
        differingBlocks++
        const offset = block * blockBytes
        const isDirty = this.tracking.isDirty(store.id, offset, 1)
        const isKnown = isDirty || this.tracking.isDiffering(store.id, offset, 1)
        assert(isKnown, `block ${block} of store ${store.id} differs and is clean`)
      }
    }
    return { dirtyBlocks, differingBlocks }
  }

  async #differingBlocks(store: Store, theirs: ModelStore): Promise<ReadonlySet<number>> {
    const chunks = new Set<number>()
    for (const sector of theirs.sectors.keys())
      chunks.add(Math.floor((sector * sectorBytes) / trackedChunkBytes))
    for (const [pageIndex, page] of store.map.pages)
      for (const [entry, place] of page.entries.entries())
        if (place !== 0) chunks.add(pageIndex * page.entries.length + entry)
    const found = new Set<number>()
    for (const chunk of chunks) {
      const offset = chunk * trackedChunkBytes
      if (offset >= store.sizeBytes) continue
      const lengthBytes = Math.min(trackedChunkBytes, store.sizeBytes - offset)
      const values = await this.read(store, offset, lengthBytes)
      const first = offset / sectorBytes
      if (values.some((value, index) => value !== (theirs.sectors.get(first + index) ?? 0)))
        found.add(Math.floor(offset / blockBytes))
    }
    return found
  }

  #newDisk(medium?: SimMedium): SimDisk {
    return new SimDisk({
      canPunch: true,
      life: this.#life,
      scheduler: this.#scheduler,
      random: this.random.fork('disk'),
      beforeCall: () => {
        this.diskCalls++
        if (this.diskCalls === this.crashAtCall) this.#life.end()
      },
      ...(medium === undefined ? {} : { medium }),
    })
  }

  #afterPowerCut(): SimMedium {
    const capture = this.#disk.medium.capture()
    return capture.after(capture.randomChoice(this.random))
  }

  async #restart(medium: SimMedium): Promise<void> {
    this.outbox.length = 0
    this.sentCount = 0
    this.isConnected = false
    this.#inFlight.clear()
    this.#underWay.clear()
    this.#busyChunks.clear()
    this.#pool = undefined
    this.crashAtCall = Number.POSITIVE_INFINITY
    this.#life = new Life()
    this.#disk = this.#newDisk(medium)
    await this.open()
  }

  /** The peer has at least what it acknowledged, and at most what it was sent. */
  #rollBackPeer(): void {
    const keptCount = this.random.below(this.sentCount + 1)
    this.peer = this.durablePeer.clone()
    for (const slot of this.outbox.slice(0, keptCount)) this.peer.apply(slot.entry, slot.values)
    this.sentCount = keptCount
  }

  #replayOpLog(peer: PeerModel): void {
    for (const { sequence, operation } of this.tracking.opLog) {
      if (sequence <= peer.position) continue
      peer.perform(operation)
      peer.position = sequence
    }
    peer.position = Math.max(peer.position, this.tracking.leftSequence)
  }

  #applied(): number {
    for (const sequence of this.#underWay) return sequence - 1
    return Math.max(this.sequence, this.pool.state.sequence)
  }

  #reserve(entry: Entry, values: readonly number[], isHeld: boolean): Slot {
    const outcome = { kind: 'done' } as const
    const slot: Slot = { entry, values, isHeld, isReady: false, isDone: false, outcome }
    this.outbox.push(slot)
    return slot
  }

  /** Without a link entries leave as soon as they can. */
  #pump(): void {
    if (this.isConnected || this.pool.tracking === undefined) {
      if (this.pool.tracking === undefined) this.outbox.length = 0
      return
    }
    for (let slot = this.outbox[0]; slot?.isReady === true && slot.isDone; slot = this.outbox[0]) {
      this.outbox.shift()
      this.tracking.lacked(slot.entry)
      if (slot.isHeld) this.#drop(slot)
    }
  }

  #drop({ entry }: Slot): void {
    assert(entry.kind === 'write' || entry.kind === 'zero')
    this.pool.drop(entry.storeId, entry.offset, entry.lengthBytes)
  }

  #background(work: Promise<void>): void {
    const tracked = work.finally(() => this.#inFlight.delete(tracked))
    this.#inFlight.add(tracked)
    tracked.catch(() => {})
  }

  storeOf(id: number): Store {
    return storeOf(this.pool.state, id as StoreId)
  }
}

function chunksOf(store: Store, offset: number, lengthBytes: number): readonly string[] {
  const first = Math.floor(offset / trackedChunkBytes)
  const end = Math.ceil((offset + lengthBytes) / trackedChunkBytes)
  if (end - first > 64) return [`${store.id} all`]
  return Array.from({ length: end - first }, (_, index) => `${store.id} ${first + index}`)
}

function bytesOf(values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * sectorBytes)
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, index * sectorBytes)
  return bytes
}

function byNumber(a: readonly unknown[], b: readonly unknown[]): number {
  return Number(a[0]) - Number(b[0])
}
