// Entries of the stream on a secondary, each performed at its place in the order on this node's own pool.
//
// Invariants: entry n + 1 after n, nothing else (law 6); a flush, an operation or a change that ends within a sector is durable before anything behind it is applied (law 4, and because an operation
// must not be performed again over newer bytes).
import assert from 'node:assert/strict'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { sectorBytes } from '../core/disk.js'
import {
  type CompareEntry,
  comparePieceBytes,
  type Entry,
  type OperationEntry,
  type WriteEntry,
  type ZeroEntry,
} from '../core/entry.js'
import type { Operation } from '../core/operation.js'
import type { Sequence } from '../core/units.js'
import type { PeerConnection } from '../replication/peer-connection.js'
import { presentGeneration } from '../storage/group-state.js'
import type { Prepared } from '../storage/prepare-operation.js'
import { differingPieces, digestsOf } from './digests.js'
import { checkOperation, checkSequence, type Expected } from './foreign-operation.js'
import type { LinkMemory } from './link-memory.js'
import type { MarkPlan } from './marks.js'
import { OperationStores } from './operation-stores.js'
import type { ReplicaHost } from './replica-host.js'
import type { ReplicaLoad } from './replica-load.js'
import type { ReplicaPosition } from './replica-position.js'
import type { DataEntry } from './sequencer.js'

export type ReplicaEntriesParts = {
  readonly position: ReplicaPosition
  readonly load: ReplicaLoad
  /** Where the bytes of writes are. */
  readonly memory: LinkMemory
  readonly send: PeerConnection['send']
  readonly fail: (error: unknown) => void
  /** The primary says that this node has everything now. */
  readonly onWhole: () => Promise<void>
}

/** How an operation came: in the stream, or after the fact. */
export type Arrival = Omit<Expected, 'sequence'>

export class ReplicaEntries {
  readonly #host: ReplicaHost
  readonly #parts: ReplicaEntriesParts
  readonly #position: ReplicaPosition
  readonly #compares = new WeakMap<DataEntry, CompareEntry>()

  constructor(host: ReplicaHost, parts: ReplicaEntriesParts) {
    this.#host = host
    this.#parts = parts
    this.#position = parts.position
  }

