// The group's other node, from the engine's side: what this node is in its role, a primary with a stream and a link, or a secondary with a replica, and what both have.
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { LockstepError } from '../core/errors.js'
import type { Log } from '../core/log.js'
import {
  isPrimary,
  nodeStops,
  nodesDiffer,
  noPeer,
  notTracking,
  primaryConnects,
} from '../core/peer-errors.js'
import type { Sequence, StoreId } from '../core/units.js'
import type { Hello } from '../replication/hello.js'
import type { LinkState } from '../replication/link-state.js'
import type { Pool } from '../storage/pool.js'
import type {
  Explanation,
  ForgottenPeer,
  MarkResult,
  PeerChange,
  PeerStatus,
  VerifyProgress,
  VerifyReport,
} from './api.js'
import { Doorkeeper } from './doorkeeper.js'
import { FrozenStores } from './frozen.js'
import { LackLooks } from './lack-looks.js'
import { LinkNewsFilter } from './link-news.js'
import { MarkResults } from './mark-results.js'
import { describeMark, MarkHandler } from './marks.js'
import { describeForeign, isOfResync, storesToldMax } from './operation-stores.js'
import { differencesOf, replicaStatus } from './peer-report.js'
import { type CountedLacks, PrimaryRole } from './primary-role.js'
import type { PrimaryStream } from './primary-stream.js'
import { Replica } from './replica.js'
import type { ReplicationParts } from './replication-parts.js'
import { helloOf, knowledgeOf } from './self-portrait.js'
import type { DataEntry, Sequencer } from './sequencer.js'
import { silentSeconds } from './silent-disk.js'
import type { Describe } from './stream-operations.js'
import { TurnedAwayCallers } from './turned-away.js'
import type { Repair } from './verify.js'
import { Watchers } from './watchers.js'

/** A resync under way may take longer: then verify says so, and is begun again. */
const verifyWaitMs = 30_000
/** Who waits on a replica. */
const lookAgainMs = 500

export class Replication {
  readonly #parts: ReplicationParts
  readonly #pool: Pool
  readonly #sequencer: Sequencer
  readonly #log: Log
  readonly #primary: PrimaryRole
  #replica: Replica | undefined
  readonly #frozen: FrozenStores
  readonly #markResults: MarkResults
  readonly #watchers: Watchers
  #isStopping = false
  readonly #doorkeeper: Doorkeeper
  readonly #linkNews = new LinkNewsFilter()
  /** Of a primary: what the peer lacks. */
  readonly looks: LackLooks
  readonly turnedAway: TurnedAwayCallers
  /** What the sequencer calls for each data entry. */
  readonly apply: (entry: DataEntry) => Promise<void> | undefined

