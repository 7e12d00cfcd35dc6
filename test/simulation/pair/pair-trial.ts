// One workload of two nodes, run up to a chosen call of a disk or of the network, where either node or both lose their power; what the two disks hold is
// judged before the nodes can talk; then they meet, and must become equal.
//
// Without a crash the same run counts the calls. It is repeated from its seed, so that call n is the same call each time.
import assert from 'node:assert/strict'
import type { Action } from '../client.js'
import { LawBroken } from '../laws.js'
import type { Call, CallKind } from '../sim-call.js'
import type { CrashChoice, MediumCapture } from '../sim-medium.js'
import type { Start } from './pair-base.js'
import { type Choose, PairNode } from './pair-node.js'
import { type Inspection, linkOf } from './pair-subject.js'
import { guarded, type NodeName, PairWorld, type WorldOptions } from './pair-world.js'

export type Victim = NodeName | 'both'

export type Workload = {
  readonly start: Start
  readonly names: readonly string[]
  readonly actions: readonly Action[]
  /** All asked for at once, or one after the other. */
  readonly isTogether: boolean
}

export type PairCrash = { readonly who: Victim; readonly point: number }

/** What can be seen at a call before which a node may crash. */
export type Point = { readonly label: string; readonly victims: readonly Victim[] }

/** What crashes of one node try. */
export type TrialOptions = WorldOptions & {
  readonly workload: Workload
  /** Media of each node that are tried when both crash: each with each. */
  readonly mediaPerNode: number
  /** Recoveries of states that are led to the end a second time: one in so many. */
  readonly again: number
}

/** Calls that change nothing: a crash before them is one before the next. */
const quietCalls: readonly CallKind[] = ['open', 'size', 'readNow', 'read', 'list', 'close']
/** The first node notices that the other one is gone, and goes on without it. */
const outageMs = 8000
/** Long enough for every timer of idle nodes to have done its work. */
const idleMs = 3000

export class PairTrial {
  readonly #options: TrialOptions
  readonly #crash: PairCrash | undefined
  readonly #world: PairWorld
  readonly #points: Point[] = []
  #isArmed = false
  #isHit = false
  #captures: readonly [MediumCapture, MediumCapture] | undefined
  #lastState = ''
  #label = 'before its first call'
  #media = ''
  /** Distinct pairs of media, or of a medium and a live node, that were judged. */
  stateCount = 0
  healCount = 0

