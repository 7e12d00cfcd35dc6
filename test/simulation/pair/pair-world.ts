// Two nodes on their disks and network, a client and the judges of both: what the enumeration of crashes and the sweep of failures are made of. The same
// seed and the same calls give the same run, so that a run can be repeated up to any of its calls.
import assert from 'node:assert/strict'
import { LockstepError } from '../../../src/core/errors.js'
import { checkQuiet } from '../check-quiet.js'
import { type Action, Client, type Outcome } from '../client.js'
import { LawBroken } from '../laws.js'
import type { Catalog } from '../model-catalog.js'
import type { StoreImage } from '../oracle.js'
import { SeededRandom } from '../random.js'
import type { Call } from '../sim-call.js'
import { Scheduler } from '../sim-clock.js'
import type { SimMedium } from '../sim-medium.js'
import type { NodeOptions } from '../sim-node.js'
import { chunkBytes } from '../workloads.js'
import { PairJudge } from './pair-judge.js'
import { PairNode, type PairNodeOptions } from './pair-node.js'
import { isInSync, linkOf, type PairEngine, type PairSubject } from './pair-subject.js'
import { SimNetwork } from './sim-network.js'
import { RecordingOracle, Timeline } from './timeline.js'

export type NodeName = 'a' | 'b'

/** What a node held when a history began. */
export type Era = { readonly images: readonly StoreImage[]; readonly catalog: Catalog }

/** Where runs start: two media, and what the second one may hold (an era) up to what the first one holds (the last era). */
export type PairBase = {
  readonly media: readonly [SimMedium, SimMedium]
  readonly eras: readonly Era[]
  /** For the first entry of a run: no base has data with such a number. */
  readonly firstIndex: number
}

export type WorldOptions = {
  readonly subject: PairSubject
  readonly seed: number
  readonly base: PairBase
  readonly mutants?: ReadonlySet<string>
  readonly disks?: Readonly<Record<NodeName, NonNullable<NodeOptions['disk']>>>
  /** Called before each call of either disk, and before each call of the network. */
  readonly beforeCall?: (call: Call | 'network', node: NodeName | undefined) => void
}

/** Virtual time in which two healthy nodes must be equal. */
const healMsMax = 150_000
/** Between two looks at whether something has come to be. */
const lookMs = 100
const network = { capacityBytes: 65536, pieceBytesMax: 65536, delayShare: 0.1, delayMsMax: 3 }
const recentEventsMax = 25

export class PairWorld {
  readonly #options: WorldOptions
  readonly random: SeededRandom
  readonly scheduler: Scheduler
  readonly network: SimNetwork
  readonly timeline = new Timeline(chunkBytes)
  readonly oracle: RecordingOracle
  readonly judge: PairJudge
  readonly underWay = new Set<Promise<unknown>>()
  readonly outcomes: Outcome[] = []
  a: PairNode
  b: PairNode
  client: Client | undefined
  /** What the nodes said, the newest. */
  readonly #recent: string[] = []
  readonly #heard = new WeakSet<PairEngine>()
  #failure: { readonly error: unknown } | undefined
  #hasEnded = false

  constructor(options: WorldOptions) {
    const { seed, base, subject, beforeCall } = options
    this.#options = options
    this.random = new SeededRandom(seed)
    const isShuffled = this.random.chance(0.5)
    this.scheduler = new Scheduler(isShuffled ? { order: this.random.fork('order') } : {})
    this.network = new SimNetwork({
      scheduler: this.scheduler,
      random: this.random.fork('network'),
      shape: network,
      beforeCall: () => beforeCall?.('network', undefined),
    })
    const [first, ...more] = base.eras
    if (first) this.timeline.restart(first.images, first.catalog)
    for (const { images, catalog } of more) this.timeline.beginEra(images, catalog)
    this.oracle = new RecordingOracle(chunkBytes, this.timeline, base.firstIndex)
    const last = base.eras.at(-1)
    if (last) this.oracle.rebase(last.images, last.catalog)
    this.oracle.promiseToken = () => this.#promiseToken()
    this.judge = new PairJudge({
      subject,
      timeline: this.timeline,
      random: this.random.fork('judge'),
      count: () => {},
    })
    this.a = PairNode.on(this.nodeOptions('a'), base.media[0].afterKill())
    this.b = PairNode.on(this.nodeOptions('b'), base.media[1].afterKill())
  }

