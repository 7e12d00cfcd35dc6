// One schedule of two nodes, from one seed. First a phase with faults: clients on the primary, an operator, crashes of either node or both, disks that fail, a
// network that cuts, stalls and lies; the laws are checked all the time. Then nothing fails any more, and both must come to be equal, with every request answered.
//
// A plain schedule has crashes and a bad network only, and draws nothing for the rest: its seed gives the same run whatever is added to the others.
import assert from 'node:assert/strict'
import { LockstepError } from '../../../src/core/errors.js'
import { checkQuiet } from '../check-quiet.js'
import { Client } from '../client.js'
import { describe, LawBroken } from '../laws.js'
import type { Catalog } from '../model-catalog.js'
import type { StoreImage } from '../oracle.js'
import { SeededRandom } from '../random.js'
import { ActionSource } from '../random-actions.js'
import { ReadHistory } from '../read-history.js'
import { Scheduler } from '../sim-clock.js'
import { sectorBytes } from '../sim-file.js'
import { PairAim } from './pair-aim.js'
import { PairDiskFaults } from './pair-disk-faults.js'
import { PairExtraActions } from './pair-extra-actions.js'
import { PairFaults } from './pair-faults.js'
import { PairJudge } from './pair-judge.js'
import { type EndKind, PairNode } from './pair-node.js'
import { differingBytesOf, PairOperator } from './pair-operator.js'
import { type PairShape, shapeOf } from './pair-shape.js'
import { isInSync, linkOf, type PairSubject } from './pair-subject.js'
import { PairTraffic, secondaryRead } from './pair-traffic.js'
import { PairWatch } from './pair-watch.js'
import { SimNetwork } from './sim-network.js'
import { RecordingOracle, Timeline } from './timeline.js'

