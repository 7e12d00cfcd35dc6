// One of the two nodes: its medium and its present life, from a start to a crash and to the next start. Nothing here waits: a node that starts may
// crash before it has recovered, while the other one goes on.
import assert from 'node:assert/strict'
import type { EngineEvent, ReplicationOptions } from '../../../src/engine/api.js'
import type { ActiveLimits } from '../../../src/storage/pool-tracking.js'
import type { SeededRandom } from '../random.js'
import type { Call } from '../sim-call.js'
import type { Life, Scheduler } from '../sim-clock.js'
import type { CrashChoice, MediumCapture, SimMedium } from '../sim-medium.js'
import { type NodeOptions, SimNode } from '../sim-node.js'
import type { PairDiskFaults } from './pair-disk-faults.js'
import type { PairEngine, PairSubject, Role } from './pair-subject.js'
import type { SimNetwork } from './sim-network.js'

export type PairNodeOptions = {
  readonly subject: PairSubject
  readonly role: Role
  readonly name: string
  readonly peerName: string
  readonly scheduler: Scheduler
  readonly network: SimNetwork
  readonly random: SeededRandom
  readonly mutants: ReadonlySet<string>
  readonly disk: NonNullable<NodeOptions['disk']>
  readonly replication: Omit<ReplicationOptions, 'connect' | 'peerUri' | 'mode'>
  readonly onCall: (call: Call) => void
  readonly onEvent?: (event: EngineEvent) => void
  readonly faults?: PairDiskFaults
  readonly activeLimits?: ActiveLimits
}

/** What kind of end a life comes to. */
export type EndKind = 'kill' | 'power loss'

/** Which of the possible media a power loss leaves. */
export type Choose = (capture: MediumCapture, random: SeededRandom) => CrashChoice

export class PairNode {
  readonly #options: PairNodeOptions
  readonly name: string
  readonly role: Role
  #medium: SimMedium
  #life: Life | undefined
  #node: SimNode | undefined
  #engine: PairEngine | undefined
  /** Set when a start fails: recovery must always succeed. */
  failure: unknown

  private constructor(options: PairNodeOptions, medium: SimMedium) {
    this.#options = options
    this.#medium = medium
    this.name = options.name
    this.role = options.role
  }

  static async init(
    options: PairNodeOptions,
    init: { readonly chunkBytes: number; readonly journalBytes: number },
  ): Promise<PairNode> {
    const { subject, role, scheduler, random, name, disk } = options
    const medium = await SimNode.init(
      {
        subject: {
          name: subject.name,
          init: (target, common) => subject.init(target, { ...common, role }),
          open: () => assert.fail('init opens nothing'),
        },
        scheduler,
        random: random.fork('init'),
        node: name,
        disk,
      },
      init,
    )
    return new PairNode(options, medium)
  }

  /** A node that is down, on what is there already. */
  static on(options: PairNodeOptions, medium: SimMedium): PairNode {
    return new PairNode(options, medium)
  }

  /** Undefined until it has recovered, and when it is down. */
  get engine(): PairEngine | undefined {
    return this.#engine
  }

  get running(): SimNode | undefined {
    return this.#node
  }

  get isDown(): boolean {
    return this.#life === undefined
  }

  get life(): Life | undefined {
    return this.#life
  }

