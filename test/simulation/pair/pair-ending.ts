// How a schedule ends: nothing fails any more, both nodes come to be equal in bounded time with every request answered, stay so, and are closed.
//
// Invariant: a schedule that gets through this has no request without an answer and two media that say the same.
import { LawBroken } from '../laws.js'
import { PairDamage } from './pair-damage.js'
import type { PairLives } from './pair-lives.js'
import { isSettled, type PairLook } from './pair-look.js'
import type { PairNode } from './pair-node.js'
import type { PairStage } from './pair-stage.js'
import { isInSync } from './pair-subject.js'

/** Virtual time in which two healthy nodes must be equal: several deadlines, pauses between attempts, and a resync. */
const healMsMax = 150_000

export class PairEnding {
  readonly #stage: PairStage
  readonly #nodes: readonly [PairNode, PairNode]
  readonly #lives: PairLives
  readonly #look: PairLook

  constructor(options: {
    readonly stage: PairStage
    readonly nodes: readonly [PairNode, PairNode]
    readonly lives: PairLives
    readonly look: PairLook
  }) {
    this.#stage = options.stage
    this.#nodes = options.nodes
    this.#lives = options.lives
    this.#look = options.look
  }

  /** Without faults both come to be equal, in bounded time. */
  async heal(): Promise<void> {
    const [a] = this.#nodes
    const { scheduler, traffic, operator } = this.#stage
    await this.#lives.restart(1)
    const untilMs = scheduler.nowMs + healMsMax
    let isAsked = false
    for (;;) {
      await scheduler.settle(500)
      await this.#lives.welcome()
      await this.#look.look()
      await this.#lives.restart(1)
      if (a.engine && !isAsked) {
        isAsked = true
        // The administrator may have disconnected the peer.
        traffic.watch('connect', operator.connect(a.engine))
      }
      if (traffic.underWayCount === 0 && isSettled(a)) return
      if (traffic.underWayCount === 0 && a.engine && isInSync(a.engine)) await this.#look.quiet()
      if (scheduler.nowMs < untilMs) continue
      const [peer] = a.engine?.status().peers ?? []
      throw new LawBroken(
        `not in sync after ${healMsMax / 1000} s without faults, ${traffic.underWayCount} requests unanswered: ${JSON.stringify(peer)}`,
      )
    }
  }

  /** Equal, idle and closed, both hold the same; damage that nobody noticed is found before that. */
  async finish(): Promise<void> {
    const [a, b] = this.#nodes
    const { scheduler, judge, operator, shape } = this.#stage
    await this.#look.quiet()
    // What was deleted gives its space back by and by.
    await scheduler.settle(20_000)
    if (!isSettled(a)) throw new LawBroken('in sync, idle, and not in sync any more')
    const images = await judge.checkEqual(a, b)
    if (!operator.hasMarked) judge.checkSpace(a, b, images)
    if (shape.extras?.hasDamage) await new PairDamage(this.#stage, this.#nodes).strike()
    await a.close()
    await scheduler.settle(1000)
    await b.close()
    await judge.checkClosed(a, b)
  }
}