  constructor(options: TrialOptions, crash?: PairCrash) {
    this.#options = options
    this.#crash = crash
    this.#world = new PairWorld({
      ...options,
      beforeCall: (call, node) => this.#before(call, node),
    })
  }

  /** Runs it without a crash: the calls before which there can be one. */
  async count(): Promise<readonly Point[]> {
    await this.#told(async () => {
      await this.#live()
      this.#isArmed = false
      await this.#world.equal()
    })
    return this.#points
  }

  /** Runs it to its crash, judges what is there, and leads it to the end. */
  async run(): Promise<void> {
    await this.#told(async () => {
      await this.#live()
      if (!this.#isHit) throw new Error('a run is not the one that was counted')
      this.#isArmed = false
      if (this.#crash?.who === 'both') await this.#afterBoth()
      else await this.#afterOne()
    })
  }

  async #told(work: () => Promise<void>): Promise<void> {
    const world = this.#world
    try {
      await guarded(world, work)
    } catch (error) {
      const { start, names, isTogether } = this.#options.workload
      const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
      const stack = error instanceof Error && !(error instanceof LawBroken) ? error.stack : ''
      const lines = [
        reason,
        stack,
        `workload: ${start}, ${isTogether ? 'at once' : 'one by one'}: ${names.join(', ')}`,
        `crash of ${this.#crash?.who ?? 'nobody'} before ${this.#label} ${this.#media}`,
        world.describe(),
      ]
      throw new LawBroken(lines.join('\n'), { cause: error })
    }
  }

  /** From the start to the crash, or to the end. */
  async #live(): Promise<void> {
    const world = this.#world
    const { start, actions } = this.#options.workload
    const { a, b } = world
    const isAlone = start === 'away'
    world.start(a)
    if (start === 'in step') await world.heal()
    else {
      await world.until(() => a.engine !== undefined, 'the first node starts')
      await world.welcome()
    }
    if (start === 'returning') {
      world.start(b)
      await world.untilJust(
        () => a.engine !== undefined && linkOf(a.engine) === 'resyncing',
        'a resync',
      )
    }
    this.#isArmed = true
    if (start === 'blank') world.start(b)
    for (const action of actions) {
      world.issue(action)
      if (!this.#options.workload.isTogether) await this.#until(() => world.underWay.size === 0)
      if (this.#isHit) return
    }
    if (isAlone) {
      await this.#until(() => world.underWay.size === 0)
      if (this.#isHit) return
      world.start(b)
    }
    await this.#until(() => world.underWay.size === 0 && world.isSettled())
    if (!this.#isHit) await world.scheduler.settle(idleMs)
  }

  #until(isSo: () => boolean): Promise<void> {
    const world = this.#world
    return world.until(() => {
      if (this.#isHit) return true
      if (world.underWay.size === 0 && world.a.engine && linkOf(world.a.engine) === 'streaming') {
        // What is applied there becomes durable by a flush.
        if (!world.isSettled() && !isSo() && world.client) this.#flush()
      }
      return isSo()
    }, 'the workload')
  }

  #flush(): void {
    const [store] = this.#world.client?.reachable() ?? []
    if (store !== undefined) this.#world.issue({ kind: 'flush', store })
  }

  #before(call: Call | 'network', node: NodeName | undefined): void {
    if (!this.#isArmed || this.#isHit) return
    if (call !== 'network' && quietCalls.includes(call.kind)) return
    const point = this.#points.length
    const label =
      call === 'network'
        ? `network call ${point}`
        : `call ${point}, node ${node}: ${call.kind} ${call.name} ${call.offset}`
    this.#points.push({ label, victims: this.#victims(node) })
    if (this.#crash?.point !== point) return
    this.#label = label
    this.#isHit = true
    try {
      this.#strike(this.#crash.who)
    } catch (error) {
      this.#world.fail(error)
    }
  }

  /** Who may crash here with a result that a crash before another call does not have. */
  #victims(node: NodeName | undefined): readonly Victim[] {
    const { a, b, oracle } = this.#world
    const alive = [a, b].filter((one) => !one.isDown).map(({ name }) => name as NodeName)
    const victims: Victim[] = alive.filter((name) => node === undefined || node === name)
    if (alive.length < 2) return victims
    const state = [a, b].map((one) => one.medium.changeCount).join() + oracle.changeCount
    if (state !== this.#lastState) victims.push('both')
    this.#lastState = state
    return victims
  }

  #strike(who: Victim): void {
    const { a, b, random } = this.#world
    if (who === 'both') this.#captures = [a.capture(), b.capture()]
    for (const node of [a, b]) {
      if (node.isDown || (who !== 'both' && who !== node.name)) continue
      const plan = this.#crash?.point ?? 0
      const choose: Choose = (capture) => choicesOf(capture, 4)[plan % 4] ?? []
      // A process that is killed loses nothing that it gave to its system.
      node.end(plan % 5 === 4 ? 'kill' : 'power loss', random, choose)
    }
    if (who !== 'b') this.#world.primaryEnded()
  }

  async #afterOne(): Promise<void> {
    const world = this.#world
    const { a, b } = world
    this.stateCount++
    await world.judge.checkMedia(a, b)
    const rest = this.#options.workload.actions
    if (this.#crash?.who === 'b') {
      // The first node goes on, and the workload with it.
      for (const action of rest.slice(0, 1)) world.issue(action)
      if ((this.#crash.point & 1) === 0) await world.scheduler.settle(outageMs)
      await world.judge.checkMedia(a, b)
    }
    await this.#meet()
  }

  /** Each medium that is tried of the one node with each of the other; two of the pairs also meet. */
  async #afterBoth(): Promise<void> {
    const world = this.#world
    assert(this.#captures)
    const [first, second] = this.#captures
    const { mediaPerNode } = this.#options
    const mine = choicesOf(first, mediaPerNode)
    const theirs = choicesOf(second, mediaPerNode)
    const pairs = mine.flatMap((one) => theirs.map((other) => [one, other] as const))
    const last = world.random.pick(pairs)
    // A node alone finds the same whatever the other one has: each medium is opened once.
    const found = new Map<CrashChoice, Inspection>()
    for (const one of mine) found.set(one, await this.#inspected('a', first, one))
    for (const one of theirs) found.set(one, await this.#inspected('b', second, one))
    for (const [one, other] of pairs) {
      this.#tellMedia(first.signature(one), second.signature(other))
      this.stateCount++
      const [primary, secondary] = [found.get(one), found.get(other)]
      assert(primary && secondary)
      world.judge.checkInspected(primary, secondary)
    }
    this.#tellMedia(first.signature(last[0]), second.signature(last[1]))
    world.a = PairNode.on(world.nodeOptions('a'), first.after(last[0]))
    world.b = PairNode.on(world.nodeOptions('b'), second.after(last[1]))
    await this.#meet()
  }

  #inspected(name: NodeName, capture: MediumCapture, choice: CrashChoice): Promise<Inspection> {
    const world = this.#world
    this.#media = `\n  on the medium [${capture.signature(choice)}] of ${name}`
    return world.judge.inspect(PairNode.on(world.nodeOptions(name), capture.after(choice)))
  }

  #tellMedia(first: string, second: string): void {
    this.#media = `\n  on the media [${first}] and [${second}]`
  }

  async #meet(): Promise<void> {
    const world = this.#world
    this.healCount++
    await world.heal()
    await world.equal()
    const { again } = this.#options
    if (again === 0 || world.random.below(again) > 0) return
    // Everything once more: what was recovered is as good as what never failed.
    for (const action of this.#options.workload.actions) world.issue(action)
    await world.scheduler.settle(world.random.below(3))
    for (const node of [world.a, world.b]) node.end('power loss', world.random)
    world.primaryEnded()
    await world.judge.checkMedia(world.a, world.b)
    this.stateCount++
    await world.heal()
    await world.equal()
  }
}

/** Nothing of what was not synced, all of it, every other piece of it, the other ones, then three quarters; each once. */
export function choicesOf(capture: MediumCapture, count: number): readonly CrashChoice[] {
  const { optionCounts } = capture
  const newest = (isChosen: (index: number) => boolean): CrashChoice =>
    optionCounts.map((options, index) => (isChosen(index) ? options - 1 : 0))
  let open = 0
  // Only those with a choice are counted: every other one of them.
  const serials = optionCounts.map((options) => (options > 1 ? open++ : 0))
  const all = [
    newest(() => false),
    newest(() => true),
    newest((index) => (serials[index] ?? 0) % 2 === 0),
    newest((index) => (serials[index] ?? 0) % 2 === 1),
    newest((index) => (serials[index] ?? 0) % 4 !== 0),
    newest((index) => (serials[index] ?? 0) < open / 2),
  ]
  const seen = new Set<string>()
  return all.slice(0, count).filter((choice) => {
    const signature = capture.signature(choice)
    if (seen.has(signature)) return false
    seen.add(signature)
    return true
  })
}
