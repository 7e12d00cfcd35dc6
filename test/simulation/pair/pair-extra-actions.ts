// What not every schedule has, chosen from the seed at each action: failing disks, a network that moves whole frames, marks, verifies, reads from the second node.
import type { Client } from '../client.js'
import type { Catalog } from '../model-catalog.js'
import type { SeededRandom } from '../random.js'
import { cutKinds, framesToCut } from './frame-tap.js'
import type { PairDiskFaults } from './pair-disk-faults.js'
import type { PairNode } from './pair-node.js'
import type { PairOperator } from './pair-operator.js'
import type { PairExtras } from './pair-shape.js'
import type { PairTraffic } from './pair-traffic.js'
import type { SimNetwork } from './sim-network.js'

export type PairExtraOptions = {
  readonly extras: PairExtras
  readonly random: SeededRandom
  readonly nodes: readonly [PairNode, PairNode]
  readonly diskFaults: readonly [PairDiskFaults, PairDiskFaults]
  readonly network: SimNetwork
  readonly operator: PairOperator
  readonly traffic: PairTraffic
}

export class PairExtraActions {
  readonly #options: PairExtraOptions

  constructor(options: PairExtraOptions) {
    this.#options = options
  }

  act(client: Client | undefined, catalog: Catalog): void {
    const { extras, random, nodes, operator, traffic } = this.#options
    this.#disk(0)
    this.#disk(1)
    if (random.chance(extras.frameShare)) this.#meddle()
    const primary = nodes[0].engine
    const secondary = nodes[1].engine
    if (random.chance(extras.markShare) && primary && client)
      traffic.watch('mark', operator.mark(primary, client, catalog))
    if (random.chance(extras.verifyShare) && primary)
      traffic.watch('verify', operator.verify(primary, { repair: random.chance(0.3) }))
    if (random.chance(extras.readShare) && secondary) traffic.readSecondary(secondary, random)
    // Without it nothing is drawn: other schedules stay as they were.
    if (extras.lookShare > 0 && random.chance(extras.lookShare) && primary)
      traffic.watch('look', operator.look(primary))
  }

  /** Whether to look at what is on both media now. */
  wantsMedia(): boolean {
    const { extras, random } = this.#options
    return extras.mediaShare > 0 && random.chance(extras.mediaShare)
  }

  #disk(index: 0 | 1): void {
    const { extras, random, nodes, diskFaults } = this.#options
    if (random.chance(extras.diskFaultShares[index])) diskFaults[index].plan()
    if (random.chance(extras.fullShares[index])) diskFaults[index].toggleFull(nodes[index].medium)
  }

  #meddle(): void {
    const { random, network } = this.#options
    const { connections } = network
    if (connections.length === 0) return
    const connection = random.pick(connections)
    if (random.chance(0.6)) {
      const { kind, direction } = random.pick(framesToCut)
      connection.cutWithin(kind, direction, random.pick(cutKinds), random.below(1000) / 1000)
      return
    }
    const direction = random.pick([0, 1] as const)
    const what = random.pick(['repeat', 'repeat', 'swap', 'old'] as const)
    connection.meddle(direction, what, random.below(1000))
  }
}
