// A wrong byte on the second node's disk, which nobody noticed: verify finds it, and from then on it is known, through any end of the first node and through
// operations that carry it on, until it is repaired.
//
// Invariant: every block that differs when both are at one position is dirty, or verify's, on the first node's medium, whatever a crash would leave of that.
import assert from 'node:assert/strict'
import { blockBytes } from '../../../src/core/units.js'
import { LawBroken } from '../laws.js'
import type { StoreImage } from '../oracle.js'
import type { SeededRandom } from '../random.js'
import { sectorBytes } from '../sim-file.js'
import { isSettled } from './pair-look.js'
import type { PairNode } from './pair-node.js'
import { differingBytesOf } from './pair-operator.js'
import type { PairStage } from './pair-stage.js'
import type { PairEngine } from './pair-subject.js'
import { isOwn } from './pair-traffic.js'

/** Virtual time in which two healthy nodes are in sync again. */
const healMsMax = 150_000

export class PairDamage {
  readonly #stage: PairStage
  readonly #nodes: readonly [PairNode, PairNode]
  readonly #random: SeededRandom

  constructor(stage: PairStage, nodes: readonly [PairNode, PairNode]) {
    this.#stage = stage
    this.#nodes = nodes
    this.#random = stage.random
  }

  /** Both are equal and idle, before it and behind it. */
  async strike(): Promise<void> {
    const [a, b] = this.#nodes
    assert(a.running)
    const images = await a.running.readStores()
    const sectors = images.flatMap(({ bytes }) => sectorsOf(bytes))
    if (sectors.length === 0 || b.damage(this.#random.pick(sectors)) === 0) return
    // In another store, perhaps, of which a repair of the first one says nothing.
    if (this.#random.chance(0.4)) b.damage(this.#random.pick(sectors))
    if ((await this.#verify({})) === 0) throw new LawBroken('verify did not find a wrong byte')
    await this.#known('when it was found')
    for (let ends = this.#random.below(3); ends > 0; ends--) await this.#end()
    if (this.#random.chance(0.5)) await this.#carryOn()
    const [first] = this.#listed()
    if (first !== undefined && this.#random.chance(0.7)) {
      await this.#verify({ store: first, repair: true })
      await this.#known('behind the repair of a store')
      if (this.#listed().length > 0) this.#stage.count('a repair left differences elsewhere')
    }
    await this.#verify({ repair: true })
    await this.#settle()
    if (this.#listed().length > 0)
      throw new LawBroken(`repaired, and said to differ: ${this.#listed().join()}`)
    this.#stage.count('verify found and repaired damage')
    await this.#stage.judge.checkEqual(a, b)
  }

  get #engine(): PairEngine {
    const { engine } = this.#nodes[0]
    assert(engine)
    return engine
  }

  #listed(): readonly string[] {
    const [peer] = this.#engine.status().peers
    return peer?.differences?.map(({ store }) => store) ?? []
  }

  async #verify(options: { readonly store?: string; readonly repair?: boolean }): Promise<number> {
    const engine = this.#engine
    assert(engine.verify)
    return differingBytesOf(await this.#stage.scheduler.run(engine.verify(options)))
  }

  /** The first node ends, and starts again. */
  async #end(): Promise<void> {
    const [a] = this.#nodes
    const kind = this.#random.pick(['close', 'kill', 'power loss'] as const)
    if (kind === 'close') await a.close()
    else a.end(kind, this.#random)
    a.start(this.#stage.operator.mode)
    await this.#settle()
    if (this.#listed().length > 0) this.#stage.count(`a difference was known after a ${kind}`)
    await this.#known(`after a ${kind}`)
  }

  /** A snapshot of what differs, and perhaps a restore from it. */
  async #carryOn(): Promise<void> {
    const volume = this.#listed().find((name) => !name.includes('@'))
    if (volume === undefined) return
    const { scheduler } = this.#stage
    const store = `${volume}@damaged`
    const snapshot = { kind: 'snapshot.create', stores: [volume], name: 'damaged' } as const
    await scheduler.run(this.#engine.perform(snapshot))
    await this.#settle()
    if (!this.#listed().includes(store)) throw new LawBroken(`${store} is not said to differ`)
    if (this.#random.chance(0.5)) {
      await this.#verify({ store: volume, repair: true })
      await scheduler.run(this.#engine.perform({ kind: 'snapshot.restore', store }))
    }
    await this.#known('behind a snapshot')
  }

  /** What differs is said to, on the medium and by `status`. */
  async #known(when: string): Promise<void> {
    const [a, b] = this.#nodes
    await this.#settle()
    assert(a.running)
    assert(b.running)
    await this.#stage.judge.checkKnown(a, b)
    const copies = await b.running.readStores()
    for (const image of await a.running.readStores()) {
      const copy = copies.find(({ name }) => name === image.name)
      if (isOwn(image.name) || !copy || differingBlockCount(image, copy) === 0) continue
      if (!this.#listed().includes(image.name))
        throw new LawBroken(`${when}: ${image.name} differs, and status does not say so`)
    }
  }

  async #settle(): Promise<void> {
    const [a] = this.#nodes
    const { scheduler } = this.#stage
    const untilMs = scheduler.nowMs + healMsMax
    do {
      await scheduler.settle(20_000)
      if (a.failure !== undefined) throw a.failure
      if (scheduler.nowMs > untilMs) throw new LawBroken('damaged, and not in sync any more')
    } while (!isSettled(a))
  }
}

function differingBlockCount({ bytes }: StoreImage, copy: StoreImage): number {
  let count = 0
  for (let offset = 0; offset < bytes.length; offset += blockBytes) {
    const end = Math.min(bytes.length, offset + blockBytes)
    if (bytes.compare(copy.bytes, offset, end, offset, end) !== 0) count++
  }
  return count
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
