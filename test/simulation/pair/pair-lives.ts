// The lives of both nodes in a schedule: somebody starts a node again, its client comes when the primary has recovered, and goes with it.
//
// Invariant: a client asks only a life whose first state was judged, and nobody waits for an answer of a life that has ended.
import assert from 'node:assert/strict'
import type { EngineEvent } from '../../../src/engine/api.js'
import { Client } from '../client.js'
import { LawBroken } from '../laws.js'
import type { Catalog } from '../model-catalog.js'
import type { StoreImage } from '../oracle.js'
import { ReadHistory } from '../read-history.js'
import type { EndKind, PairNode } from './pair-node.js'
import type { PairStage } from './pair-stage.js'
import { linkOf, type PairEngine } from './pair-subject.js'

export class PairLives {
  readonly #stage: PairStage
  readonly #nodes: readonly [PairNode, PairNode]
  #client: Client | undefined
  #hasEnded = false

  constructor(stage: PairStage, nodes: readonly [PairNode, PairNode]) {
    this.#stage = stage
    this.#nodes = nodes
  }

  /** Of the primary's present life, when it has recovered. */
  get client(): Client | undefined {
    return this.#client
  }

  /** The primary is there again, and nobody has heard yet what it kept of its writes: the second node may have that already. */
  get isUnheard(): boolean {
    return this.#nodes[0].engine !== undefined && this.#client === undefined
  }

  /** Starts each node that is down, by chance. */
  async restart(share: number): Promise<void> {
    const { random, operator } = this.#stage
    for (const node of this.#nodes) {
      if (!node.isDown || !random.chance(share)) continue
      node.start(node.role === 'primary' ? operator.mode : undefined)
    }
  }

  /** The primary has recovered: what it holds is the base of what follows. */
  async welcome(): Promise<void> {
    const [a] = this.#nodes
    if (this.#client || !a.engine || !a.running) return
    const { oracle, timeline } = this.#stage
    const { engine, running } = a
    const images = await this.#stage.undisturbed(() => running.readStores())
    const catalog = oracle.judge(images, 'crash')
    if (typeof catalog === 'string')
      throw new LawBroken(`the primary recovered to an illegal state:\n${catalog}`)
    if (a.engine !== engine) return
    this.#client = this.#clientOf(engine)
    if (this.#hasEnded) timeline.beginEra(images, catalog)
    this.rebase(images, catalog)
    engine.onEvent((event) => this.#heard(engine, event))
  }

  #clientOf(engine: PairEngine): Client {
    const { random, oracle, shape } = this.#stage
    const client = new Client(engine, oracle, random.fork('client'))
    const { diskFaultShares, fullShares } = shape.extras ?? {}
    client.mayFail = (diskFaultShares?.[0] ?? 0) + (fullShares?.[0] ?? 0) > 0
    client.isFullClean = !client.mayFail
    // It knows nothing of what was copied after a write that failed.
    if (!client.mayFail) client.history = new ReadHistory()
    return client
  }

  #heard(engine: PairEngine, { kind, message }: EngineEvent): void {
    const stage = this.#stage
    stage.remember(`${kind}: ${message}`)
    if (message.startsWith('the outbox is full')) stage.count(`overflow while ${linkOf(engine)}`)
    if (kind !== 'link' && kind !== 'resync') return
    stage.count(`${kind}: ${message.replace(/[0-9a-f]{8,}|\d[\d.]*/g, 'N').slice(0, 90)}`)
  }

  /** Ends a life, and tells everybody for whom that means something. */
  async end(node: PairNode, kind: EndKind): Promise<void> {
    const [a, b] = this.#nodes
    const { random, diskFaults, traffic, oracle, judge } = this.#stage
    node.end(kind, random)
    diskFaults[node === a ? 0 : 1].newLife()
    if (node === a) {
      this.#client = undefined
      this.#hasEnded = true
      traffic.forget()
      oracle.primaryEnded()
    } else {
      traffic.forgetReads()
      if (this.isUnheard) return
      const state = await judge.checkSecondary(b)
      if (state === 'kept') this.#stage.count('before-resync kept through a crash')
    }
    if (a.isDown && b.isDown) {
      this.#stage.count('both nodes down')
      await judge.checkMedia(a, b)
    }
  }

  /** What the primary holds for certain. */
  rebase(images: readonly StoreImage[], catalog: Catalog): void {
    this.#stage.oracle.rebase(images, catalog)
    this.#stage.traffic.writesSinceBase = 0
    this.#client?.history?.reset(
      [...catalog.stores.values()].map((store) => {
        const image = images.find(({ name }) => name === catalog.fullName(store))
        assert(image)
        return { id: store.id, bytes: image.bytes }
      }),
    )
  }
}
