// Looks at both media in the very moments that matter: when an answer has just promised them something, when the second node has just performed an operation,
// while a flush is on its way, when a link has just come to stream or a resync has ended. What is wrong then may be right again some disk calls later.
//
// Invariant: it changes nothing and draws from a stream of its own: a schedule is the same with it and without.
import type { EngineEvent } from '../../../src/engine/api.js'
import type { SeededRandom } from '../random.js'
import type { Call } from '../sim-call.js'
import type { PairJudge } from './pair-judge.js'
import type { PairNode } from './pair-node.js'

/** Behind a flush so many steps may be looked at, and this share of them is. */
const stepsBehindFlush = 30
const stepShare = 0.2
/** The second node's writes behind a flush that are looked at, where writes follow flushes closely. */
const writesBehindFlush = 4

export class PairWatch {
  readonly #judge: PairJudge
  readonly #random: SeededRandom
  readonly #share: number
  readonly #count: (what: string) => void
  #due: string | undefined
  #stepsLeft = 0
  readonly #watchesOrder: boolean
  #writesLeft = 0
  #isOrderDue = false

  constructor(options: {
    readonly judge: PairJudge
    readonly random: SeededRandom
    /** Of the moments that are frequent. */
    readonly share: number
    /** Writes follow flushes closely. */
    readonly watchesOrder: boolean
    readonly count: (what: string) => void
  }) {
    this.#judge = options.judge
    this.#random = options.random
    this.#share = options.share
    this.#watchesOrder = options.watchesOrder
    this.#count = options.count
  }

  /** An answer has promised that both have it. */
  promised(): void {
    this.#sometimes('a promise')
  }

  /** A node has said something. */
  heard(node: 'a' | 'b', { kind, message }: Pick<EngineEvent, 'kind' | 'message'>): void {
    if (this.#share === 0) return
    if (kind === 'link' && message.startsWith('link streaming')) {
      // To the second node it means that it is whole.
      if (node === 'b') this.#due = 'the end of a resync'
      else this.#sometimes('a link')
    }
    if (kind === 'operation' && node === 'b') this.#sometimes('an operation')
  }

  /** A frame is on its way. Behind a flush some steps are looked at: what follows it must not be there before it is durable. */
  passed(frame: string): void {
    if (frame !== 'frame flush') return
    if (this.#watchesOrder) this.#writesLeft = writesBehindFlush
    if (this.#random.chance(this.#share)) this.#stepsLeft = stepsBehindFlush
  }

  /** The second node is about to do this. */
  called({ kind, name }: Call): void {
    if (this.#writesLeft === 0 || name !== 'data' || !kind.startsWith('write')) return
    this.#writesLeft--
    this.#isOrderDue = true
  }

  /** Before the next step, when there is a reason to. */
  async look(a: PairNode, b: PairNode): Promise<void> {
    if (this.#stepsLeft > 0) {
      this.#stepsLeft--
      if (this.#random.chance(stepShare)) this.#due ??= 'a flush'
    }
    if (this.#isOrderDue) {
      this.#isOrderDue = false
      this.#count('looked at the order behind a flush')
      await this.#judge.checkOrder(b, this.#random)
    }
    if (this.#due === undefined) return
    this.#count(`looked at the media behind ${this.#due}`)
    this.#due = undefined
    await this.#judge.checkMedia(a, b, this.#random)
  }

  #sometimes(what: string): void {
    if (this.#share > 0 && this.#random.chance(this.#share)) this.#due ??= what
  }
}
