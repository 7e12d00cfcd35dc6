// Two engines, a primary and a secondary, on simulated disks and a simulated network, small enough to look into: a test cuts the network, fails a disk call,
// kills a node, or takes the place of one of them.
//
// Invariant: nothing here waits for real time; what never happens ends as the scheduler's HangError.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { Export } from '../../nbd/export.js'
import { silentLog } from '../../src/core/log.js'
import type { OperationRequest } from '../../src/core/operation.js'
import type { OperationResult, PeerStatus, ReplicationOptions } from '../../src/engine/api.js'
import { Engine, initGroup } from '../../src/engine/engine.js'
import { SimNetwork } from '../simulation/pair/sim-network.js'
import type { PipeShape } from '../simulation/pair/sim-pipe.js'
import { SeededRandom } from '../simulation/random.js'
import { Life, Scheduler } from '../simulation/sim-clock.js'
import { SimDisk } from '../simulation/sim-disk.js'
import type { SimMedium } from '../simulation/sim-medium.js'
import type { Call, Fault } from './small-node.js'

export type Role = 'primary' | 'secondary'

export type PairOptions = {
  readonly chunkBytes?: number
  readonly journalBytes?: number
  readonly replication?: Partial<ReplicationOptions>
  /** Of a: `secondary` by default is b only. */
  readonly roles?: readonly [Role, Role]
  readonly mutants?: readonly string[]
  /** Disk calls take a step each: something can come between. */
  readonly isSlow?: boolean
  /** Nor is a read or a write ever done at once. */
  readonly isNeverNow?: boolean
}

type KnownPeer = PeerStatus & {
  readonly [key in 'lagBytes' | 'lacksBytes' | 'dirtyBytes' | 'opLogEntries']: number
}

const shape: PipeShape = {
  capacityBytes: 65536,
  pieceBytesMax: 65536,
  delayShare: 0,
  delayMsMax: 0,
}
const waitMs = 60_000

/** One of the two: a disk, and the engine that runs on it now. */
export class PairedNode {
  readonly name: string
  readonly role: Role
  readonly #pair: EnginePair
  #medium: SimMedium | undefined
  #life = new Life()
  #disk: SimDisk | undefined
  #engine: Engine | undefined
  #startCount = 0
  #initCount = 0
  /** Decides which disk calls fail. */
  fault: (call: Call) => Fault | undefined = () => undefined
  /** Decides which answers of the disk never come. */
  beforeCall: (call: Call) => void = () => {}
  /** Slow disks only: a call is completed when this resolves. */
  hold: (call: Pick<Call, 'kind' | 'name'>) => Promise<void> | undefined = () => undefined
  /** What acceptPeer rejected with: it never does. */
  failure: unknown

  constructor(pair: EnginePair, name: string, role: Role) {
    this.#pair = pair
    this.name = name
    this.role = role
  }

