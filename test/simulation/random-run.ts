// One random life of a group, from one seed: many requests under way at once, disk calls that complete in any order, operations in
// between, crashes and kills, crashes of the recovery too. The oracle judges after each crash and at each quiet moment, the history each read.
import assert from 'node:assert/strict'
import { checkQuiet } from './check-quiet.js'
import { Client } from './client.js'
import { describe, LawBroken } from './laws.js'
import type { Catalog } from './model-catalog.js'
import { Oracle, type StoreImage } from './oracle.js'
import { SeededRandom } from './random.js'
import { ActionSource } from './random-actions.js'
import { ReadHistory } from './read-history.js'
import { HangError, Life, Scheduler } from './sim-clock.js'
import { SimDisk } from './sim-disk.js'
import type { SimMedium } from './sim-medium.js'
import { type NodeOptions, SimNode } from './sim-node.js'
import type { Subject } from './subject.js'

export type RandomRunOptions = {
  readonly subject: Subject
  readonly seed: number
  readonly mutants?: ReadonlySet<string>
  readonly actionCount: number
}

export type RandomRunReport = {
  /** Equal for equal runs. */
  readonly trace: number
  /** How often what is rare happened. */
  readonly counts: ReadonlyMap<string, number>
}

type Shape = {
  readonly chunkBytes: number
  readonly inFlightMax: number
  readonly disk: NonNullable<NodeOptions['disk']>
}

const journalBytes = 256 * 1024
/** More unflushed writes than this make judging slow. */
const writesBetweenBases = 60

/** Throws LawBroken with the seed and the history. */
export async function randomRun(options: RandomRunOptions): Promise<RandomRunReport> {
  const run = new RandomRun(options)
  try {
    return await run.run()
  } catch (error) {
    const text = `${describe(error)}\nseed ${options.seed}\nhistory:\n${run.describe()}`
    throw new LawBroken(text, { cause: error })
  }
}

class RandomRun {
  readonly #options: RandomRunOptions
  readonly #random: SeededRandom
  readonly #shape: Shape
  readonly #scheduler: Scheduler
  readonly #actions: ActionSource
  readonly #oracle: Oracle
  readonly #counts = new Map<string, number>()
  readonly #underWay = new Set<Promise<unknown>>()
  #writesSinceBase = 0
  #failure: { readonly error: unknown } | undefined
  #operationsUnderWay = 0

  constructor(options: RandomRunOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
    this.#shape = shapeOf(this.#random.fork('shape'))
    this.#scheduler = new Scheduler({ order: this.#random.fork('order') })
    const { chunkBytes } = this.#shape
    this.#oracle = new Oracle(chunkBytes)
    this.#actions = new ActionSource(this.#random.fork('actions'), { chunkBytes, chunkCountMax: 8 })
  }

