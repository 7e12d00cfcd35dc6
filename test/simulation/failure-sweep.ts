// The n-th-failure sweep: the same actions again and again, each time with another disk call that fails, once or for good. After each
// the laws hold: every request settles, a failed sync is final until a restart, what failed changed nothing, and recovery is legal.
import assert from 'node:assert/strict'
import { checkQuiet } from './check-quiet.js'
import { type Action, Client, type Outcome } from './client.js'
import type { Base, CheckOptions } from './crash-check.js'
import { describe, LawBroken } from './laws.js'
import type { Oracle } from './oracle.js'
import { SeededRandom } from './random.js'
import type { Call, CallKind, Fault } from './sim-call.js'
import { Scheduler } from './sim-clock.js'
import { type NodeOptions, SimNode } from './sim-node.js'
import { actionsOf } from './workloads.js'

export type FailureKind = {
  readonly name: string
  readonly fault: Fault
  readonly calls: readonly CallKind[]
  readonly forGood: boolean
}

const writes: readonly CallKind[] = ['write', 'writeNow']
const others: readonly CallKind[] = [
  'open',
  'rename',
  'remove',
  'list',
  'syncDirectory',
  'truncate',
  'size',
]

export const failureKinds: readonly FailureKind[] = [true, false].flatMap((forGood) => {
  const when = forGood ? 'for good' : 'once'
  return [
    { name: `EIO on writes ${when}`, fault: { errno: 'EIO' }, calls: writes, forGood },
    { name: `ENOSPC on writes ${when}`, fault: { errno: 'ENOSPC' }, calls: writes, forGood },
    { name: `short writes ${when}`, fault: 'short', calls: writes, forGood },
    { name: `EIO on reads ${when}`, fault: { errno: 'EIO' }, calls: ['read', 'readNow'], forGood },
    { name: `failed syncs ${when}`, fault: { errno: 'EIO' }, calls: ['sync'], forGood },
    { name: `EIO on punches ${when}`, fault: { errno: 'EIO' }, calls: ['punch'], forGood },
    { name: `EIO on names ${when}`, fault: { errno: 'EIO' }, calls: others, forGood },
    { name: `ENOSPC on names ${when}`, fault: { errno: 'ENOSPC' }, calls: others, forGood },
  ] as const
})

/** Each kind of action with what makes its consequences show: overlapping writes before, a flush and more writes behind. */
export function sweepWorkloads(names: readonly string[]): readonly (readonly Action[])[] {
  return names.map((name) =>
    actionsOf([
      'write two chunks',
      name,
      'write hole',
      'flush',
      'write unaligned',
      'checkpoint',
      'snapshot',
      name,
      'write',
      'write FUA',
      'flush',
    ]),
  )
}

export type SweepOptions = CheckOptions & { readonly base: Base; readonly kind: FailureKind }

export class Sweeper {
  readonly #options: SweepOptions
  readonly #random: SeededRandom
  /** Runs with a failure in them. */
  runCount = 0

  constructor(options: SweepOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
  }

  /** Fails each call of the kind in turn. */
  async sweep(actions: readonly Action[]): Promise<void> {
    for (let index = 0; ; index++) {
      const trial = new Trial(this.#options, index, new SeededRandom(this.#random.bits()))
      const oracle = this.#options.base.oracle.fork()
      try {
        if (!(await trial.run(actions, oracle))) return
      } catch (error) {
        throw new LawBroken(
          [
            describe(error),
            `${this.#options.kind.name}, call ${index}: ${trial.failedCall}`,
            `workload: ${JSON.stringify(actions)}`,
            `outcomes: ${JSON.stringify(trial.outcomes)}`,
            `history since the base:\n${oracle.describe()}`,
          ].join('\n'),
          { cause: error },
        )
      }
      this.runCount++
    }
  }
}

class Trial {
  readonly #options: SweepOptions
  readonly #random: SeededRandom
  readonly #failAt: number
  readonly outcomes: Outcome[] = []
  #matching = 0
  #isHealed = false
  #isSyncFailed = false
  failedCall = 'none'

  constructor(options: SweepOptions, failAt: number, random: SeededRandom) {
    this.#options = options
    this.#failAt = failAt
    this.#random = random
  }

