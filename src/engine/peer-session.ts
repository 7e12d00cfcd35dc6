// One connection of the primary to its peer, from its first frame to its last: greets, sends the operations that were missed, opens the stream, sends what the outbox
// gives, and has copied what differs.
//
// Every wait ends with the connection. From the greeting's decision to the opened stream nothing that the peer may need can leave unseen: what is decided and what
// the outbox keeps belong to one step.
import { AssertionError } from 'node:assert'
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { SendNow } from '../../nbd/bytes/send-now.js'
import type { Clock, Random, Timer } from '../core/clock.js'
import { LockstepError } from '../core/errors.js'
import type { Log } from '../core/log.js'
import type { Sequence } from '../core/units.js'
import type { Frame, ReceivedFrame } from '../replication/frames.js'
import { decide, type LocalKnowledge, movesData } from '../replication/greeting.js'
import { type Decision, type Hello, parseHello } from '../replication/hello.js'
import { linkLimits } from '../replication/limits.js'
import type { LinkState } from '../replication/link-state.js'
import { type CloseReason, PeerConnection } from '../replication/peer-connection.js'
import { Gathering } from './gathering.js'
import { LinkMemory } from './link-memory.js'
import type { FollowingPeer } from './mark-results.js'
import type { PrimaryStream } from './primary-stream.js'

/** Handed to the socket at once. */
const sendBytesMax = 256 * 1024

/** What the link needs of the node. */
export type LinkHost = {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly connect: (uri: string) => Promise<Duplex>
  readonly deadlineMs?: number
  readonly sendNow?: SendNow | undefined
  /** Absent until a peer is tracked. */
  readonly stream: () => PrimaryStream | undefined
  readonly hello: () => Hello
  readonly knowledge: () => LocalKnowledge
  /** The newest batch that is durable in the journal. */
  readonly durableBatch: () => number
  /** The newest of those in which an extent became active. */
  readonly activatedBatch: () => number
  /** Begins to track this node: performs `reset`. */
  readonly beginTracking: (peer: Hello) => Promise<void>
  /** Copies what is dirty until nothing is; resolves at the end, or when the link is lost. */
  readonly resync: (options: { readonly isPeerWhole: boolean }) => {
    readonly done: Promise<'done' | 'stopped'>
    readonly stop: () => void
  }
  readonly acknowledged: (durable: Sequence, peer: Hello) => void
  /** Switchable bug: what the peer has applied counts as durable there. */
  readonly clearsAtApplied: boolean
  /** The peer answered: it is further than before. */
  readonly onAnswer: () => void
  readonly onResult: (sequence: Sequence, body: object) => void
  /** The peer is about to go on behind a sequence. */
  readonly onFollows: (peer: FollowingPeer) => void
  readonly onChange: (link: LinkState, reason: string) => void
}

export type SessionObserver = {
  readonly go: (state: LinkState, reason: string) => void
  /** Whether to do what was decided. */
  readonly decided: (decision: Decision) => boolean
  readonly refused: (action: string) => void
  readonly reached: () => void
}

/** A part of a store that is kept under a number on both nodes. */
export type FrozenRange = {
  readonly frozenId: number
  readonly offset: number
  readonly lengthBytes: number
}

/** Ends a session from inside; the connection's own end is another matter. */
class SessionOver extends Error {}