  constructor(parts: ReplicationParts) {
    const log = parts.log.child({ component: 'replication' })
    this.#parts = parts
    this.#pool = parts.pool
    this.#sequencer = parts.sequencer
    this.#log = log
    this.#watchers = new Watchers(parts.clock)
    this.turnedAway = new TurnedAwayCallers(parts.clock, (message) => {
      log.warn({}, message)
      parts.events.add({ kind: 'link', message })
    })
    this.#frozen = new FrozenStores(parts.pool)
    this.#markResults = new MarkResults(parts.clock, (sequence, result) => {
      log.info({ sequence, ...result }, 'a mark was performed by the peer')
      const message = `on the peer: ${describeMark(result)}`
      parts.events.add({ kind: 'mark', message, sequence })
    })
    const { lookEntriesMax } = parts.replication ?? {}
    this.looks = new LackLooks({
      pool: parts.pool,
      stream: () => this.stream,
      clock: parts.clock,
      ...(lookEntriesMax === undefined ? {} : { entriesPerTurnMax: lookEntriesMax }),
    })
    const primary = new PrimaryRole({
      ...parts,
      log,
      looks: this.looks,
      frozen: this.#frozen,
      caughtUp: (signal) => this.#waitFor('caught-up', verifyWaitMs, signal),
      onResult: (sequence, body) => this.#markResults.came(sequence, body),
      onFollows: (peer) => this.#markResults.follows(peer),
      onAnswer: () => this.#watchers.look(),
      onEvent: (kind, message) => this.#event(kind, message),
      onChange: (link, reason) => this.#changed(link, reason),
    })
    this.#primary = primary
    this.#doorkeeper = new Doorkeeper({
      clock: parts.clock,
      hello: () => this.#hello(),
      knowledge: () => knowledgeOf(this.#pool, primary.stream),
      onRefused: (reason) => this.#event('link', reason),
    })
    this.apply = (entry) => {
      if (primary.stream !== undefined) return primary.stream.apply(entry)
      if (entry.kind !== 'compare') return parts.apply(entry)
      assert(this.#replica)
      return this.#replica.compare(entry)
    }
  }

  get isReadOnly(): boolean {
    return this.#pool.state.role === 'secondary'
  }

  /** A primary's, from when a peer is tracked. */
  get stream(): PrimaryStream | undefined {
    return this.#primary.stream
  }

  /** On a primary: there is another node, or one is expected. */
  get hasPeer(): boolean {
    return !this.isReadOnly && this.#primary.hasPeer
  }

  /** Goes on where the last run ended. */
  start(): void {
    this.#frozen.clear()
    if (this.isReadOnly) this.#replica = this.#newReplica()
    else this.#primary.start()
  }

  /** Performs one operation at its place in the order; resolves when it is durable here and, by mode, there. */
  operate<Plan>(
    prepare: () => Promise<Plan>,
    describe: Describe<Plan>,
  ): Promise<{ readonly sequence: Sequence; readonly plan: Plan }> {
    return this.#primary.operate(prepare, describe)
  }

  #hello(): Hello {
    return helloOf(this.#pool, this.#sequencer.lastSequence)
  }

  #newReplica(): Replica {
    const { clock, replication } = this.#parts
    return new Replica({
      pool: this.#pool,
      sequencer: this.#sequencer,
      clock,
      log: this.#log,
      sendNow: replication?.sendNow,
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
      performed: (operation, sequence, stores) => {
        // What became of a mark is an event of its own, and so is a resync.
        if (operation.kind === 'mark' || isOfResync(operation)) return
        const message = describeForeign(operation.kind, stores)
        const named = stores.length === 0 ? {} : { stores: stores.slice(0, storesToldMax) }
        this.#parts.events.add({ kind: 'operation', message, sequence, ...named })
      },
      onStranger: (reason) => this.#event('link', reason),
      onChange: (link, reason) => this.#changed(link, reason),
      mutants: this.#parts.mutants ?? new Set(),
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

  /** What `peers` says of what the other node lacks, counted: nobody is kept waiting for it but who asked. Undefined where there is nothing to count. */
  async count(): Promise<CountedLacks | undefined> {
    return this.hasPeer ? this.#primary.count() : undefined
  }

  /** What was not counted is told at most. */
  peers(counted?: CountedLacks): readonly PeerStatus[] {
    const replica = this.#replica
    const primary = this.#primary
    if (replica !== undefined) {
      const applied = this.#sequencer.appliedSequence
      const turnedAway = this.turnedAway.last
      const silent = this.diskSilentSeconds
      return [replicaStatus(replica, { pool: this.#pool, applied, turnedAway, silent })]
    }
    const { refused } = this.#doorkeeper
    // While this node's own link does something it is the news.
    if (refused !== undefined && !primary.isLinkBusy)
      return [{ ...primary.status(counted), ...refused }]
    return primary.hasPeer ? [primary.status(counted)] : []
  }

  /** For how long this node's own disk has not answered, when that is longer than any that works takes. */
  get diskSilentSeconds(): number | undefined {
    const { clock } = this.#parts
    return silentSeconds(clock, this.#pool.diskBusySinceMs, this.#replica?.waitingSinceMs)
  }

  async connectPeer(options: { readonly explain?: boolean }): Promise<Explanation> {
    if (this.isReadOnly) throw primaryConnects()
    return this.#primary.connect({ isOnlyAsking: options.explain === true })
  }

  disconnectPeer(): void {
    if (this.isReadOnly) throw primaryConnects()
    this.#doorkeeper.forgetRefused()
    this.#primary.disconnect()
  }

  /** Lets go of the node that is tracked. Rejects with NOT_PRIMARY, INVALID_ARGUMENT or BUSY. */
  async forgetPeer(): Promise<ForgottenPeer> {
    if (this.isReadOnly) throw notTracking()
    return this.#primary.forget()
  }

  setPeer({ uri, mode, maxRate }: PeerChange): void {
    if (maxRate !== undefined) this.#primary.maxRate = maxRate
    if (mode !== undefined) this.#primary.mode = mode
    if (uri === undefined || this.isReadOnly) return
    this.#doorkeeper.forgetRefused()
    this.#primary.setUri(uri)
  }

  /** Throws INVALID_ARGUMENT on a primary that has none, and expects none. */
  checkHasPeer(): void {
    if (!this.isReadOnly && !this.#primary.hasPeer) throw noPeer()
  }

  /** What the peer may lack of the entries that have left, and a block for those under way that it will lack. */
  get dirtyBytes(): number {
    return this.#primary.dirtyBytes
  }

  /** A mark was ordered when so much was dirty. */
  marked(sequence: Sequence, mark: { readonly name: string; readonly dirtyBytes: number }): void {
    this.#markResults.ordered(sequence, mark)
  }

  /** What the peer did at a mark. Rejects with TIMED_OUT, or at once when nobody will tell. */
  async markResult(sequence: Sequence, timeoutMs: number): Promise<MarkResult> {
    this.checkHasPeer()
    return this.#markResults.wait(sequence, timeoutMs)
  }

  /** Throws what `verify` would reject with now. */
  checkCanVerify(): void {
    this.#primary.checkCanVerify()
  }

  /** Compares one store with the peer's. Rejects with PEER_UNREACHABLE, BUSY or TIMED_OUT; with the signal's reason when that is aborted before it has begun to compare. */
  verify(
    store: { readonly id: StoreId; readonly name: string },
    options: {
      readonly repairs: Repair | undefined
      readonly onProgress: (progress: VerifyProgress) => void
      readonly signal?: AbortSignal | undefined
    },
  ): Promise<VerifyReport> {
    return this.#primary.verify(store, options)
  }

  waitFor(condition: 'in-sync' | 'promotable', timeoutMs: number): Promise<void> {
    return this.#waitFor(condition, timeoutMs)
  }

  /** `caught-up` is in sync but for what verify found to differ. Rejects with the signal's reason at once when that is aborted. */
  #waitFor(
    condition: 'in-sync' | 'caught-up' | 'promotable',
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<void> {
    const sequence = this.#sequencer.lastSequence
    const holds = (): boolean | LockstepError => {
      if (condition === 'promotable') return this.isReadOnly && this.#pool.state.isWhole
      if (!this.#isCaughtUp(sequence)) return false
      const differences = condition === 'in-sync' ? differencesOf(this.#pool) : []
      if (differences.length === 0) return true
      // What was written over ends with the entry, when that is durable there.
      return this.#primary.hasLeft(sequence) ? nodesDiffer(differences) : false
    }
    if (condition !== 'promotable' && this.#replica === undefined && !this.#primary.hasLink)
      return Promise.reject(noPeer())
    if (condition === 'promotable' && !this.isReadOnly)
      return Promise.reject(isPrimary(this.#primary.hasLink))
    const tooLate = (): LockstepError => {
      const [peer] = this.peers()
      return new LockstepError(
        'TIMED_OUT',
        `not ${condition === 'promotable' ? condition : 'in-sync'} within ${timeoutMs / 1000} s: ${peer?.reason ?? 'no peer'}`,
        peer?.action ?? 'lockstep status',
      )
    }
    // Of a disk that answers again nobody hears.
    const again = this.#replica === undefined ? {} : { lookAgainMs }
    return this.#watchers.until(holds, { timeoutMs, tooLate, signal, ...again })
  }

  /** A replica cannot know what verify found: its primary tells. */
  #isCaughtUp(sequence: Sequence): boolean {
    if (this.#replica === undefined) return this.#primary.isCaughtUp(sequence)
    if (this.diskSilentSeconds !== undefined) return false
    return this.#replica.state === 'streaming' && this.#pool.state.isWhole
  }

  // --- The end. ---

  /** Nothing becomes durable here any more. */
  failed(message: string): void {
    this.#primary.failed(message)
  }

  /** Whoever waits for something of the other node hears that this one stops. */
  stopWaiting(): void {
    this.#watchers.fail(nodeStops())
    this.#markResults.stopWaiting(nodeStops())
    this.#primary.stopWaiting()
  }

  /** Resolves when there is no connection any more: nobody waits for the peer then. Once more does no harm. */
  async stopLink(): Promise<void> {
    this.#isStopping = true
    this.stopWaiting()
    this.#primary.stopResync()
    this.#doorkeeper.close()
    await this.#primary.close()
    await this.#replica?.close()
  }

  /** Everything has been applied: what the peer has not acknowledged is kept as a difference. */
  leaveNothing(): void {
    this.#primary.leaveNothing()
  }

  #changed(link: LinkState, reason: string): void {
    this.#log.debug({ link, reason }, 'the link changed')
    for (const news of this.#linkNews.changed({ link, reason }))
      this.#event('link', `link ${news.link}: ${news.reason}`)
    this.#watchers.look()
  }

  #event(kind: 'link' | 'resync', message: string): void {
    this.#log.info({}, message)
    this.#parts.events.add({ kind, message })
    this.#watchers.look()
  }
}
