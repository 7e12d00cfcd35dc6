// The secondary's side of one connection: the greeting, what may come in which phase, and how it ends. What entries do is replica-entries.ts, what is answered replica-position.ts.
//
// Invariant: before a resync changes anything the whole group is kept as `before-resync` (law 5).
import { AssertionError } from 'node:assert'
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { Entry } from '../core/entry.js'
import { LockstepError } from '../core/errors.js'
import type { Sequence } from '../core/units.js'
import type {
  DigestRequestFrame,
  JournaledFrame,
  ReadRequestFrame,
  ReceivedFrame,
  ReplayFrame,
  ReplayPosition,
  StreamFromFrame,
} from '../replication/frames.js'
import { movesData, objection } from '../replication/greeting.js'
import { type Decision, type Hello, parseDecision, parseHello } from '../replication/hello.js'
import { type LinkState, whyFollowing } from '../replication/link-state.js'
import { type CloseReason, PeerConnection } from '../replication/peer-connection.js'
import { refusalHere } from '../replication/told-refusal.js'
import { type BeforeResync, isNoRoom } from './before-resync.js'
import { digestsOf } from './digests.js'
import { checkSequence } from './foreign-operation.js'
import { LinkMemory } from './link-memory.js'
import { ReplicaEntries } from './replica-entries.js'
import type { ReplicaHost } from './replica-host.js'
import { ReplicaLoad } from './replica-load.js'
import { ReplicaPosition } from './replica-position.js'
import type { DataEntry } from './sequencer.js'

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
  readonly ended: Promise<CloseReason>
  #phase: 'hello' | 'decision' | 'replay' | 'stream' = 'hello'
  #mine: Hello | undefined
  #peer: Hello | undefined
  /** Everything is to come: first the table of stores, and nothing else instead. */
  #awaitsTable = false
  /** What the next frame of the replay must come behind. */
  #replayed: ReplayPosition = 0
  #endMarks: () => void = () => {}
  readonly #load = new ReplicaLoad(this.#memory)
  readonly #position: ReplicaPosition
  readonly #entries: ReplicaEntries

  constructor(
    stream: Duplex,
    host: ReplicaHost,
    beforeResync: BeforeResync,
    observer: IntakeObserver,
  ) {
    this.#host = host
    this.#observer = observer
    this.#beforeResync = beforeResync
    this.connection = new PeerConnection({
      stream,
      clock: host.clock,
      side: 'secondary',
      receive: (frame) => this.#receive(frame),
      memory: this.#memory,
      sendNow: host.sendNow,
      onDelivered: (frameCount) => host.onEntries?.(frameCount > 1),
      ...(host.deadlineMs === undefined ? {} : { silenceTimeoutMs: host.deadlineMs }),
      skipsCrc: host.mutants.has('skip-crc'),
    })
    this.#position = new ReplicaPosition(host, {
      send: (received, applied, durable) => this.connection.answer(received, applied, durable),
      fail: (error) => this.#fail(error),
    })
    this.#entries = new ReplicaEntries(host, {
      position: this.#position,
      load: this.#load,
      memory: this.#memory,
      send: (frame) => this.connection.send(frame),
      fail: (error) => this.#fail(error),
      onWhole: async () => {
        await beforeResync.drop()
        observer.go('streaming', 'this node has everything')
      },
    })
    this.ended = this.#end()
  }

  /** Since when this node's disk has made nothing durable of what was received. */
  get waitingSinceMs(): number | undefined {
    return this.#position.waitingSinceMs
  }

  async #end(): Promise<CloseReason> {
    const reason = await this.connection.closed
    this.#position.stop()
    this.#endMarks()
    await this.#load.whenIdle()
    return reason
  }

  #receive(frame: ReceivedFrame): Promise<void> | undefined {
    if (this.#position.isStopped) {
      if (frame.kind === 'write') this.#entries.release(frame)
      return undefined
    }
    if (this.#phase === 'stream' && isEntry(frame)) return this.#entries.take(frame)
    switch (frame.kind) {
      case 'hello':
        if (this.#phase !== 'hello') throw outOfPlace(frame)
        return this.#entries.guard(this.#greet(parseHello(frame.body)))
      case 'decision':
        if (this.#phase !== 'decision') throw outOfPlace(frame)
        return this.#entries.guard(this.#obey(parseDecision(frame.body)))
      case 'replay':
        if (this.#phase !== 'replay') throw outOfPlace(frame)
        return this.#entries.guard(this.#replay(frame))
      case 'stream-from':
        if (this.#phase !== 'replay') throw outOfPlace(frame)
        return this.#entries.guard(this.#streamFrom(frame))
      case 'journaled':
        if (this.#phase !== 'replay' && this.#phase !== 'stream') throw outOfPlace(frame)
        return this.#saw(frame)
      case 'digest-request':
        if (this.#phase !== 'stream') throw outOfPlace(frame)
        return this.#entries.guard(this.#digest(frame))
      case 'read-request':
        if (this.#phase !== 'stream') throw outOfPlace(frame)
        return this.#entries.guard(this.#readFrozen(frame))
      default:
        throw outOfPlace(frame)
    }
  }

  #saw({ batchNumber, isBarrier }: JournaledFrame): Promise<void> | undefined {
    const run = this.#peer?.runs.at(-1)
    if (this.#peer === undefined || run === undefined) return undefined
    const sighting = { nodeId: this.#peer.nodeId, runId: run.runId, batchNumber }
    this.#host.pool.sawPrimary(sighting)
    return isBarrier ? this.#entries.guard(this.#host.pool.keepSighting()) : undefined
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
    await this.#position.makeDurable()
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
      const told = `the secondary ${mine.node} refuses: ${refusal.reason}`
      this.#refuse('CONFLICT', told, refusal.action ?? 'lockstep status')
      return
    }
    if (movesData(decision)) this.#host.frozen.belongTo(peer.runs.at(-1)?.runId)
    switch (decision.kind) {
      case 'nothing':
      case 'resume':
        this.#beginStream()
        this.#position.received = this.#host.sequencer.lastSequence
        this.#observer.go(mine.isWhole ? 'streaming' : 'resyncing', whyFollowing(decision, mine))
        break
      case 'resync':
      case 'full':
        this.#phase = 'replay'
        this.#awaitsTable = decision.kind === 'full'
        this.#replayed = this.#awaitsTable ? 0 : mine.sequence
        this.#observer.go('replaying', decision.reason)
        if (!this.#host.mutants.has('no-before-resync')) await this.#beforeResync.begin()
        else await this.#beforeResync.markUnfinished()
        break
      default: {
        const { reason, action } = refusalHere(decision, mine, peer)
        this.#observer.refused(action)
        this.#observer.go('refused', reason)
        return
      }
    }
    this.connection.send({ kind: 'ready', body: {} })
    this.#position.answer()
  }

  /** An operation that this node missed. */
  async #replay(frame: ReplayFrame): Promise<void> {
    this.#checkNext(frame)
    this.#replayed = frame.sequence
    const reset = this.#awaitsTable ? this.#peer : undefined
    const arrival = { isReplay: true, ...(reset === undefined ? {} : { reset }) }
    this.#awaitsTable = false
    await this.#entries.perform(frame, arrival)
  }

  /** Operations that were missed have gaps between their sequences. One that is lost on the way must not be taken for one: the position would say that it is here. */
  #checkNext({ kind, sequence, after }: ReplayFrame | StreamFromFrame): void {
    if (after !== this.#replayed)
      throw new ProtocolError(
        `${kind} ${sequence} comes behind ${after}, but the last one here is ${this.#replayed}`,
      )
  }

  async #streamFrom(frame: StreamFromFrame): Promise<void> {
    const { sequencer } = this.#host
    const first = frame.sequence
    const position = (first - 1) as Sequence
    this.#checkNext(frame)
    if (this.#awaitsTable) throw new ProtocolError('the stream begins before the table of stores')
    checkSequence(position, sequencer.lastSequence)
    if (position < sequencer.lastSequence)
      throw new ProtocolError(`the stream begins at ${first}, behind what is here already`)
    await this.#entries.skipTo(position)
    this.#beginStream()
    this.#observer.go('resyncing', 'operations are done; what differs is copied')
    this.#position.answer()
  }

  /** From here on entries come, and results of marks are taken. */
  #beginStream(): void {
    this.#phase = 'stream'
    this.#endMarks = this.#host.marks.connected((sequence, result) =>
      this.connection.send({ kind: 'result', sequence, body: { ...result } }),
    )
  }

  /** A compare entry at its place in the order. */
  async compare(entry: DataEntry): Promise<void> {
    await this.#entries.compare(entry)
  }

  /** What cannot be performed stops the link: skipping it would make the copies differ in silence. */
  #fail(error: unknown): void {
    if (error instanceof AssertionError) throw error
    if (this.#position.isStopped) return
    this.#position.stop()
    this.#host.log.error({ err: error }, 'an entry cannot be applied: the link stops')
    const { message, action } = this.#explained(error)
    this.#observer.refused(action)
    this.#observer.go('refused', `this node cannot go on: ${message}`)
    this.#refuse('IO_ERROR', `the secondary cannot go on: ${message}`, action)
  }

  #explained(error: unknown): { readonly message: string; readonly action: string } {
    const noRoom = isNoRoom(error) ? this.#beforeResync.noRoom() : undefined
    if (noRoom !== undefined) return noRoom
    const message = error instanceof Error ? error.message : String(error)
    if (error instanceof LockstepError) return { message, action: error.action }
    if (isNoRoom(error))
      return {
        message: `there is no room where its data is (${message})`,
        action:
          'make room where its data is, or delete snapshots of its own (lockstep snapshot list, lockstep snapshot delete VOLUME@SNAPSHOT): the link goes on by itself',
      }
    return { message, action: 'see the log, and lockstep doctor' }
  }

  /** In words for the primary; the action is what is to be typed here. */
  #refuse(code: string, message: string, action: string): void {
    this.connection.send({ kind: 'refuse', code, message, action })
    this.connection.bye(message)
  }
}

function isEntry(frame: ReceivedFrame): frame is Entry {
  return ['write', 'zero', 'flush', 'compare', 'operation', 'nothing'].includes(frame.kind)
}

function outOfPlace(frame: ReceivedFrame): ProtocolError {
  return new ProtocolError(`a ${frame.kind} frame out of place`)
}