  /** An entry of the stream, in order. The answer holds back what is behind it. */
  take(entry: Entry): Promise<void> | undefined {
    const { mutants } = this.#host
    const position = this.#position
    const expected = position.received + 1
    if (entry.sequence <= position.received && mutants.has('apply-duplicate'))
      return this.#again(entry)
    if (entry.sequence !== expected && !mutants.has('ignore-gap'))
      throw new ProtocolError(`entry ${entry.sequence} came instead of ${expected}`)
    position.received = entry.sequence
    switch (entry.kind) {
      case 'write':
      case 'zero':
      case 'compare':
        return this.#change(entry)
      case 'operation':
        return this.guard(this.perform(entry, { isReplay: false }))
      case 'flush':
        if (mutants.has('drop-barrier'))
          return this.guard(this.#pass(entry.sequence, false).then(() => position.commit()))
        return this.guard(this.#pass(entry.sequence, true))
      case 'nothing':
        // The primary may wait for this very sequence.
        return this.guard(this.#pass(entry.sequence, false).then(() => position.applied(false)))
    }
  }

  /** Keeps what a client of the frames would see as a broken connection apart from what this node cannot do. */
  async guard(work: Promise<void>): Promise<void> {
    const { load, fail } = this.#parts
    load.began(0)
    try {
      await work
    } catch (error) {
      if (error instanceof ProtocolError) throw error
      fail(error)
    } finally {
      load.ended(0)
    }
  }

  async perform(entry: Omit<OperationEntry, 'kind'>, arrival: Arrival): Promise<void> {
    const { sequence, operation } = entry
    const { performed, mutants } = this.#host
    this.#check(sequence, operation, arrival)
    const { plan, stores } = await this.#atItsPlace(entry, arrival)
    if (mutants.has('operation-without-barrier')) this.#position.commit()
    if (operation.kind === 'resync-end') await this.#parts.onWhole()
    performed(operation, sequence, stores)
    if (operation.kind === 'mark') this.#marked(operation, sequence, plan)
    if (sequence > this.#position.received) this.#position.received = sequence
    this.#position.answer()
  }

  /** Goes on at a sequence: nothing that is missing before it will come. */
  async skipTo(position: Sequence): Promise<void> {
    if (position > this.#host.sequencer.lastSequence) await this.#goTo(position, true)
    this.#position.received = position
  }

  /** Applies a data entry of kind compare: called by the engine at its place in the order. */
  async compare(data: DataEntry): Promise<void> {
    const entry = this.#compares.get(data)
    assert(entry)
    const bytes = Buffer.allocUnsafe(data.lengthBytes)
    await this.#host.pool.read(data.store, data.offset, bytes)
    const { sequence, lengthBytes, digests } = entry
    const differing = differingPieces(digestsOf(bytes), digests, (piece) =>
      hasHole(data, piece, this.#host.pool.state.chunkBytes),
    )
    // Before the answer that covers it.
    this.#parts.send({ kind: 'compared', sequence, lengthBytes, differing })
  }

  /** Nothing looks at the bytes of a write any more. */
  release({ parts }: Pick<DataEntry, 'parts'>): void {
    for (const part of parts) this.#parts.memory.release(part)
  }

  #change(entry: WriteEntry | ZeroEntry | CompareEntry): Promise<void> | undefined {
    const data = this.#dataOf(entry)
    const isCompare = entry.kind === 'compare'
    if (isCompare) this.#compares.set(data, entry)
    const fua = !isCompare && entry.fua
    const isGate = !isCompare && cutsSector(entry)
    this.#position.add(entry.lengthBytes)
    if (!this.#submit(data, fua)) return undefined
    return isGate ? this.#passGate() : this.#parts.load.whenRoom()
  }

  /** False when it could not be done. */
  #submit(data: DataEntry, fua: boolean): boolean {
    const { load, fail } = this.#parts
    try {
      const applied = this.#host.sequencer.submit(data)
      if (applied === undefined) {
        this.release(data)
        this.#position.applied(fua)
        return true
      }
      load.began(data.lengthBytes)
      applied.then(
        () => {
          this.release(data)
          load.ended(data.lengthBytes)
          this.#position.applied(fua)
        },
        (error: unknown) => {
          this.release(data)
          load.ended(data.lengthBytes)
          fail(error)
        },
      )
      return true
    } catch (error) {
      this.release(data)
      fail(error)
      return false
    }
  }

  #dataOf(entry: WriteEntry | ZeroEntry | CompareEntry): DataEntry {
    const { kind, sequence, storeId, offset, lengthBytes } = entry
    const store = this.#host.pool.state.stores.get(storeId)
    if (store === undefined)
      throw new ProtocolError(`entry ${sequence} is for store ${storeId}, which is not here`)
    if (offset + lengthBytes > store.sizeBytes)
      throw new ProtocolError(`entry ${sequence} goes behind the end of its store`)
    const parts = kind === 'write' ? entry.parts : []
    return { kind, store, offset, lengthBytes, parts, mayUnmap: kind === 'zero' && entry.mayUnmap }
  }

  /** Nothing more is received until everything is applied, and that is durable. */
  async #passGate(): Promise<void> {
    await this.#parts.load.whenIdle()
    if (this.#position.isStopped) return
    await this.guard(this.#position.makeDurable())
    this.#position.answer()
  }

  async #pass(sequence: Sequence, isBarrier: boolean): Promise<void> {
    await this.#goTo(sequence, isBarrier)
    this.#position.answer()
  }

  /** A sequence at which nothing changes. */
  async #goTo(sequence: Sequence, isBarrier: boolean): Promise<void> {
    await this.#host.sequencer.operate({
      prepare: async () => {},
      perform: () => {},
      ...(isBarrier ? { settle: () => this.#position.makeDurable() } : {}),
      sequence,
    })
  }

  #check(sequence: Sequence, operation: Operation, arrival: Arrival): void {
    const { sequencer, pool, frozen } = this.#host
    if (sequence <= sequencer.lastSequence)
      throw new ProtocolError(`operation ${sequence} was performed here already`)
    checkSequence(sequence, sequencer.lastSequence)
    if (operation.kind === 'freeze' && !frozen.hasRoomFor(operation.frozenId))
      throw new ProtocolError('more stores are to be kept for verify than one verify needs')
    checkOperation(pool, operation, { sequence, ...arrival })
  }

  async #atItsPlace(
    { sequence, at, operation }: Omit<OperationEntry, 'kind'>,
    { isReplay }: Arrival,
  ): Promise<{ readonly plan: MarkPlan | undefined; readonly stores: readonly string[] }> {
    const { sequencer, pool, marks, frozen, mutants } = this.#host
    // A mark that is replayed after the fact has no position of its own any more.
    const mark = operation.kind === 'mark' && !isReplay ? operation : undefined
    let plan: MarkPlan | undefined
    let stores: readonly string[] = []
    await sequencer.operate<Prepared>({
      prepare: async () => {
        if (mark !== undefined) plan = await marks.plan(mark)
        return pool.prepare(operation)
      },
      perform: (_, prepared) => {
        const naming = new OperationStores(pool.state, operation)
        pool.perform({ kind: 'operation', sequence, at, operation }, prepared)
        stores = naming.names()
        // Who asked for a freeze that is replayed has given up since.
        if (operation.kind !== 'freeze' || !isReplay) frozen.performed(operation)
        if (plan !== undefined) marks.take(plan)
      },
      ...(mutants.has('operation-without-barrier')
        ? {}
        : { settle: () => this.#position.makeDurable() }),
      sequence,
    })
    return { plan, stores }
  }

  /** The hook runs beside the stream: its result goes back when it is there. */
  #marked(
    mark: Extract<Operation, { kind: 'mark' }>,
    sequence: Sequence,
    plan: MarkPlan | undefined,
  ): void {
    const { marks, pool } = this.#host
    const generation = presentGeneration(pool.state)
    if (plan === undefined) marks.missed(mark, sequence)
    else marks.finish(mark, { generation, sequence }, plan)
  }

  /** Switchable bug: an entry that was applied before. */
  async #again(entry: Entry): Promise<void> {
    const { pool } = this.#host
    if (entry.kind !== 'write' && entry.kind !== 'zero') return
    const store = pool.state.stores.get(entry.storeId)
    const { offset, lengthBytes } = entry
    if (store === undefined || offset + lengthBytes > store.sizeBytes) return
    if (entry.kind === 'write') await pool.write(store, offset, lengthBytes, entry.parts)
    else await pool.zero(store, offset, lengthBytes, entry.mayUnmap)
  }
}

/** Applied again behind a later entry, it would leave a sector that is neither before it nor behind it: nothing may be behind it before it is durable. */
function cutsSector({ offset, lengthBytes }: WriteEntry | ZeroEntry): boolean {
  return offset % sectorBytes !== 0 || lengthBytes % sectorBytes !== 0
}

/** The primary compares what it has chunks for. A hole here reads as the zeroes they may hold, and would leave both with different space. */
function hasHole({ store, offset, lengthBytes }: DataEntry, piece: number, chunkBytes: number) {
  const from = offset + piece * comparePieceBytes
  const end = Math.ceil(Math.min(from + comparePieceBytes, offset + lengthBytes) / chunkBytes)
  const look = { stepsLeft: Number.MAX_SAFE_INTEGER }
  return store.map.runEnd(Math.floor(from / chunkBytes), end, false, look) < end
}
