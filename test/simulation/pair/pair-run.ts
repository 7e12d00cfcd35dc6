// One schedule of two nodes, from one seed. First a phase with faults: clients on the primary, an operator, crashes of either node or both, a network that
// cuts, stalls and lies; the laws are checked all the time. Then nothing fails any more, and both must come to be equal, with every request answered.
import assert from 'node:assert/strict'
import { LockstepError } from '../../../src/core/errors.js'
import type { Mode } from '../../../src/engine/api.js'
import { checkQuiet } from '../check-quiet.js'
import { Client } from '../client.js'
import { describe, LawBroken } from '../laws.js'
import type { Catalog } from '../model-catalog.js'
import type { StoreImage } from '../oracle.js'
import { SeededRandom } from '../random.js'
import { ActionSource } from '../random-actions.js'
import { ReadHistory } from '../read-history.js'
import { Scheduler } from '../sim-clock.js'
import { PairFaults } from './pair-faults.js'
import { PairJudge } from './pair-judge.js'
import { type EndKind, PairNode } from './pair-node.js'
import { type PairShape, shapeOf } from './pair-shape.js'
import { isInSync, linkOf, type PairEngine, type PairSubject } from './pair-subject.js'
import { SimNetwork } from './sim-network.js'
import { RecordingOracle, Timeline } from './timeline.js'

export type PairRunOptions = {
  readonly subject: PairSubject
  readonly seed: number
  readonly mutants?: ReadonlySet<string>
  readonly actionCount: number
}

export type PairRunReport = {
  /** Equal for equal runs. */
  readonly trace: number
  /** How often what is rare happened. */
  readonly counts: ReadonlyMap<string, number>
}

const journalBytes = 256 * 1024
/** More unflushed writes than this make judging slow. */
const writesBetweenBases = 60
/** Virtual time in which two healthy nodes must be equal: several deadlines, pauses between attempts, and a resync. */
const healMsMax = 150_000
/** What the nodes said last, for messages. */
const recentEventsMax = 30
/** What entries need beyond their data. An outbox may hold one entry more than it has room for. */
const outboxSlackBytes = 16 * 1024

/** Throws LawBroken with the seed and the history. */
export async function pairRun(options: PairRunOptions): Promise<PairRunReport> {
  const run = new PairRun(options)
  // What nobody catches ends a daemon: here it ends the schedule.
  const fail = (error: unknown) => run.fail(error)
  process.on('unhandledRejection', fail)
  process.on('uncaughtException', fail)
  try {
    return await run.run()
  } catch (error) {
    const first = run.firstFailure ?? error
    const stack = first instanceof Error && !(first instanceof LawBroken) ? first.stack : ''
    const text = [describe(first), stack, `seed ${options.seed}`, run.describe()]
    throw new LawBroken(text.join('\n'), { cause: first })
  } finally {
    process.off('unhandledRejection', fail)
    process.off('uncaughtException', fail)
  }
}

class PairRun {
  readonly #options: PairRunOptions
  readonly #random: SeededRandom
  readonly #shape: PairShape
  readonly #scheduler: Scheduler
  readonly #network: SimNetwork
  readonly #actions: ActionSource
  readonly #timeline: Timeline
  readonly #oracle: RecordingOracle
  readonly #judge: PairJudge
  readonly #counts = new Map<string, number>()
  readonly #underWay = new Set<Promise<unknown>>()
  #client: Client | undefined
  #mode: Mode
  #modeSerial = 0
  #writesSinceBase = 0
  #link = ''
  readonly #recent: string[] = []
  #hasEnded = false
  #failure: { readonly error: unknown } | undefined

