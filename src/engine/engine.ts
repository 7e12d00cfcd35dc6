// One group on one node: opens the pool, orders what clients and operators ask for, and answers what is the case. The one place where storage and NBD meet.
import type { Duplex } from 'node:stream'
import type { Clock, Random } from '../core/clock.js'
import type { Disk } from '../core/disk.js'
import { LockstepError, notPrimary } from '../core/errors.js'
import type { Log } from '../core/log.js'
import type { MarkRequest, OperationRequest } from '../core/operation.js'
import { formatBytes, type Sequence } from '../core/units.js'
import type { LocalOperation } from '../storage/apply-operation.js'
import { fullName, isLocalId, presentGeneration, type Store } from '../storage/group-state.js'
import { type InitOptions, initPool } from '../storage/init-pool.js'
import { Pool } from '../storage/pool.js'
import type { ActiveLimits } from '../storage/pool-tracking.js'
import type {
  DirtyReport,
  EngineApi,
  EngineEvent,
  Explanation,
  ForgottenPeer,
  GroupStatus,
  MarkApi,
  MarkResult,
  OperationResult,
  PeerChange,
  ReplicationApi,
  ReplicationOptions,
  StoreStatus,
  TurnedAway,
  VerifyApi,
  VerifyProgress,
  VerifyReport,
} from './api.js'
import { Catalog } from './catalog.js'
import { dirtyReports } from './dirty-reports.js'
import { EventLog } from './event-log.js'
import { checkDeletable, isHidden, localSource } from './local-stores.js'
import { LongZeroes } from './long-zeroes.js'
import { findStore, localStoreNamed, storeNamed, streamStores } from './names.js'
import type { CountedLacks } from './primary-role.js'
import { ReadAhead } from './read-ahead.js'
import { checkRange } from './refusals.js'
import { RememberedRequests } from './remembered-requests.js'
import { Replication } from './replication.js'
import { checkUnused, type Resolved, resolve, resolveMark } from './resolve.js'
import { type DataEntry, Sequencer } from './sequencer.js'

export type EngineOptions = {
  readonly disk: Disk
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Connections that one export may have at once; 64 by default. */
  readonly connectionsPerExportMax?: number
  /** Switchable bugs, for the proofs only. */
  readonly mutants?: ReadonlySet<string>
  /** Other bounds of the active set than those of limits.ts: for the proofs only. */
  readonly activeLimits?: ActiveLimits
  /** Without it the node neither connects nor lets anybody connect. */
  readonly replication?: ReplicationOptions
}

const connectionsPerExportDefault = 64
const dirtyCellCountDefault = 64

/** Makes a new group in an empty directory. Rejects with ALREADY_INITIALISED, INVALID_SIZE or NEEDS_CONFIRMATION. */
export function initGroup(
  disk: Disk,
  options: InitOptions & { readonly clock: Clock },
): Promise<void> {
  return initPool(disk, options)
}

export class Engine implements EngineApi, ReplicationApi, MarkApi, VerifyApi {
  readonly #options: EngineOptions
  readonly #pool: Pool
  readonly #sequencer: Sequencer
  readonly #events: EventLog
  readonly #replication: Replication
  readonly #remembered = new RememberedRequests()
  #closing: Promise<void> | undefined
  readonly exports: Catalog

  private constructor(
    options: EngineOptions,
    parts: {
      readonly pool: Pool
      readonly sequencer: Sequencer
      readonly events: EventLog
      readonly replication: Replication
    },
  ) {
    const { pool, sequencer, events, replication } = parts
    this.#options = options
    this.#replication = replication
    this.#pool = pool
    this.#sequencer = sequencer
    this.#events = events
    this.exports = new Catalog({
      pool,
      sequencer,
      port: replication,
      readAhead: new ReadAhead(options.clock),
      longZeroes: new LongZeroes(),
      log: options.log.child({ component: 'export' }),
      connectionsPerExportMax: options.connectionsPerExportMax ?? connectionsPerExportDefault,
    })
  }

