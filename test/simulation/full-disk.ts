// A disk that gets full, as an administrator meets it: writes that need room get ENOSPC and change nothing, reads and writes in
// place go on, a delete works and gives room back. With a crash in the middle of it.
import assert from 'node:assert/strict'
import { checkQuiet } from './check-quiet.js'
import { type Action, Client } from './client.js'
import type { CheckOptions } from './crash-check.js'
import { describe, LawBroken } from './laws.js'
import { Oracle } from './oracle.js'
import { SeededRandom } from './random.js'
import { Scheduler } from './sim-clock.js'
import type { SimMedium } from './sim-medium.js'
import { type NodeOptions, SimNode } from './sim-node.js'

export type FullDiskReport = {
  readonly runCount: number
  /** Writes and operations that were refused for want of room. */
  readonly refusedCount: number
}

const chunkBytes = 8192
const journalBytes = 256 * 1024
const volumeBytes = 12 * chunkBytes

export async function fillDisk(
  options: CheckOptions & { readonly count: number },
): Promise<FullDiskReport> {
  let refusedCount = 0
  for (let i = 0; i < options.count; i++) {
    const seed = options.seed + i
    const filling = new Filling({ ...options, seed })
    try {
      await filling.run()
    } catch (error) {
      const text = `${describe(error)}\nseed ${seed}\nhistory:\n${filling.describe()}`
      throw new LawBroken(text, { cause: error })
    }
    refusedCount += filling.refusedCount
  }
  return { runCount: options.count, refusedCount }
}

class Filling {
  readonly #options: CheckOptions
  readonly #random: SeededRandom
  readonly #oracle = new Oracle(chunkBytes)
  refusedCount = 0

  constructor(options: CheckOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
  }

  describe(): string {
    return this.#oracle.describe()
  }

