// One connection of the primary to its peer, from its first frame to its last: greets, sends the operations that were missed, and opens the stream. What leaves from then on
// is the flow's affair (entry-flow), what differs is copied beside it (catch-up), and what is asked goes past both (peer-questions).
//
// Every wait ends with the connection. From the greeting's decision to the opened stream nothing that the peer may need can leave unseen: what is decided and what
// the outbox keeps belong to one step.
import { AssertionError } from 'node:assert'
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { Sequence } from '../core/units.js'
import type { Frame, ReceivedFrame, ReplayPosition } from '../replication/frames.js'
import { decide, movesData } from '../replication/greeting.js'
import { onThe } from '../replication/greeting-actions.js'
import { type Decision, type Hello, parseHello } from '../replication/hello.js'
import { whyFollowing } from '../replication/link-state.js'
import { type CloseReason, PeerConnection } from '../replication/peer-connection.js'
import { CatchUp } from './catch-up.js'
import { EntryFlow } from './entry-flow.js'
import type { LinkHost, SessionObserver } from './link-host.js'
import { LinkMemory } from './link-memory.js'
import type { FollowingPeer } from './mark-results.js'
import { PeerQuestions } from './peer-questions.js'
import type { PrimaryStream } from './primary-stream.js'

/** Ends a session from inside; the connection's own end is another matter. */
class SessionOver extends Error {}

/** One connection, from its first frame to its last. */
export class PeerSession {
  readonly #host: LinkHost
  readonly #observer: SessionObserver
  readonly connection: PeerConnection
  readonly catchUp: CatchUp
  readonly questions: PeerQuestions
  readonly #flow: EntryFlow
  peer: Hello | undefined
  hasDecided = false
  /** The stream goes on behind it. */
  #position = 0 as Sequence
  #awaited:
    | { readonly kind: Frame['kind']; readonly resolve: (frame: ReceivedFrame) => void }
    | undefined

  constructor(duplex: Duplex, host: LinkHost, observer: SessionObserver) {
    this.#host = host
    this.#observer = observer
    this.connection = new PeerConnection({
      stream: duplex,
      clock: host.clock,
      side: 'primary',
      receive: (frame) => this.#receive(frame),
      memory: new LinkMemory(),
      sendNow: host.sendNow,
      ...(host.deadlineMs === undefined ? {} : { silenceTimeoutMs: host.deadlineMs }),
    })
    this.catchUp = new CatchUp(host, observer, this.connection)
    this.questions = new PeerQuestions(this.connection)
    this.#flow = new EntryFlow(host, this.connection, this.catchUp)
  }

  /** Since when the peer has made nothing durable of what it was sent. */
  get waitingSinceMs(): number | undefined {
    return this.#flow.waitingSinceMs
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
    this.catchUp.stop()
    const stream = this.#host.stream()
    stream?.whenDirty(undefined)
    stream?.wake()
    this.#flow.close()
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
      // A refusal moves nothing: the peer goes on showing it, whoever asked.
      if (!movesData(decision)) connection.send({ kind: 'decision', body: { ...decision } })
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
    await this.catchUp.copy({ isPeerWhole: isWhole && peer.isWhole, position: this.#position })
  }

  async #resume(peer: Hello, decision: Decision): Promise<void> {
    const stream = this.#host.stream()
    assert(stream)
    this.#host.acknowledged(peer.sequence, peer)
    // Nothing was ordered since the last connection folded what it kept, and the peer has all of it.
    if (!stream.outbox.isCollecting) stream.outbox.collect()
    stream.outbox.rewind(peer.sequence)
    this.#openStream(stream, peer.sequence)
    this.catchUp.resumed(stream, {
      isPeerWhole: peer.isWhole,
      reason: whyFollowing(decision, peer),
    })
    await this.#expect('ready')
  }

  /** The operations that the peer missed, then the stream from the first entry that is kept. */
  async #bringUp(peer: Hello, decision: Decision): Promise<void> {
    await this.#expect('ready')
    this.#flow.tellBatch()
    this.#observer.go('replaying', decision.reason)
    this.#host.stream()?.fold()
    if (decision.kind === 'full') await this.#host.beginTracking(peer)
    const stream = this.#host.stream()
    assert(stream)
    const tracking = stream.tracking
    assert(tracking)
    if (decision.kind === 'resync') this.#host.acknowledged(peer.sequence, peer)
    let after: ReplayPosition = decision.kind === 'full' ? 0 : peer.sequence
    let looked: number = after
    for (;;) {
      const next = tracking.nextInLog(looked)
      if (next !== undefined) {
        const { sequence, at, operation } = next
        looked = sequence
        // The end of an earlier resync: this one has its own.
        if (operation.kind === 'resync-end') continue
        this.connection.send({ kind: 'replay', sequence, after, at, operation })
        after = sequence
        this.#flow.replayedSequence = sequence
        if (!this.connection.canSend) await this.connection.drained()
        this.#throwIfClosed()
        continue
      }
      // No await between: nothing is left of the op log, and from the next entry on all are kept.
      if (tracking.totals.pendingOperations === 0) break
      await stream.operationLeft()
      this.#throwIfClosed()
    }
    if (this.catchUp.endIfLost(stream)) throw new SessionOver()
    const first = stream.outbox.collect()
    this.connection.send({ kind: 'stream-from', sequence: first, after })
    this.#openStream(stream, (first - 1) as Sequence)
    this.#observer.go('resyncing', 'the peer has the operations; what differs is copied')
  }

  /** What a greeting would decide if the two met now, with what the peer has said since; undefined before the stream. */
  decideAnew(): Decision | undefined {
    const stream = this.#host.stream()
    if (!this.#flow.isOpen || stream === undefined || this.peer === undefined) return undefined
    const mine = this.#host.hello()
    const theirs: Hello = {
      ...this.peer,
      group: mine.group,
      isBlank: false,
      isWhole: !this.catchUp.isUnderWay,
      generations: mine.generations,
      sequence: stream.progress.durable,
    }
    return decide(mine, theirs, this.#host.knowledge())
  }

  #openStream(stream: PrimaryStream, position: Sequence): void {
    this.#position = position
    this.#flow.open(stream, position)
    stream.whenDirty(() => this.catchUp.lookForDirt())
  }

  #receive(frame: ReceivedFrame): undefined {
    const awaited = this.#awaited
    if (awaited?.kind === frame.kind) {
      this.#awaited = undefined
      awaited.resolve(frame)
      return
    }
    switch (frame.kind) {
      case 'answer':
        if (this.peer === undefined) throw new ProtocolError('an answer to nothing')
        this.#flow.answered(frame, this.peer)
        return
      case 'compared':
        this.#flow.compared(frame)
        return
      case 'digest-answer':
        this.questions.answered('digest-request', frame.requestId, frame.digests)
        return
      case 'read-answer':
        this.questions.answered('read-request', frame.requestId, frame.bytes)
        return
      case 'result': {
        const ordered = this.#host.stream()?.outbox.lastSequence ?? 0
        if (frame.sequence > ordered)
          throw new ProtocolError(`a result of ${frame.sequence}, where nothing was ordered yet`)
        this.#host.onResult(frame.sequence, frame.body)
        return
      }
      case 'refuse':
        // What it would type itself.
        this.#observer.refused(onThe('secondary', frame.action))
        this.#observer.go('refused', frame.message)
        this.connection.close(frame.message)
        return
      default:
        throw new ProtocolError(`a ${frame.kind} frame out of place`)
    }
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
