// What goes wrong in a schedule of two nodes: connections, the network, either node or both, each chosen from the seed.
import type { SeededRandom } from '../random.js'
import { cutKinds } from './frame-tap.js'
import type { Victim } from './pair-aim.js'
import type { EndKind, PairNode } from './pair-node.js'
import { linkOf } from './pair-subject.js'
import type { SimConnection, SimNetwork } from './sim-network.js'

/** What a fault is done to; ending a node is the run's business, because it knows what that means. */
export type FaultTarget = {
  readonly network: SimNetwork
  readonly nodes: readonly [PairNode, PairNode]
  end(node: PairNode, kind: EndKind): Promise<void>
  count(what: string): void
  /** The link as the primary sees it, for the counts. */
  link(): string
}

/** Frames are some dozens of bytes up to some pieces of data. */
const cutBytesMax = 6000
const stallMsMax = 20_000

export class PairFaults {
  readonly #target: FaultTarget
  readonly #random: SeededRandom

  constructor(target: FaultTarget, random: SeededRandom) {
    this.#target = target
    this.#random = random
  }

  async strike(): Promise<void> {
    const random = this.#random
    const { nodes } = this.#target
    const [a, b] = nodes
    await random.pick<() => Promise<void> | void>([
      () => this.#cut(),
      () => this.#cutLater(),
      () => this.#cutLater(),
      () => this.#stall(),
      () => this.#flip(),
      () => this.#weather(),
      () => this.#end(a),
      () => this.#end(b),
      () => this.#end(b),
      async () => {
        await this.#end(a)
        await this.#end(b)
      },
    ])()
  }

  /** Ends who was aimed at. */
  async endAimed(victim: Victim): Promise<void> {
    const [a, b] = this.#target.nodes
    if (victim !== 'second') await this.#end(a)
    if (victim !== 'first') await this.#end(b)
  }

  /** From here on nothing fails. What is half open stays so: the nodes must notice by themselves. */
  calm(): void {
    const { network } = this.#target
    network.state = 'up'
    for (const connection of network.connections) connection.calm()
  }

  #cut(): void {
    const kind = this.#random.pick(cutKinds)
    this.#onConnection(`cut (${kind})`, (connection) => connection.cut(kind))
  }

  #cutLater(): void {
    const kind = this.#random.pick(cutKinds)
    const direction = this.#random.pick([0, 1] as const)
    const afterBytes = this.#random.below(this.#random.pick([60, 600, cutBytesMax]))
    this.#onConnection(`cut within bytes (${kind})`, (connection) =>
      connection.cutAfter(kind, direction, afterBytes),
    )
  }

  #stall(): void {
    const forMs = this.#random.below(this.#random.pick([50, 2000, stallMsMax]))
    this.#onConnection('stall', (connection) => connection.stall(forMs))
  }

  #flip(): void {
    const direction = this.#random.pick([0, 1] as const)
    const afterBytes = this.#random.below(cutBytesMax)
    this.#onConnection('flipped bit', (connection) => connection.pipes[direction].flip(afterBytes))
  }

  #onConnection(what: string, strike: (connection: SimConnection) => void): void {
    const { connections } = this.#target.network
    if (connections.length === 0) return
    this.#target.count(`${what} while ${this.#target.link()}`)
    strike(this.#random.pick(connections))
  }

  #weather(): void {
    const { network } = this.#target
    network.state = network.state === 'up' ? this.#random.pick(['refusing', 'dark'] as const) : 'up'
    this.#target.count(`network ${network.state}`)
  }

  async #end(node: PairNode): Promise<void> {
    if (node.isDown) return
    const kind = this.#random.pick<EndKind>(['kill', 'power loss', 'power loss'])
    // As the node itself sees the link.
    const state = node.engine ? `while ${linkOf(node.engine)}` : 'in recovery'
    this.#target.count(`${kind} of the ${node.role} ${state}`)
    await this.#target.end(node, kind)
  }
}
