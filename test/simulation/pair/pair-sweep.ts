// The n-th-failure sweep on two nodes: the same run again and again, each time with another disk call of one of them that fails, once or for good. Every
// request settles, nothing hangs, what fails on the second node is no client's business, both say what is wrong; and when the disk works again, and who had
// to stop was started again, both become equal.
import assert from 'node:assert/strict'
import { type FailureKind, failureKinds } from '../failure-sweep.js'
import { LawBroken } from '../laws.js'
import { SeededRandom } from '../random.js'
import type { Call, Fault } from '../sim-call.js'
import type { NodeOptions } from '../sim-node.js'
import { actionsOf } from '../workloads.js'
import { makePairBases, type PairBases, type Start } from './pair-base.js'
import { isInSync, type PairSubject } from './pair-subject.js'
import { guarded, type NodeName, PairWorld } from './pair-world.js'

export type PairSweepOptions = {
  readonly subject: PairSubject
  readonly seed: number
  readonly mutants?: ReadonlySet<string>
  readonly shard: number
  readonly shardCount: number
  /** One call in so many, from a place that differs by kind. */
  readonly stride?: number
}

/** How often each kind of failure happened, by node. */
export type PairSweepReport = { readonly runCounts: Readonly<Record<string, number>> }

/** In step, changes of each kind go over; then the second node is away for some, and is brought up by map. */
const changes: readonly (readonly string[])[] = [
  ['write two chunks', 'snapshot', 'write', 'flush', 'restore range', 'write FUA', 'flush'],
  ['trim', 'checkpoint', 'write hole', 'sync', 'write unaligned', 'delete snapshot', 'flush'],
]

/** The other node is given up after some seconds, and tried again. */
const noticeMs = 12_000

type Case = {
  readonly start: Start
  readonly names: readonly string[]
  readonly node: NodeName
  readonly kind: FailureKind
}

/** Throws LawBroken at the first law that a failure breaks. */
export async function sweepPair(options: PairSweepOptions): Promise<PairSweepReport> {
  const bases = await makePairBases(options.subject, options.seed)
  const runCounts: Record<string, number> = {}
  const { shard, shardCount, stride = 1 } = options
  for (const [index, one] of [...cases()].entries()) {
    if (index % shardCount !== shard) continue
    for (let failAt = index % stride; ; failAt += stride) {
      const trial = new Trial(options, bases, one, failAt)
      if (!(await trial.run())) break
      const name = `${one.kind.name}, node ${one.node}`
      runCounts[name] = (runCounts[name] ?? 0) + 1
    }
  }
  return { runCounts }
}

function* cases(): Generator<Case> {
  for (const kind of failureKinds) {
    for (const start of ['in step', 'away'] as const) {
      for (const names of changes) {
        for (const node of ['a', 'b'] as const) yield { start, names, node, kind }
      }
    }
  }
}

class Trial {
  readonly #case: Case
  readonly #failAt: number
  readonly #world: PairWorld
  readonly #random: SeededRandom
  #isArmed = false
  #matching = 0
  #failedCall: string | undefined

