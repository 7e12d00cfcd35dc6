// A primary's side of replication: the stream that its entries are ordered through, the link that brings them to the peer, and what operators do with both.
//
// Invariant: from the step in which a peer is tracked, every entry is ordered through the stream; before it there is none, and nothing costs anything.
import assert from 'node:assert/strict'
import type { Log } from '../core/log.js'
import { cannotCompare, noPeer, noTrackedPeer, verifying } from '../core/peer-errors.js'
import { blockBytes, type Generation, type Sequence, type StoreId } from '../core/units.js'
import type { Hello } from '../replication/hello.js'
import { linkLimits } from '../replication/limits.js'
import type { LinkState } from '../replication/link-state.js'
import { presentGeneration } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import type {
  Explanation,
  ForgottenPeer,
  Mode,
  PeerStatus,
  VerifyProgress,
  VerifyReport,
} from './api.js'
import type { FrozenStores } from './frozen.js'
import type { LackLooks } from './lack-looks.js'
import { LacksMeter } from './lacks-meter.js'
import type { FollowingPeer } from './mark-results.js'
import { overwrite } from './overwrite.js'
import { PeerLink } from './peer-link.js'
import { explanationOf, linkStatus } from './peer-report.js'
import { PrimaryStream } from './primary-stream.js'
import type { ReplicationParts } from './replication-parts.js'
import { ResyncRun } from './resync-run.js'
import { helloOf, knowledgeOf, positionOf, tableOf } from './self-portrait.js'
import type { Sequencer } from './sequencer.js'
import { silentSeconds } from './silent-disk.js'
import { type Describe, StreamOperations } from './stream-operations.js'
import { type Overwrite, type Repair, verifyStore } from './verify.js'

export type PrimaryRoleParts = ReplicationParts & {
  readonly frozen: FrozenStores
  readonly looks: LackLooks
  /** Resolves when the peer has everything, and nothing is dirty; rejects with the signal's reason when that is aborted. */
  readonly caughtUp: (signal: AbortSignal | undefined) => Promise<void>
  /** The peer's answer to a mark. */
  readonly onResult: (sequence: Sequence, body: object) => void
  /** The peer is about to go on behind a sequence. */
  readonly onFollows: (peer: FollowingPeer) => void
  /** The peer is further than before. */
  readonly onAnswer: () => void
  readonly onEvent: (kind: 'link' | 'resync', message: string) => void
  readonly onChange: (link: LinkState, reason: string) => void
}

export type CountedLacks = {
  readonly lacksBytes: number
  /** Of a resync under way: what it has yet to move. */
  readonly moveBytes?: number
}

export class PrimaryRole {
  readonly #parts: PrimaryRoleParts
  readonly #pool: Pool
  readonly #sequencer: Sequencer
  readonly #log: Log
  readonly #mutants: ReadonlySet<string>
  readonly #operations: StreamOperations
  readonly #resync: ResyncRun
  readonly #lacks: LacksMeter
  /** What a resync has to move. */
  readonly #moves: LacksMeter
  #stream: PrimaryStream | undefined
  #link: PeerLink | undefined
  #mode: Mode
  #isVerifying = false

