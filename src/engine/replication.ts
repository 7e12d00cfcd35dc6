// The group's other node, from the engine's side: a primary's stream and link, or a secondary's replica, made and kept according to the role.
//
// Invariant: from the step in which a peer is tracked, every entry is ordered through the stream; before it there is none, and nothing costs anything.
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import type { Clock, Random } from '../core/clock.js'
import { LockstepError } from '../core/errors.js'
import type { Log } from '../core/log.js'
import type { DataOperation, Operation } from '../core/operation.js'
import { blockBytes, type Generation, type Sequence, type StoreId } from '../core/units.js'
import type { Hello } from '../replication/hello.js'
import { linkLimits } from '../replication/limits.js'
import type { LinkState } from '../replication/link-state.js'
import { Resync, type ResyncProgress } from '../replication/resync.js'
import { presentGeneration } from '../storage/group-state.js'
import type { Pool, Prepared } from '../storage/pool.js'
import type {
  Explanation,
  ForgottenPeer,
  MarkResult,
  Mode,
  PeerChange,
  PeerStatus,
  ReplicationOptions,
  VerifyProgress,
  VerifyReport,
} from './api.js'
import { Doorkeeper } from './doorkeeper.js'
import type { EventLog } from './event-log.js'
import { FrozenStores } from './frozen.js'
import { MarkResults } from './mark-results.js'
import { describeMark, MarkHandler } from './marks.js'
import { overwrite } from './overwrite.js'
import { PeerLink } from './peer-link.js'
import { explanationOf, linkStatus, replicaStatus } from './peer-report.js'
import { PrimaryStream } from './primary-stream.js'
import { Replica } from './replica.js'
import { resyncHost } from './resync-host.js'
import { helloOf, knowledgeOf, positionOf, tableOf } from './self-portrait.js'
import type { DataEntry, Sequencer } from './sequencer.js'
import { StreamOperations } from './stream-operations.js'
import { type Overwrite, type Repair, verifyStore } from './verify.js'
import { Watchers } from './watchers.js'

/** A resync under way may take longer: then verify says so, and is begun again. */
const verifyWaitMs = 30_000

export type ReplicationParts = {
  readonly pool: Pool
  readonly sequencer: Sequencer
  readonly events: EventLog
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly mutants?: ReadonlySet<string>
  readonly replication?: ReplicationOptions
  /** Applies a data entry to the pool. */
  readonly apply: (entry: DataEntry) => Promise<void> | undefined
}

export class Replication {
  readonly #parts: ReplicationParts
  readonly #pool: Pool
  readonly #sequencer: Sequencer
  readonly #log: Log
  readonly #mutants: ReadonlySet<string>
  stream: PrimaryStream | undefined
  #mode: Mode
  /** Of a resync, in bytes a second; 0: none. */
  #maxRate: number
  #link: PeerLink | undefined
  #replica: Replica | undefined
  readonly #frozen: FrozenStores
  readonly #markResults: MarkResults
  #resync: Resync | undefined
  #progress: (() => ResyncProgress) | undefined
  readonly #watchers: Watchers
  #isVerifying = false
  #isStopping = false
  readonly #operations: StreamOperations
  readonly #doorkeeper: Doorkeeper
  /** What the sequencer calls for each data entry. */
  readonly apply: (entry: DataEntry) => Promise<void> | undefined

