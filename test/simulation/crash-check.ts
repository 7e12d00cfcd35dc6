// Crash, recover, judge: runs a workload on a simulated node, stops the world before chosen disk calls, and checks what each
// possible medium recovers to.
//
// Checked in every state: recovery succeeds, the structural laws hold, the oracle can explain every byte, a second read sees
// the same. Checked in a seeded part of them: a crash during recovery, and recovering again, change nothing; the store then still works.
import assert from 'node:assert/strict'
import { type Action, Client } from './client.js'
import { LawBroken } from './laws.js'
import type { Catalog } from './model-catalog.js'
import type { Oracle, StoreImage } from './oracle.js'
import { SeededRandom } from './random.js'
import type { Call } from './sim-call.js'
import { Scheduler } from './sim-clock.js'
import type { CrashChoice, MediumCapture, SimMedium } from './sim-medium.js'
import { type NodeOptions, SimNode } from './sim-node.js'
import type { Subject } from './subject.js'

/** Where every workload starts: a medium with everything durable, and what is on it. */
export type Base = { readonly medium: SimMedium; readonly oracle: Oracle }

export type CheckOptions = {
  readonly subject: Subject
  readonly seed: number
  readonly mutants?: ReadonlySet<string>
  readonly disk?: NodeOptions['disk']
}

/** Which of the possible media of a crash point are tried. */
export type ChoicePlan = {
  readonly exhaustiveMax: number
  readonly singles: boolean
  readonly randomCount: number
}

/** How often the costlier checks run: one state in so many. */
export type Depth = {
  readonly again: number
  readonly duringRecovery: number
  readonly after: number
}

export const usualDepth: Depth = { again: 4, duringRecovery: 16, after: 8 }
export const thoroughDepth: Depth = { again: 1, duringRecovery: 4, after: 1 }

type CrashPoint = {
  readonly label: string
  readonly capture: MediumCapture
  readonly oracle: Oracle
}

/** Long enough for every timer of an idle node to have done its work. */
const idleMs = 5000

export class CrashChecker {
  readonly #options: CheckOptions
  readonly #base: Base
  readonly #random: SeededRandom
  /** Distinct media that a crash could leave, each recovered and judged. */
  stateCount = 0
  /** Times that an engine was started, the repeated recoveries included. */
  recoveryCount = 0
  pointCount = 0

  constructor(base: Base, options: CheckOptions) {
    this.#base = base
    this.#options = options
    this.#random = new SeededRandom(options.seed)
  }

  /** Runs the actions one after the other, crashing before the disk calls of the last one and of the idle time behind it. A workload that
   *  uses what is not there any more is passed over. */
  async checkWorkload(
    actions: readonly Action[],
    plan: ChoicePlan,
    depth = usualDepth,
  ): Promise<void> {
    const points: CrashPoint[] = []
    const oracle = this.#base.oracle.fork()
    try {
      await this.#collect(actions, oracle, points)
    } catch (error) {
      throw this.#broken(error, actions, 'while running it', oracle)
    }
    for (const point of points) await this.#checkPoint(point, actions, plan, depth)
  }

  async #collect(actions: readonly Action[], oracle: Oracle, points: CrashPoint[]): Promise<void> {
    const recorder = new PointRecorder(oracle, points)
    const node = await this.#start(this.#base.medium.afterKill(), (call) => recorder.before(call))
    recorder.medium = node.disk.medium
    const client = new Client(node.engine, oracle, this.#random)
    for (const [index, action] of actions.entries()) {
      if (!client.isPossible(action)) return
      recorder.isArmed = index === actions.length - 1
      await node.run(client.act(action))
    }
    await node.scheduler.settle(idleMs)
    recorder.isArmed = false
    recorder.add('after everything')
    await this.#checkLive(node, oracle)
    node.crash()
  }