  constructor(options: PairSweepOptions, bases: PairBases, one: Case, failAt: number) {
    this.#case = one
    this.#failAt = failAt
    const { subject, mutants, seed } = options
    const label = `${one.kind.name} ${one.start} ${one.names.join()} ${one.node} ${failAt}`
    this.#random = new SeededRandom(seed).fork(label)
    this.#world = new PairWorld({
      subject,
      seed: this.#random.bits(),
      base: bases[one.start],
      ...(mutants ? { mutants } : {}),
      disks: { a: this.#disk('a'), b: this.#disk('b') },
    })
    this.#world.mayStop = (node) => node.name === one.node && this.#failedCall !== undefined
  }

  /** False when so many calls were not made: nothing failed. */
  async run(): Promise<boolean> {
    const world = this.#world
    try {
      await guarded(world, () => this.#run())
    } catch (error) {
      const { start, names, node, kind } = this.#case
      const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
      const stack = error instanceof Error && !(error instanceof LawBroken) ? error.stack : ''
      const lines = [
        reason,
        stack,
        `${start}: ${names.join(', ')}`,
        `${kind.name} on node ${node}, call ${this.#failAt}: ${this.#failedCall}`,
        world.describe(),
      ]
      throw new LawBroken(lines.join('\n'), { cause: error })
    }
    return this.#failedCall !== undefined
  }

  async #run(): Promise<void> {
    const world = this.#world
    const { start, names, node } = this.#case
    const actions = actionsOf(names)
    world.start(world.a)
    if (start === 'in step') await world.heal()
    await world.until(() => world.a.engine !== undefined, 'the first node starts')
    await world.welcome()
    const { client } = world
    assert(client)
    client.isFullClean = false
    client.mayFail = node === 'a'
    if (start === 'in step') this.#isArmed = true
    for (const [index, action] of actions.entries()) {
      if (start === 'away' && index === 3) await this.#return()
      world.issue(action)
      await world.until(() => world.underWay.size === 0, `an answer to ${action.kind}`)
    }
    await this.#awaitEnd()
    this.#isArmed = false
    if (this.#failedCall === undefined) return
    this.#checkSaid()
    await this.#repair()
    await world.heal()
    await world.equal()
  }

  /** The second node comes back; its disk works until it has recovered. */
  async #return(): Promise<void> {
    const world = this.#world
    world.start(world.b)
    await world.until(() => world.b.engine !== undefined, 'the second node starts')
    this.#isArmed = true
  }

  /** In sync, or long enough that whoever is in trouble has noticed. */
  async #awaitEnd(): Promise<void> {
    const { scheduler } = this.#world
    const untilMs = scheduler.nowMs + noticeMs
    while (scheduler.nowMs < untilMs) {
      const { engine } = this.#world.a
      this.#world.look()
      if (this.#failedCall === undefined && engine && isInSync(engine)) return
      await scheduler.settle(500)
    }
  }

  /** Nobody is silent: a node that stopped says why and what to do, and a link that does not stream has a reason. */
  #checkSaid(): void {
    const { a, b } = this.#world
    for (const node of [a, b]) {
      const failure = node.engine?.status().failure
      if (failure && (failure.message === '' || failure.action === ''))
        throw new LawBroken(`node ${node.name} stopped, and does not say what to do`)
    }
    const peer = a.engine?.status().peers[0]
    if (!peer) throw new LawBroken('the first node shows no peer')
    if (peer.reason === '') throw new LawBroken(`the link is ${peer.link} without a reason`)
    if (b.engine?.status().failure && peer.link === 'streaming')
      throw new LawBroken('the second node stopped, and the first one calls that streaming')
  }

  /** The disk works again. Who had stopped for good is started again. */
  async #repair(): Promise<void> {
    const world = this.#world
    const { a, b } = world
    for (const node of [a, b]) {
      if (node.engine?.status().failure === undefined) continue
      node.end(this.#random.chance(0.5) ? 'kill' : 'power loss', world.random)
      if (node === a) world.primaryEnded()
    }
  }

  #disk(name: NodeName): NonNullable<NodeOptions['disk']> {
    return {
      completion: 'scheduled',
      now: this.#random.pick(['always', 'never', 'random'] as const),
      fault: (call) => (name === this.#case.node ? this.#fault(call) : undefined),
    }
  }

  #fault(call: Call): Fault | undefined {
    const { kind } = this.#case
    if (!this.#isArmed || !kind.calls.includes(call.kind)) return undefined
    const index = this.#matching++
    const isHit = kind.forGood ? index >= this.#failAt : index === this.#failAt
    if (!isHit) return undefined
    this.#failedCall ??= `${call.kind} ${call.name} ${call.offset}`
    return kind.fault
  }
}
