// Commands whose answer depends on the other node, or on a disk. While it does not come they say what they wait for, to people only: how the link is, and how
// far a resync is, with rate and time left. A link that stays refused is waited for by nobody who says so: no time brings it back, only somebody's act.
import { LockstepError } from '../../core/errors.js'
import type { PeerStatus } from '../../engine/api.js'
import type { Context } from './command.js'
import { ProgressTeller } from './progress.js'
import { ask } from './query.js'

const usualTiming = {
  /** Longer than this a command seems to hang. Between two looks as well. */
  silenceMs: 500,
  /** A refused link tries again after 10 s: what was mended meanwhile shows by then. */
  refusedMs: 15_000,
}

export type Patience = {
  /** What is waited for with a link that streams, or without one. */
  readonly otherwise?: string
  /** The answer comes by the link only: ends with PEER_UNREACHABLE when that stays refused. */
  readonly needsLink?: boolean
  readonly timing?: typeof usualTiming
}

/** `answer`. */
export async function patiently<T>(
  context: Context,
  answer: Promise<T>,
  patience: Patience = {},
): Promise<T> {
  const vigil = new Vigil(context, patience)
  try {
    return await Promise.race([answer, vigil.lost])
  } finally {
    vigil.end()
  }
}

class Vigil {
  readonly #context: Context
  readonly #patience: Patience
  readonly #teller: ProgressTeller
  #timer: NodeJS.Timeout
  readonly #timing: typeof usualTiming
  #isOver = false
  #hasSaid = false
  #refusedSinceMs: number | undefined
  #lose: (error: LockstepError) => void = () => {}
  /** Never resolves. */
  readonly lost: Promise<never>

  constructor(context: Context, patience: Patience) {
    this.#context = context
    this.#patience = patience
    this.#timing = patience.timing ?? usualTiming
    this.#teller = new ProgressTeller(context.output)
    this.lost = new Promise((_resolve, reject) => {
      this.#lose = reject
    })
    // Whoever has the answer first does not listen any more.
    this.lost.catch(() => {})
    this.#timer = setTimeout(() => void this.#look(), this.#timing.silenceMs)
  }

  end(): void {
    this.#isOver = true
    clearTimeout(this.#timer)
    this.#teller.end()
  }

  async #look(): Promise<void> {
    try {
      const { peers } = (await ask(this.#context, 'peer.list')) as { peers: readonly PeerStatus[] }
      if (this.#isOver) return
      this.#tell(peers)
      this.#judge(peers)
    } catch (error) {
      // Whatever keeps the daemon from saying so is told by the answer that is waited for.
      if (!(error instanceof LockstepError)) throw error
    }
    if (!this.#isOver) this.#timer = setTimeout(() => void this.#look(), this.#timing.silenceMs)
  }

  #tell(peers: readonly PeerStatus[]): void {
    const behind = peers.find(({ link }) => link !== 'streaming')
    const reason = behind?.reason ?? this.#patience.otherwise
    if (!this.#hasSaid && reason !== undefined) {
      this.#hasSaid = true
      this.#context.output.note(`waiting: ${reason}`)
    }
    if (behind?.resync !== undefined)
      this.#teller.tellResync(behind.node ?? 'the peer', behind.resync)
  }

  #judge(peers: readonly PeerStatus[]): void {
    const refused = peers.find(({ link }) => link === 'refused')
    if (refused === undefined || this.#patience.needsLink !== true) {
      this.#refusedSinceMs = undefined
      return
    }
    const nowMs = performance.now()
    this.#refusedSinceMs ??= nowMs
    if (nowMs - this.#refusedSinceMs < this.#timing.refusedMs) return
    const action = refused.action ?? 'lockstep peer connect --explain'
    const code = refused.rule === 'parted' ? 'SPLIT_BRAIN' : 'PEER_UNREACHABLE'
    this.#lose(new LockstepError(code, refused.reason, action))
  }
}