  get engine(): Engine {
    assert(this.#engine, `node ${this.name} is up`)
    return this.#engine
  }

  get life(): Life {
    return this.#life
  }

  /** As a primary tells it: a secondary knows less. */
  get peer(): KnownPeer {
    const [peer] = this.engine.status().peers
    assert(peer, `node ${this.name} has a peer`)
    return peer as KnownPeer
  }

  get link(): string {
    return this.peer.link
  }

  get storeNames(): readonly string[] {
    return this.engine
      .status()
      .stores.map((store) => store.name)
      .sort()
  }

  async init(): Promise<void> {
    const { options, scheduler, random } = this.#pair
    this.#newLife()
    await scheduler.run(
      initGroup(this.#openDisk(), {
        node: this.name,
        role: this.role,
        random: random.fork(`init ${this.name}${'again'.repeat(this.#initCount++)}`),
        clock: scheduler.clockOf(this.#life),
        chunkBytes: options.chunkBytes ?? 4096,
        journalBytes: options.journalBytes ?? 1024 * 1024,
      }),
    )
    this.#end()
  }

  /** Opens what is on the disk; a secondary listens, a primary connects unless `isAlone`. */
  async start(options: { readonly isAlone?: boolean; readonly peerName?: string } = {}) {
    const { scheduler, network, random } = this.#pair
    this.#newLife()
    const life = this.#life
    const peerName = options.peerName ?? (this.name === 'a' ? 'b' : 'a')
    this.#engine = await scheduler.run(
      Engine.open({
        disk: this.#openDisk(),
        clock: scheduler.clockOf(life),
        random: random.fork(`${this.name} ${this.#startCount++}`),
        log: silentLog,
        mutants: new Set(this.#pair.options.mutants ?? []),
        replication: {
          connect: (uri) => this.#pair.connect(life, uri.slice('nbd://'.length)),
          ...(this.role === 'primary' && options.isAlone !== true
            ? { peerUri: `nbd://${peerName}` }
            : {}),
          ...this.#pair.options.replication,
        },
      }),
    )
    network.listen(this.name, life, (stream) => this.accept(stream))
  }

  /** What a listener does with a connection from the other node. */
  accept(stream: Duplex): void {
    this.engine.acceptPeer(stream, 'there').catch((error: unknown) => {
      this.failure = error
    })
  }

  /** Stops in the middle of whatever it does: what was not synced is lost. */
  crash(): void {
    for (const connection of this.#pair.network.connections) connection.killed(this.#life)
    this.#life.end()
    const medium = this.#disk?.medium
    assert(medium)
    const capture = medium.capture()
    this.#medium = capture.after(capture.optionCounts.map(() => 0))
    this.#engine = undefined
  }

  /** Copies what is durable on the disk; the answer puts the copy in its place, between two starts. */
  copyDisk(): () => void {
    const medium = this.#disk?.medium
    assert(medium)
    const capture = medium.capture()
    const copy = capture.after(capture.optionCounts.map(() => 0))
    return () => {
      this.#medium = copy
    }
  }

  /** The machine is gone, and its disk with it: `init` makes a new one. */
  burn(): void {
    this.kill()
    this.#medium = undefined
  }

  /** The process ends; what it wrote stays. */
  kill(): void {
    for (const connection of this.#pair.network.connections) connection.killed(this.#life)
    this.#end()
  }

  async close(): Promise<void> {
    await this.#pair.scheduler.run(this.engine.close())
    this.#end()
  }

  perform(request: OperationRequest): Promise<OperationResult> {
    return this.#pair.scheduler.run(this.engine.perform(request))
  }

  create(name: string, sizeBytes = 65536): Promise<OperationResult> {
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

  /** Begins a write: the answer is for the caller to wait for. */
  begin(name: string, offset: number, bytes: Buffer, fua = false): Promise<void> {
    const request = { offset, lengthBytes: bytes.length, parts: [bytes], fua }
    return Promise.resolve(this.export(name).write(request))
  }

  async write(name: string, offset: number, bytes: Buffer, fua = false): Promise<void> {
    await this.#pair.scheduler.run(this.begin(name, offset, bytes, fua))
  }

  async read(name: string, offset: number, lengthBytes: number): Promise<Buffer> {
    const target = Buffer.alloc(lengthBytes, 0xee)
    await this.#pair.scheduler.run(Promise.resolve(this.export(name).read({ offset, target })))
    return target
  }

  /** As a failing medium: what of the data file is `bytes` becomes `other`, and nobody notices. */
  rot(bytes: Buffer, other: Buffer): void {
    const file = this.#disk?.medium.find('data')
    assert(file)
    const found = Buffer.alloc(bytes.length)
    let count = 0
    for (let offset = 0; offset < file.lengthBytes; offset += bytes.length) {
      file.read(found, offset)
      if (!found.equals(bytes)) continue
      file.finish(file.begin(offset, [other]))
      count++
    }
    assert(count > 0, 'the bytes were there')
  }

  flush(name: string): Promise<void> {
    return this.#pair.scheduler.run(Promise.resolve(this.export(name).flush()))
  }

  /** A digest of each store of the stream, by name. */
  async digests(): Promise<{ readonly [name: string]: string }> {
    const found: { [name: string]: string } = {}
    for (const { name, sizeBytes, isLocal } of this.engine.status().stores) {
      if (isLocal === true) continue
      const bytes = await this.read(name, 0, sizeBytes)
      found[name] = createHash('sha256').update(bytes).digest('hex').slice(0, 16)
    }
    return found
  }

  #newLife(): void {
    this.#life = new Life(this.name)
  }

  #openDisk(): SimDisk {
    const { scheduler, random, options } = this.#pair
    this.#disk = new SimDisk({
      canPunch: true,
      ...(options.isSlow === true ? { completion: 'scheduled' } : { now: 'always' }),
      ...(options.isNeverNow === true ? { now: 'never' } : {}),
      life: this.#life,
      scheduler,
      random: random.fork('disk'),
      ...(this.#medium === undefined ? {} : { medium: this.#medium }),
      beforeCall: (call) => this.beforeCall(call),
      fault: (call) => this.fault(call),
      hold: (call) => this.hold(call),
    })
    return this.#disk
  }

  #end(): void {
    this.#life.end()
    assert(this.#disk)
    assert.deepEqual(this.#disk.violations, [])
    this.#medium = this.#disk.medium.afterKill()
    this.#engine = undefined
  }
}

export class EnginePair {
  readonly scheduler = new Scheduler()
  readonly random = new SeededRandom(11)
  readonly network: SimNetwork
  readonly options: PairOptions
  readonly a: PairedNode
  readonly b: PairedNode
  /** What a connection attempt gets. */
  connect: (life: Life, name: string) => Promise<Duplex>

  private constructor(options: PairOptions) {
    this.options = options
    const { scheduler, random } = this
    this.network = new SimNetwork({ scheduler, random: random.fork('network'), shape })
    this.connect = (life, name) => this.network.connect(life, name)
    const [first, second] = options.roles ?? ['primary', 'secondary']
    this.a = new PairedNode(this, 'a', first)
    this.b = new PairedNode(this, 'b', second)
  }

  /** Two nodes that are made and not started. */
  static async make(options: PairOptions = {}): Promise<EnginePair> {
    const pair = new EnginePair(options)
    await pair.a.init()
    await pair.b.init()
    return pair
  }

  /** Both are up and in sync, with a volume `vol0`. */
  static async inSync(options: PairOptions = {}): Promise<EnginePair> {
    const pair = await EnginePair.make(options)
    await pair.b.start()
    await pair.a.start()
    await pair.a.create('vol0')
    await pair.sync()
    return pair
  }

  run<T>(work: Promise<T>): Promise<T> {
    return this.scheduler.run(work)
  }

  sync(): Promise<void> {
    return this.run(this.a.engine.waitFor('in-sync', waitMs))
  }

  /** Takes steps until it is so. */
  async until(isSo: () => boolean, what: string): Promise<void> {
    for (let step = 0; step < 20_000; step++) {
      if (isSo()) return
      if (!(await this.scheduler.step())) await this.scheduler.elapse(1)
    }
    assert.fail(`never: ${what}`)
  }

  /** Nobody is reached any more, and whoever is connected hears of it. */
  cut(): void {
    this.network.state = 'refusing'
    for (const connection of this.network.connections) connection.cut('reset')
  }

  mend(): void {
    this.network.state = 'up'
  }

  /** Cuts, and waits until both know. */
  async part(): Promise<void> {
    this.cut()
    await this.until(() => ['offline', 'connecting'].includes(this.a.link), 'a is offline')
    await this.until(() => this.b.link === 'offline', 'b is offline')
  }

  async same(): Promise<void> {
    assert.deepEqual(await this.b.digests(), await this.a.digests())
    this.a.engine.checkInvariants()
    this.b.engine.checkInvariants()
  }

  async close(): Promise<void> {
    await this.a.close()
    await this.b.close()
    assert.deepEqual(this.network.violations, [])
    assert.equal(this.a.failure, undefined)
    assert.equal(this.b.failure, undefined)
  }
}

/** Bytes of which each block says which write made them. */
export function pattern(value: number, lengthBytes = 4096): Buffer {
  return Buffer.alloc(lengthBytes, value)
}