  constructor(options: PairRunOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
    this.#shape = shapeOf(this.#random.fork('shape'))
    const { chunkBytes, chunkCountMax, network, mode } = this.#shape
    this.#mode = mode
    this.#scheduler = new Scheduler({ order: this.#random.fork('order') })
    this.#network = new SimNetwork({
      scheduler: this.#scheduler,
      random: this.#random.fork('network'),
      shape: network,
    })
    this.#timeline = new Timeline(chunkBytes)
    this.#oracle = new RecordingOracle(chunkBytes, this.#timeline)
    this.#actions = new ActionSource(this.#random.fork('actions'), { chunkBytes, chunkCountMax })
    this.#judge = new PairJudge({
      subject: options.subject,
      timeline: this.#timeline,
      random: this.#random.fork('judge'),
      count: (what) => this.#count(what),
    })
  }

  async run(): Promise<PairRunReport> {
    const a = await this.#init('a')
    const b = await this.#init('b')
    const faults = this.#faults(a, b)
    this.#oracle.promiseToken = () => this.#promiseToken(a)
    a.start(this.#mode)
    b.start(undefined)
    for (let i = 0; i < this.#options.actionCount; i++) {
      await this.#restart([a, b], this.#shape.restartShare)
      await this.#welcome(a)
      this.#issue(a)
      await this.#pass()
      this.#look(a, b)
      if (this.#random.chance(this.#shape.faultShare)) await faults.strike()
      if (this.#random.chance(0.03)) await this.#judge.checkMedia(a, b)
      if (this.#random.chance(0.03) || this.#writesSinceBase > writesBetweenBases) {
        await this.#quiet(a, b)
      }
    }
    faults.calm()
    await this.#heal(a, b)
    await this.#finish(a, b)
    return { trace: this.#scheduler.trace, counts: this.#counts }
  }

  /** Something failed that nobody awaits. */
  fail(error: unknown): void {
    this.#failure ??= { error }
  }

  get firstFailure(): unknown {
    return this.#failure?.error
  }

  describe(): string {
    return `${JSON.stringify(this.#shape)}\nlink ${this.#link}\n${this.#recent.join('\n')}\nhistory:\n${this.#timeline.describe()}`
  }

  #init(name: 'a' | 'b'): Promise<PairNode> {
    const { subject, mutants } = this.#options
    const isFirst = name === 'a'
    return PairNode.init(
      {
        subject,
        role: isFirst ? 'primary' : 'secondary',
        name,
        peerName: isFirst ? 'b' : 'a',
        scheduler: this.#scheduler,
        network: this.#network,
        random: this.#random.fork(`node ${name}`),
        mutants: mutants ?? new Set(),
        disk: this.#shape.disks[isFirst ? 0 : 1],
        replication: this.#shape.replication,
        onCall: (call) => this.#count(`disk ${call.kind}`),
      },
      { chunkBytes: this.#shape.chunkBytes, journalBytes },
    )
  }

  #faults(a: PairNode, b: PairNode): PairFaults {
    return new PairFaults(
      {
        network: this.#network,
        nodes: [a, b],
        end: (node, kind) => this.#end(node, kind, a, b),
        count: (what) => this.#count(what),
        link: () => this.#link,
      },
      this.#random.fork('faults'),
    )
  }

  /** While the link streams in `sync`, what a flush covers is on both media when it is answered. */
  #promiseToken(a: PairNode): number | undefined {
    const [peer] = a.engine?.status().peers ?? []
    if (peer?.link !== 'streaming' || peer.mode !== 'sync' || this.#mode !== 'sync')
      return undefined
    return this.#network.connectionCount * 100_000 + this.#modeSerial
  }

  async #restart(nodes: readonly PairNode[], share: number): Promise<void> {
    for (const node of nodes) {
      if (!node.isDown || !this.#random.chance(share)) continue
      node.start(node.role === 'primary' ? this.#mode : undefined)
    }
  }

  /** The primary has recovered: what it holds is the base of what follows. */
  async #welcome(a: PairNode): Promise<void> {
    if (this.#client || !a.engine || !a.running) return
    const engine = a.engine
    const images = await a.running.readStores()
    const catalog = this.#oracle.judge(images, 'crash')
    if (typeof catalog === 'string')
      throw new LawBroken(`the primary recovered to an illegal state:\n${catalog}`)
    if (a.engine !== engine) return
    const client = new Client(engine, this.#oracle, this.#random.fork('client'))
    client.history = new ReadHistory()
    this.#client = client
    if (this.#hasEnded) this.#timeline.beginEra(images, catalog)
    this.#rebase(images, catalog)
    engine.onEvent(({ kind, message }) => {
      this.#recent.push(`  ${this.#scheduler.nowMs} ms, ${kind}: ${message}`)
      if (this.#recent.length > recentEventsMax) this.#recent.shift()
      if (kind !== 'link' && kind !== 'resync') return
      this.#count(`${kind}: ${message.replace(/[0-9a-f]{8,}|\d[\d.]*/g, 'N').slice(0, 90)}`)
    })
  }

  #issue(a: PairNode): void {
    const client = this.#client
    if (!client || !a.engine || this.#underWay.size >= this.#shape.inFlightMax) return
    const stores = client.reachable().filter((name) => client.sizeOf(name) > 0)
    const kind = this.#random.below(100)
    if (kind < 3) this.#operate(a.engine)
    else if (stores.length === 0 || kind < 15) this.#issueOperation(client)
    else this.#issueData(client, this.#random.pick(stores), kind)
  }

  #issueData(client: Client, store: string, kind: number): void {
    if (kind < 27) {
      this.#watch(client.act({ kind: 'flush', store }))
    } else if (kind < 40) {
      const { offset, lengthBytes } = this.#actions.range(client.sizeOf(store))
      this.#watch(client.read(store, offset, lengthBytes))
    } else {
      this.#writesSinceBase++
      this.#watch(client.act(this.#actions.data(store, client.sizeOf(store))))
    }
  }

  #issueOperation(client: Client): void {
    const request = this.#actions.request(this.#oracle.catalog)
    const done = client.act({ kind: 'perform', request }).then((outcome) => {
      this.#count(outcome === 'done' ? request.kind : `refused ${outcome.failed}`)
    })
    this.#watch(done)
  }

  /** What an administrator does with a peer. It may be refused, with a reason. */
  #operate(engine: PairEngine): void {
    const what = this.#random.pick([
      'disconnect',
      'connect',
      'connect',
      'explain',
      'mode',
      'checkpoint',
    ])
    this.#count(`operator: ${what} while ${this.#link}`)
    const work = this.#operated(engine, what).catch((error: unknown) => {
      if (!(error instanceof LockstepError)) throw error
      this.#count(`operator: ${what} refused with ${error.code}`)
    })
    this.#watch(work)
  }

  async #connect(engine: PairEngine): Promise<void> {
    try {
      await engine.connectPeer()
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error
    }
  }

  async #operated(engine: PairEngine, what: string): Promise<void> {
    if (what === 'disconnect') await engine.disconnectPeer()
    else if (what === 'connect') await engine.connectPeer()
    else if (what === 'explain') await engine.connectPeer({ explain: true })
    else if (what === 'checkpoint') await engine.checkpoint?.()
    else {
      this.#mode = this.#random.pick(['sync', 'semi-sync', 'async'] as const)
      this.#modeSerial++
      await engine.setPeer({ mode: this.#mode })
    }
  }

  #watch(work: Promise<unknown>): void {
    const watched = work.then(
      () => void this.#underWay.delete(watched),
      (error: unknown) => {
        this.#underWay.delete(watched)
        this.#failure ??= { error }
      },
    )
    this.#underWay.add(watched)
  }

  /** Some completions; time passes when there are none, or now and then. */
  async #pass(): Promise<void> {
    const isFull = this.#underWay.size >= this.#shape.inFlightMax
    const steps = isFull ? 12 : this.#random.below(6)
    let isIdle = false
    for (let step = 0; step < steps && !isIdle; step++) {
      if (this.#random.chance(0.1)) await this.#elapse()
      isIdle = !(await this.#scheduler.step())
    }
    if ((isIdle && isFull) || this.#random.chance(0.05)) {
      await this.#scheduler.settle(1 + this.#random.below(this.#random.pick([10, 100, 1000, 8000])))
    }
  }

  /** Timers ring while disks and network are busy. */
  #elapse(): Promise<void> {
    return this.#scheduler.elapse(this.#random.below(this.#random.pick([3, 30, 300])))
  }

  /** What can be seen at every step. */
  #look(a: PairNode, b: PairNode): void {
    if (this.#failure) throw this.#failure.error
    for (const node of [a, b]) {
      if (node.failure !== undefined) throw node.failure
      const failure = node.engine?.status().failure
      if (failure) throw new LawBroken(`node ${node.name} failed: ${failure.message}`)
    }
    const link = a.engine ? linkOf(a.engine) : 'down'
    if (link !== this.#link) this.#count(`link: ${this.#link || 'none'} > ${link}`)
    this.#link = link
    const [peer] = a.engine?.status().peers ?? []
    const { chunkBytes, chunkCountMax, replication } = this.#shape
    const largestBytes = chunkBytes * chunkCountMax + outboxSlackBytes
    const boundBytes = (replication.outboxBytesMax ?? 0) + largestBytes
    if (peer && peer.lagBytes > boundBytes)
      throw new LawBroken(`law 10: ${peer.lagBytes} bytes in an outbox for ${boundBytes}`)
  }

  async #end(node: PairNode, kind: EndKind, a: PairNode, b: PairNode): Promise<void> {
    node.end(kind, this.#random)
    if (node === a) {
      this.#client = undefined
      this.#hasEnded = true
      this.#underWay.clear()
      this.#oracle.primaryEnded()
    } else await this.#judge.checkSecondary(b)
    if (a.isDown && b.isDown) {
      this.#count('both nodes down')
      await this.#judge.checkMedia(a, b)
    }
  }

  /** Lets everything finish, checks the primary, and, when the two are in sync, the other one too. */
  async #quiet(a: PairNode, b: PairNode): Promise<void> {
    const client = this.#client
    if (!client || !a.running) return
    await a.running.run(Promise.all(this.#underWay))
    this.#look(a, b)
    for (const store of client.reachable()) {
      await a.running.run(client.act({ kind: 'flush', store }))
    }
    const { images, catalog } = await checkQuiet(a.running, this.#oracle)
    this.#rebase(images, catalog)
    if (!b.engine || !this.#isSettled(a)) return
    this.#count('quiet and in sync')
    await this.#judge.checkEqual(a, b)
    this.#timeline.restart(images, catalog)
  }

  /** Everything that the primary ever said is durable on the peer. */
  #isSettled(a: PairNode): boolean {
    const engine = a.engine
    if (!engine || !isInSync(engine)) return false
    const { sequence, peers } = engine.status()
    return peers[0]?.durableSequence === sequence
  }

  /** Without faults both come to be equal, in bounded time. */
  async #heal(a: PairNode, b: PairNode): Promise<void> {
    await this.#restart([a, b], 1)
    const untilMs = this.#scheduler.nowMs + healMsMax
    let isAsked = false
    for (;;) {
      await this.#scheduler.settle(500)
      await this.#welcome(a)
      this.#look(a, b)
      if (a.engine && !isAsked) {
        isAsked = true
        // The administrator may have disconnected the peer.
        this.#watch(this.#connect(a.engine))
      }
      if (this.#underWay.size === 0 && this.#isSettled(a)) return
      if (this.#underWay.size === 0 && a.engine && isInSync(a.engine)) await this.#quiet(a, b)
      if (this.#scheduler.nowMs < untilMs) continue
      const [peer] = a.engine?.status().peers ?? []
      throw new LawBroken(
        `not in sync after ${healMsMax / 1000} s without faults, ${this.#underWay.size} requests unanswered: ${JSON.stringify(peer)}`,
      )
    }
  }

  async #finish(a: PairNode, b: PairNode): Promise<void> {
    await this.#quiet(a, b)
    // What was deleted gives its space back by and by.
    await this.#scheduler.settle(20_000)
    if (!this.#isSettled(a)) throw new LawBroken('in sync, idle, and not in sync any more')
    await this.#judge.checkEqual(a, b)
    this.#judge.checkSpace(a, b)
    await a.close()
    await this.#scheduler.settle(1000)
    await b.close()
    await this.#judge.checkClosed(a, b)
  }

  #rebase(images: readonly StoreImage[], catalog: Catalog): void {
    this.#oracle.rebase(images, catalog)
    this.#writesSinceBase = 0
    this.#client?.history?.reset(
      [...catalog.stores.values()].map((store) => {
        const image = images.find(({ name }) => name === catalog.fullName(store))
        assert(image)
        return { id: store.id, bytes: image.bytes }
      }),
    )
  }

  #count(what: string): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1)
  }
}