export type PairRunOptions = {
  readonly subject: PairSubject
  readonly seed: number
  readonly mutants?: ReadonlySet<string>
  readonly actionCount: number
  readonly isPlain?: boolean
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
/** Chance, at each step, that somebody starts a node again whose journal has failed. */
const replaceShare = 0.2

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
  readonly #timeline: Timeline
  readonly #oracle: RecordingOracle
  readonly #judge: PairJudge
  readonly #traffic: PairTraffic
  readonly #operator: PairOperator
  readonly #watch: PairWatch
  readonly #aim: PairAim
  /** Of the first node's disk and the second's. */
  readonly #diskFaults: readonly [PairDiskFaults, PairDiskFaults]
  readonly #counts = new Map<string, number>()
  #a: PairNode | undefined
  #b: PairNode | undefined
  #client: Client | undefined
  #link = ''
  readonly #recent: string[] = []
  #hasEnded = false
  #failure: { readonly error: unknown } | undefined

  constructor(options: PairRunOptions) {
    this.#options = options
    const { subject, isPlain } = options
    this.#random = new SeededRandom(options.seed)
    const extraRandom = this.#random.fork('extras')
    // The naive pair knows nothing of all that.
    const hasExtras = isPlain !== true && subject.tracksDifferences
    this.#shape = shapeOf(this.#random.fork('shape'), hasExtras ? extraRandom : undefined)
    const { chunkBytes, chunkCountMax, network, mode, extras } = this.#shape
    const count = (what: string) => this.#count(what)
    this.#scheduler = new Scheduler({ order: this.#random.fork('order') })
    const aim = new PairAim(this.#random.fork('aim'), extras?.aimShare ?? 0)
    this.#aim = aim
    this.#network = new SimNetwork({
      scheduler: this.#scheduler,
      random: this.#random.fork('network'),
      shape: network,
      ...(subject.tracksDifferences
        ? {
            taps: {
              count: (what) => {
                this.#watch.passed(what)
                this.#count(what)
              },
              keepsOld: (extras?.frameShare ?? 0) > 0,
              cutOf: (frame) => aim.met(frame),
            },
          }
        : {}),
    })
    this.#timeline = new Timeline(chunkBytes)
    this.#oracle = new RecordingOracle(chunkBytes, this.#timeline)
    this.#traffic = new PairTraffic({
      random: this.#random,
      actions: new ActionSource(this.#random.fork('actions'), { chunkBytes, chunkCountMax }),
      oracle: this.#oracle,
      timeline: this.#timeline,
      count,
      fuaShare: extras?.fuaShare ?? 0,
    })
    this.#operator = new PairOperator({
      random: this.#random,
      mode,
      count,
      connection: () => this.#connection(),
      peer: () => this.#b?.engine,
      watchRead: (work) => this.#traffic.watch(secondaryRead, work),
      mayDiffer: () => this.#diskFaults[0].hasEverStruck,
    })
    this.#diskFaults = [
      new PairDiskFaults(extraRandom.fork('disk a'), (what) => this.#count(`${what} (a)`)),
      new PairDiskFaults(extraRandom.fork('disk b'), (what) => this.#count(`${what} (b)`)),
    ]
    this.#judge = new PairJudge({
      subject,
      timeline: this.#timeline,
      random: this.#random.fork('judge'),
      count,
    })
    this.#watch = new PairWatch({
      judge: this.#judge,
      random: this.#random.fork('watch'),
      share: extras?.watchShare ?? 0,
      count,
    })
    this.#oracle.onPromise = () => this.#watch.promised()
  }

  async run(): Promise<PairRunReport> {
    const a = await this.#init('a')
    const b = await this.#init('b')
    this.#a = a
    this.#b = b
    const faults = this.#faults(a, b)
    const more = this.#extraActions(a, b)
    this.#oracle.promiseToken = () => this.#promiseToken(a)
    a.start(this.#operator.mode)
    b.start(undefined)
    for (let i = 0; i < this.#options.actionCount; i++) {
      await this.#restart([a, b], this.#shape.restartShare)
      await this.#welcome(a)
      this.#issue(a)
      more?.act(this.#client, this.#oracle.catalog)
      await this.#pass(a, b, faults)
      await this.#look(a, b)
      if (this.#random.chance(this.#shape.faultShare)) await faults.strike()
      const isChecked = this.#random.chance(0.03) || more?.wantsMedia()
      if (isChecked && !this.#isUnheard(a)) await this.#judge.checkMedia(a, b)
      if (this.#random.chance(0.03) || this.#traffic.writesSinceBase > writesBetweenBases) {
        await this.#quiet(a, b)
      }
    }
    faults.calm()
    this.#aim.calm()
    for (const disk of this.#diskFaults) disk.calm()
    await this.#heal(a, b)
    await this.#finish(a, b)
    return { trace: this.#scheduler.trace, counts: this.#counts }
  }

  /** Something failed that nobody awaits. */
  fail(error: unknown): void {
    this.#failure ??= { error }
  }

  get firstFailure(): unknown {
    return this.#failure?.error ?? this.#traffic.failure?.error
  }

  describe(): string {
    return `${JSON.stringify(this.#shape)}\nlink ${this.#link}, under way: ${this.#traffic.describe()}\n${this.#recent.join('\n')}\nhistory:\n${this.#timeline.describe()}`
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
        onEvent: (event) => {
          this.#watch.heard(name, event)
          this.#aim.heard(isFirst ? 'first' : 'second', event)
        },
        ...(this.#shape.extras ? { faults: this.#diskFaults[isFirst ? 0 : 1] } : {}),
        ...(this.#shape.extras?.activeLimits
          ? { activeLimits: this.#shape.extras.activeLimits }
          : {}),
      },
      { chunkBytes: this.#shape.chunkBytes, journalBytes },
    )
  }

  #faults(a: PairNode, b: PairNode): PairFaults {
    return new PairFaults(
      {
        network: this.#network,
        nodes: [a, b],
        end: (node, kind) => this.#end(node, kind),
        count: (what) => this.#count(what),
        link: () => (a.engine ? linkOf(a.engine) : 'down'),
      },
      this.#random.fork('faults'),
    )
  }

  #extraActions(a: PairNode, b: PairNode): PairExtraActions | undefined {
    const { extras } = this.#shape
    if (!extras) return undefined
    return new PairExtraActions({
      extras,
      random: this.#random.fork('extra actions'),
      nodes: [a, b],
      diskFaults: this.#diskFaults,
      network: this.#network,
      operator: this.#operator,
      traffic: this.#traffic,
    })
  }

  /** The same number as long as one connection streams. */
  #connection(): number | undefined {
    const engine = this.#a?.engine
    if (!engine || linkOf(engine) !== 'streaming') return undefined
    return this.#network.connectionCount
  }

  /** While the link streams in `sync`, what a flush covers is on both media when it is answered. */
  #promiseToken(a: PairNode): number | undefined {
    const [peer] = a.engine?.status().peers ?? []
    if (peer?.link !== 'streaming' || peer.mode !== 'sync' || this.#operator.mode !== 'sync')
      return undefined
    return this.#network.connectionCount * 100_000 + this.#operator.modeSerial
  }

  async #restart(nodes: readonly PairNode[], share: number): Promise<void> {
    for (const node of nodes) {
      if (!node.isDown || !this.#random.chance(share)) continue
      node.start(node.role === 'primary' ? this.#operator.mode : undefined)
    }
  }

  /** The primary is there again, and nobody has heard yet what it kept of its writes: the second node may have that already. */
  #isUnheard(a: PairNode): boolean {
    return a.engine !== undefined && this.#client === undefined
  }

  /** The primary has recovered: what it holds is the base of what follows. */
  async #welcome(a: PairNode): Promise<void> {
    if (this.#client || !a.engine || !a.running) return
    const engine = a.engine
    const { running } = a
    const images = await this.#undisturbed(() => running.readStores())
    const catalog = this.#oracle.judge(images, 'crash')
    if (typeof catalog === 'string')
      throw new LawBroken(`the primary recovered to an illegal state:\n${catalog}`)
    if (a.engine !== engine) return
    const client = new Client(engine, this.#oracle, this.#random.fork('client'))
    const { diskFaultShares, fullShares } = this.#shape.extras ?? {}
    client.mayFail = (diskFaultShares?.[0] ?? 0) + (fullShares?.[0] ?? 0) > 0
    client.isFullClean = !client.mayFail
    // It knows nothing of what was copied after a write that failed.
    if (!client.mayFail) client.history = new ReadHistory()
    this.#client = client
    if (this.#hasEnded) this.#timeline.beginEra(images, catalog)
    this.#rebase(images, catalog)
    engine.onEvent(({ kind, message }) => {
      this.#recent.push(`  ${this.#scheduler.nowMs} ms, ${kind}: ${message}`)
      if (this.#recent.length > recentEventsMax) this.#recent.shift()
      if (message.startsWith('the outbox is full')) this.#count(`overflow while ${linkOf(engine)}`)
      if (kind !== 'link' && kind !== 'resync') return
      this.#count(`${kind}: ${message.replace(/[0-9a-f]{8,}|\d[\d.]*/g, 'N').slice(0, 90)}`)
    })
  }

  #issue(a: PairNode): void {
    const client = this.#client
    const { engine } = a
    if (!client || !engine || this.#traffic.underWayCount >= this.#shape.inFlightMax) return
    this.#traffic.issue(client, () => this.#traffic.watch('operator', this.#operator.act(engine)))
  }

  /** Some completions; time passes when there are none, or now and then. */
  async #pass(a: PairNode, b: PairNode, faults: PairFaults): Promise<void> {
    const isFull = this.#traffic.underWayCount >= this.#shape.inFlightMax
    const steps = isFull ? 12 : this.#random.below(6)
    let isIdle = false
    for (let step = 0; step < steps && !isIdle; step++) {
      if (this.#random.chance(0.1)) await this.#elapse()
      isIdle = !(await this.#scheduler.step())
      if (!this.#isUnheard(a)) await this.#watch.look(a, b)
      if (this.#aim.tick()) await this.#endAimed(faults)
    }
    if ((isIdle && isFull) || this.#random.chance(0.05)) {
      const forMs = 1 + this.#random.below(this.#random.pick([10, 100, 1000, 8000]))
      await this.#scheduler.settle(forMs, () => this.#aim.tick())
      if (this.#aim.isDue) await this.#endAimed(faults)
    }
  }

  async #endAimed(faults: PairFaults): Promise<void> {
    const victim = this.#aim.take()
    if (victim !== undefined) await faults.endAimed(victim)
  }

  /** Timers ring while disks and network are busy. */
  #elapse(): Promise<void> {
    return this.#scheduler.elapse(this.#random.below(this.#random.pick([3, 30, 300])))
  }

  /** What can be seen at every step. */
  async #look(a: PairNode, b: PairNode): Promise<void> {
    const failure = this.#failure ?? this.#traffic.failure
    if (failure) throw failure.error
    await this.#lookAt(a, this.#diskFaults[0])
    await this.#lookAt(b, this.#diskFaults[1])
    const link = a.engine ? linkOf(a.engine) : 'down'
    if (link !== this.#link) this.#count(`link: ${this.#link || 'none'} > ${link}`)
    this.#link = link
    const [peer] = a.engine?.status().peers ?? []
    if (peer) this.#checkOutbox(peer.lagBytes)
  }

  /** A node stops, or does not start, only because its disk has failed: then somebody starts it again. */
  async #lookAt(node: PairNode, faults: PairDiskFaults): Promise<void> {
    if (node.failure !== undefined) {
      if (!faults.hasStruck || !isRefusal(node.failure)) throw node.failure
      this.#count(`start refused (${node.name})`)
      node.failure = undefined
      await this.#end(node, 'kill')
      return
    }
    const failure = node.engine?.status().failure
    if (!failure) return
    if (!faults.hasStruck) throw new LawBroken(`node ${node.name} failed: ${failure.message}`)
    if (!this.#random.chance(replaceShare)) return
    this.#count(`journal failed (${node.name})`)
    await this.#end(node, this.#random.pick(['kill', 'power loss'] as const))
  }

  #checkOutbox(lagBytes: number): void {
    const { chunkBytes, chunkCountMax, replication, inFlightMax } = this.#shape
    const outboxBytesMax = replication.outboxBytesMax ?? 0
    const isStalling = replication.congestion === 'stall'
    if (isStalling && lagBytes > outboxBytesMax) this.#count('writers wait for room')
    // Those that wait behind an operation were let in before it was full: as many as clients may have under way.
    const largestBytes = (chunkBytes * chunkCountMax + 512) * (isStalling ? 1 + inFlightMax : 1)
    const boundBytes = outboxBytesMax + largestBytes + outboxSlackBytes
    if (lagBytes > boundBytes)
      throw new LawBroken(`law 10: ${lagBytes} bytes in an outbox for ${boundBytes}`)
  }

  async #end(node: PairNode, kind: EndKind): Promise<void> {
    const a = this.#a
    const b = this.#b
    assert(a)
    assert(b)
    node.end(kind, this.#random)
    this.#diskFaults[node === a ? 0 : 1].newLife()
    if (node === a) {
      this.#client = undefined
      this.#hasEnded = true
      this.#traffic.forget()
      this.#oracle.primaryEnded()
    } else {
      this.#traffic.forgetReads()
      if (this.#isUnheard(a)) return
      const state = await this.#judge.checkSecondary(b)
      if (state === 'kept') this.#count('before-resync kept through a crash')
    }
    if (a.isDown && b.isDown) {
      this.#count('both nodes down')
      await this.#judge.checkMedia(a, b)
    }
  }

  /** The checker looks: meanwhile no disk call fails. */
  #undisturbed<T>(work: () => Promise<T>): Promise<T> {
    const [first, second] = this.#diskFaults
    return first.paused(() => second.paused(work))
  }

  /** Lets everything finish, checks the primary, and, when the two are in sync, the other one too. */
  #quiet(a: PairNode, b: PairNode): Promise<void> {
    return this.#undisturbed(() => this.#checkBoth(a, b))
  }

  async #checkBoth(a: PairNode, b: PairNode): Promise<void> {
    const client = this.#client
    const { running } = a
    if (!client || !running) return
    await running.run(this.#traffic.ended())
    await this.#look(a, b)
    // Its journal may have failed, and somebody may have ended it.
    if (a.running !== running) return
    // Without a store nothing is flushed, and a journal that has failed would not show.
    let isFlushed = a.engine?.status().failure === undefined
    for (const store of client.reachable()) {
      const outcome = await running.run(client.act({ kind: 'flush', store }))
      if (outcome !== 'done') isFlushed = false
    }
    const { images, catalog } = await checkQuiet(running, this.#oracle)
    if (!isFlushed) return
    this.#rebase(images, catalog)
    if (!b.engine || !this.#isSettled(a)) return
    this.#count('quiet and in sync')
    await this.#judge.checkEqual(a, b)
    this.#timeline.restart(images, catalog)
  }

  /** Everything that the primary ever said is durable on the peer. */
  #isSettled(a: PairNode): boolean {
    const engine = a.engine
    if (!engine || engine.status().failure || !isInSync(engine)) return false
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
      await this.#look(a, b)
      await this.#restart([a, b], 1)
      if (a.engine && !isAsked) {
        isAsked = true
        // The administrator may have disconnected the peer.
        this.#traffic.watch('connect', this.#operator.connect(a.engine))
      }
      if (this.#traffic.underWayCount === 0 && this.#isSettled(a)) return
      if (this.#traffic.underWayCount === 0 && a.engine && isInSync(a.engine))
        await this.#quiet(a, b)
      if (this.#scheduler.nowMs < untilMs) continue
      const [peer] = a.engine?.status().peers ?? []
      throw new LawBroken(
        `not in sync after ${healMsMax / 1000} s without faults, ${this.#traffic.underWayCount} requests unanswered: ${JSON.stringify(peer)}`,
      )
    }
  }

  async #finish(a: PairNode, b: PairNode): Promise<void> {
    await this.#quiet(a, b)
    // What was deleted gives its space back by and by.
    await this.#scheduler.settle(20_000)
    if (!this.#isSettled(a)) throw new LawBroken('in sync, idle, and not in sync any more')
    const images = await this.#judge.checkEqual(a, b)
    if (!this.#operator.hasMarked) this.#judge.checkSpace(a, b, images)
    if (this.#shape.extras?.hasDamage) await this.#damage(a, b)
    await a.close()
    await this.#scheduler.settle(1000)
    await b.close()
    await this.#judge.checkClosed(a, b)
  }

  /** A wrong byte on the second node's disk, which nobody noticed: verify finds it, and repairs it. */
  async #damage(a: PairNode, b: PairNode): Promise<void> {
    const { engine, running } = a
    assert(engine?.verify)
    assert(running)
    const images = await running.readStores()
    const sectors = images.flatMap(({ bytes }) => sectorsOf(bytes))
    if (sectors.length === 0) return
    if (b.damage(this.#random.pick(sectors)) === 0) return
    const reports = await running.run(engine.verify({ repair: true }))
    if (differingBytesOf(reports) === 0) throw new LawBroken('verify did not find a wrong byte')
    this.#count('verify found and repaired damage')
    await this.#scheduler.settle(20_000)
    if (!this.#isSettled(a)) throw new LawBroken('not in sync after a repair')
    await this.#judge.checkEqual(a, b)
  }

  #rebase(images: readonly StoreImage[], catalog: Catalog): void {
    this.#oracle.rebase(images, catalog)
    this.#traffic.writesSinceBase = 0
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

/** What a start may say when its disk fails. */
function isRefusal(error: unknown): boolean {
  const { code } = error as { readonly code?: unknown }
  return error instanceof LockstepError || /^E[A-Z]+$/.test(String(code))
}

/** Those with data in them. */
function sectorsOf(bytes: Buffer): readonly Buffer[] {
  const sectors: Buffer[] = []
  for (let offset = 0; offset + sectorBytes <= bytes.length; offset += sectorBytes) {
    const sector = bytes.subarray(offset, offset + sectorBytes)
    if (sector.some((byte) => byte !== 0)) sectors.push(sector)
  }
  return sectors
}