  nodeOptions(name: NodeName): PairNodeOptions {
    const { subject, mutants, beforeCall, disks } = this.#options
    const isFirst = name === 'a'
    const { scheduler, network } = this
    return {
      ...{ subject, name, scheduler, network },
      role: isFirst ? 'primary' : 'secondary',
      peerName: isFirst ? 'b' : 'a',
      random: this.random.fork(`node ${name}`),
      mutants: mutants ?? new Set(),
      disk: disks?.[name] ?? {
        completion: 'scheduled',
        now: this.random.fork(`disk ${name}`).pick(['always', 'never', 'random'] as const),
      },
      replication: {},
      onCall: (call) => beforeCall?.(call, name),
    }
  }

  start(node: PairNode): void {
    node.start(node.role === 'primary' ? 'sync' : undefined)
  }

  /** Something failed that nobody awaits. */
  fail(error: unknown): void {
    this.#failure ??= { error }
  }

  get failed(): unknown {
    return this.#failure?.error
  }

  /** Asks for `action`, if it is possible now. */
  issue(action: Action): void {
    const { client } = this
    if (!client?.isPossible(action) || !this.#isReachable(client, action)) return
    const watched = client.act(action).then(
      (outcome) => {
        this.underWay.delete(watched)
        this.outcomes.push(outcome)
      },
      (error: unknown) => {
        this.underWay.delete(watched)
        this.fail(error)
      },
    )
    // A crash may have come in the midst of asking.
    if (this.client === client) this.underWay.add(watched)
  }

  /** Lets things happen until `isSo`; throws LawBroken when that takes too long. */
  /** Looks after each step, and after each millisecond in which there is none: what is asked for may last no longer. */
  async untilJust(isSo: () => boolean, what: string): Promise<void> {
    const untilMs = this.scheduler.nowMs + healMsMax
    for (;;) {
      this.look()
      if (isSo()) return
      if (await this.scheduler.step()) continue
      await this.scheduler.elapse(1)
      if (this.scheduler.nowMs > untilMs) throw new LawBroken(`never: ${what}; ${this.#state()}`)
    }
  }

  async until(isSo: () => boolean, what: string): Promise<void> {
    const untilMs = this.scheduler.nowMs + healMsMax
    for (;;) {
      this.look()
      if (isSo()) return
      if (await this.scheduler.step()) continue
      await this.scheduler.settle(lookMs)
      if (this.scheduler.nowMs > untilMs) throw new LawBroken(`hangs: ${what}; ${this.#state()}`)
    }
  }

  /** What must never be. */
  look(): void {
    if (this.#failure) throw this.#failure.error
    for (const node of [this.a, this.b]) {
      this.#listen(node)
      if (node.failure !== undefined) throw node.failure
      const failure = node.engine?.status().failure
      if (failure && !this.mayStop(node)) {
        throw new LawBroken(`node ${node.name} failed: ${failure.message}`)
      }
    }
  }

  /** Whether the node may have stopped for good: its disk failed. */
  mayStop: (node: PairNode) => boolean = () => false

  /** The primary has recovered: it must hold a legal image, from which its client goes on. */
  async welcome(): Promise<void> {
    const { engine, running } = this.a
    if (this.client || !engine || !running) return
    const images = await running.readStores()
    const catalog = this.oracle.judge(images, 'crash')
    if (typeof catalog === 'string')
      throw new LawBroken(`the primary recovered to an illegal state:\n${catalog}`)
    this.client = new Client(engine, this.oracle, this.random.fork(`client ${this.#hasEnded}`))
    if (this.#hasEnded) this.timeline.beginEra(images, catalog)
    this.oracle.rebase(images, catalog)
  }

  /** The primary is gone, with everything it had under way. */
  primaryEnded(): void {
    this.client = undefined
    this.#hasEnded = true
    this.underWay.clear()
    this.oracle.primaryEnded()
  }

  /** Nothing is lacking: the second node has said that all of it is durable. */
  isSettled(): boolean {
    const { engine } = this.a
    if (!engine || !this.b.engine || !isInSync(engine)) return false
    const { sequence, peers } = engine.status()
    return peers[0]?.durableSequence === sequence
  }

  /** Starts who is down. Both must come to be equal, with every request answered. */
  async heal(): Promise<void> {
    for (const node of [this.a, this.b]) if (node.isDown) this.start(node)
    const untilMs = this.scheduler.nowMs + healMsMax
    let isAsked = false
    for (;;) {
      await this.scheduler.settle(lookMs)
      await this.welcome()
      this.look()
      const { engine } = this.a
      if (engine && !isAsked) {
        isAsked = true
        engine.connectPeer().catch((error: unknown) => {
          if (!(error instanceof LockstepError)) this.fail(error)
        })
      }
      if (this.underWay.size === 0 && engine && isInSync(engine)) {
        if (this.isSettled()) return
        await this.flushAll()
      }
      if (this.scheduler.nowMs > untilMs) throw new LawBroken(`not in sync: ${this.#state()}`)
    }
  }

  async flushAll(): Promise<void> {
    for (const store of this.client?.reachable() ?? []) this.issue({ kind: 'flush', store })
    await this.until(() => this.underWay.size === 0, 'a flush')
  }

  /** Healthy and settled: both hold the same, and it is what was asked for. From here on that is what both have. */
  async equal(): Promise<void> {
    assert(this.a.running)
    await this.flushAll()
    const { images, catalog } = await checkQuiet(this.a.running, this.oracle)
    await this.until(() => this.isSettled(), 'the peer has what was flushed')
    await this.judge.checkEqual(this.a, this.b)
    this.oracle.rebase(images, catalog)
    this.timeline.restart(images, catalog)
  }

  describe(): string {
    return `link ${this.a.engine ? linkOf(this.a.engine) : 'none'}\n${this.#recent.join('\n')}\nhistory:\n${this.timeline.describe()}`
  }

  #listen({ engine, name }: PairNode): void {
    if (!engine || this.#heard.has(engine)) return
    this.#heard.add(engine)
    engine.onEvent(({ kind, message }) => {
      this.#recent.push(`  ${this.scheduler.nowMs} ms, node ${name}, ${kind}: ${message}`)
      if (this.#recent.length > recentEventsMax) this.#recent.shift()
    })
  }

  #state(): string {
    const [peer] = this.a.engine?.status().peers ?? []
    const nodes = [this.a, this.b].map((node) => {
      const { sequence, durableSequence } = node.engine?.status() ?? {}
      return `${node.name} at ${sequence}, durable ${durableSequence}`
    })
    return `${nodes.join(', ')}, ${this.underWay.size} requests unanswered, ${JSON.stringify(peer)}`
  }

  #isReachable(client: Client, action: Action): boolean {
    if (action.kind === 'perform' || action.kind === 'checkpoint') return true
    if (!client.reachable().includes(action.store)) return false
    if (action.kind === 'flush') return true
    return action.offset + action.lengthBytes <= client.sizeOf(action.store)
  }

  /** While the link streams in `sync`, what an answer covers is on both media. */
  #promiseToken(): number | undefined {
    const [peer] = this.a.engine?.status().peers ?? []
    return peer?.link === 'streaming' ? this.network.connectionCount : undefined
  }
}

/** Runs `work`; what nobody catches, which would end a daemon, ends the run. */
export async function guarded<T>(world: PairWorld, work: () => Promise<T>): Promise<T> {
  const fail = (error: unknown) => world.fail(error)
  process.on('unhandledRejection', fail)
  process.on('uncaughtException', fail)
  try {
    return await work()
  } catch (error) {
    throw world.failed ?? error
  } finally {
    process.off('unhandledRejection', fail)
    process.off('uncaughtException', fail)
  }
}
