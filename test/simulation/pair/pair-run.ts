// One schedule of two nodes, from one seed. First a phase with faults: clients on the primary, an operator, crashes of either node or both, disks that fail, a
// network that cuts, stalls and lies; the laws are checked all the time. Then nothing fails any more, and both must come to be equal, with every request answered.
//
// A plain schedule has crashes and a bad network only, and draws nothing for the rest: its seed gives the same run whatever is added to the others.
import { describe, LawBroken } from '../laws.js'
import { PairEnding } from './pair-ending.js'
import { PairExtraActions } from './pair-extra-actions.js'
import { PairFaults } from './pair-faults.js'
import { PairLives } from './pair-lives.js'
import { PairLook } from './pair-look.js'
import type { PairNode } from './pair-node.js'
import { PairStage, type PairStageOptions } from './pair-stage.js'
import { linkOf } from './pair-subject.js'

export type PairRunOptions = PairStageOptions & { readonly actionCount: number }

export type PairRunReport = {
  /** Equal for equal runs. */
  readonly trace: number
  /** How often what is rare happened. */
  readonly counts: ReadonlyMap<string, number>
}

/** More unflushed writes than this make judging slow. */
const writesBetweenBases = 60

/** Throws LawBroken with the seed and the history. */
export async function pairRun(options: PairRunOptions): Promise<PairRunReport> {
  const stage = new PairStage(options)
  // What nobody catches ends a daemon: here it ends the schedule.
  const fail = (error: unknown) => stage.fail(error)
  process.on('unhandledRejection', fail)
  process.on('uncaughtException', fail)
  try {
    return await play(stage, options.actionCount)
  } catch (error) {
    const first = stage.failure?.error ?? error
    const stack = first instanceof Error && !(first instanceof LawBroken) ? first.stack : ''
    const text = [describe(first), stack, `seed ${options.seed}`, stage.describe()]
    throw new LawBroken(text.join('\n'), { cause: first })
  } finally {
    process.off('unhandledRejection', fail)
    process.off('uncaughtException', fail)
  }
}

async function play(stage: PairStage, actionCount: number): Promise<PairRunReport> {
  const a = await stage.init('a')
  const b = await stage.init('b')
  stage.enter(a, b)
  return new PairRun(stage, [a, b]).run(actionCount)
}

class PairRun {
  readonly #stage: PairStage
  readonly #nodes: readonly [PairNode, PairNode]
  readonly #lives: PairLives
  readonly #look: PairLook
  readonly #ending: PairEnding
  readonly #faults: PairFaults
  readonly #extras: PairExtraActions | undefined

  constructor(stage: PairStage, nodes: readonly [PairNode, PairNode]) {
    const { random, network, shape } = stage
    const [a] = nodes
    this.#stage = stage
    this.#nodes = nodes
    const lives = new PairLives(stage, nodes)
    const look = new PairLook(stage, nodes, lives)
    this.#lives = lives
    this.#look = look
    this.#ending = new PairEnding({ stage, nodes, lives, look })
    this.#faults = new PairFaults(
      {
        network,
        nodes,
        end: (node, kind) => lives.end(node, kind),
        count: (what) => stage.count(what),
        link: () => (a.engine ? linkOf(a.engine) : 'down'),
      },
      random.fork('faults'),
    )
    const { extras } = shape
    const { diskFaults, operator, traffic } = stage
    this.#extras =
      extras &&
      new PairExtraActions({
        extras,
        random: random.fork('extra actions'),
        nodes,
        diskFaults,
        network,
        operator,
        traffic,
      })
  }

  async run(actionCount: number): Promise<PairRunReport> {
    const { random, shape, scheduler, operator, oracle, judge, traffic, counts } = this.#stage
    const [a, b] = this.#nodes
    a.start(operator.mode)
    b.start(undefined)
    for (let i = 0; i < actionCount; i++) {
      await this.#lives.restart(shape.restartShare)
      await this.#lives.welcome()
      this.#issue()
      this.#extras?.act(this.#lives.client, oracle.catalog)
      await this.#pass()
      await this.#look.look()
      if (random.chance(shape.faultShare)) await this.#faults.strike()
      const isChecked = random.chance(0.03) || this.#extras?.wantsMedia()
      if (isChecked && !this.#lives.isUnheard) await judge.checkMedia(a, b)
      if (random.chance(0.03) || traffic.writesSinceBase > writesBetweenBases) {
        await this.#look.quiet()
      }
    }
    this.#calm()
    await this.#ending.heal()
    await this.#ending.finish()
    return { trace: scheduler.trace, counts }
  }

  #calm(): void {
    this.#faults.calm()
    this.#stage.aim.calm()
    for (const disk of this.#stage.diskFaults) disk.calm()
  }

  #issue(): void {
    const { client } = this.#lives
    const { traffic, shape, operator } = this.#stage
    const { engine } = this.#nodes[0]
    if (!client || !engine || traffic.underWayCount >= shape.inFlightMax) return
    traffic.issue(client, () => traffic.watch('operator', operator.act(engine)))
  }

  /** Some completions; time passes when there are none, or now and then. */
  async #pass(): Promise<void> {
    const { traffic, shape, random, scheduler, watch, aim } = this.#stage
    const [a, b] = this.#nodes
    const isFull = traffic.underWayCount >= shape.inFlightMax
    const steps = isFull ? 12 : random.below(6)
    let isIdle = false
    for (let step = 0; step < steps && !isIdle; step++) {
      if (random.chance(0.1)) await this.#elapse()
      isIdle = !(await scheduler.step())
      if (!this.#lives.isUnheard) await watch.look(a, b)
      if (aim.tick()) await this.#endAimed()
    }
    if ((isIdle && isFull) || random.chance(0.05)) {
      const forMs = 1 + random.below(random.pick([10, 100, 1000, 8000]))
      await scheduler.settle(forMs, () => aim.tick())
      if (aim.isDue) await this.#endAimed()
    }
  }

  async #endAimed(): Promise<void> {
    const victim = this.#stage.aim.take()
    if (victim !== undefined) await this.#faults.endAimed(victim)
  }

  /** Timers ring while disks and network are busy. */
  #elapse(): Promise<void> {
    const { random, scheduler } = this.#stage
    return scheduler.elapse(random.below(random.pick([3, 30, 300])))
  }
}
