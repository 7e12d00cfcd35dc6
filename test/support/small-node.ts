// A node small enough to look into: an engine with 4 KiB chunks on a simulated disk that a test can fail, kill and cut the power of.
//
// Invariant: nothing here waits for real time; what never happens ends as the scheduler's HangError.
import assert from 'node:assert/strict'
import type { Export, Extent } from '../../nbd/export.js'
import { type Log, silentLog } from '../../src/core/log.js'
import type { OperationRequest } from '../../src/core/operation.js'
import type { OperationResult } from '../../src/engine/api.js'
import { Engine, initGroup } from '../../src/engine/engine.js'
import { SeededRandom } from '../simulation/random.js'
import { Life, Scheduler } from '../simulation/sim-clock.js'
import { SimDisk } from '../simulation/sim-disk.js'
import type { SimMedium } from '../simulation/sim-medium.js'

type SimDiskOptions = ConstructorParameters<typeof SimDisk>[0]
export type Call = Parameters<NonNullable<SimDiskOptions['beforeCall']>>[0]
export type Fault = NonNullable<ReturnType<NonNullable<SimDiskOptions['fault']>>>

export const chunkBytes = 4096
export const journalBytes = 256 * 1024

export type SmallNodeOptions = {
  readonly medium?: SimMedium
  readonly chunkBytes?: number
  readonly journalBytes?: number
  readonly disk?: Partial<SimDiskOptions>
  readonly mutants?: readonly string[]
  readonly log?: Log
  readonly connectionsPerExportMax?: number
}

/** A simulated disk, and what makes it go on. */
export class SmallDisk {
  readonly scheduler = new Scheduler()
  readonly life = new Life()
  readonly random = new SeededRandom(7)
  readonly disk: SimDisk
  /** Every call so far. */
  readonly calls: Call[] = []
  /** Decides which calls fail. */
  fault: (call: Call) => Fault | undefined = () => undefined
  /** Seen before each call. */
  beforeCall: (call: Call) => void = () => {}

  constructor(options: Partial<SimDiskOptions> = {}) {
    this.disk = new SimDisk({
      canPunch: true,
      ...options,
      life: this.life,
      scheduler: this.scheduler,
      random: this.random.fork('disk'),
      beforeCall: (call) => {
        this.calls.push(call)
        this.beforeCall(call)
      },
      fault: (call) => this.fault(call),
    })
  }

  get medium(): SimMedium {
    return this.disk.medium
  }

  get clock() {
    return this.scheduler.clockOf(this.life)
  }

  /** Awaits, making time and the disk go on. */
  async run<T>(work: Promise<T> | T): Promise<T> {
    return work instanceof Promise ? this.scheduler.run(work) : work
  }

  /** What the next process finds when this one was killed. */
  kill(): SimMedium {
    this.life.end()
    return this.medium.afterKill()
  }

  /** What is left when the power fails and nothing survives that was not synced. */
  cutPower(): SimMedium {
    this.life.end()
    const capture = this.medium.capture()
    return capture.after(capture.optionCounts.map(() => 0))
  }

  callsOf(kind: Call['kind'], name?: string): readonly Call[] {
    return this.calls.filter((call) => call.kind === kind && (!name || call.name === name))
  }
}

/** A medium with an empty group on it. */
export async function smallMedium(options: SmallNodeOptions = {}): Promise<SimMedium> {
  const node = new SmallDisk({ ...options.disk })
  await node.run(
    initGroup(node.disk, {
      node: 'a',
      random: node.random,
      clock: node.clock,
      chunkBytes: options.chunkBytes ?? chunkBytes,
      journalBytes: options.journalBytes ?? journalBytes,
      ...(options.disk?.device ? { dataName: options.disk.device.name } : {}),
    }),
  )
  return node.kill()
}

export class SmallNode extends SmallDisk {
  #engine: Engine | undefined

  get engine(): Engine {
    assert(this.#engine)
    return this.#engine
  }

  /** Opens `medium`, or a new empty group. */
  static async start(options: SmallNodeOptions = {}): Promise<SmallNode> {
    const medium = options.medium ?? (await smallMedium(options))
    const node = new SmallNode({ ...options.disk, medium })
    await node.open(options)
    return node
  }

  async open(options: SmallNodeOptions = {}): Promise<void> {
    this.#engine = await this.run(
      Engine.open({
        disk: this.disk,
        clock: this.clock,
        random: this.random,
        log: options.log ?? silentLog,
        mutants: new Set(options.mutants ?? []),
        ...(options.connectionsPerExportMax === undefined
          ? {}
          : { connectionsPerExportMax: options.connectionsPerExportMax }),
      }),
    )
  }

  perform(request: OperationRequest): Promise<OperationResult> {
    return this.run(this.engine.perform(request))
  }

  create(name: string, sizeBytes: number): Promise<OperationResult> {
    return this.perform({ kind: 'volume.create', name, sizeBytes })
  }

  /** `volume@name`. */
  snapshot(full: string): Promise<OperationResult> {
    const [volume = '', name = ''] = full.split('@')
    return this.perform({ kind: 'snapshot.create', stores: [volume], name })
  }

  export(name: string): Export {
    const found = this.engine.exports.find(name)
    assert(found, `there is an export ${name}`)
    return found
  }

  async write(name: string, offset: number, bytes: Buffer, fua = false): Promise<void> {
    const request = { offset, lengthBytes: bytes.length, parts: [bytes], fua }
    await this.run(this.export(name).write(request))
  }

  async read(name: string, offset: number, lengthBytes: number): Promise<Buffer> {
    const target = Buffer.alloc(lengthBytes, 0xee)
    await this.run(this.export(name).read({ offset, target }))
    return target
  }

  async zero(name: string, offset: number, lengthBytes: number, mayUnmap = true): Promise<void> {
    const request = { offset, lengthBytes, fua: false, mayUnmap, fastOnly: false }
    await this.run(this.export(name).zero(request))
  }

  async flush(name: string): Promise<void> {
    await this.run(this.export(name).flush())
  }

  async status(
    name: string,
    context: string,
    range: { readonly offset: number; readonly lengthBytes: number },
  ): Promise<readonly Extent[]> {
    return this.run(
      this.export(name).blockStatus({ context, ...range, extentCountMax: 1000 }) as Extent[],
    )
  }

  async close(): Promise<void> {
    await this.run(this.engine.close())
  }
}

/** A chunk's worth of one byte value. */
export function filled(value: number, lengthBytes = chunkBytes): Buffer {
  return Buffer.alloc(lengthBytes, value)
}
