// A fault at a moment that passes quickly, again and again: a cut within a frame of a certain kind, or the end of a node some steps behind one. By chance alone
// a replay or a comparison of digests is hardly ever struck.
//
// Invariant: it draws from a stream of its own, and a schedule without an aim is the same as if this were not here.
import type { EngineEvent } from '../../../src/engine/api.js'
import type { SeededRandom } from '../random.js'
import { type Cut, cutKinds } from './frame-tap.js'

/** Kinds of frames that are rare and gone soon, or a node that says that operations which were missed are performed. */
const moments = [
  'first replays',
  'second replays',
  'replay',
  'replay',
  'compare',
  'compare',
  'compared',
  'compared',
  'digest-request',
  'digest-answer',
  'digest-answer',
  'hello',
  'decision',
  'ready',
  'stream-from',
] as const

export type Victim = 'first' | 'second' | 'both'

type Plan = {
  readonly moment: (typeof moments)[number]
  /** Undefined: a cut. */
  readonly victim: Victim | undefined
}

export class PairAim {
  readonly #random: SeededRandom
  readonly #plan: Plan | undefined
  #strikesLeft: number
  /** So often the moment passes before it is struck. */
  #skip = 0
  /** So many steps until a node ends; undefined when none is about to. */
  #stepsLeft: number | undefined
  #isOver = false

  constructor(random: SeededRandom, share: number) {
    this.#random = random
    this.#plan = random.chance(share) ? planFrom(random) : undefined
    this.#strikesLeft = random.pick([1, 2, 4])
    this.#next()
  }

  /** A frame begins to be sent: undefined, or how it is cut. */
  met(frame: string): Cut | undefined {
    const plan = this.#plan
    if (plan === undefined || !this.#isHit(frame)) return undefined
    if (plan.victim === undefined)
      return { kind: this.#random.pick(cutKinds), share: this.#random.below(1000) / 1000 }
    this.#stepsLeft = this.#random.below(this.#random.pick([1, 4, 12]))
    return undefined
  }

  /** A node has said something. */
  heard(node: 'first' | 'second', { kind, message }: Pick<EngineEvent, 'kind' | 'message'>): void {
    if (kind !== 'link' || !message.startsWith('link replaying')) return
    if (this.#isHit(`${node} replays`)) this.#stepsLeft = this.#random.below(3)
  }

  /** One more step was taken: true when a node is to end now. */
  tick(): boolean {
    if (this.#stepsLeft === undefined) return false
    if (this.#stepsLeft > 0) this.#stepsLeft--
    return this.isDue
  }

  get isDue(): boolean {
    return this.#stepsLeft === 0
  }

  /** Who is to end, when it is time. */
  take(): Victim | undefined {
    if (!this.isDue) return undefined
    this.#stepsLeft = undefined
    return this.#plan?.victim
  }

  calm(): void {
    this.#isOver = true
    this.#stepsLeft = undefined
  }

  #isHit(moment: string): boolean {
    if (this.#isOver || moment !== this.#plan?.moment || this.#strikesLeft === 0) return false
    if (this.#stepsLeft !== undefined || this.#skip-- > 0) return false
    this.#strikesLeft--
    this.#next()
    return true
  }

  #next(): void {
    this.#skip = this.#random.below(this.#random.pick([1, 1, 5]))
  }
}

function planFrom(random: SeededRandom): Plan {
  const moment = random.pick(moments)
  const victim = random.pick(['first', 'second', 'both'] as const)
  const isFrame = moment !== 'first replays' && moment !== 'second replays'
  return { moment, victim: isFrame && random.chance(0.4) ? undefined : victim }
}