  /** Opens the group in a directory, recovering it if need be. Rejects with a LockstepError that says what to do. */
  static async open(options: EngineOptions): Promise<Engine> {
    const events = new EventLog(options.clock)
    let sequencer: Sequencer | undefined
    let replication: Replication | undefined
    const pool = await Pool.open({
      disk: options.disk,
      clock: options.clock,
      random: options.random,
      log: options.log.child({ component: 'pool' }),
      mutants: options.mutants ?? new Set(),
      ...(options.activeLimits === undefined ? {} : { activeLimits: options.activeLimits }),
      appliedSequence: () => sequencer?.appliedSequence,
      onActiveFull: () => replication?.stream?.activeFull(),
      onEvent: (event) => {
        events.add(event)
        if (event.kind === 'failure') replication?.failed(event.message)
      },
    })
    const { state } = pool
    const apply = (entry: DataEntry): Promise<void> | undefined => applyEntry(pool, entry)
    sequencer = new Sequencer({
      chunkBytes: state.chunkBytes,
      lastSequence: state.sequence,
      apply: (entry) => (replication?.apply ?? apply)(entry),
      missesInFlight:
        options.mutants?.has('snapshot-misses-inflight') === true ||
        (state.role === 'secondary' && options.mutants?.has('snapshot-beside-position') === true),
    })
    events.add({
      kind: 'started',
      message:
        state.group === ''
          ? 'a blank replica: it takes the group of the first primary that connects'
          : `group ${state.group} is open at sequence ${state.sequence}`,
    })
    replication = new Replication({ ...options, pool, sequencer, events, apply })
    const engine = new Engine(options, { pool, sequencer, events, replication })
    replication.start()
    return engine
  }

  status(): GroupStatus {
    return this.#status(undefined)
  }

  async countedStatus(): Promise<GroupStatus> {
    return this.#status(await this.#replication.count())
  }

