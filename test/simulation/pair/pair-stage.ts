// What a schedule is played with, made from its seed: clock, network, disks, the traffic of clients, the operator, and those who watch and judge. It outlives
// every life of the nodes.
//
// Invariant: each part draws from a stream of its own, or from the schedule's in an order that stays: a seed that is kept is the same schedule for ever.
import type { ActiveLimits } from '../../../src/storage/pool-tracking.js'
import { SeededRandom } from '../random.js'
import { ActionSource } from '../random-actions.js'
import { Scheduler } from '../sim-clock.js'
import { PairAim } from './pair-aim.js'
import { PairDiskFaults } from './pair-disk-faults.js'
import { PairJudge } from './pair-judge.js'
import { PairNode } from './pair-node.js'
import { PairOperator } from './pair-operator.js'
import { type PairShape, shapeOf } from './pair-shape.js'
import { linkOf, type PairSubject } from './pair-subject.js'
import { PairTraffic, secondaryRead } from './pair-traffic.js'
import { PairWatch } from './pair-watch.js'
import { SimNetwork } from './sim-network.js'
import { RecordingOracle, Timeline } from './timeline.js'

export type PairStageOptions = {
  readonly subject: PairSubject
  readonly seed: number
  readonly mutants?: ReadonlySet<string>
  readonly isPlain?: boolean
}

const journalBytes = 256 * 1024
/** Of what the primary said last. */
const recentEventsMax = 30

export class PairStage {
  readonly #options: PairStageOptions
  readonly random: SeededRandom
  readonly shape: PairShape
  readonly scheduler: Scheduler
  readonly network: SimNetwork
  readonly timeline: Timeline
  readonly oracle: RecordingOracle
  readonly judge: PairJudge
  readonly traffic: PairTraffic
  readonly operator: PairOperator
  readonly watch: PairWatch
  readonly aim: PairAim
  /** Of the first node's disk and the second's. */
  readonly diskFaults: readonly [PairDiskFaults, PairDiskFaults]
  /** The primary's link as it was seen last, and what the primary said last: for messages. */
  link = ''
  readonly #recentEvents: string[] = []
  /** How often what is rare happened. */
  readonly counts = new Map<string, number>()
  #first: PairNode | undefined
  #second: PairNode | undefined
  #failure: { readonly error: unknown } | undefined

  constructor(options: PairStageOptions) {
    this.#options = options
    const { subject, isPlain } = options
    this.random = new SeededRandom(options.seed)
    const extraRandom = this.random.fork('extras')
    // The naive pair knows nothing of all that.
    const hasExtras = isPlain !== true && subject.tracksDifferences
    this.shape = shapeOf(this.random.fork('shape'), hasExtras ? extraRandom : undefined)
    const { chunkBytes, chunkCountMax, network, mode, extras } = this.shape
    const count = (what: string) => this.count(what)
    this.scheduler = new Scheduler({ order: this.random.fork('order') })
    const aim = new PairAim(this.random.fork('aim'), extras?.aimShare ?? 0)
    this.aim = aim
    this.network = new SimNetwork({
      scheduler: this.scheduler,
      random: this.random.fork('network'),
      shape: network,
      ...(subject.tracksDifferences
        ? {
            taps: {
              count: (what) => {
                this.watch.passed(what)
                this.count(what)
              },
              keepsOld: (extras?.frameShare ?? 0) > 0,
              cutOf: (frame) => aim.met(frame),
            },
          }
        : {}),
    })
    this.timeline = new Timeline(chunkBytes)
    this.oracle = new RecordingOracle(chunkBytes, this.timeline)
    this.traffic = new PairTraffic({
      random: this.random,
      actions: new ActionSource(this.random.fork('actions'), { chunkBytes, chunkCountMax }),
      oracle: this.oracle,
      timeline: this.timeline,
      count,
      fuaShare: extras?.fuaShare ?? 0,
      rushShare: extras?.rushShare ?? 0,
      inFlightMax: this.shape.inFlightMax,
    })
    this.operator = new PairOperator({
      random: this.random,
      mode,
      count,
      connection: () => this.#connection(),
      peer: () => this.#second?.engine,
      watchRead: (work) => this.traffic.watch(secondaryRead, work),
      mayDiffer: () => this.diskFaults[0].hasEverStruck,
    })
    this.diskFaults = [
      new PairDiskFaults(extraRandom.fork('disk a'), (what) => this.count(`${what} (a)`)),
      new PairDiskFaults(extraRandom.fork('disk b'), (what) => this.count(`${what} (b)`)),
    ]
    this.judge = new PairJudge({
      subject,
      timeline: this.timeline,
      random: this.random.fork('judge'),
      count,
    })
    this.watch = new PairWatch({
      judge: this.judge,
      random: this.random.fork('watch'),
      share: extras?.watchShare ?? 0,
      watchesOrder: (extras?.rushShare ?? 0) > 0,
      count,
    })
    this.oracle.onPromise = () => this.watch.promised()
  }