/** One connection, from its first frame to its last. */
export class PeerSession {
  readonly #host: LinkHost
  readonly #observer: SessionObserver
  readonly connection: PeerConnection
  peer: Hello | undefined
  hasDecided = false
  #awaited:
    | { readonly kind: Frame['kind']; readonly resolve: (frame: ReceivedFrame) => void }
    | undefined
  readonly #asked = new Map<number, { readonly kind: string; resolve(bytes: Buffer): void }>()
  #lastRequestId = 0
  /** The stream is open and the copying that the greeting asked for has begun. */
  #isInStep = false
  #isStreaming = false
  /** The link says that it copies what differs. */
  #isCopyingTold = false
  #progressTimer: Timer | undefined
  /** What the peer had when the stream was opened. */
  #streamPosition = 0
  /** Its answers have reached that. */
  #isPeerInStream = false
  #isPumping = false
  readonly #gathering: Gathering
  #resync: { readonly stop: () => void } | undefined
  #toldBatch = -1
  /** Of activations: the peer was told to keep that it has seen this one. The first time on a connection it is told in any case. */
  #barrierBatch = -1
  /** The system has taken the bytes of all entries up to here. */
  #takenSequence = 0
  /** What was sent behind that, and with which byte of the connection each piece of it ends. */
  readonly #untaken: { readonly lastSequence: Sequence; readonly end: number }[] = []
  /** The newest operation that was sent before the stream. */
  #replayedSequence = 0