  #status(counted: CountedLacks | undefined): GroupStatus {
    const { state, failure, durableSequence, usage } = this.#pool
    const { diskSilentSeconds } = this.#replication
    return {
      node: state.node,
      group: state.group,
      role: state.role,
      generation: presentGeneration(state),
      sequence: this.#sequencer.lastSequence,
      durableSequence: durableSequence as Sequence,
      chunkBytes: state.chunkBytes,
      stores: [...state.stores.values()]
        .filter((store) => !isHidden(store))
        .map((store) => this.#storeStatus(store)),
      pool: { ...usage, sharedBytes: this.#pool.sharedBytes() },
      peers: this.#replication.peers(counted),
      ...(state.role === 'secondary' ? { isWhole: state.isWhole } : {}),
      ...(diskSilentSeconds === undefined ? {} : { diskSilentSeconds }),
      ...(failure === undefined
        ? {}
        : { failure: { message: failure.message, action: failure.action } }),
      connections: this.exports.connectionCount,
    }
  }

  perform(
    request: OperationRequest,
    options: { readonly requestId?: string } = {},
  ): Promise<OperationResult> {
    return this.#remembered.once(options.requestId, request, () => this.#perform(request))
  }

  check(request: OperationRequest): void {
    this.#checkTakesOperations()
    const { state } = this.#pool
    if (request.kind === 'snapshot.delete') {
      const found = findStore(state, request.store)
      if (found !== undefined && isLocalId(found.id)) return void this.#resolveLocal(request.store)
    }
    if (state.role === 'secondary') throw notPrimary()
    this.#resolve(request)
  }

  acceptPeer(stream: Duplex, from: string): Promise<void> {
    return this.#replication.accept(stream, from)
  }

  peerTurnedAway(from: string, why: TurnedAway): void {
    this.#replication.turnedAway.came(from, why)
  }

  connectPeer(options: { readonly explain?: boolean } = {}): Promise<Explanation> {
    return this.#replication.connectPeer(options)
  }

  async disconnectPeer(): Promise<void> {
    this.#replication.disconnectPeer()
  }

  async setPeer(change: PeerChange): Promise<void> {
    this.#replication.setPeer(change)
  }

  forgetPeer(): Promise<ForgottenPeer> {
    return this.#replication.forgetPeer()
  }

  mark(
    request: MarkRequest,
    options: { readonly requestId?: string; readonly isAwaited?: boolean } = {},
  ): Promise<OperationResult> {
    const needsPeer =
      request.hook !== undefined || request.snapshot !== undefined || options.isAwaited === true
    return this.#remembered.once(options.requestId, { kind: 'mark', ...request }, async () => {
      if (needsPeer) this.#replication.checkHasPeer()
      let dirtyBytes = 0
      const done = await this.#operate(() => {
        dirtyBytes = this.#replication.dirtyBytes
        return resolveMark(request)
      })
      this.#replication.marked(done.position.sequence, { name: request.name, dirtyBytes })
      return done
    })
  }

  markResult(sequence: Sequence, timeoutMs: number): Promise<MarkResult> {
    return this.#replication.markResult(sequence, timeoutMs)
  }

  checkVerify(store?: string): void {
    const { state } = this.#pool
    if (state.role === 'secondary') throw notPrimary()
    if (store !== undefined) storeNamed(state, store)
    this.#replication.checkCanVerify()
  }

  async verify(
    options: {
      readonly store?: string
      readonly repair?: boolean
      readonly from?: 'self' | 'peer'
      readonly onProgress?: (progress: VerifyProgress) => void
      readonly signal?: AbortSignal
    } = {},
  ): Promise<readonly VerifyReport[]> {
    const { state } = this.#pool
    if (state.role === 'secondary') throw notPrimary()
    const stores =
      options.store === undefined ? streamStores(state) : [storeNamed(state, options.store)]
    const reports: VerifyReport[] = []
    const { signal } = options
    const onProgress = (progress: VerifyProgress): void => {
      options.onProgress?.(progress)
      if (signal?.aborted === true) throw cancelled(progress)
    }
    for (const store of stores) {
      if (store.isDeleted) continue
      const named = { id: store.id, name: fullName(state, store) }
      const repairs = options.repair === true ? (options.from ?? 'self') : undefined
      const verifying = this.#replication.verify(named, { repairs, onProgress, signal })
      const report = await verifying.catch((error: unknown) => {
        if (signal?.aborted !== true || error !== signal.reason) throw error
        throw cancelled({ store: named.name, doneBytes: 0, totalBytes: store.sizeBytes })
      })
      if (report.differingBytes > 0) this.#tellDifference(report, repairs)
      reports.push(report)
    }
    return reports
  }

  /** Who asked may be a script that looks at nothing. */
  #tellDifference(report: VerifyReport, repairs: 'self' | 'peer' | undefined): void {
    const { store, differingBytes } = report
    const found = `${formatBytes(differingBytes)} of ${store} differ from the peer's copy`
    const fate = { self: 'repaired from this node', peer: 'repaired from the peer' }
    const end = repairs === undefined ? 'not repaired' : fate[repairs]
    this.#events.add({ kind: 'verify', message: `verify: ${found}; ${end}`, stores: [store] })
    this.#options.log.warn({ store, differingBytes, repairs }, 'verify found a difference')
  }

  waitFor(condition: 'in-sync' | 'promotable', timeoutMs: number): Promise<void> {
    return this.#replication.waitFor(condition, timeoutMs)
  }

  async dirty(
    name?: string,
    cellCount: number = dirtyCellCountDefault,
  ): Promise<readonly DirtyReport[]> {
    const { looks, hasPeer } = this.#replication
    return dirtyReports({ pool: this.#pool, looks, hasPeer }, name, cellCount)
  }

  recentEvents(): readonly EngineEvent[] {
    return this.#events.recent()
  }

  onEvent(listener: (event: EngineEvent) => void): () => void {
    return this.#events.subscribe(listener)
  }

  /** `close` will follow: whoever waits for something of the other node hears so now. */
  stopWaiting(): void {
    this.#replication.stopWaiting()
  }

  /** Ends the link before `close`: changes under way that wait for the other node go on without it. Resolves when it has ended. */
  leavePeer(): Promise<void> {
    return this.#replication.stopLink()
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** Resolves when the space of everything deleted before is free. For tests and tools. */
  reclaim(): Promise<void> {
    return this.#pool.reclaim()
  }

  /** Writes a checkpoint now. For tests and tools. */
  checkpoint(): Promise<void> {
    return this.#pool.forceCheckpoint()
  }

  /** Throws an AssertionError when a structural law is broken. For tests and the simulator, between requests. */
  checkInvariants(): void {
    this.#pool.checkInvariants()
  }

  async #close(): Promise<void> {
    this.#events.add({ kind: 'stopping', message: 'the daemon is stopping' })
    await this.#replication.stopLink()
    await this.#sequencer.close()
    this.#replication.leaveNothing()
    await this.#pool.close({ sequence: this.#sequencer.lastSequence })
  }

  async #perform(request: OperationRequest): Promise<OperationResult> {
    if (request.kind === 'snapshot.delete') {
      const found = findStore(this.#pool.state, request.store)
      if (found !== undefined && isLocalId(found.id)) return this.#deleteLocal(request.store)
      // A secondary would refuse it for another reason, which is none. On a primary one that is ordered before may make it.
      if (found === undefined && this.#pool.state.role === 'secondary')
        storeNamed(this.#pool.state, request.store)
    }
    return this.#operate(() => this.#resolve(request))
  }

  #resolve(request: OperationRequest): Resolved {
    return resolve(this.#pool.state, request, {
      connectionCount: (store) => this.exports.connectionsOf(store),
    })
  }

  #checkTakesOperations(): void {
    if (this.#closing !== undefined) throw stopping()
    if (this.#pool.failure !== undefined) throw this.#pool.failure
  }

  /** Performs what `resolveNow` says when everything before it took effect. */
  async #operate(resolveNow: () => Resolved): Promise<OperationResult> {
    this.#checkTakesOperations()
    if (this.#pool.state.role === 'secondary') throw notPrimary()
    const { sequence, plan } = await this.#replication.operate(
      async () => {
        const resolved = resolveNow()
        return { resolved, prepared: await this.#pool.prepare(resolved.operation) }
      },
      ({ resolved, prepared }, at) => {
        const { operation, stores, description } = resolved
        const event = { kind: 'operation', message: description, sequence: at, stores } as const
        return { operation, prepared, durable: () => this.#events.add(event) }
      },
    )
    const { operation, stores } = plan.resolved
    this.#options.log.info({ sequence, kind: operation.kind, stores }, 'operation performed')
    return { position: { generation: presentGeneration(this.#pool.state), sequence }, stores }
  }

  #resolveLocal(name: string): LocalOperation {
    const store = localStoreNamed(this.#pool.state, name)
    checkDeletable(store)
    checkUnused(name, this.exports.connectionsOf(store))
    return { kind: 'delete', storeId: store.id }
  }

  /** A snapshot that this node keeps for itself: no entry of the stream, and allowed on a secondary. */
  async #deleteLocal(name: string): Promise<OperationResult> {
    this.#checkTakesOperations()
    const { state } = this.#pool
    await this.#pool.prepare(this.#resolveLocal(name))
    // Looked up again: somebody may have been quicker.
    this.#pool.performLocal(this.#resolveLocal(name))
    await this.#pool.commit()
    this.#events.add({ kind: 'operation', message: `deleted ${name}`, stores: [name] })
    const sequence = this.#sequencer.lastSequence
    return { position: { generation: presentGeneration(state), sequence }, stores: [name] }
  }

  #storeStatus(store: Store): StoreStatus {
    const { state } = this.#pool
    const volume = store.volumeId === undefined ? undefined : state.stores.get(store.volumeId)
    return {
      name: fullName(state, store),
      sizeBytes: store.sizeBytes,
      allocatedBytes: store.map.allocatedCount * state.chunkBytes,
      ...(volume === undefined ? {} : { snapshotOf: volume.name }),
      ...(isLocalId(store.id) ? { snapshotOf: localSource(store), isLocal: true } : {}),
      ...(store.position === undefined ? {} : { position: store.position }),
      createdAt: store.createdAt,
    }
  }
}

/** The comparison ends where it is: what it kept is let go of, what it has repaired stays so. */
function cancelled({ store, doneBytes, totalBytes }: VerifyProgress): LockstepError {
  const done = `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)} of ${store}`
  return new LockstepError(
    'CANCELLED',
    `cancelled when ${done} had been compared`,
    'lockstep verify begins anew',
  )
}

function stopping(): LockstepError {
  return new LockstepError('BUSY', 'the daemon is stopping', 'try again when it has started')
}

/** Changes a store at the entry's place in the order: an operation that the entry waited for may have deleted the store or made it smaller. */
function applyEntry(pool: Pool, entry: DataEntry): Promise<void> | undefined {
  checkRange(entry.store, entry, entry.errnoBeyondEnd ?? 'ENOSPC')
  if (entry.kind === 'write')
    return pool.write(entry.store, entry.offset, entry.lengthBytes, entry.parts)
  return pool.zero(entry.store, entry.offset, entry.lengthBytes, entry.mayUnmap)
}
