// A stand-in for the engine: names and sizes only, no bytes. It refuses what a test needs refused and remembers what it was asked,
// so that the control socket and the command line can be tested without a disk.
import { LockstepError } from '../../src/core/errors.js'
import { noSuchStore } from '../../src/core/no-such-store.js'
import type { MarkRequest, OperationRequest } from '../../src/core/operation.js'
import type { Generation, Position, Sequence } from '../../src/core/units.js'
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
  PeerStatus,
  ReplicationApi,
  StoreStatus,
  VerifyApi,
  VerifyProgress,
  VerifyReport,
} from '../../src/engine/api.js'

const generation = '0123456789abcdef0123456789abcdef' as Generation
const createdAt = '2024-01-01T00:00:00.000Z'

export class EngineDouble implements EngineApi, ReplicationApi, MarkApi, VerifyApi {
  readonly asked: OperationRequest[] = []
  readonly checked: OperationRequest[] = []
  /** Why `check` refuses. */
  refusal: LockstepError | undefined
  readonly stores = new Map<string, StoreStatus>()
  readonly #answers = new Map<string, OperationResult>()
  readonly #listeners = new Set<(event: EngineEvent) => void>()
  readonly #events: EngineEvent[] = []
  #sequence = 0
  failure: GroupStatus['failure']
  role: GroupStatus['role'] = 'primary'
  isWhole: boolean | undefined
  peers: PeerStatus[] = []
  /** Differences are to the peer, not to a snapshot. */
  hasTracking = false
  /** What was asked of the link, in words. */
  readonly peerCalls: string[] = []
  explanation: Explanation | LockstepError = {
    rule: 'same position',
    kind: 'nothing',
    operations: 0,
    bytes: 0,
    reason: 'both nodes are at the same position',
  }
  markOutcome: MarkResult | LockstepError = {
    name: 'nightly',
    snapshots: ['vol0@local.nightly'],
    snapshotCount: 1,
    problems: [],
  }
  /** What `dirty` shows of every volume. */
  picture: readonly number[] | undefined
  /** What `checkVerify` says, but of stores: the double compares without a peer. */
  refusesVerify: LockstepError | undefined
  /** What `verify` finds. */
  differing: VerifyReport['ranges'] = []
  /** Awaited by `waitFor`: a test holds it back, or makes it fail. */
  condition: () => Promise<void> = async () => {}
  /** Awaited by every operation: a test holds it back to look at what is under way. */
  gate: Promise<void> = Promise.resolve()

  readonly exports = {
    list: () => [...this.stores.keys()].map((name) => ({ name, description: '' })),
    find: () => undefined,
    attach: () => () => {},
  }

  get listenerCount(): number {
    return this.#listeners.size
  }

  addVolume(name: string, sizeBytes: number): void {
    this.stores.set(name, { name, sizeBytes, allocatedBytes: 0, createdAt })
  }

  status(): GroupStatus {
    return {
      node: 'double',
      group: 'fedcba98765432100123456789abcdef',
      role: this.role,
      ...(this.isWhole === undefined ? {} : { isWhole: this.isWhole }),
      generation,
      sequence: this.#sequence as Sequence,
      durableSequence: this.#sequence as Sequence,
      chunkBytes: 65536,
      stores: [...this.stores.values()],
      pool: {
        usedBytes: 131072,
        sharedBytes: 65536,
        journalBytes: 1048576,
        journalUsedBytes: 4096,
      },
      peers: this.peers,
      connections: 0,
      ...(this.failure === undefined ? {} : { failure: this.failure }),
    }
  }

  async countedStatus(): Promise<GroupStatus> {
    return this.status()
  }

  check(request: OperationRequest): void {
    this.checked.push(request)
    if (this.refusal !== undefined) throw this.refusal
  }