  /** Both nodes are there: from here on the others hear of them. */
  enter(a: PairNode, b: PairNode): void {
    this.#first = a
    this.#second = b
    this.oracle.promiseToken = () => this.#promiseToken()
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1)
  }

  /** The primary has said something. */
  remember(message: string): void {
    this.#recentEvents.push(`  ${this.scheduler.nowMs} ms, ${message}`)
    if (this.#recentEvents.length > recentEventsMax) this.#recentEvents.shift()
  }

  describe(): string {
    return `${JSON.stringify(this.shape)}\nlink ${this.link}, under way: ${this.traffic.describe()}\n${this.#recentEvents.join('\n')}\nhistory:\n${this.timeline.describe()}`
  }

  /** Something failed that nobody awaits. */
  fail(error: unknown): void {
    this.#failure ??= { error }
  }

  /** What failed first behind everybody's back. */
  get failure(): { readonly error: unknown } | undefined {
    return this.#failure ?? this.traffic.failure
  }

  /** A new node with an empty pool. */
  init(name: 'a' | 'b'): Promise<PairNode> {
    const { subject, mutants } = this.#options
    const isFirst = name === 'a'
    return PairNode.init(
      {
        subject,
        role: isFirst ? 'primary' : 'secondary',
        name,
        peerName: isFirst ? 'b' : 'a',
        scheduler: this.scheduler,
        network: this.network,
        random: this.random.fork(`node ${name}`),
        mutants: mutants ?? new Set(),
        disk: this.shape.disks[isFirst ? 0 : 1],
        replication: {
          ...this.shape.replication,
          ...((this.shape.extras?.lookShare ?? 0) > 0 ? { lookEntriesMax: 2 } : {}),
          ...(this.shape.extras?.foldEntriesMax === undefined
            ? {}
            : { foldEntriesMax: this.shape.extras.foldEntriesMax }),
        },
        onCall: (call) => {
          this.count(`disk ${call.kind}`)
          if (!isFirst) this.watch.called(call)
        },
        onEvent: (event) => {
          this.watch.heard(name, event)
          this.aim.heard(isFirst ? 'first' : 'second', event)
        },
        ...(this.shape.extras ? { faults: this.diskFaults[isFirst ? 0 : 1] } : {}),
        activeLimits: activeLimitsOf(this.shape),
      },
      { chunkBytes: this.shape.chunkBytes, journalBytes },
    )
  }

  /** The checker looks: meanwhile no disk call fails. */
  undisturbed<T>(work: () => Promise<T>): Promise<T> {
    const [first, second] = this.diskFaults
    return first.paused(() => second.paused(work))
  }

  /** The same number as long as one connection streams. */
  #connection(): number | undefined {
    const engine = this.#first?.engine
    if (!engine || linkOf(engine) !== 'streaming') return undefined
    return this.network.connectionCount
  }

  /** While the link streams in `sync`, what a flush covers is on both media when it is answered. */
  #promiseToken(): number | undefined {
    const [peer] = this.#first?.engine?.status().peers ?? []
    if (peer?.link !== 'streaming' || peer.mode !== 'sync' || this.operator.mode !== 'sync')
      return undefined
    return this.network.connectionCount * 100_000 + this.operator.modeSerial
  }
}

function activeLimitsOf({ extras }: PairShape): ActiveLimits {
  const { activeLimits, activeIdleMs } = extras ?? {}
  return { ...activeLimits, ...(activeIdleMs === undefined ? {} : { idleMs: activeIdleMs }) }
}