  async run(): Promise<RandomRunReport> {
    const { chunkBytes } = this.#shape
    const medium = await SimNode.init(
      this.#nodeOptions(garbageDevice(this.#shape, this.#scheduler, this.#random)),
      { chunkBytes, journalBytes },
    )
    let { node, client } = await this.#start(medium, 'live')
    for (let i = 0; i < this.#options.actionCount; i++) {
      this.#issue(client)
      const steps = this.#underWay.size >= this.#shape.inFlightMax ? 8 : this.#random.below(4)
      for (let step = 0; step < steps; step++) await this.#scheduler.step()
      this.#throwFailure()
      if (this.#random.chance(0.03) || this.#writesSinceBase > writesBetweenBases) {
        await this.#quiet(node, client)
      } else if (this.#random.chance(0.02)) {
        ;({ node, client } = await this.#crash(node))
      }
      if (this.#random.chance(0.01)) await this.#scheduler.settle(this.#random.below(3000))
    }
    await this.#quiet(node, client)
    await node.run(node.engine.close())
    node.crash()
    ;({ node } = await this.#start(node.disk.medium.afterKill(), 'live'))
    node.crash()
    return { trace: this.#scheduler.trace, counts: this.#counts }
  }

  describe(): string {
    return `${JSON.stringify(this.#shape)}\n${this.#oracle.describe()}`
  }

  #issue(client: Client): void {
    if (this.#underWay.size >= this.#shape.inFlightMax) return
    const stores = client.reachable().filter((name) => client.sizeOf(name) > 0)
    const kind = this.#random.below(100)
    if (stores.length === 0 || kind < 15) this.#issueOperation(client)
    else if (kind < 18) this.#issueLate(client)
    else this.#issueData(client, this.#random.pick(stores), kind)
  }

  #issueData(client: Client, store: string, kind: number): void {
    if (kind < 26) {
      this.#watch(client.act({ kind: 'flush', store }))
    } else if (kind < 50) {
      const { offset, lengthBytes } = this.#actions.range(client.sizeOf(store))
      this.#watch(client.read(store, offset, lengthBytes))
    } else {
      this.#writesSinceBase++
      this.#watch(client.act(this.#actions.data(store, client.sizeOf(store))))
    }
  }

  #issueLate(client: Client): void {
    const late = client.writeLate()
    if (!late) return
    this.#count('write behind the end of a store')
    this.#watch(late)
  }

  #issueOperation(client: Client): void {
    const request = this.#actions.request(this.#oracle.catalog)
    this.#operationsUnderWay++
    if (this.#underWay.size > 0) this.#count('operation among other requests')
    const done = client.act({ kind: 'perform', request }).then((outcome) => {
      this.#operationsUnderWay--
      this.#count(outcome === 'done' ? request.kind : `refused ${outcome.failed}`)
    })
    this.#watch(done)
  }

  #watch(work: Promise<unknown>): void {
    const watched = work.then(
      () => void this.#underWay.delete(watched),
      (error: unknown) => {
        this.#underWay.delete(watched)
        this.#failure ??= { error }
      },
    )
    this.#underWay.add(watched)
  }

  /** Lets everything finish, checks everything, and from time to time makes it the certain base of what follows. */
  async #quiet(node: SimNode, client: Client): Promise<void> {
    this.#count('quiet moment')
    await node.run(Promise.all(this.#underWay))
    this.#throwFailure()
    await checkQuiet(node, this.#oracle)
    if (this.#writesSinceBase <= writesBetweenBases && this.#random.chance(0.5)) return
    for (const store of client.reachable()) await node.run(client.act({ kind: 'flush', store }))
    const { images, catalog } = await checkQuiet(node, this.#oracle)
    this.#rebase(images, catalog, client)
  }

  async #crash(node: SimNode): Promise<{ node: SimNode; client: Client }> {
    this.#count(this.#operationsUnderWay > 0 ? 'crash in an operation' : 'crash')
    node.crash()
    this.#underWay.clear()
    this.#operationsUnderWay = 0
    assert.deepEqual(node.disk.violations, [])
    let medium = this.#mediumAfter(node.disk.medium)
    while (this.#random.chance(0.3)) medium = await this.#cutRecovery(medium)
    return this.#start(medium, 'crash')
  }

  #mediumAfter(medium: SimMedium): SimMedium {
    if (this.#random.chance(0.25)) {
      this.#count('kill without loss')
      return medium.afterKill()
    }
    const capture = medium.capture()
    const counts = capture.optionCounts
    if (this.#random.chance(0.15)) return capture.after(counts.map(() => 0))
    return capture.after(capture.randomChoice(this.#random))
  }

  /** Starts, and crashes before some disk call of the recovery. */
  async #cutRecovery(medium: SimMedium): Promise<SimMedium> {
    const life: { node: SimNode | undefined } = { node: undefined }
    let left = this.#random.below(30)
    const options = this.#nodeOptions(medium)
    const { life: cut, started } = SimNode.startUntil(options, () => left-- === 0)
    try {
      life.node = await this.#scheduler.run(started)
    } catch (error) {
      if (!(error instanceof HangError) || !cut.isEnded) throw error
      this.#count('crash in recovery')
    }
    cut.end()
    return this.#mediumAfter(medium)
  }

  async #start(
    medium: SimMedium,
    judgement: 'live' | 'crash',
  ): Promise<{ node: SimNode; client: Client }> {
    const node = await SimNode.start(this.#nodeOptions(medium))
    node.engine.checkInvariants()
    const images = await node.readStores()
    const catalog = this.#oracle.judge(images, judgement)
    if (typeof catalog === 'string')
      throw new LawBroken(`recovered to an illegal state:\n${catalog}`)
    const client = new Client(node.engine, this.#oracle, this.#random.fork('client'))
    client.history = new ReadHistory()
    this.#rebase(images, catalog, client)
    return { node, client }
  }

  #rebase(images: readonly StoreImage[], catalog: Catalog, client: Client): void {
    this.#oracle.rebase(images, catalog)
    this.#writesSinceBase = 0
    client.history?.reset(
      [...catalog.stores.values()].map((store) => {
        const image = images.find(({ name }) => name === catalog.fullName(store))
        assert(image)
        return { id: store.id, bytes: image.bytes }
      }),
    )
  }

  #nodeOptions(medium: SimMedium): NodeOptions {
    const { subject, mutants } = this.#options
    return {
      subject,
      medium,
      scheduler: this.#scheduler,
      random: new SeededRandom(this.#random.bits()),
      disk: { ...this.#shape.disk, beforeCall: (call) => this.#count(`disk ${call.kind}`) },
      ...(mutants ? { mutants } : {}),
    }
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error
  }

  #count(what: string): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1)
  }
}

function shapeOf(random: SeededRandom): Shape {
  const chunkBytes = random.pick([4096, 4096, 8192, 16384])
  const isDevice = random.chance(0.3)
  return {
    chunkBytes,
    inFlightMax: random.pick([1, 3, 8, 16]),
    disk: {
      completion: 'scheduled',
      canPunch: random.chance(0.7),
      now: random.pick(['always', 'never', 'random', 'random'] as const),
      ...(isDevice ? { device: { name: '/dev/disk', sizeBytes: 400 * chunkBytes } } : {}),
    },
  }
}

/** A medium whose device, if it has one, is full of somebody's old bytes. */
function garbageDevice(shape: Shape, scheduler: Scheduler, random: SeededRandom): SimMedium {
  const disk = new SimDisk({ ...shape.disk, life: new Life(), scheduler, random })
  const { device } = shape.disk
  const file = device && disk.medium.find(device.name)
  if (file) file.finish(file.begin(0, [Buffer.alloc(device.sizeBytes, 0x5a)]))
  return disk.medium.afterKill()
}