  constructor(parts: PrimaryRoleParts) {
    this.#parts = parts
    this.#pool = parts.pool
    this.#sequencer = parts.sequencer
    this.#log = parts.log
    this.#mutants = parts.mutants ?? new Set()
    this.#mode = parts.replication?.mode ?? 'sync'
    const meterOf = (countsApplied: boolean): LacksMeter =>
      new LacksMeter({ ...parts, stream: () => this.#stream, countsApplied })
    this.#lacks = meterOf(false)
    this.#moves = meterOf(true)
    this.#operations = new StreamOperations({
      pool: parts.pool,
      sequencer: parts.sequencer,
      clock: parts.clock,
      frozen: parts.frozen,
      stream: () => this.#stream,
      sendsBeforeDurable: this.#mutants.has('operation-before-durable'),
    })
    this.#resync = new ResyncRun({
      pool: parts.pool,
      sequencer: parts.sequencer,
      clock: parts.clock,
      log: this.#log,
      operations: this.#operations,
      outboxBytesMax: parts.replication?.outboxBytesMax ?? linkLimits.outboxBytesMax,
      maxRate: parts.replication?.maxRate ?? 0,
      onEvent: (message) => parts.onEvent('resync', message),
      mutants: this.#mutants,
    })
  }

  /** Absent until a peer is tracked. */
  get stream(): PrimaryStream | undefined {
    return this.#stream
  }

  get mode(): Mode {
    return this.#mode
  }

  set mode(mode: Mode) {
    this.#mode = mode
    if (this.#stream !== undefined) this.#stream.mode = mode
  }

  /** Of a resync, in bytes a second; 0: no limit. */
  set maxRate(bytesPerSecond: number) {
    this.#resync.maxRate = bytesPerSecond
  }

  /** An address of a peer is known. */
  get hasLink(): boolean {
    return this.#link !== undefined
  }

  /** There is one, or one is expected. */
  get hasPeer(): boolean {
    return this.hasLink || this.#pool.tracking !== undefined
  }

  /** Its own link does something. */
  get isLinkBusy(): boolean {
    return (
      this.#link !== undefined &&
      this.#link.state !== 'offline' &&
      this.#link.state !== 'connecting'
    )
  }

  /** What `status` says of the peer, counted, a piece in a turn: as of a moment before the answer. */
  async count(): Promise<CountedLacks> {
    const lacksBytes = await this.#lacks.count()
    return this.#resync.isUnderWay
      ? { lacksBytes, moveBytes: await this.#moves.count() }
      : { lacksBytes }
  }

  /** What was not counted is told at most. */
  status(counted?: CountedLacks): PeerStatus {
    return linkStatus(this.#link, {
      pool: this.#pool,
      stream: this.#stream,
      clock: this.#parts.clock,
      mode: this.#mode,
      progress: this.#resync.progress(counted?.moveBytes),
      lacksBytes: counted?.lacksBytes ?? this.#lacks.bytes,
    })
  }

  /** Goes on where the last run ended. */
  start(): void {
    const { tracking } = this.#pool
    if (tracking !== undefined) {
      this.#beginStream(this.#sequencer.lastSequence, true)
      // What is ordered until the peer is here can be sent to it in order.
      if (!tracking.isLost) this.#stream?.outbox.collect()
    }
    const { peerUri } = this.#parts.replication ?? {}
    if (peerUri !== undefined) this.#connectTo(peerUri)
  }

  /** Performs one operation at its place in the order; resolves when it is durable here and, by mode, there. */
  async operate<Plan>(
    prepare: () => Promise<Plan>,
    describe: Describe<Plan>,
  ): Promise<{ readonly sequence: Sequence; readonly plan: Plan }> {
    for (let wait = this.#stream?.admit(); wait !== undefined; wait = this.#stream?.admit())
      await wait
    const done = await this.#operations.perform(prepare, describe)
    await this.#stream?.replicated(done.sequence, true)
    return done
  }

  async #beginGeneration(): Promise<void> {
    await this.#operations.perform(
      async () => {},
      (_, sequence) => {
        const record = {
          generation: this.#parts.random.hex(16) as Generation,
          parent: presentGeneration(this.#pool.state),
          forkSequence: sequence - 1,
        }
        return { operation: { kind: 'new-generation', record } }
      },
    )
    this.#parts.onEvent('link', 'changes go on without the peer: a new generation began')
  }

  #beginStream(lastSequence: Sequence, needsGeneration: boolean): void {
    const { clock, replication, apply } = this.#parts
    this.#stream = new PrimaryStream({
      pool: this.#pool,
      clock,
      lastSequence,
      mode: this.#mode,
      congestion: replication?.congestion ?? 'fold',
      ...(replication?.outboxBytesMax === undefined
        ? {}
        : { outboxBytesMax: replication.outboxBytesMax }),
      ...(replication?.foldEntriesMax === undefined
        ? {}
        : { foldEntriesMax: replication.foldEntriesMax }),
      apply,
      beginGeneration: () => this.#beginGeneration(),
      onOverflow: () => {
        this.#parts.onEvent('link', 'the outbox is full: what the peer lacks is kept as a map')
        this.#link?.overflowed()
      },
      onStall: (isStalled) =>
        this.#parts.onEvent(
          'link',
          isStalled
            ? 'the outbox is full: writers wait for the peer'
            : 'the outbox has room again: writers go on',
        ),
      needsGeneration,
      mutants: this.#mutants,
    })
    this.#sequencer.ordered = this.#stream
  }

  #connectTo(uri: string, options: { readonly isWanted?: boolean } = {}): void {
    const { clock, random, replication } = this.#parts
    assert(replication)
    this.#link = new PeerLink(
      {
        clock,
        random,
        log: this.#log,
        connect: replication.connect,
        sendNow: replication.sendNow,
        ...(replication.deadlineMs === undefined ? {} : { deadlineMs: replication.deadlineMs }),
        stream: () => this.#stream,
        hello: () => helloOf(this.#pool, this.#sequencer.lastSequence),
        isStranger: (nodeId) => (this.#pool.state.peer?.nodeId ?? nodeId) !== nodeId,
        knowledge: () => knowledgeOf(this.#pool, this.#stream),
        durableBatch: () => this.#pool.durableBatch,
        activatedBatch: () => this.#pool.activatedBatch,
        beginTracking: (peer) => this.#beginTracking(peer),
        resync: (options) => {
          assert(this.#stream)
          return this.#resync.start(this.#stream, options)
        },
        acknowledged: (durable, peer) => this.#acknowledged(durable, peer),
        clearsAtApplied: this.#mutants.has('clear-at-applied'),
        onAnswer: () => this.#parts.onAnswer(),
        onResult: (sequence, body) => this.#parts.onResult(sequence, body),
        onFollows: (peer) => this.#parts.onFollows(peer),
        onChange: (link, reason) => this.#parts.onChange(link, reason),
      },
      uri,
    )
    if (options.isWanted === false)
      this.#link.disconnect('the peer was forgotten: lockstep peer connect')
    this.#link.start()
  }

  /** From the step of `reset` on the peer is tracked, and every entry goes through the stream. */
  async #beginTracking(peer: Hello): Promise<void> {
    const { state } = this.#pool
    await this.#operations.perform(
      () => this.#emptyOutbox(),
      (_, sequence) => {
        const table = tableOf(state)
        if (state.peer !== undefined && state.peer.nodeId !== peer.nodeId) this.#pool.endTracking()
        if (this.#pool.tracking === undefined) this.#pool.beginTracking(peer.nodeId)
        if (this.#stream === undefined) this.#beginStream((sequence - 1) as Sequence, false)
        return { operation: { kind: 'reset', table } }
      },
    )
    this.#parts.onEvent('resync', `node ${peer.node} joins the group ${state.group}`)
  }

  /** Resolves when the operations that were performed last are durable, and so have left. Nothing is kept for the peer, and nothing is ordered meanwhile. */
  async #emptyOutbox(): Promise<void> {
    while ((this.#stream?.outbox.entryCount ?? 0) > 0) {
      await this.#pool.commit()
      await new Promise<void>((resolve) => this.#parts.clock.defer(resolve))
    }
  }

  #acknowledged(durable: Sequence, peer: Hello): void {
    const { tracking, state } = this.#pool
    if (tracking === undefined || tracking.isLost) return
    const position = positionOf(state, durable, peer)
    if (position !== undefined) tracking.acknowledged(position)
  }

  async connect(options: { readonly isOnlyAsking: boolean }): Promise<Explanation> {
    if (this.#link === undefined) throw noPeer()
    if (this.#pool.failure !== undefined) throw this.#pool.failure
    return explanationOf(await this.#link.connectNow(options))
  }

  disconnect(): void {
    if (this.#link === undefined) throw noPeer()
    this.#link.disconnect('disconnected by an operator')
  }

  setUri(uri: string): void {
    if (this.#link !== undefined) this.#link.setUri(uri)
    else this.#connectTo(uri)
  }

  /** Lets go of the node that is tracked. Rejects with INVALID_ARGUMENT or BUSY. */
  async forget(): Promise<ForgottenPeer> {
    if (this.#isVerifying) throw verifying()
    const { tracking } = this.#pool
    if (tracking === undefined) throw noTrackedPeer()
    const link = this.#link
    const node = link?.peer?.nodeId === this.#pool.state.peer?.nodeId ? link?.peer?.node : undefined
    this.#link = undefined
    await link?.close('the peer is forgotten')
    const { dirtyBytes, opLogEntries } = await this.#endTracking()
    if (link !== undefined) this.#connectTo(link.uri, { isWanted: false })
    this.#parts.onEvent('link', `node ${node ?? 'unknown'} is forgotten: it needs everything again`)
    return { ...(node === undefined ? {} : { node }), dirtyBytes, opLogEntries }
  }

  /** In one step of the order: nothing is in the outbox before it, and nothing goes through the stream behind it. */
  async #endTracking(): Promise<{ readonly dirtyBytes: number; readonly opLogEntries: number }> {
    const { plan } = await this.#sequencer.operate({
      prepare: async () => {
        this.#stream?.fold()
        await this.#emptyOutbox()
        return { dirtyBytes: 0, opLogEntries: 0, ...this.#pool.tracking?.totals }
      },
      perform: () => {
        if (this.#stream !== undefined) this.#stream.needsGeneration = false
        this.#stream = undefined
        this.#sequencer.ordered = undefined
        if (this.#pool.tracking !== undefined) this.#pool.endTracking()
      },
    })
    await this.#pool.commit()
    return plan
  }

  /** The link to compare over. Throws INVALID_ARGUMENT without a peer, BUSY, PEER_UNREACHABLE. */
  checkCanVerify(): PeerLink {
    const link = this.#link
    if (link === undefined) throw noPeer()
    if (this.#isVerifying) throw verifying()
    if (link.state === 'offline' || link.state === 'refused') throw cannotCompare(link)
    return link
  }

  /** Compares one store with the peer's. Rejects with PEER_UNREACHABLE, BUSY or TIMED_OUT; with the signal's reason when that is aborted before it has begun to compare. */
  async verify(
    store: { readonly id: StoreId; readonly name: string },
    options: {
      readonly repairs: Repair | undefined
      readonly onProgress: (progress: VerifyProgress) => void
      readonly signal?: AbortSignal | undefined
    },
  ): Promise<VerifyReport> {
    const link = this.checkCanVerify()
    this.#isVerifying = true
    try {
      return await verifyStore(
        {
          pool: this.#pool,
          frozen: this.#parts.frozen,
          inSync: () => this.#parts.caughtUp(options.signal),
          say: async (operation) => {
            const sequence = await this.#operations.say(operation)
            await this.#stream?.replicated(sequence, true)
            // In every mode: it is asked about it next, and a request goes past what waits in the outbox.
            await this.#stream?.progress.whenDurable(sequence)
            return sequence
          },
          ask: (kind, range) => link.ask(kind, range),
          overwrite: (write) => this.#overwrite(write),
          onProgress: options.onProgress,
        },
        store,
        options,
      )
    } finally {
      this.#isVerifying = false
      link.lookForDirt()
    }
  }

  async #overwrite(write: Overwrite): Promise<boolean> {
    const stream = this.#stream
    assert(stream)
    return overwrite({ pool: this.#pool, sequencer: this.#sequencer, stream }, write)
  }

  /** What the peer may lack of the entries that have left, and a block for those under way that it will lack. */
  get dirtyBytes(): number {
    const comingBytes = this.#stream?.willBeDirty === true ? blockBytes : 0
    return (this.#pool.tracking?.totals.dirtyBytes ?? 0) + comingBytes
  }

  /** The peer has everything up to a sequence. */
  isCaughtUp(sequence: Sequence): boolean {
    const stream = this.#stream
    if (this.#link?.state !== 'streaming' || stream === undefined) return false
    if (stream.willBeDirty) return false
    if (silentSeconds(this.#parts.clock, this.#link.waitingSinceMs) !== undefined) return false
    return stream.progress.applied >= sequence && stream.tracking?.totals.dirtyBytes === 0
  }

  /** Everything up to a sequence has left the outbox: what it does to the maps is done. */
  hasLeft(sequence: Sequence): boolean {
    const outbox = this.#stream?.outbox
    return outbox === undefined || outbox.entryCount === 0 || outbox.oldestSequence > sequence
  }

  /** Nothing becomes durable here any more, so no operation is ever sent again: who waits for the peer would wait for what lies behind one. */
  failed(message: string): void {
    // Not in the step in which it failed.
    this.#parts.clock.defer(() => this.#link?.disconnect(`this node has stopped: ${message}`))
  }

  /** Whoever waits for what a greeting decides hears that this node stops. */
  stopWaiting(): void {
    this.#link?.stopWaiting()
  }

  async close(): Promise<void> {
    await this.#link?.close()
  }

  /** A resync that is under way ends where it is. */
  stopResync(): void {
    this.#resync.stop()
  }

  /** Everything has been applied: what the peer has not acknowledged is kept as a difference. */
  leaveNothing(): void {
    this.#stream?.fold()
    this.#stream?.outbox.leaveAll()
  }
}