  /** Whether a call failed: if not, the sweep is through. */
  async run(actions: readonly Action[], oracle: Oracle): Promise<boolean> {
    const options = this.#nodeOptions(new Scheduler())
    const node = await this.#tryStart(options)
    if (node) await this.#act(node, actions, oracle)
    if (this.failedCall === 'none') return false
    const medium = node ? node.disk.medium : options.medium
    assert(medium)
    await this.#recover(
      oracle,
      this.#random.chance(0.5) ? medium.afterKill() : this.#crashed(medium),
    )
    return true
  }

  /** A start may be refused with a LockstepError or the disk's own error, and must settle. */
  async #tryStart(options: NodeOptions): Promise<SimNode | undefined> {
    try {
      return await SimNode.start(options)
    } catch (error) {
      if (this.failedCall === 'none') throw error
      const { name, code } = error as { name?: unknown; code?: unknown }
      if (name !== 'LockstepError' && typeof code !== 'string') throw error
      return undefined
    }
  }

  async #act(node: SimNode, actions: readonly Action[], oracle: Oracle): Promise<void> {
    const client = new Client(node.engine, oracle, this.#random)
    client.isFullClean = false
    for (const action of actions) {
      client.mayFail = this.failedCall !== 'none' || this.#failAt >= this.#matching
      if (!client.isPossible(action)) continue
      const wasSyncFailed = this.#isSyncFailed
      const outcome = await node.run(client.act(action))
      this.outcomes.push(outcome)
      const isDurable =
        action.kind === 'flush' || action.kind === 'perform' || ('fua' in action && action.fua)
      if (wasSyncFailed && isDurable && outcome === 'done') {
        throw new LawBroken(`done after a failed sync: ${JSON.stringify(action)}`)
      }
      await node.scheduler.settle(this.#random.chance(0.3) ? 1500 : 0)
    }
    this.#isHealed = true
    await checkQuiet(node, oracle)
    if (this.#random.chance(0.5)) await this.#close(node)
    node.crash()
  }

  /** Settles; rejects only after a failure. */
  async #close(node: SimNode): Promise<void> {
    try {
      await node.run(node.engine.close())
    } catch (error) {
      if (!this.#isSyncFailed && node.engine.status().failure === undefined) throw error
    }
  }

  async #recover(oracle: Oracle, medium: NodeOptions['medium']): Promise<void> {
    const node = await SimNode.start({
      subject: this.#options.subject,
      scheduler: new Scheduler(),
      random: this.#random.fork('recovery'),
      ...(medium ? { medium } : {}),
    })
    node.engine.checkInvariants()
    const images = await node.readStores()
    const catalog = oracle.judge(images, 'crash')
    if (typeof catalog === 'string')
      throw new LawBroken(`recovered to an illegal state:\n${catalog}`)
    oracle.rebase(images, catalog)
    const client = new Client(node.engine, oracle, this.#random)
    for (const action of actionsOf(['write', 'write hole', 'flush'])) {
      if (client.isPossible(action)) assert.equal(await node.run(client.act(action)), 'done')
    }
    await checkQuiet(node, oracle)
    node.crash()
  }

  #crashed(medium: SimNode['disk']['medium']): SimNode['disk']['medium'] {
    const capture = medium.capture()
    return capture.after(capture.randomChoice(this.#random))
  }

  #nodeOptions(scheduler: Scheduler): NodeOptions {
    const { subject, mutants, base, disk } = this.#options
    return {
      subject,
      scheduler,
      random: this.#random.fork('node'),
      medium: base.medium.afterKill(),
      ...(mutants ? { mutants } : {}),
      disk: { now: 'random', ...disk, fault: (call) => this.#fault(call) },
    }
  }

  #fault(call: Call): Fault | undefined {
    const { kind } = this.#options
    if (this.#isHealed || !kind.calls.includes(call.kind)) return undefined
    const index = this.#matching++
    const isHit = kind.forGood ? index >= this.#failAt : index === this.#failAt
    if (!isHit) return undefined
    if (this.failedCall === 'none') this.failedCall = `${call.kind} ${call.name} ${call.offset}`
    // A checkpoint is a file of its own: when it cannot be written, the old one and the journal go on.
    if (call.kind === 'sync' && !call.name.includes('checkpoint')) this.#isSyncFailed = true
    return kind.fault
  }
}