  async #checkLive(node: SimNode, oracle: Oracle): Promise<void> {
    node.engine.checkInvariants()
    const problem = oracle.judge(await node.readStores(), 'live')
    if (typeof problem === 'string') throw new LawBroken(`live contents are wrong: ${problem}`)
    assert.deepEqual(node.disk.violations, [])
  }

  async #checkPoint(
    point: CrashPoint,
    actions: readonly Action[],
    plan: ChoicePlan,
    depth: Depth,
  ): Promise<void> {
    this.pointCount++
    const seen = new Set<string>()
    for (const choice of point.capture.choices({ ...plan, random: this.#random })) {
      const signature = point.capture.signature(choice)
      if (seen.has(signature)) continue
      seen.add(signature)
      this.stateCount++
      try {
        await this.#checkState(point, choice, actions, depth)
      } catch (error) {
        const where = `crash before ${point.label}, on the medium: [${signature}]`
        throw this.#broken(error, actions, where, point.oracle)
      }
    }
  }

  async #checkState(
    point: CrashPoint,
    choice: CrashChoice,
    actions: readonly Action[],
    depth: Depth,
  ): Promise<void> {
    const duringRecovery: CrashPoint[] = []
    const recorder = new PointRecorder(point.oracle, duringRecovery)
    recorder.isArmed = this.#isChosen(depth.duringRecovery)
    const medium = point.capture.after(choice)
    recorder.medium = medium
    const node = await this.#start(medium, (call) => recorder.before(call))
    recorder.isArmed = false
    const { images, catalog } = await this.#judged(node, point.oracle)
    const second = await node.readStores()
    assertSameImages(images, second, 'read twice')
    const recovered = this.#isChosen(depth.again) ? medium.capture() : undefined
    if (this.#isChosen(depth.after)) {
      await this.#checkWorks(node, point.oracle, images, catalog, actions)
    }
    node.crash()
    for (const { capture, label } of duringRecovery) {
      await this.#checkAgain(capture, images, `crash in recovery, before ${label}`)
    }
    if (recovered) await this.#checkAgain(recovered, images, 'crash after recovery')
  }

  async #judged(
    node: SimNode,
    oracle: Oracle,
  ): Promise<{ images: readonly StoreImage[]; catalog: Catalog }> {
    node.engine.checkInvariants()
    const images = await node.readStores()
    const catalog = oracle.judge(images, 'crash')
    if (typeof catalog === 'string')
      throw new LawBroken(`recovered to an illegal state:\n${catalog}`)
    return { images, catalog }
  }

  /** A recovery that was itself cut short must come to the same contents. */
  async #checkAgain(
    capture: MediumCapture,
    images: readonly StoreImage[],
    label: string,
  ): Promise<void> {
    const node = await this.#start(capture.after(capture.randomChoice(this.#random)))
    assertSameImages(images, await node.readStores(), label)
    node.engine.checkInvariants()
    node.crash()
  }

  /** Write, flush, read; then lose everything that was not flushed, and judge once more. */
  async #checkWorks(
    node: SimNode,
    before: Oracle,
    images: readonly StoreImage[],
    catalog: Catalog,
    actions: readonly Action[],
  ): Promise<void> {
    const volume = [...catalog.stores.values()].find((store) => store.volumeId === undefined)
    if (!volume) return
    const oracle = before.fork()
    oracle.rebase(images, catalog)
    const client = new Client(node.engine, oracle, this.#random)
    // The first of the same again: a record that the crash cut off is followed by one of the very same length, and behind it
    // lies what the crash left.
    const repeated = actions.slice(0, this.#random.below(actions.length + 1))
    for (const action of repeated) {
      if (client.isPossible(action)) await node.run(client.act(action))
    }
    const store = catalog.fullName(volume)
    if (repeated.length === 0) await this.#writeSomewhere(node, client, store, volume.sizeBytes)
    if (!client.isPossible({ kind: 'flush', store })) return
    assert.equal(await node.run(client.act({ kind: 'flush', store })), 'done')
    await this.#checkLive(node, oracle)
    node.crash()
    const capture = node.disk.medium.capture()
    const again = await this.#start(capture.after(capture.optionCounts.map(() => 0)))
    await this.#judged(again, oracle)
    again.crash()
  }

  async #writeSomewhere(
    node: SimNode,
    client: Client,
    store: string,
    sizeBytes: number,
  ): Promise<void> {
    const lengthBytes = Math.min(sizeBytes, 512 + this.#random.below(6000))
    const offset = this.#random.below(sizeBytes - lengthBytes + 1)
    const kind = this.#random.chance(0.2) ? 'zero' : 'write'
    assert.equal(await node.run(client.act({ kind, store, offset, lengthBytes })), 'done')
  }

  async #start(medium: SimMedium, beforeCall?: (call: Call) => void): Promise<SimNode> {
    this.recoveryCount++
    const { subject, mutants, disk } = this.#options
    return SimNode.start({
      subject,
      medium,
      scheduler: new Scheduler(),
      random: new SeededRandom(this.#random.bits()),
      ...(mutants ? { mutants } : {}),
      disk: { ...disk, ...(beforeCall ? { beforeCall } : {}) },
    })
  }

  #isChosen(oneIn: number): boolean {
    return oneIn > 0 && this.#random.below(oneIn) === 0
  }

  #broken(error: unknown, actions: readonly Action[], where: string, oracle: Oracle): LawBroken {
    const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
    const lines = [
      reason,
      `workload: ${JSON.stringify(actions)}`,
      where,
      `history since the base:\n${oracle.describe()}`,
    ]
    return new LawBroken(lines.join('\n'), { cause: error })
  }
}

/** Keeps the state of medium and oracle before each disk call after which a crash would differ. */
class PointRecorder {
  readonly #oracle: Oracle
  readonly #points: CrashPoint[]
  #last = ''
  medium: SimMedium | undefined
  isArmed = false

  constructor(oracle: Oracle, points: CrashPoint[]) {
    this.#oracle = oracle
    this.#points = points
  }

  before(call: Call): void {
    if (this.isArmed) this.add(`call ${call.index} (${call.kind} ${call.name} ${call.offset})`)
  }

  add(label: string): void {
    assert(this.medium)
    const version = `${this.medium.changeCount} ${this.#oracle.changeCount}`
    if (version === this.#last) return
    this.#last = version
    this.#points.push({ label, capture: this.medium.capture(), oracle: this.#oracle.fork() })
  }
}

function assertSameImages(
  expected: readonly StoreImage[],
  found: readonly StoreImage[],
  label: string,
): void {
  const names = (images: readonly StoreImage[]) => images.map(({ name }) => name).sort()
  assert.deepEqual(names(found), names(expected), label)
  for (const { name, bytes } of expected) {
    const other = found.find((image) => image.name === name)
    if (other?.bytes.equals(bytes)) continue
    throw new LawBroken(`${label}: ${name} differs`)
  }
}