  async run(): Promise<void> {
    const isDevice = this.#random.chance(0.4)
    const device = { name: '/dev/disk', sizeBytes: (20 + this.#random.below(20)) * chunkBytes }
    const disk: NodeOptions['disk'] = {
      canPunch: this.#random.chance(0.7),
      now: this.#random.pick(['always', 'never', 'random'] as const),
      ...(isDevice ? { device } : {}),
    }
    const initial = await SimNode.init(this.#nodeOptions(undefined, disk), {
      chunkBytes,
      journalBytes,
    })
    const room = (20 + this.#random.below(20)) * chunkBytes
    const used = initial.allocatedPages * 4096
    const limited = isDevice ? disk : { ...disk, capacityBytes: used + room }
    let node = await SimNode.start(this.#nodeOptions(initial, limited))
    // In a sparse file a chunk that is there can lack blocks: a write in place then fails part way.
    const isClean = isDevice
    let client = this.#client(node, isClean)
    await this.#fill(node, client)
    if (this.#random.chance(0.5)) {
      node = await this.#crash(node, limited)
      client = this.#client(node, isClean)
      await this.#fill(node, client)
    }
    await this.#makeRoom(node, client, isDevice || disk.canPunch === true)
    node.crash()
  }

  /** Until writes are refused, and a while longer. */
  async #fill(node: SimNode, client: Client): Promise<void> {
    const { catalog } = this.#oracle
    if (!catalog.find('a')) {
      for (const name of ['a', 'b']) {
        await this.#act(node, client, {
          kind: 'perform',
          request: { kind: 'volume.create', name, sizeBytes: volumeBytes },
        })
      }
    }
    for (let i = 0; i < 80; i++) {
      await this.#act(node, client, this.#action(i))
      if (this.#random.chance(0.1)) await node.scheduler.settle(1500)
      if (i % 10 === 9) await this.#checkAndKeep(node, client)
    }
    await checkQuiet(node, this.#oracle)
  }

  /** Flushing works on a full disk too; what is there then is certain. */
  async #checkAndKeep(node: SimNode, client: Client): Promise<void> {
    await checkQuiet(node, this.#oracle)
    for (const store of client.reachable()) {
      assert.equal(await node.run(client.act({ kind: 'flush', store })), 'done')
    }
    const { images, catalog } = await checkQuiet(node, this.#oracle)
    this.#oracle.rebase(images, catalog)
  }

  #action(index: number): Action {
    const random = this.#random
    const store = random.pick(['a', 'b'])
    if (random.chance(0.15)) {
      return {
        kind: 'perform',
        request: { kind: 'snapshot.create', stores: [store], name: `s${index}` },
      }
    }
    if (random.chance(0.1)) {
      const range = { offset: random.below(volumeBytes / 2) as never, lengthBytes: 5000 }
      return { kind: 'perform', request: { kind: 'sync', source: 'a', target: 'b', range } }
    }
    if (random.chance(0.1)) return { kind: 'flush', store }
    const offset = random.below(volumeBytes - 1)
    const lengthBytes = Math.min(volumeBytes - offset, 1 + random.below(3 * chunkBytes))
    return { kind: 'write', store, offset, lengthBytes, fua: random.chance(0.1) }
  }

  async #act(node: SimNode, client: Client, action: Action): Promise<void> {
    const outcome = await node.run(client.act(action))
    if (outcome === 'done') return
    if (outcome.failed === 'NAME_TAKEN') return
    const isFull = outcome.failed === 'ENOSPC' || outcome.failed === 'NO_SPACE'
    if (!isFull) throw new LawBroken(`${outcome.failed} on a full disk: ${JSON.stringify(action)}`)
    this.refusedCount++
  }

  /** Deletes every snapshot: that must work, and where space is given back there is then room for a volume's worth of writes. */
  async #makeRoom(node: SimNode, client: Client, givesBack: boolean): Promise<void> {
    for (const store of this.#oracle.catalog.names().filter((name) => name.includes('@'))) {
      const request = { kind: 'snapshot.delete', store } as const
      const outcome = await node.run(client.act({ kind: 'perform', request }))
      if (outcome !== 'done') throw new LawBroken(`a full disk refuses to delete ${store}`)
    }
    const request = { kind: 'volume.delete', name: 'b' } as const
    assert.equal(await node.run(client.act({ kind: 'perform', request })), 'done')
    await node.scheduler.settle(5000)
    await checkQuiet(node, this.#oracle)
    if (!givesBack) return
    const write = { kind: 'write', store: 'a', offset: 0, lengthBytes: volumeBytes } as const
    const outcome = await node.run(client.act(write))
    if (outcome !== 'done') throw new LawBroken('no room after everything else was deleted')
    assert.equal(await node.run(client.act({ kind: 'flush', store: 'a' })), 'done')
    await checkQuiet(node, this.#oracle)
  }

  async #crash(node: SimNode, disk: NodeOptions['disk']): Promise<SimNode> {
    node.crash()
    const capture = node.disk.medium.capture()
    const medium = capture.after(capture.randomChoice(this.#random))
    const again = await SimNode.start(this.#nodeOptions(medium, disk))
    again.engine.checkInvariants()
    const images = await again.readStores()
    const catalog = this.#oracle.judge(images, 'crash')
    if (typeof catalog === 'string')
      throw new LawBroken(`recovered to an illegal state: ${catalog}`)
    this.#oracle.rebase(images, catalog)
    return again
  }

  #client(node: SimNode, isFullClean: boolean): Client {
    const client = new Client(node.engine, this.#oracle, this.#random.fork('client'))
    client.mayFail = true
    client.isFullClean = isFullClean
    return client
  }

  #nodeOptions(medium: SimMedium | undefined, disk: NodeOptions['disk']): NodeOptions {
    const { subject, mutants } = this.#options
    return {
      subject,
      scheduler: new Scheduler(),
      random: new SeededRandom(this.#random.bits()),
      ...(medium ? { medium } : {}),
      ...(mutants ? { mutants } : {}),
      ...(disk ? { disk } : {}),
    }
  }
}