  constructor(parts: ReplicationParts) {
    this.#parts = parts
    this.#pool = parts.pool
    this.#sequencer = parts.sequencer
    this.#log = parts.log.child({ component: 'replication' })
    this.#mutants = parts.mutants ?? new Set()
    this.#mode = parts.replication?.mode ?? 'sync'
    this.#maxRate = parts.replication?.maxRate ?? 0
    this.#watchers = new Watchers(parts.clock)
    this.#frozen = new FrozenStores(parts.pool)
    this.#markResults = new MarkResults(parts.clock, (sequence, result) => {
      this.#log.info({ sequence, ...result }, 'a mark was performed by the peer')
      parts.events.add({
        kind: 'mark',
        message: `on the peer: ${describeMark(result)}`,
        sequence,
      })
    })
    this.#operations = new StreamOperations({
      pool: parts.pool,
      sequencer: parts.sequencer,
      clock: parts.clock,
      frozen: this.#frozen,
      stream: () => this.stream,
      sendsBeforeDurable: this.#mutants.has('operation-before-durable'),
    })
    this.#doorkeeper = new Doorkeeper({
      clock: parts.clock,
      hello: () => this.#hello(),
      knowledge: () => knowledgeOf(this.#pool, this.stream),
      onRefused: (reason) => this.#event('link', reason),
    })
    this.apply = (entry) => {
      if (this.stream !== undefined) return this.stream.apply(entry)
      if (entry.kind !== 'compare') return parts.apply(entry)
      assert(this.#replica)
      return this.#replica.compare(entry)
    }
  }

  get isReadOnly(): boolean {
    return this.#pool.state.role === 'secondary'
  }

  /** Goes on where the last run ended. */
  start(): void {
    this.#frozen.clear()
    if (this.isReadOnly) {
      this.#replica = this.#newReplica()
      return
    }
    const { tracking } = this.#pool
    if (tracking !== undefined) {
      this.#beginStream(this.#sequencer.lastSequence, true)
      // What is ordered until the peer is here can be sent to it in order.
      if (!tracking.isLost) this.stream?.outbox.collect()
    }
    const { peerUri } = this.#parts.replication ?? {}
    if (peerUri !== undefined) this.#connectTo(peerUri)
  }

  // --- Operations of the stream. ---

  /** Performs one operation at its place in the order; resolves when it is durable here and, by mode, there. */
  async operate<Plan>(
    prepare: () => Promise<Plan>,
    describe: (plan: Plan) => { readonly operation: Operation; readonly prepared: Prepared },
  ): Promise<{ readonly sequence: Sequence; readonly plan: Plan }> {
    for (let wait = this.stream?.admit(); wait !== undefined; wait = this.stream?.admit())
      await wait
    const done = await this.#operations.perform(prepare, describe)
    await this.stream?.replicated(done.sequence, true)
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
    this.#event('link', 'changes go on without the peer: a new generation began')
  }

  // --- The primary. ---

  #beginStream(lastSequence: Sequence, needsGeneration: boolean): void {
    const { clock, replication, apply } = this.#parts
    this.stream = new PrimaryStream({
      pool: this.#pool,
      clock,
      lastSequence,
      mode: this.#mode,
      congestion: replication?.congestion ?? 'fold',
      ...(replication?.outboxBytesMax === undefined
        ? {}
        : { outboxBytesMax: replication.outboxBytesMax }),
      apply,
      beginGeneration: () => this.#beginGeneration(),
      onOverflow: () => {
        this.#event('link', 'the outbox is full: what the peer lacks is kept as a map')
        this.#link?.overflowed()
      },
      needsGeneration,
      mutants: this.#mutants,
    })
    this.#sequencer.ordered = this.stream
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
        ...(replication.deadlineMs === undefined ? {} : { deadlineMs: replication.deadlineMs }),
        stream: () => this.stream,
        hello: () => this.#hello(),
        knowledge: () => knowledgeOf(this.#pool, this.stream),
        durableBatch: () => this.#pool.durableBatch,
        beginTracking: (peer) => this.#beginTracking(peer),
        resync: (options) => this.#startResync(options.isPeerWhole),
        acknowledged: (durable, peer) => this.#acknowledged(durable, peer),
        clearsAtApplied: this.#mutants.has('clear-at-applied'),
        onAnswer: () => this.#watchers.look(),
        onResult: (sequence, body) => this.#markResults.came(sequence, body),
        onChange: (link, reason) => this.#changed(link, reason),
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
        if (this.stream === undefined) this.#beginStream((sequence - 1) as Sequence, false)
        return { operation: { kind: 'reset', table } }
      },
    )
    this.#event('resync', `node ${peer.node} joins the group ${state.group}`)
  }

  /** Resolves when the operations that were performed last are durable, and so have left. Nothing is kept for the peer, and nothing is ordered meanwhile. */
  async #emptyOutbox(): Promise<void> {
    while ((this.stream?.outbox.entryCount ?? 0) > 0) {
      await this.#pool.commit()
      await new Promise<void>((resolve) => this.#parts.clock.defer(resolve))
    }
  }

  #startResync(isPeerWhole: boolean) {
    const { stream } = this
    assert(stream)
    const { clock, replication } = this.#parts
    const outboxBytesMax = replication?.outboxBytesMax ?? linkLimits.outboxBytesMax
    let ended: Promise<unknown> = Promise.resolve()
    const resync = new Resync(
      resyncHost({
        pool: this.#pool,
        sequencer: this.#sequencer,
        stream,
        clock,
        // Clients' entries need room as well: a resync that fills the outbox ends itself.
        pieceBytesMax: Math.max(blockBytes, 2 ** Math.floor(Math.log2(outboxBytesMax / 8))),
        operate: (choose) => this.#operations.sayIfAny(() => operationOf(choose())),
        mutants: this.#mutants,
        end: () => {
          // Nothing known to be dirty is not nothing dirty: the link sees that too, and ends.
          if (!isPeerWhole && stream.tracking?.isLost === false) ended = this.#endResync(stream)
        },
      }),
      {
        bytesInFlightMax: outboxBytesMax / 2,
        endsEarly: this.#mutants.has('whole-before-end'),
        ...(this.#maxRate === 0 ? {} : { bytesPerSecondMax: this.#maxRate }),
      },
    )
    this.#resync = resync
    this.#progress = () => resync.progress
    this.#event('resync', 'copying what differs')
    const done = resync.run().then(async (end) => {
      await ended
      this.#resync = undefined
      this.#progress = undefined
      this.#event('resync', end === 'done' ? 'the peer has everything' : 'the copying was cut off')
      return end
    })
    return { done, stop: () => resync.stop() }
  }

  /** Resolves when the peer is whole, durably, or nobody waits for it any more. */
  async #endResync(stream: PrimaryStream): Promise<void> {
    try {
      const sequence = await this.#operations.say({ kind: 'resync-end' })
      await stream.progress.whenDurable(sequence)
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error
      this.#log.error({ err: error }, 'the end of a resync could not be made durable')
    }
  }

  #acknowledged(durable: Sequence, peer: Hello): void {
    const { tracking, state } = this.#pool
    if (tracking === undefined || tracking.isLost) return
    const position = positionOf(state, durable, peer)
    if (position !== undefined) tracking.acknowledged(position)
  }

  // --- Both. ---

  #hello(): Hello {
    return helloOf(this.#pool, this.#sequencer.lastSequence)
  }

  // --- The secondary. ---

  #newReplica(): Replica {
    const { clock, replication } = this.#parts
    return new Replica({
      pool: this.#pool,
      sequencer: this.#sequencer,
      clock,
      log: this.#log,
      ...(replication?.deadlineMs === undefined ? {} : { deadlineMs: replication.deadlineMs }),
      ...(replication?.onEntries === undefined ? {} : { onEntries: replication.onEntries }),
      hello: () => this.#hello(),
      frozen: this.#frozen,
      isBeforeResyncRequired: replication?.isBeforeResyncRequired ?? true,
      onGivenUp: (reason) => this.#event('resync', reason),
      marks: new MarkHandler({
        pool: this.#pool,
        log: this.#log,
        runHook: replication?.runHook,
        onDone: (sequence, message) => this.#parts.events.add({ kind: 'mark', message, sequence }),
      }),
      performed: ({ kind }, sequence) => {
        // What became of a mark is an event of its own.
        if (kind === 'mark') return
        const message = `${kind} from the primary`
        this.#parts.events.add({ kind: 'operation', message, sequence })
      },
      onChange: (link, reason) => this.#changed(link, reason),
      mutants: this.#mutants,
    })
  }

  async accept(stream: Duplex, from: string): Promise<void> {
    // It may fail while the connection before it is brought to its end: whoever reads or writes hears of it then.
    stream.on('error', () => {})
    if (this.#isStopping) {
      stream.destroy()
      return
    }
    if (this.#replica === undefined) {
      await this.#doorkeeper.accept(stream, from)
      return
    }
    // A primary with a connection of its own must not answer for what it applied before this one.
    await this.#replica.accept(stream, from)
  }

  // --- Operators. ---

  peers(): readonly PeerStatus[] {
    const replica = this.#replica
    if (replica !== undefined) {
      const applied = this.#sequencer.appliedSequence
      return [replicaStatus(replica, { pool: this.#pool, applied, mode: this.#mode })]
    }
    const link = this.#link
    const { refused } = this.#doorkeeper
    const status = linkStatus(link, {
      pool: this.#pool,
      stream: this.stream,
      clock: this.#parts.clock,
      mode: this.#mode,
      progress: this.#progress?.(),
    })
    // While this node's own link does something it is the news.
    const isIdle = link === undefined || link.state === 'offline' || link.state === 'connecting'
    if (refused !== undefined && isIdle) return [{ ...status, ...refused }]
    return link === undefined && this.#pool.tracking === undefined ? [] : [status]
  }

  async connectPeer(options: { readonly explain?: boolean }): Promise<Explanation> {
    if (this.isReadOnly) throw primaryConnects()
    if (this.#link === undefined) throw noPeer()
    if (this.#pool.failure !== undefined) throw this.#pool.failure
    return explanationOf(await this.#link.connectNow({ isOnlyAsking: options.explain === true }))
  }

  disconnectPeer(): void {
    if (this.isReadOnly) throw primaryConnects()
    if (this.#link === undefined) throw noPeer()
    this.#link.disconnect('disconnected by an operator')
  }

  /** Lets go of the node that is tracked. Rejects with NOT_PRIMARY, INVALID_ARGUMENT or BUSY. */
  async forgetPeer(): Promise<ForgottenPeer> {
    if (this.isReadOnly) throw notTracking()
    if (this.#isVerifying) throw verifying()
    const { tracking } = this.#pool
    if (tracking === undefined) throw noTrackedPeer()
    const link = this.#link
    const node = link?.peer?.nodeId === this.#pool.state.peer?.nodeId ? link?.peer?.node : undefined
    this.#link = undefined
    await link?.close('the peer is forgotten')
    const { dirtyBytes, opLogEntries } = await this.#endTracking()
    if (link !== undefined) this.#connectTo(link.uri, { isWanted: false })
    this.#event('link', `node ${node ?? 'unknown'} is forgotten: it needs everything again`)
    return { ...(node === undefined ? {} : { node }), dirtyBytes, opLogEntries }
  }

  /** In one step of the order: nothing is in the outbox before it, and nothing goes through the stream behind it. */
  async #endTracking(): Promise<{ readonly dirtyBytes: number; readonly opLogEntries: number }> {
    const { plan } = await this.#sequencer.operate({
      prepare: async () => {
        this.stream?.outbox.fold()
        await this.#emptyOutbox()
        return { dirtyBytes: 0, opLogEntries: 0, ...this.#pool.tracking?.totals }
      },
      perform: () => {
        if (this.stream !== undefined) this.stream.needsGeneration = false
        this.stream = undefined
        this.#sequencer.ordered = undefined
        if (this.#pool.tracking !== undefined) this.#pool.endTracking()
      },
    })
    await this.#pool.commit()
    return plan
  }

  setPeer(options: PeerChange): void {
    const { maxRate } = options
    if (maxRate !== undefined) {
      this.#maxRate = maxRate
      this.#resync?.setRate(maxRate === 0 ? undefined : maxRate)
    }
    if (options.mode !== undefined) {
      this.#mode = options.mode
      if (this.stream !== undefined) this.stream.mode = options.mode
    }
    if (options.uri === undefined) return
    if (this.#link !== undefined) this.#link.setUri(options.uri)
    else if (!this.isReadOnly) this.#connectTo(options.uri)
  }

  /** Throws INVALID_ARGUMENT on a primary that has none, and expects none. */
  checkHasPeer(): void {
    if (!this.isReadOnly && this.#link === undefined && this.#pool.tracking === undefined)
      throw noPeer()
  }

  /** What the peer may lack of the entries that have left, and a block for those under way that it will lack. */
  get dirtyBytes(): number {
    const comingBytes = this.stream?.willBeDirty === true ? blockBytes : 0
    return (this.#pool.tracking?.totals.dirtyBytes ?? 0) + comingBytes
  }

  /** A mark was ordered when so much was dirty. */
  marked(sequence: Sequence, dirtyBytes: number): void {
    this.#markResults.ordered(sequence, dirtyBytes)
  }

  /** What the peer did at a mark. Rejects with TIMED_OUT, or at once when nobody will tell. */
  async markResult(sequence: Sequence, timeoutMs: number): Promise<MarkResult> {
    this.checkHasPeer()
    return this.#markResults.wait(sequence, timeoutMs)
  }

  /** Compares one store with the peer's. Rejects with PEER_UNREACHABLE, BUSY or TIMED_OUT. */
  async verify(
    store: { readonly id: StoreId; readonly name: string },
    options: {
      readonly repairs: Repair | undefined
      readonly onProgress: (progress: VerifyProgress) => void
    },
  ): Promise<VerifyReport> {
    const link = this.#link
    if (link === undefined) throw noPeer()
    if (this.#isVerifying) throw verifying()
    if (link.state === 'offline' || link.state === 'refused')
      throw new LockstepError(
        'PEER_UNREACHABLE',
        `the nodes cannot be compared now: ${link.reason}`,
        link.action ?? 'lockstep peer connect',
      )
    this.#isVerifying = true
    try {
      return await verifyStore(
        {
          pool: this.#pool,
          frozen: this.#frozen,
          inSync: () => this.waitFor('in-sync', verifyWaitMs),
          say: async (operation) => {
            const sequence = await this.#operations.say(operation)
            await this.stream?.replicated(sequence, true)
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
    const { stream } = this
    assert(stream)
    return overwrite({ pool: this.#pool, sequencer: this.#sequencer, stream }, write)
  }

  waitFor(condition: 'in-sync' | 'promotable', timeoutMs: number): Promise<void> {
    const sequence = this.#sequencer.lastSequence
    const holds = (): boolean =>
      condition === 'in-sync'
        ? this.#isInSync(sequence)
        : this.isReadOnly && this.#pool.state.isWhole
    if (condition === 'in-sync' && this.#link === undefined && this.#replica === undefined)
      return Promise.reject(noPeer())
    if (condition === 'promotable' && !this.isReadOnly) return Promise.reject(isPrimary())
    const tooLate = (): LockstepError => {
      const [peer] = this.peers()
      return new LockstepError(
        'TIMED_OUT',
        `not ${condition} within ${timeoutMs / 1000} s: ${peer?.reason ?? 'no peer'}`,
        peer?.action ?? 'lockstep status',
      )
    }
    return this.#watchers.until(holds, { timeoutMs, tooLate })
  }

  /** On a primary: the peer has everything up to a sequence. */
  #isInSync(sequence: Sequence): boolean {
    if (this.#replica !== undefined)
      return this.#replica.state === 'streaming' && this.#pool.state.isWhole
    const { stream } = this
    if (this.#link?.state !== 'streaming' || stream === undefined) return false
    if (stream.willBeDirty) return false
    return stream.progress.applied >= sequence && stream.tracking?.totals.dirtyBytes === 0
  }

  // --- The end. ---

  /** Nothing becomes durable here any more, so no operation is ever sent again: who waits for the peer would wait for what lies behind one. */
  failed(message: string): void {
    // Not in the step in which it failed.
    this.#parts.clock.defer(() => this.#link?.disconnect(`this node has stopped: ${message}`))
  }

  async stopLink(): Promise<void> {
    this.#isStopping = true
    this.#resync?.stop()
    this.#doorkeeper.close()
    await this.#link?.close()
    await this.#replica?.close()
  }

  /** Everything has been applied: what the peer has not acknowledged is kept as a difference. */
  leaveNothing(): void {
    this.stream?.outbox.fold()
  }

  #changed(link: LinkState, reason: string): void {
    this.#event('link', `link ${link}: ${reason}`)
  }

  #event(kind: 'link' | 'resync', message: string): void {
    this.#log.info({}, message)
    this.#parts.events.add({ kind, message })
    this.#watchers.look()
  }
}

/** One batch of several; nothing when there is none: a batch of none is none. */
function operationOf(operations: readonly DataOperation[]): Operation | undefined {
  const [only] = operations
  return operations.length > 1 ? { kind: 'batch', operations } : only
}

function isPrimary(): LockstepError {
  return new LockstepError(
    'INVALID_ARGUMENT',
    'this node is a primary: only a secondary becomes promotable',
    'ask the secondary, or wait for in-sync here: lockstep wait --for in-sync',
  )
}

function primaryConnects(): LockstepError {
  return new LockstepError(
    'NOT_PRIMARY',
    'this node is a secondary: its primary connects to it, and disconnects',
    'run the command on the primary: lockstep peer list names it',
  )
}

function notTracking(): LockstepError {
  return new LockstepError(
    'NOT_PRIMARY',
    'this node is a secondary: only a primary keeps in mind what its peer lacks',
    'run the command on the primary',
  )
}

function noTrackedPeer(): LockstepError {
  return new LockstepError(
    'INVALID_ARGUMENT',
    'no node is kept in mind: there is nothing to forget',
    'lockstep peer list',
  )
}

function verifying(): LockstepError {
  return new LockstepError('BUSY', 'a verify is under way', 'wait until it has ended')
}

function noPeer(): LockstepError {
  return new LockstepError(
    'INVALID_ARGUMENT',
    'no peer is configured',
    'name it: lockstep peer set nbd://HOST:PORT',
  )
}
