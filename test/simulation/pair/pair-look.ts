// What is checked while a schedule runs: at every step what can be seen from outside, and now and then, when everything under way has finished, the contents of
// the primary, and those of the other one when the two are in sync.
//
// Invariant: while it looks no disk call fails on purpose; a node that has failed is excused only when its disk was struck.
import { LockstepError } from '../../../src/core/errors.js'
import { checkQuiet } from '../check-quiet.js'
import { LawBroken } from '../laws.js'
import type { PairDiskFaults } from './pair-disk-faults.js'
import type { PairLives } from './pair-lives.js'
import type { PairNode } from './pair-node.js'
import type { PairStage } from './pair-stage.js'
import { isInSync, linkOf } from './pair-subject.js'

/** What entries need beyond their data. An outbox may hold one entry more than it has room for. */
const outboxSlackBytes = 16 * 1024
/** Chance, at each step, that somebody starts a node again whose journal has failed. */
const replaceShare = 0.2

export class PairLook {
  readonly #stage: PairStage
  readonly #nodes: readonly [PairNode, PairNode]
  readonly #lives: PairLives

  constructor(stage: PairStage, nodes: readonly [PairNode, PairNode], lives: PairLives) {
    this.#stage = stage
    this.#nodes = nodes
    this.#lives = lives
  }

  /** What can be seen at every step. */
  async look(): Promise<void> {
    const [a, b] = this.#nodes
    const stage = this.#stage
    if (stage.failure) throw stage.failure.error
    await this.#lookAt(a, stage.diskFaults[0])
    await this.#lookAt(b, stage.diskFaults[1])
    const link = a.engine ? linkOf(a.engine) : 'down'
    if (link !== stage.link) stage.count(`link: ${stage.link || 'none'} > ${link}`)
    stage.link = link
    const [peer] = a.engine?.status().peers ?? []
    if (peer) this.#checkOutbox(peer.lagBytes ?? 0)
  }

  /** A node stops, or does not start, only because its disk has failed: then somebody starts it again. */
  async #lookAt(node: PairNode, faults: PairDiskFaults): Promise<void> {
    if (node.failure !== undefined) {
      if (!faults.hasStruck || !isRefusal(node.failure)) throw node.failure
      this.#stage.count(`start refused (${node.name})`)
      node.failure = undefined
      await this.#lives.end(node, 'kill')
      return
    }
    const failure = node.engine?.status().failure
    if (!failure) return
    if (!faults.hasStruck) throw new LawBroken(`node ${node.name} failed: ${failure.message}`)
    if (!this.#stage.random.chance(replaceShare)) return
    this.#stage.count(`journal failed (${node.name})`)
    await this.#lives.end(node, this.#stage.random.pick(['kill', 'power loss'] as const))
  }

  #checkOutbox(lagBytes: number): void {
    const { chunkBytes, chunkCountMax, replication, inFlightMax } = this.#stage.shape
    const outboxBytesMax = replication.outboxBytesMax ?? 0
    const isStalling = replication.congestion === 'stall'
    if (isStalling && lagBytes > outboxBytesMax) this.#stage.count('writers wait for room')
    // Those that wait behind an operation were let in before it was full: as many as clients may have under way.
    const largestBytes = (chunkBytes * chunkCountMax + 512) * (isStalling ? 1 + inFlightMax : 1)
    const boundBytes = outboxBytesMax + largestBytes + outboxSlackBytes
    if (lagBytes > boundBytes)
      throw new LawBroken(`law 10: ${lagBytes} bytes in an outbox for ${boundBytes}`)
  }

  /** Lets everything finish, checks the primary, and, when the two are in sync, the other one too. */
  quiet(): Promise<void> {
    return this.#stage.undisturbed(() => this.#checkBoth())
  }

  async #checkBoth(): Promise<void> {
    const [a, b] = this.#nodes
    const { client } = this.#lives
    const { running } = a
    if (!client || !running) return
    await running.run(this.#stage.traffic.ended())
    await this.look()
    // Its journal may have failed, and somebody may have ended it.
    if (a.running !== running) return
    // Without a store nothing is flushed, and a journal that has failed would not show.
    let isFlushed = a.engine?.status().failure === undefined
    for (const store of client.reachable()) {
      const outcome = await running.run(client.act({ kind: 'flush', store }))
      if (outcome !== 'done') isFlushed = false
    }
    const { images, catalog } = await checkQuiet(running, this.#stage.oracle)
    if (!isFlushed) return
    this.#lives.rebase(images, catalog)
    if (!b.engine || !isSettled(a)) return
    this.#stage.count('quiet and in sync')
    await this.#stage.judge.checkEqual(a, b)
    this.#stage.timeline.restart(images, catalog)
  }
}

/** Everything that the primary ever said is durable on the peer. */
export function isSettled(a: PairNode): boolean {
  const engine = a.engine
  if (!engine || engine.status().failure || !isInSync(engine)) return false
  const { sequence, peers } = engine.status()
  return peers[0]?.durableSequence === sequence
}

/** What a start may say when its disk fails. */
function isRefusal(error: unknown): boolean {
  const { code } = error as { readonly code?: unknown }
  return error instanceof LockstepError || /^E[A-Z]+$/.test(String(code))
}
