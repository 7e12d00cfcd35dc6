// The secondary's side of one connection: performs every entry of the stream in its order on this node's own pool, and answers how far it is.
//
// Invariants: entry n + 1 after n, nothing else (law 6); a flush, an operation or a change that ends within a sector is durable before anything behind it is applied (law 4, and because an operation
// must not be performed again over newer bytes); a position is answered as durable only when this node's journal has it; before a resync changes anything the
// whole group is kept as `before-resync` (law 5).
import { AssertionError } from 'node:assert'
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { Clock, Timer } from '../core/clock.js'
import { sectorBytes } from '../core/disk.js'
import {
  type CompareEntry,
  comparePieceBytes,
  type Entry,
  type WriteEntry,
  type ZeroEntry,
} from '../core/entry.js'
import { LockstepError } from '../core/errors.js'
import type { Log } from '../core/log.js'
import type { Operation } from '../core/operation.js'
import { MiB, type Sequence } from '../core/units.js'
import type { DigestRequestFrame, ReadRequestFrame, ReceivedFrame } from '../replication/frames.js'
import { decide, movesData, objection } from '../replication/greeting.js'
import { type Decision, type Hello, parseDecision, parseHello } from '../replication/hello.js'
import type { LinkState } from '../replication/link-state.js'
import { PeerConnection } from '../replication/peer-connection.js'
import { presentGeneration } from '../storage/group-state.js'
import type { Pool, Prepared } from '../storage/pool.js'
import { type BeforeResync, isNoRoom } from './before-resync.js'
import { differingPieces, digestsOf } from './digests.js'
import { checkOperation, checkSequence } from './foreign-operation.js'
import type { FrozenStores } from './frozen.js'
import { LinkMemory } from './link-memory.js'
import type { MarkHandler, MarkPlan } from './marks.js'
import type { DataEntry, Sequencer } from './sequencer.js'

/** Received and not applied: beyond this nothing more is read. */
const inFlightBytesMax = 64 * MiB
const inFlightEntriesMax = 4096
/** Memory that entries under way keep from being read into again: a small one may keep a piece of 128 KiB. */
const heldBytesMax = 2 * inFlightBytesMax
/** Applied and not durable: a commit begins by itself, so that the primary's outbox empties. */
const undurableBytesMax = 32 * MiB
const undurableMs = 1000

export type ReplicaHost = {
  readonly pool: Pool
  readonly sequencer: Sequencer
  readonly clock: Clock
  readonly log: Log
  readonly deadlineMs?: number
  readonly onEntries?: (isCrowd: boolean) => void
  readonly hello: () => Hello
  readonly frozen: FrozenStores
  readonly marks: MarkHandler
  /** Without room for what it has before a resync, a resync stops. */
  readonly isBeforeResyncRequired: boolean
  /** There was no room, and it was not required. */
  readonly onGivenUp: (reason: string) => void
  /** An operation took effect: catalog and events follow. */
  readonly performed: (operation: Operation, sequence: Sequence) => void
  readonly onChange: (link: LinkState, reason: string) => void
  readonly mutants: ReadonlySet<string>
}

export type IntakeObserver = {
  readonly go: (state: LinkState, reason: string) => void
  readonly met: (peer: Hello) => void
  readonly refused: (action: string) => void
}

/** One connection from a primary. */
export class Intake {
  readonly #host: ReplicaHost
  readonly #observer: IntakeObserver
  readonly #beforeResync: BeforeResync
  readonly connection: PeerConnection
  readonly #memory = new LinkMemory()
  /** Resolves with the reason when the connection has ended and everything received is applied or refused. Never rejects. */
  readonly ended: Promise<string>
  #phase: 'hello' | 'decision' | 'replay' | 'stream' = 'hello'
  #mine: Hello | undefined
  #peer: Hello | undefined
  /** Everything is to come: first the table of stores, and nothing else instead. */
  #awaitsTable = false
  #inFlightBytes = 0
  #inFlightCount = 0
  #roomWaiter: (() => void) | undefined
  #idleWaiters: (() => void)[] = []
  #undurableBytes = 0
  #commitTimer: Timer | undefined
  #committedSequence = 0 as Sequence
  #isStopped = false
  #endMarks: () => void = () => {}
  received: Sequence

