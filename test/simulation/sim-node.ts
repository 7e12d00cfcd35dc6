// One simulated node: an engine on its simulated disk, from a start to a crash. Several nodes share one scheduler.
import assert from 'node:assert/strict'
import { silentLog } from '../../src/core/log.js'
import type { StoreImage } from './oracle.js'
import type { SeededRandom } from './random.js'
import type { Call, SimDiskOptions } from './sim-call.js'
import { Life, type Scheduler } from './sim-clock.js'
import { SimDisk } from './sim-disk.js'
import type { SimMedium } from './sim-medium.js'
import type { Subject, SubjectEngine } from './subject.js'

export type NodeOptions = {
  readonly subject: Subject
  readonly medium?: SimMedium
  readonly scheduler: Scheduler
  readonly random: SeededRandom
  readonly mutants?: ReadonlySet<string>
  readonly node?: string
  readonly disk?: Partial<
    Pick<
      SimDiskOptions,
      | 'completion'
      | 'canPunch'
      | 'now'
      | 'capacityBytes'
      | 'device'
      | 'beforeCall'
      | 'fault'
      | 'shortUnitBytes'
    >
  >
}

export type InitOptions = { readonly chunkBytes: number; readonly journalBytes: number }

export class SimNode {
  readonly scheduler: Scheduler
  readonly life: Life
  readonly disk: SimDisk
  readonly engine: SubjectEngine

  private constructor(life: Life, disk: SimDisk, engine: SubjectEngine, scheduler: Scheduler) {
    this.life = life
    this.disk = disk
    this.engine = engine
    this.scheduler = scheduler
  }

  /** A medium with an empty group on it, everything durable. */
  static async init(options: NodeOptions, init: InitOptions): Promise<SimMedium> {
    const { life, disk } = diskFor(options)
    const dataName = options.disk?.device?.name
    const { subject, scheduler, random, node } = options
    const clock = scheduler.clockOf(life)
    await scheduler.run(
      subject.init(disk, {
        node: node ?? 'a',
        ...init,
        ...(dataName === undefined ? {} : { dataName, overwrite: true }),
        random: random.fork('init'),
        clock,
      }),
    )
    life.end()
    assert.deepEqual(disk.violations, [])
    return disk.medium.afterKill()
  }

  /** Starts an engine on what the medium holds: recovery. */
  static start(options: NodeOptions): Promise<SimNode> {
    return options.scheduler.run(SimNode.startUntil(options, () => false).started)
  }

  /** Starts an engine whose life ends before the disk call for which `isCut` says so: `started` then never settles. */
  static startUntil(
    options: NodeOptions,
    isCut: (call: Call) => boolean,
  ): { readonly life: Life; readonly started: Promise<SimNode> } {
    const { subject, scheduler, random, mutants } = options
    const beforeCall = (call: Call) => {
      options.disk?.beforeCall?.(call)
      if (isCut(call)) life.end()
    }
    const { life, disk } = diskFor({ ...options, disk: { ...options.disk, beforeCall } })
    const opened = subject.open({
      disk,
      clock: scheduler.clockOf(life),
      random: random.fork('engine'),
      log: silentLog,
      ...(mutants ? { mutants } : {}),
    })
    const started = opened.then((engine) => new SimNode(life, disk, engine, scheduler))
    return { life, started }
  }

  run<T>(work: Promise<T>): Promise<T> {
    return this.scheduler.run(work)
  }

  /** Everything under way ends here and never completes. */
  crash(): void {
    this.life.end()
  }

  /** The content of every store, each read at once. */
  async readStores(): Promise<readonly StoreImage[]> {
    const images: StoreImage[] = []
    for (const { name } of this.engine.exports.list()) {
      const found = this.engine.exports.find(name)
      assert(found)
      const bytes = Buffer.alloc(found.sizeBytes, 0xee)
      if (bytes.length > 0) await this.finish(found.read({ offset: 0, target: bytes }))
      images.push({ name, bytes })
    }
    return images
  }

  /** Awaits what the hot path may answer at once. */
  async finish<T>(answer: Promise<T> | T): Promise<T> {
    return answer instanceof Promise ? this.run(answer) : answer
  }
}

function diskFor(options: NodeOptions): { life: Life; disk: SimDisk } {
  const life = new Life(options.node)
  const { scheduler, random, medium } = options
  const disk = new SimDisk({
    canPunch: true,
    now: 'always',
    ...options.disk,
    life,
    scheduler,
    random: random.fork('disk'),
    ...(medium ? { medium } : {}),
  })
  return { life, disk }
}
