// Damaged metadata: a bit is flipped at every byte of journal, checkpoint and label in turn (at every 16th of padding), files are cut and
// go missing. The node then
// refuses with a LockstepError, or comes to contents that are legal: the same, or, when the last journal write is damaged (which
// nobody can tell from a torn one), those of a crash before it.
import assert from 'node:assert/strict'
import { LockstepError } from '../../src/core/errors.js'
import { Client } from './client.js'
import type { Base, CheckOptions } from './crash-check.js'
import { describe, LawBroken } from './laws.js'
import type { Oracle, StoreImage } from './oracle.js'
import { SeededRandom } from './random.js'
import type { Call } from './sim-call.js'
import { Scheduler } from './sim-clock.js'
import type { SimMedium } from './sim-medium.js'
import { type NodeOptions, SimNode } from './sim-node.js'
import { actionsOf } from './workloads.js'

export type DamageReport = {
  readonly flipCount: number
  readonly cutCount: number
  readonly refusedCount: number
  /** Flips in the last journal write that were taken for a torn tail. */
  readonly tornCount: number
}

/** A medium as a crash left it, and what its journal holds. */
type Subject = {
  readonly medium: SimMedium
  readonly images: readonly StoreImage[]
  readonly oracle: Oracle
  /** Before the last journal write. */
  readonly oracleBefore: Oracle
  readonly lastWrite: { readonly name: string; readonly offset: number; readonly end: number }
  readonly writtenEnds: ReadonlyMap<string, number>
}

/** Behind what was written, so many bytes are tried too. */
const unwrittenBytes = 600

export class Damager {
  readonly #options: CheckOptions
  readonly #random: SeededRandom
  flipCount = 0
  cutCount = 0
  refusedCount = 0
  tornCount = 0

  constructor(options: CheckOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
  }

  async run(base: Base): Promise<DamageReport> {
    const subject = await this.#prepare(base)
    for (const name of subject.medium.names()) {
      const end = this.#triedBytes(subject, name)
      const bytes = Buffer.alloc(end)
      subject.medium.find(name)?.read(bytes, 0)
      for (let offset = 0; offset < end; offset++) {
        const isPadding = bytes.subarray(Math.max(0, offset - 8), offset + 8).every((byte) => !byte)
        if (!isPadding || offset % 16 === 0) await this.#flip(subject, name, offset)
      }
    }
    await this.#cut(subject)
    const { flipCount, cutCount, refusedCount, tornCount } = this
    return { flipCount, cutCount, refusedCount, tornCount }
  }

  /** A group that has checkpoint and journal, crashed after its last flush. */
  async #prepare(base: Base): Promise<Subject> {
    const oracle = base.oracle.fork()
    let oracleBefore = oracle
    let lastWrite: Subject['lastWrite'] | undefined
    const writtenEnds = new Map<string, number>()
    const beforeCall = (call: Call) => {
      if (!call.kind.startsWith('write') || !call.name.startsWith('journal')) return
      oracleBefore = oracle.fork()
      const end = call.offset + call.lengthBytes
      lastWrite = { name: call.name, offset: call.offset, end }
      writtenEnds.set(call.name, Math.max(end, writtenEnds.get(call.name) ?? 0))
    }
    const node = await this.#start(base.medium.afterKill(), { beforeCall })
    const client = new Client(node.engine, oracle, this.#random)
    const names = ['write hole', 'snapshot', 'write FUA', 'restore range', 'write', 'trim', 'flush']
    for (const action of actionsOf([...names, 'write unaligned', 'flush', 'grow'])) {
      assert.equal(await node.run(client.act(action)), 'done')
    }
    const images = await node.readStores()
    node.crash()
    assert(lastWrite)
    const medium = node.disk.medium.afterKill()
    return { medium, images, oracle, oracleBefore, lastWrite, writtenEnds }
  }

  #triedBytes(subject: Subject, name: string): number {
    const sizeBytes = subject.medium.find(name)?.lengthBytes ?? 0
    if (name === 'data') return 512
    const written = subject.writtenEnds.get(name)
    if (written === undefined && name.startsWith('journal')) return unwrittenBytes
    return Math.min(sizeBytes, (written ?? sizeBytes) + unwrittenBytes)
  }

  async #flip(subject: Subject, name: string, offset: number): Promise<void> {
    const medium = subject.medium.afterKill()
    const byte = Buffer.alloc(1)
    medium.find(name)?.read(byte, offset)
    byte[0] = (byte[0] ?? 0) ^ (1 << this.#random.below(8))
    change(medium, name, offset, byte)
    this.flipCount++
    const { lastWrite } = subject
    const isLast = name === lastWrite.name && offset >= lastWrite.offset && offset < lastWrite.end
    await this.#check(subject, medium, `a bit flipped at ${name} ${offset}`, isLast)
  }

  /** Every length of the checkpoint, some of the journals, and every file missing. */
  async #cut(subject: Subject): Promise<void> {
    for (const name of subject.medium.names()) {
      const sizeBytes = subject.medium.find(name)?.lengthBytes ?? 0
      const step = name === 'checkpoint' ? 1 : 509
      const lastBytes = name === subject.lastWrite.name ? subject.lastWrite.end : 0
      for (let at = 0; at < Math.min(sizeBytes, 16_384) && name !== 'data'; at += step) {
        const medium = subject.medium.afterKill()
        const file = medium.find(name)
        file?.finish(file.beginTruncate(at))
        this.cutCount++
        const isTail = at < lastBytes
        await this.#check(subject, medium.afterKill(), `${name} cut to ${at} bytes`, isTail)
      }
      const medium = subject.medium.afterKill()
      medium.remove(name)
      this.cutCount++
      const before = this.refusedCount
      await this.#check(subject, medium, `${name} missing`, false)
      if (this.refusedCount === before) throw new LawBroken(`${name} is missing, and nobody minds`)
    }
  }

  async #check(
    subject: Subject,
    medium: SimMedium,
    what: string,
    isLastWrite: boolean,
  ): Promise<void> {
    let node: SimNode
    try {
      node = await this.#start(medium)
    } catch (error) {
      const isClear = error instanceof LockstepError && error.action.length > 0
      if (!isClear) throw new LawBroken(`${what}: ${describe(error)}`, { cause: error })
      this.refusedCount++
      return
    }
    node.engine.checkInvariants()
    const images = await node.readStores()
    node.crash()
    if (isSame(images, subject.images)) return
    const legal = subject.oracleBefore.judge(images, 'crash')
    if (!isLastWrite || typeof legal === 'string') {
      throw new LawBroken(`${what}: opened with other contents: ${String(legal)}`)
    }
    this.tornCount++
  }

  #start(medium: SimMedium, disk: NodeOptions['disk'] = {}): Promise<SimNode> {
    const { subject, mutants } = this.#options
    return SimNode.start({
      subject,
      medium,
      scheduler: new Scheduler(),
      random: this.#random.fork('node'),
      disk,
      ...(mutants ? { mutants } : {}),
    })
  }
}

function change(medium: SimMedium, name: string, offset: number, bytes: Buffer): void {
  const file = medium.find(name)
  assert(file)
  file.finish(file.begin(offset, [bytes]))
  file.finishSync(file.beginSync())
}

function isSame(a: readonly StoreImage[], b: readonly StoreImage[]): boolean {
  return (
    a.length === b.length &&
    a.every(({ name, bytes }) => b.find((other) => other.name === name)?.bytes.equals(bytes))
  )
}