  async perform(
    request: OperationRequest,
    options: { readonly requestId?: string } = {},
  ): Promise<OperationResult> {
    const before =
      options.requestId === undefined ? undefined : this.#answers.get(options.requestId)
    if (before !== undefined) return before
    this.asked.push(request)
    await this.gate
    const names = this.#apply(request)
    const position: Position = { generation, sequence: ++this.#sequence as Sequence }
    const result = { position, stores: names }
    if (options.requestId !== undefined) this.#answers.set(options.requestId, result)
    this.emit({
      at: createdAt,
      kind: 'operation',
      message: `${request.kind} ${names}`,
      stores: names,
    })
    return result
  }

  async dirty(store?: string, cellCount = 8): Promise<readonly DirtyReport[]> {
    const volumes = [...this.stores.values()].filter((known) => known.snapshotOf === undefined)
    const chosen = store === undefined ? volumes : [this.#existing(store)]
    return chosen.map(({ name, sizeBytes }) => ({
      store: name,
      sizeBytes,
      ...(this.hasTracking ? {} : { since: 'monday' }),
      dirtyBytes: 65536,
      picture: this.picture ?? Array.from({ length: cellCount }, (_, cell) => (cell === 0 ? 1 : 0)),
    }))
  }

  recentEvents(): readonly EngineEvent[] {
    return this.#events
  }

  onEvent(listener: (event: EngineEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  emit(event: EngineEvent): void {
    this.#events.push(event)
    for (const listener of this.#listeners) listener(event)
  }

  async close(): Promise<void> {}

  async acceptPeer(): Promise<void> {}

  peerTurnedAway(): void {}

  async connectPeer(options: { readonly explain?: boolean } = {}): Promise<Explanation> {
    this.peerCalls.push(`connect explain=${options.explain}`)
    if (this.explanation instanceof LockstepError) throw this.explanation
    return this.explanation
  }

  async disconnectPeer(): Promise<void> {
    this.peerCalls.push('disconnect')
  }

  async setPeer(options: PeerChange): Promise<void> {
    this.peerCalls.push(`set ${JSON.stringify(options)}`)
  }

  async forgetPeer(): Promise<ForgottenPeer> {
    this.peerCalls.push('forget')
    return { node: 'beta', dirtyBytes: 4096, opLogEntries: 2 }
  }

  async mark(request: MarkRequest): Promise<OperationResult> {
    this.peerCalls.push(`mark ${JSON.stringify(request)}`)
    return { position: { generation, sequence: ++this.#sequence as Sequence }, stores: [] }
  }

  async markResult(sequence: Sequence, timeoutMs: number): Promise<MarkResult> {
    this.peerCalls.push(`result of ${sequence} in ${timeoutMs}`)
    if (this.markOutcome instanceof LockstepError) throw this.markOutcome
    return this.markOutcome
  }

  checkVerify(store?: string): void {
    if (store !== undefined) this.#existing(store)
    if (this.refusesVerify !== undefined) throw this.refusesVerify
  }

  async verify(
    options: {
      readonly store?: string
      readonly repair?: boolean
      readonly from?: 'self' | 'peer'
      readonly onProgress?: (progress: VerifyProgress) => void
    } = {},
  ): Promise<readonly VerifyReport[]> {
    const { store = 'vol0', repair, from } = options
    this.peerCalls.push(`verify ${store} repair=${repair}${repair === true ? ` from=${from}` : ''}`)
    for (const doneBytes of [65536, 131072])
      options.onProgress?.({ store, doneBytes, totalBytes: 131072 })
    return [
      {
        store,
        comparedBytes: 131072,
        differingBytes: this.differing.length * 65536,
        ranges: this.differing,
      },
    ]
  }

  async waitFor(condition: 'in-sync' | 'promotable', timeoutMs: number): Promise<void> {
    this.peerCalls.push(`wait ${condition} ${timeoutMs}`)
    await this.condition()
  }

  #existing(name: string): StoreStatus {
    const store = this.stores.get(name)
    if (store === undefined) throw noSuchStore(name, [...this.stores.values()])
    return store
  }

  #apply(request: OperationRequest): readonly string[] {
    switch (request.kind) {
      case 'volume.create':
        if (this.stores.has(request.name)) {
          throw new LockstepError('NAME_TAKEN', `${request.name} exists`, 'choose another name')
        }
        this.addVolume(request.name, request.sizeBytes)
        return [request.name]
      case 'volume.resize':
        this.addVolume(this.#existing(request.name).name, request.sizeBytes)
        return [request.name]
      case 'volume.delete':
        this.stores.delete(this.#existing(request.name).name)
        return [request.name]
      case 'snapshot.create': {
        const sources = request.stores === 'all' ? [...this.stores.keys()] : request.stores
        return sources.map((source) => this.#snapshot(this.#existing(source), request.name))
      }
      case 'snapshot.delete':
        this.stores.delete(this.#existing(request.store).name)
        return [request.store]
      case 'batch':
        return request.operations.flatMap((operation) => this.#apply(operation))
      case 'sync':
        return [this.#existing(request.source), this.#existing(request.target)].map(
          ({ name }) => name,
        )
      case 'volume.rename':
        return [this.#existing(request.name).name]
      default:
        return [this.#existing(request.store).name]
    }
  }

  #snapshot(source: StoreStatus, snapshotName: string): string {
    const name = `${source.name}@${snapshotName}`
    const position: Position = { generation, sequence: this.#sequence as Sequence }
    this.stores.set(name, { ...source, name, snapshotOf: source.name, position })
    return name
  }
}