  /** Recovers, then connects or listens. Returns when it has begun to. */
  start(mode: ReplicationOptions['mode']): void {
    assert.equal(this.#life, undefined)
    const { life, started } = SimNode.startUntil(this.#nodeOptions(mode), () => false)
    this.#life = life
    started.then(
      (node) => {
        if (!life.isEnded) this.#up(node, life)
      },
      (error: unknown) => {
        if (!life.isEnded) this.failure = error
      },
    )
  }

  /** Everything that a crash at this moment could leave. */
  capture(): MediumCapture {
    return this.#medium.capture()
  }

  /** Ends the life; the medium afterwards is what `kind` leaves of it. */
  end(kind: EndKind, random: SeededRandom, choose: Choose = choiceFor): void {
    const life = this.#life
    assert(life)
    life.end()
    this.#checkViolations()
    const { network } = this.#options
    for (const connection of network.connections) {
      if (kind === 'kill') connection.killed(life)
      else connection.powerLost(life)
    }
    if (kind === 'power loss') network.unlisten(this.name)
    this.#medium =
      kind === 'kill' ? this.#medium.afterKill() : crashed(this.#medium, random, choose)
    this.#life = undefined
    this.#node = undefined
    this.#engine = undefined
  }

  /** A medium that a crash at this moment could leave; what it holds when the node is down. */
  mediumNow(random: SeededRandom, choose?: Choose): SimMedium {
    return this.isDown ? this.#medium.afterKill() : crashed(this.#medium, random, choose)
  }

  get medium(): SimMedium {
    return this.#medium
  }

  /** Flips a bit of these bytes wherever the data file has them, durably. Answers in how many places. */
  damage(sector: Buffer): number {
    const file = this.#medium.find('data')
    assert(file)
    const found = Buffer.alloc(sector.length)
    let count = 0
    for (let offset = 0; offset < file.lengthBytes; offset += sector.length) {
      if (file.read(found, offset) < found.length || !found.equals(sector)) continue
      const wrong = Buffer.from(found)
      wrong.writeUInt8(wrong.readUInt8(5) ^ 1, 5)
      file.finish(file.begin(offset, [wrong]))
      file.finishSync(file.beginSync())
      count++
    }
    return count
  }

  /** Ends in order: everything flushed. */
  async close(): Promise<void> {
    assert(this.#engine)
    await this.#options.scheduler.run(this.#engine.close())
    this.#life?.end()
    this.#checkViolations()
    this.#medium = this.#medium.afterKill()
    this.#life = undefined
  }

  #up(node: SimNode, life: Life): void {
    this.#node = node
    // The subject that started it answers with a PairEngine.
    const engine = node.engine as PairEngine
    this.#engine = engine
    engine.checkInvariants()
    const { network, role, peerName, onEvent } = this.#options
    if (onEvent) engine.onEvent(onEvent)
    if (role === 'primary') return
    network.listen(this.name, life, (stream) => {
      engine.acceptPeer(stream, peerName).catch((error: unknown) => {
        this.failure = error
      })
    })
  }

  #nodeOptions(mode: ReplicationOptions['mode']): NodeOptions {
    const { subject, role, peerName, network, replication, onCall } = this.#options
    const { scheduler, random, name, disk, mutants, faults, activeLimits } = this.#options
    return {
      subject: {
        name: subject.name,
        init: () => assert.fail('a node that starts is not made'),
        open: (common) =>
          subject.open({
            ...common,
            ...(activeLimits ? { activeLimits } : {}),
            replication: {
              ...replication,
              ...(mode ? { mode } : {}),
              ...(role === 'primary' ? { peerUri: `nbd://${peerName}` } : {}),
              connect: () => {
                assert(this.#life)
                return network.connect(this.#life, peerName)
              },
            },
          }),
      },
      medium: this.#medium,
      scheduler,
      random: random.fork(`life ${random.bits()}`),
      node: name,
      mutants,
      disk: {
        ...disk,
        ...(faults ? { fault: faults.fault, capacityBytes: faults.capacityBytes } : {}),
        beforeCall: onCall,
      },
    }
  }

  #checkViolations(): void {
    assert.deepEqual(this.#node?.disk.violations ?? [], [])
    assert.deepEqual(this.#options.network.violations, [])
  }
}

function crashed(medium: SimMedium, random: SeededRandom, choose: Choose = choiceFor): SimMedium {
  const capture = medium.capture()
  return capture.after(choose(capture, random))
}

/** Nothing of what was not synced, or all of it, or anything between. */
function choiceFor(capture: MediumCapture, random: SeededRandom): CrashChoice {
  const kind = random.below(8)
  if (kind === 0) return capture.optionCounts.map(() => 0)
  if (kind === 1) return capture.optionCounts.map((count) => count - 1)
  return capture.randomChoice(random)
}