  constructor(
    stream: Duplex,
    host: ReplicaHost,
    beforeResync: BeforeResync,
    observer: IntakeObserver,
  ) {
    this.#host = host
    this.#observer = observer
    this.#beforeResync = beforeResync
    this.received = host.sequencer.lastSequence
    this.connection = new PeerConnection({
      stream,
      clock: host.clock,
      side: 'secondary',
      receive: (frame) => this.#receive(frame),
      memory: this.#memory,
      onDelivered: (frameCount) => host.onEntries?.(frameCount > 1),
      ...(host.deadlineMs === undefined ? {} : { silenceTimeoutMs: host.deadlineMs }),
      skipsCrc: host.mutants.has('skip-crc'),
    })
    this.ended = this.#end()
  }

  async #end(): Promise<string> {
    const reason = await this.connection.closed
    this.#isStopped = true
    this.#endMarks()
    this.#commitTimer?.cancel()
    if (this.#inFlightCount > 0)
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve))
    return reason.message
  }

  #receive(frame: ReceivedFrame): Promise<void> | undefined {
    if (this.#isStopped) {
      if (frame.kind === 'write') this.#release(frame)
      return undefined
    }
    if (this.#phase === 'stream' && isEntry(frame)) return this.#entry(frame)
    switch (frame.kind) {
      case 'hello':
        if (this.#phase !== 'hello') throw outOfPlace(frame)
        return this.#guard(this.#greet(parseHello(frame.body)))
      case 'decision':
        if (this.#phase !== 'decision') throw outOfPlace(frame)
        return this.#guard(this.#obey(parseDecision(frame.body)))
      case 'replay':
        if (this.#phase !== 'replay') throw outOfPlace(frame)
        return this.#guard(this.#perform(frame.sequence, frame.at, frame.operation))
      case 'stream-from':
        if (this.#phase !== 'replay') throw outOfPlace(frame)
        return this.#guard(this.#streamFrom(frame.sequence))
      case 'journaled':
        if (this.#phase !== 'replay' && this.#phase !== 'stream') throw outOfPlace(frame)
        this.#saw(frame.batchNumber)
        return undefined
      case 'digest-request':
        if (this.#phase !== 'stream') throw outOfPlace(frame)
        return this.#guard(this.#digest(frame))
      case 'read-request':
        if (this.#phase !== 'stream') throw outOfPlace(frame)
        return this.#guard(this.#readFrozen(frame))
      default:
        throw outOfPlace(frame)
    }
  }

  #saw(batchNumber: number): void {
    const run = this.#peer?.runs.at(-1)
    if (this.#peer === undefined || run === undefined) return
    this.#host.pool.sawPrimary({ nodeId: this.#peer.nodeId, runId: run.runId, batchNumber })
  }

  /** For verify: digests of a store that was kept at an earlier entry. */
  async #digest(request: DigestRequestFrame): Promise<void> {
    const digests = digestsOf(await this.#frozenBytes(request))
    this.connection.send({ kind: 'digest-answer', requestId: request.requestId, digests })
  }

  /** For a repair from here: its bytes. */
  async #readFrozen(request: ReadRequestFrame): Promise<void> {
    const bytes = await this.#frozenBytes(request)
    this.connection.send({ kind: 'read-answer', requestId: request.requestId, bytes })
  }

  /** None when there is no such store: this node was started again meanwhile. */
  async #frozenBytes(request: DigestRequestFrame | ReadRequestFrame): Promise<Buffer> {
    const { frozenId, offset, lengthBytes } = request
    const store = this.#host.frozen.find(frozenId)
    if (store === undefined || offset + lengthBytes > store.sizeBytes) return Buffer.alloc(0)
    const bytes = Buffer.allocUnsafe(lengthBytes)
    await this.#host.pool.read(store, offset, bytes)
    return bytes
  }

  async #greet(peer: Hello): Promise<void> {
    const { sequencer } = this.#host
    this.#peer = peer
    this.#observer.met(peer)
    // What was applied on an earlier connection is made durable first: the position that is told is both.
    if (this.#host.mutants.has('resume-from-applied')) {
      this.#mine = { ...this.#host.hello(), sequence: sequencer.lastSequence }
      this.#phase = 'decision'
      this.connection.send({ kind: 'hello', body: { ...this.#mine } })
      return
    }
    await this.#commitPosition()
    this.#mine = this.#host.hello()
    this.#phase = 'decision'
    this.connection.send({ kind: 'hello', body: { ...this.#mine } })
  }

  async #obey(decision: Decision): Promise<void> {
    const mine = this.#mine
    const peer = this.#peer
    assert(mine)
    assert(peer)
    const refusal = objection(decision, mine, peer)
    if (refusal !== undefined) {
      this.#observer.refused(refusal.action ?? '')
      this.#observer.go('refused', refusal.reason)
      this.#refuse('CONFLICT', refusal.reason, refusal.action ?? 'lockstep status')
      return
    }
    if (movesData(decision)) this.#host.frozen.belongTo(peer.runs.at(-1)?.runId)
    switch (decision.kind) {
      case 'nothing':
      case 'resume':
        this.#beginStream()
        this.received = this.#host.sequencer.lastSequence
        this.#observer.go(mine.isWhole ? 'streaming' : 'resyncing', decision.reason)
        break
      case 'resync':
      case 'full':
        this.#phase = 'replay'
        this.#awaitsTable = decision.kind === 'full'
        this.#observer.go('replaying', decision.reason)
        if (!this.#host.mutants.has('no-before-resync')) await this.#beforeResync.begin()
        else await this.#beforeResync.markUnfinished()
        break
      default: {
        const own = decide(mine, peer)
        this.#observer.refused(own.action ?? decision.action ?? '')
        this.#observer.go('refused', decision.reason)
        return
      }
    }
    this.connection.send({ kind: 'ready', body: {} })
    this.#answer()
  }

  async #streamFrom(first: Sequence): Promise<void> {
    const { sequencer } = this.#host
    const position = (first - 1) as Sequence
    if (this.#awaitsTable) throw new ProtocolError('the stream begins before the table of stores')
    checkSequence(position, sequencer.lastSequence)
    if (position < sequencer.lastSequence)
      throw new ProtocolError(`the stream begins at ${first}, behind what is here already`)
    if (position > sequencer.lastSequence)
      await sequencer.operate({
        prepare: async () => {},
        perform: () => {},
        settle: () => this.#commitPosition(),
        sequence: position,
      })
    this.received = position
    this.#beginStream()
    this.#observer.go('resyncing', 'operations are done; what differs is copied')
    this.#answer()
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

  /** An entry of the stream, in order. The answer holds back what is behind it. */
  #entry(entry: Entry): Promise<void> | undefined {
    const { mutants } = this.#host
    const expected = this.received + 1
    if (entry.sequence <= this.received && mutants.has('apply-duplicate')) return this.#again(entry)
    if (entry.sequence !== expected && !mutants.has('ignore-gap'))
      throw new ProtocolError(`entry ${entry.sequence} came instead of ${expected}`)
    this.received = entry.sequence
    switch (entry.kind) {
      case 'write':
      case 'zero':
      case 'compare':
        return this.#data(entry)
      case 'operation':
        return this.#guard(this.#perform(entry.sequence, entry.at, entry.operation))
      case 'flush':
        if (mutants.has('drop-barrier'))
          return this.#guard(this.#pass(entry.sequence, false).then(() => this.#commit()))
        return this.#guard(this.#pass(entry.sequence, true))
      case 'nothing':
        // The primary may wait for this very sequence.
        return this.#guard(this.#pass(entry.sequence, false).then(() => this.#applied(false)))
    }
  }

  #data(entry: WriteEntry | ZeroEntry | CompareEntry): Promise<void> | undefined {
    const { pool, sequencer } = this.#host
    const store = pool.state.stores.get(entry.storeId)
    if (store === undefined)
      throw new ProtocolError(
        `entry ${entry.sequence} is for store ${entry.storeId}, which is not here`,
      )
    if (entry.offset + entry.lengthBytes > store.sizeBytes)
      throw new ProtocolError(`entry ${entry.sequence} goes behind the end of its store`)
    const data: DataEntry = {
      kind: entry.kind,
      store,
      offset: entry.offset,
      lengthBytes: entry.lengthBytes,
      parts: entry.kind === 'write' ? entry.parts : [],
      mayUnmap: entry.kind === 'zero' && entry.mayUnmap,
    }
    if (entry.kind === 'compare') this.#compares.set(data, entry)
    const isCompare = entry.kind === 'compare'
    const fua = !isCompare && entry.fua
    const isGate = !isCompare && cutsSector(entry)
    this.#undurableBytes += entry.lengthBytes
    try {
      const applied = sequencer.submit(data)
      if (applied === undefined) {
        this.#release(data)
        this.#applied(fua)
        return isGate ? this.#makeDurable() : undefined
      }
      this.#inFlightBytes += entry.lengthBytes
      this.#inFlightCount++
      applied.then(
        () => {
          this.#release(data)
          this.#left(entry.lengthBytes)
          this.#applied(fua)
        },
        (error: unknown) => {
          this.#release(data)
          this.#left(entry.lengthBytes)
          this.#fail(error)
        },
      )
    } catch (error) {
      this.#release(data)
      this.#fail(error)
      return undefined
    }
    if (isGate) return this.#makeDurable()
    if (this.#hasRoom) return undefined
    return new Promise((resolve) => {
      this.#roomWaiter = resolve
    })
  }

  /** Nothing looks at the bytes of a write any more. */
  #release({ parts }: Pick<DataEntry, 'parts'>): void {
    for (const part of parts) this.#memory.release(part)
  }

  get #hasRoom(): boolean {
    return (
      this.#inFlightBytes < inFlightBytesMax &&
      this.#inFlightCount < inFlightEntriesMax &&
      this.#memory.heldBytes < heldBytesMax
    )
  }

  /** Nothing more is received until everything is applied, and that is durable. */
  async #makeDurable(): Promise<void> {
    if (this.#inFlightCount > 0)
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve))
    if (this.#isStopped) return
    await this.#guard(this.#commitPosition())
    this.#answer()
  }

  /** Everything that was received is applied: resolves when this node's journal knows that. Rejects with NO_SPACE when it has no room even for that. */
  async #commitPosition(): Promise<void> {
    const { pool, sequencer } = this.#host
    await pool.commit()
    if (pool.durableSequence >= sequencer.appliedSequence) return
    await pool.forceCheckpoint()
    await pool.commit()
    if (pool.durableSequence >= sequencer.appliedSequence) return
    throw new LockstepError(
      'NO_SPACE',
      'the journal of the secondary has no room for its position',
      'make room in the file system of its data directory; it connects again by itself',
    )
  }

  readonly #compares = new WeakMap<DataEntry, CompareEntry>()

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
    this.connection.send({ kind: 'compared', sequence, lengthBytes, differing })
  }

  async #pass(sequence: Sequence, isBarrier: boolean): Promise<void> {
    const { sequencer } = this.#host
    await sequencer.operate({
      prepare: async () => {},
      perform: () => {},
      ...(isBarrier ? { settle: () => this.#commitPosition() } : {}),
      sequence,
    })
    this.#answer()
  }

  async #perform(sequence: Sequence, at: string, operation: Operation): Promise<void> {
    const { sequencer, pool, performed, mutants } = this.#host
    if (sequence <= sequencer.lastSequence)
      throw new ProtocolError(`operation ${sequence} was performed here already`)
    checkSequence(sequence, sequencer.lastSequence)
    if (operation.kind === 'freeze' && !this.#host.frozen.hasRoomFor(operation.frozenId))
      throw new ProtocolError('more stores are to be kept for verify than one verify needs')
    const table = this.#awaitsTable ? this.#peer : undefined
    checkOperation(pool, operation, {
      sequence,
      isReplay: this.#phase === 'replay',
      ...(table === undefined ? {} : { reset: table }),
    })
    this.#awaitsTable = false
    // A mark that is replayed after the fact has no position of its own any more.
    const mark = operation.kind === 'mark' && this.#phase === 'stream' ? operation : undefined
    let plan: MarkPlan | undefined
    await sequencer.operate<Prepared>({
      prepare: async () => {
        if (mark !== undefined) plan = await this.#host.marks.plan(mark)
        return pool.prepare(operation)
      },
      perform: (_, prepared) => {
        pool.perform({ kind: 'operation', sequence, at, operation }, prepared)
        // Who asked for a freeze that is replayed has given up since.
        if (operation.kind !== 'freeze' || this.#phase === 'stream')
          this.#host.frozen.performed(operation)
        if (plan !== undefined) this.#host.marks.take(plan)
      },
      ...(mutants.has('operation-without-barrier') ? {} : { settle: () => this.#commitPosition() }),
      sequence,
    })
    if (mutants.has('operation-without-barrier')) this.#commit()
    if (operation.kind === 'resync-end') {
      await this.#beforeResync.drop()
      this.#observer.go('streaming', 'this node has everything')
    }
    performed(operation, sequence)
    if (operation.kind === 'mark') this.#marked(operation, sequence, plan)
    if (sequence > this.received) this.received = sequence
    this.#answer()
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

  /** From here on entries come, and results of marks are taken. */
  #beginStream(): void {
    this.#phase = 'stream'
    this.#endMarks = this.#host.marks.connected((sequence, result) =>
      this.connection.send({ kind: 'result', sequence, body: { ...result } }),
    )
  }

  #left(lengthBytes: number): void {
    this.#inFlightBytes -= lengthBytes
    this.#inFlightCount--
    const waiter = this.#roomWaiter
    if (waiter !== undefined && (this.#hasRoom || this.#inFlightCount === 0)) {
      this.#roomWaiter = undefined
      waiter()
    }
    if (this.#inFlightCount > 0) return
    for (const idle of this.#idleWaiters.splice(0)) idle()
  }

  #applied(isForced: boolean): void {
    if (isForced || this.#undurableBytes > undurableBytesMax) this.#commit()
    else this.#commitLater()
    this.#answer()
  }

  #commitLater(): void {
    if (this.#isStopped) return
    this.#commitTimer ??= this.#host.clock.setTimer(undurableMs, () => {
      this.#commitTimer = undefined
      this.#commit()
    })
  }

  #commit(): void {
    this.#undurableBytes = 0
    this.#committedSequence = this.#host.sequencer.appliedSequence
    this.#host.pool.commit().then(
      () => {
        this.#answer()
        // The journal had no room for the position: a checkpoint makes some.
        if (this.#host.pool.durableSequence < this.#committedSequence) this.#commitLater()
      },
      (error: unknown) => this.#fail(error),
    )
  }

  #answer(): void {
    if (this.#isStopped) return
    const { sequencer, pool, mutants } = this.#host
    const applied = sequencer.appliedSequence
    const durable = mutants.has('durable-at-applied') ? applied : (pool.durableSequence as Sequence)
    this.connection.answer(this.received, applied, durable)
  }

  /** What cannot be performed stops the link: skipping it would make the copies differ in silence. */
  #fail(error: unknown): void {
    if (error instanceof AssertionError) throw error
    if (this.#isStopped) return
    this.#isStopped = true
    this.#host.log.error({ err: error }, 'an entry cannot be applied: the link stops')
    const { message, action } = this.#explained(error)
    this.#observer.refused(action)
    this.#observer.go('refused', `the secondary cannot go on: ${message}`)
    this.#refuse('IO_ERROR', `the secondary cannot go on: ${message}`, action)
  }

  #explained(error: unknown): { readonly message: string; readonly action: string } {
    const noRoom = isNoRoom(error) ? this.#beforeResync.noRoom() : undefined
    if (noRoom !== undefined) return noRoom
    const message = error instanceof Error ? error.message : String(error)
    if (error instanceof LockstepError) return { message, action: error.action }
    const action = isNoRoom(error)
      ? 'make room where the data of the secondary is, or delete snapshots of its own there (lockstep snapshot list): the link goes on by itself'
      : 'see the log of the secondary, and its doctor'
    return { message, action }
  }

  #refuse(code: string, message: string, action: string): void {
    this.connection.send({ kind: 'refuse', code, message, action })
    this.connection.bye(message)
  }

  /** Keeps what a client of the frames would see as a broken connection apart from what this node cannot do. */
  async #guard(work: Promise<void>): Promise<void> {
    this.#inFlightCount++
    try {
      await work
    } catch (error) {
      if (error instanceof ProtocolError) throw error
      this.#fail(error)
    } finally {
      this.#left(0)
    }
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

function isEntry(frame: ReceivedFrame): frame is Entry {
  return ['write', 'zero', 'flush', 'compare', 'operation', 'nothing'].includes(frame.kind)
}

function outOfPlace(frame: ReceivedFrame): ProtocolError {
  return new ProtocolError(`a ${frame.kind} frame out of place`)
}