  constructor(duplex: Duplex, host: LinkHost, observer: SessionObserver) {
    this.#host = host
    this.#observer = observer
    this.#gathering = new Gathering({
      clock: host.clock,
      due: () => {
        const stream = host.stream()
        if (stream !== undefined) this.#schedulePump(stream)
      },
    })
    this.connection = new PeerConnection({
      stream: duplex,
      clock: host.clock,
      side: 'primary',
      receive: (frame) => this.#receive(frame),
      memory: new LinkMemory(),
      sendNow: host.sendNow,
      ...(host.deadlineMs === undefined ? {} : { silenceTimeoutMs: host.deadlineMs }),
    })
  }

  /** Resolves when the connection has ended. */
  async run(): Promise<CloseReason> {
    let broken: CloseReason | undefined
    const work = this.#work().catch((error: unknown) => {
      if (error instanceof AssertionError) throw error
      if (!(error instanceof SessionOver)) {
        this.#host.log.warn({ err: error }, 'link failed')
        const message = error instanceof Error ? error.message : String(error)
        if (error instanceof ProtocolError) broken = { kind: 'protocol', message }
        this.connection.close(message)
      }
    })
    const reason = await this.connection.closed
    this.#resync?.stop()
    const stream = this.#host.stream()
    stream?.whenSendable(undefined)
    stream?.whenDirty(undefined)
    this.#progressTimer?.cancel()
    this.#gathering.close()
    stream?.wake()
    if (this.#isStreaming) stream?.lost()
    this.#isStreaming = false
    await work
    return broken ?? reason
  }

  async #work(): Promise<void> {
    const { connection } = this
    const mine = this.#host.hello()
    connection.send({ kind: 'hello', body: { ...mine } })
    const answer = await this.#expect('hello')
    assert(answer.kind === 'hello')
    const peer = parseHello(answer.body)
    this.peer = peer
    // Decided and begun in one step: what the outbox keeps now it still keeps.
    const decision = decide(this.#host.hello(), peer, this.#host.knowledge())
    this.hasDecided = true
    if (!this.#observer.decided(decision)) {
      connection.bye('somebody asked what would be done, no more')
      return
    }
    connection.send({ kind: 'decision', body: { ...decision } })
    if (movesData(decision)) this.#host.onFollows(followed(decision, mine, peer))
    switch (decision.kind) {
      case 'nothing':
      case 'resume':
        await this.#resume(peer, decision)
        break
      case 'resync':
      case 'full':
        await this.#bringUp(peer, decision)
        break
      default:
        this.#observer.go('refused', decision.reason)
        connection.bye(decision.reason)
        return
    }
    this.#observer.reached()
    const isWhole = decision.kind === 'nothing' || decision.kind === 'resume'
    await this.#copyDirt(isWhole && peer.isWhole)
  }

  async #resume(peer: Hello, decision: Decision): Promise<void> {
    const stream = this.#host.stream()
    assert(stream)
    this.#host.acknowledged(peer.sequence, peer)
    // Nothing was ordered since the last connection folded what it kept, and the peer has all of it.
    if (!stream.outbox.isCollecting) stream.outbox.collect()
    stream.outbox.rewind(peer.sequence)
    this.#openStream(stream, peer.sequence)
    this.#isCopyingTold = this.#isDirty(stream) || !peer.isWhole
    this.#observer.go(this.#isCopyingTold ? 'resyncing' : 'streaming', decision.reason)
    await this.#expect('ready')
  }

  /** The operations that the peer missed, then the stream from the first entry that is kept. */
  async #bringUp(peer: Hello, decision: Decision): Promise<void> {
    await this.#expect('ready')
    this.#tellBatch()
    this.#observer.go('replaying', decision.reason)
    this.#host.stream()?.outbox.fold()
    if (decision.kind === 'full') await this.#host.beginTracking(peer)
    const stream = this.#host.stream()
    assert(stream)
    const tracking = stream.tracking
    assert(tracking)
    if (decision.kind === 'resync') this.#host.acknowledged(peer.sequence, peer)
    let sent = decision.kind === 'full' ? 0 : peer.sequence
    for (;;) {
      const next = tracking.nextInLog(sent)
      if (next !== undefined) {
        const { sequence, at, operation } = next
        sent = sequence
        // The end of an earlier resync: this one has its own.
        if (operation.kind === 'resync-end') continue
        this.connection.send({ kind: 'replay', sequence, at, operation })
        this.#replayedSequence = sequence
        if (!this.connection.canSend) await this.connection.drained()
        this.#throwIfClosed()
        continue
      }
      // No await between: nothing is left of the op log, and from the next entry on all are kept.
      if (tracking.totals.pendingOperations === 0) break
      await stream.operationLeft()
      this.#throwIfClosed()
    }
    if (this.#endIfLost(stream)) throw new SessionOver()
    const first = stream.outbox.collect()
    this.connection.send({ kind: 'stream-from', sequence: first })
    this.#openStream(stream, (first - 1) as Sequence)
    this.#observer.go('resyncing', 'the peer has the operations; what differs is copied')
  }

  /** What a greeting would decide if the two met now, with what the peer has said since; undefined before the stream. */
  decideAnew(): Decision | undefined {
    const stream = this.#host.stream()
    if (!this.#isStreaming || stream === undefined || this.peer === undefined) return undefined
    const mine = this.#host.hello()
    const theirs: Hello = {
      ...this.peer,
      group: mine.group,
      isBlank: false,
      isWhole: this.#resync === undefined,
      generations: mine.generations,
      sequence: stream.progress.durable,
    }
    return decide(mine, theirs, this.#host.knowledge())
  }

  #openStream(stream: PrimaryStream, position: Sequence): void {
    this.#isStreaming = true
    this.#streamPosition = position
    this.#takenSequence = position
    stream.attached(position)
    stream.whenSendable(() => this.#sendable(stream))
    stream.whenDirty(() => this.lookForDirt())
    this.#schedulePump(stream)
    this.#watchProgress(stream, stream.progress.applied)
  }

  /** A peer that lives and takes entries but applies none of them, because its disk hangs, would keep clients waiting: the link ends. */
  #watchProgress(stream: PrimaryStream, appliedBefore: Sequence): void {
    const sentBefore = stream.outbox.sentSequence
    this.#progressTimer = this.#host.clock.setTimer(linkLimits.stallTimeoutMs, () => {
      if (this.connection.isClosed || !this.#isStreaming) return
      const { applied } = stream.progress
      if (applied === appliedBefore && applied < sentBefore) {
        this.connection.close('the peer takes entries and applies none of them: its disk hangs')
        return
      }
      this.#watchProgress(stream, applied)
    })
  }

  /** Something became dirty by itself, a write that failed here or a difference that verify found: copied among the entries that go on. */
  lookForDirt(): void {
    const stream = this.#host.stream()
    if (!this.#isInStep || this.#resync !== undefined || stream === undefined) return
    if (this.#endIfLost(stream)) return
    if (!this.#isDirty(stream) || this.connection.isClosed) return
    this.#observer.go('resyncing', 'something differs that the peer had')
    this.#copyDirt(true).catch((error: unknown) => {
      if (!(error instanceof SessionOver)) throw error
    })
  }

  async #copyDirt(isPeerWhole: boolean): Promise<void> {
    const stream = this.#host.stream()
    assert(stream)
    this.#isInStep = true
    if (isPeerWhole && !this.#isDirty(stream)) {
      // It was dirty when the stream was opened, and clients' writes have made it clean since.
      if (this.#isCopyingTold) this.#observer.go('streaming', 'the peer has everything')
      this.#isCopyingTold = false
      return
    }
    const resync = this.#host.resync({ isPeerWhole })
    this.#resync = resync
    this.#throwIfClosed()
    const end = await resync.done
    this.#resync = undefined
    if (end !== 'done' || this.connection.isClosed || this.#endIfLost(stream)) return
    this.#observer.go('streaming', 'the peer has everything')
    this.lookForDirt()
  }

  /** Nothing dirty is known any more, which is not that nothing is: the peer needs everything. */
  #endIfLost(stream: PrimaryStream): boolean {
    if (stream.tracking?.isLost !== true) return false
    this.connection.close('more has changed than could be noted: the peer needs everything')
    return true
  }

  #isDirty(stream: PrimaryStream): boolean {
    return (stream.tracking?.totals.dirtyBytes ?? 0) > 0
  }

  /** A peer with nothing to do gets the first entry before it is applied here: both nodes work at once. What follows in the turn goes together. */
  #sendable(stream: PrimaryStream): void {
    if (this.#mayGather(stream)) {
      this.#gathering.begin(() => ({
        added: stream.outbox.lastSequence,
        isPressing: !this.#mayGather(stream),
      }))
      return
    }
    const isPeerIdle = stream.progress.applied >= stream.outbox.sentSequence
    if (!isPeerIdle || this.#isPumping || !this.connection.canSend) {
      this.#schedulePump(stream)
      return
    }
    this.#pump(stream)
    this.connection.flush()
  }

  /** Nobody waits for what is to be sent, and there is room for more. */
  #mayGather({ mode, outbox }: PrimaryStream): boolean {
    return mode === 'async' && this.#resync === undefined && !outbox.isFilling
  }

  #schedulePump(stream: PrimaryStream): void {
    if (this.#isPumping) return
    this.#isPumping = true
    queueMicrotask(() => {
      this.#isPumping = false
      this.#pump(stream)
    })
  }

  #pump(stream: PrimaryStream): void {
    const { connection } = this
    // Not `isClosed`: between its bye and its end a connection takes nothing, and says at once that it has drained.
    while (this.#isStreaming && !connection.isLeaving) {
      if (!connection.canSend) {
        this.#isPumping = true
        void connection.drained().then(() => {
          this.#isPumping = false
          this.#pump(stream)
        })
        return
      }
      const batch = stream.outbox.take(sendBytesMax)
      if (batch === undefined) return
      // What these rely on, their extents and operations, is in the journal by now.
      this.#tellBatch()
      connection.sendBytes(batch.parts, batch.lengthBytes)
      const end = connection.sentBytes + connection.unsentBytes
      this.#untaken.push({ lastSequence: batch.lastSequence, end })
    }
  }

  /**
   * A primary that begins again on an old copy of its disk cannot show this batch. Nor would it know what is active since: the peer must not have written there before it
   * knows, durably, what the primary has to show.
   */
  #tellBatch(): void {
    const batchNumber = this.#host.durableBatch()
    const activatedBatch = this.#host.activatedBatch()
    const isBarrier = activatedBatch > this.#barrierBatch
    if (batchNumber === this.#toldBatch && !isBarrier) return
    this.#toldBatch = batchNumber
    this.#barrierBatch = activatedBatch
    this.connection.send({ kind: 'journaled', batchNumber, isBarrier })
  }

  #receive(frame: ReceivedFrame): undefined {
    const awaited = this.#awaited
    if (awaited?.kind === frame.kind) {
      this.#awaited = undefined
      awaited.resolve(frame)
      return
    }
    switch (frame.kind) {
      case 'answer': {
        const stream = this.#host.stream()
        if (this.peer === undefined) throw new ProtocolError('an answer to nothing')
        // Answers from before the peer knew that the stream begins are still on their way.
        const isInStream =
          this.#isStreaming && (this.#isPeerInStream || frame.received >= this.#streamPosition)
        this.#isPeerInStream = isInStream
        if (isInStream) stream?.progress.answer(frame, stream.outbox.sentSequence)
        else if (frame.durable > Math.max(this.peer.sequence, this.#replayedSequence))
          throw new ProtocolError('an answer to what was never sent')
        this.#host.acknowledged(frame.durable, this.peer)
        if (isInStream && stream !== undefined) this.#sealUntaken(stream, frame.durable)
        if (isInStream)
          stream?.outbox.acknowledge(this.#host.clearsAtApplied ? frame.applied : frame.durable)
        this.#host.onAnswer()
        return
      }
      case 'compared': {
        const stream = this.#host.stream()
        if (!this.#isStreaming || stream === undefined)
          throw new ProtocolError('an answer to nothing')
        stream.outbox.compared(frame.sequence, frame.lengthBytes, frame.differing)
        return
      }
      case 'digest-answer':
        this.#answered('digest-request', frame.requestId, frame.digests)
        return
      case 'read-answer':
        this.#answered('read-request', frame.requestId, frame.bytes)
        return
      case 'result':
        this.#host.onResult(frame.sequence, frame.body)
        return
      case 'refuse':
        this.#observer.refused(frame.action)
        this.#observer.go('refused', frame.message)
        this.connection.close(frame.message)
        return
      default:
        throw new ProtocolError(`a ${frame.kind} frame out of place`)
    }
  }

  /** An answer to entries that the system has not taken, for all that is known: what is to be sent of them stays as it is. */
  #sealUntaken(stream: PrimaryStream, durable: Sequence): void {
    const { sentBytes } = this.connection
    const untaken = this.#untaken
    let count = 0
    for (const { lastSequence, end } of untaken) {
      if (end > sentBytes) break
      this.#takenSequence = lastSequence
      count++
    }
    if (count > 0) untaken.splice(0, count)
    if (durable > this.#takenSequence) stream.outbox.seal()
  }

  #answered(kind: string, requestId: number, bytes: Buffer): void {
    const asked = this.#asked.get(requestId)
    if (asked?.kind !== kind) throw new ProtocolError('an answer to nothing')
    this.#asked.delete(requestId)
    asked.resolve(bytes)
  }

  /** Digests, or bytes, of a store that the peer keeps for verify. */
  async ask(kind: 'digest-request' | 'read-request', range: FrozenRange): Promise<Buffer> {
    const requestId = ++this.#lastRequestId
    const answer = await new Promise<Buffer | undefined>((resolve) => {
      this.#asked.set(requestId, { kind, resolve })
      void this.connection.closed.then(() => resolve(undefined))
      this.connection.send({ kind, requestId, ...range })
    })
    if (answer === undefined) throw linkLost()
    return answer
  }

  async #expect(kind: Frame['kind']): Promise<ReceivedFrame> {
    assert(this.#awaited === undefined)
    const frame = await new Promise<ReceivedFrame | undefined>((resolve) => {
      this.#awaited = { kind, resolve }
      void this.connection.closed.then(() => resolve(undefined))
    })
    if (frame === undefined) throw new SessionOver()
    return frame
  }

  #throwIfClosed(): void {
    if (this.connection.isClosed) throw new SessionOver()
  }
}

/** What was performed there up to here will not be performed again. */
function followed(decision: Decision, mine: Hello, peer: Hello): FollowingPeer {
  const isNew = decision.kind === 'full'
  const { sequence } = isNew ? mine : peer
  return { runId: peer.runs.at(-1)?.runId, sequence, isNew }
}

export function linkLost(): LockstepError {
  return new LockstepError(
    'PEER_UNREACHABLE',
    'the link to the peer was lost',
    'see its state: lockstep status',
  )
}
