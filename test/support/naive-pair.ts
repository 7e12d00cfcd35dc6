// Two naive engines and the simplest link between them: each connection begins with all that the first one holds, adopted in one piece, then each entry as
// it comes. It exists to be wrong on demand, as naive-engine.ts: the checker of two nodes must pass it, and find its planted bugs.
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import zlib from 'node:zlib'
import type { Clock } from '../../src/core/clock.js'
import type { Disk } from '../../src/core/disk.js'
import type { Sequence } from '../../src/core/units.js'
import type { Explanation, GroupStatus, Mode, ReplicationOptions } from '../../src/engine/api.js'
import type { PairEngine, PairSubject } from '../simulation/pair/pair-subject.js'
import { SeededRandom } from '../simulation/random.js'
import { Life, Scheduler } from '../simulation/sim-clock.js'
import { SimDisk } from '../simulation/sim-disk.js'
import { NaiveEngine, naiveSubject } from './naive-engine.js'

export const naivePairMutants = [
  'acknowledge-before-sync',
  'drop-entry',
  'swap-entries',
  'image-beside-position',
  'no-deadline',
  'unbounded-outbox',
  'ignore-crc',
  'never-release',
] as const

const noMutants: ReadonlySet<string> = new Set()

export const naivePair: PairSubject = {
  name: 'naive pair',
  tracksDifferences: false,
  init: (disk, options) => naiveSubject.init(disk, options),
  async open({ disk, clock, mutants = noMutants, replication }) {
    const engine = await NaiveEngine.open(disk, mutants)
    return new NaiveNode({ disk, clock, mutants, engine, replication })
  },
  async inspect(medium) {
    const scheduler = new Scheduler()
    const disk = new SimDisk({ medium, life: new Life(), scheduler, random: new SeededRandom(1) })
    const engine = await scheduler.run(NaiveEngine.open(disk, noMutants))
    const stores = engine.exports.list().map(({ name }, id) => {
      const found = engine.exports.find(name)
      assert(found)
      const bytes = Buffer.alloc(found.sizeBytes)
      found.read({ offset: 0, target: bytes })
      return { id, name, sizeBytes: found.sizeBytes, bytes }
    })
    const position = { generation: '0', sequence: 0 }
    return { stores, beforeResync: undefined, isWhole: true, position, generations: [] }
  },
}

const frameKinds = ['image', 'entry', 'fua', 'flush', 'ping', 'answer'] as const
type FrameKind = (typeof frameKinds)[number]
type Frame = { readonly kind: FrameKind; readonly number: number; readonly body: Buffer }

const headBytes = 16
const retryMs = 500
const pingMs = 1000

type Waiter = { readonly number: number; readonly isDurable: boolean; readonly done: () => void }

class NaiveNode implements PairEngine {
  readonly #disk: Disk
  readonly #clock: Clock
  readonly #mutants: ReadonlySet<string>
  readonly #engine: NaiveEngine
  readonly #replication: ReplicationOptions | undefined
  #mode: Mode
  #link: 'offline' | 'connecting' | 'resyncing' | 'streaming' = 'offline'
  #isWanted = true
  #isClosed = false
  #stream: Duplex | undefined
  #queue: Buffer[] = []
  #queuedBytes = 0
  #wake = () => {}
  #number = 0
  #applied = 0
  #durable = 0
  /** As a secondary: the last frame that was done. */
  #followed = 0
  #waiters: Waiter[] = []
  #heardMs = 0

  constructor(options: {
    readonly disk: Disk
    readonly clock: Clock
    readonly mutants: ReadonlySet<string>
    readonly engine: NaiveEngine
    readonly replication: ReplicationOptions | undefined
  }) {
    this.#disk = options.disk
    this.#clock = options.clock
    this.#mutants = options.mutants
    this.#engine = options.engine
    this.#replication = options.replication
    this.#mode = options.replication?.mode ?? 'sync'
    this.#engine.forward = (record, fua) => this.#forward(record, fua)
    if (options.replication?.peerUri !== undefined) this.#connectSoon(0)
  }

  get exports(): NaiveEngine['exports'] {
    return this.#engine.exports
  }

  status(): GroupStatus {
    const isPrimary = this.#replication?.peerUri !== undefined
    const peer = {
      uri: this.#replication?.peerUri ?? '',
      link: this.#link,
      reason: '',
      mode: this.#mode,
      appliedSequence: this.#applied as Sequence,
      durableSequence: this.#durable as Sequence,
      lagBytes: this.#queuedBytes,
      lagSeconds: 0,
      lacksBytes: 0,
      dirtyBytes: 0,
      opLogEntries: 0,
      sentBytes: 0,
      receivedBytes: 0,
    }
    return {
      ...this.#engine.status(),
      role: isPrimary ? 'primary' : 'secondary',
      sequence: this.#number as Sequence,
      peers: isPrimary ? [peer] : [],
    }
  }

  perform: PairEngine['perform'] = (request) => this.#engine.perform(request)
  check = () => {}
  countedStatus = async () => this.status()
  dirty = async () => []
  recentEvents = () => []
  onEvent = () => () => {}
  checkInvariants = () => this.#engine.checkInvariants()

  async connectPeer(): Promise<Explanation> {
    this.#isWanted = true
    this.#connectSoon(0)
    return { rule: 'naive', kind: 'full', operations: 0, bytes: 0, reason: '' }
  }

  async disconnectPeer(): Promise<void> {
    this.#isWanted = false
    this.#lose()
  }

  async setPeer({ mode }: { readonly mode?: Mode }): Promise<void> {
    this.#mode = mode ?? this.#mode
  }

  async waitFor(): Promise<void> {}

  async close(): Promise<void> {
    await this.#engine.flush()
    this.#isClosed = true
    this.#lose()
    await this.#engine.close()
  }

  async acceptPeer(stream: Duplex): Promise<void> {
    this.#stream?.destroy()
    this.#stream = stream
    this.#durable = 0
    this.#followed = 0
    stream.on('error', () => {})
    try {
      const pieces = this.#heard(stream)
      for await (const frame of framesOf(pieces, this.#mutants.has('ignore-crc'))) {
        if (this.#stream !== stream) return
        await this.#obey(stream, frame)
      }
    } catch {
      stream.destroy()
    }
  }

  /** A long frame is on its way: says that somebody is here. */
  async *#heard(stream: Duplex): AsyncGenerator<Buffer> {
    for await (const piece of stream) {
      if (this.#clock.nowMs() - this.#heardMs > pingMs) {
        this.#heardMs = this.#clock.nowMs()
        this.#answer(stream, this.#followed)
      }
      yield piece as Buffer
    }
  }

  #answer(stream: Duplex, number: number): void {
    this.#followed = number
    const durable = Buffer.alloc(4)
    durable.writeUInt32BE(this.#durable)
    stream.write(encodeFrame({ kind: 'answer', number, body: durable }))
  }

  async #obey(stream: Duplex, { kind, number, body }: Frame): Promise<void> {
    if (kind === 'image') await this.#engine.adopt(this.#disk, body, noMutants)
    else if (kind === 'entry' || kind === 'fua') await this.#engine.follow(body, kind === 'fua')
    else if (kind === 'flush' && !this.#mutants.has('acknowledge-before-sync')) {
      await this.#engine.flush()
    }
    if (kind !== 'entry' && kind !== 'ping') this.#durable = number
    this.#answer(stream, number)
  }

  #forward(record: Buffer | 'flush', fua: boolean): Promise<void> | undefined {
    if (this.#link !== 'resyncing' && this.#link !== 'streaming') return undefined
    const number = ++this.#number
    if (record === 'flush') this.#send({ kind: 'flush', number, body: Buffer.alloc(0) })
    else if (!(this.#mutants.has('drop-entry') && number % 9 === 0)) {
      this.#send({ kind: fua ? 'fua' : 'entry', number, body: record })
    }
    // The outbox may have overflowed.
    if (this.#mode === 'async' || this.#stream === undefined) return undefined
    return new Promise((done) => {
      this.#waiters.push({ number, isDurable: fua, done })
    })
  }

  #send(frame: Frame): void {
    const bytes = encodeFrame(frame)
    const isSwapped = this.#mutants.has('swap-entries') && frame.number % 3 === 0
    const last = isSwapped && frame.kind === 'entry' ? this.#queue.pop() : undefined
    this.#queue.push(bytes, ...(last ? [last] : []))
    this.#queuedBytes += weightOf(bytes)
    this.#wake()
    const boundBytes = this.#replication?.outboxBytesMax ?? Number.POSITIVE_INFINITY
    const isOver = frame.kind !== 'image' && this.#queuedBytes > boundBytes
    if (isOver && !this.#mutants.has('unbounded-outbox')) this.#lose()
  }

  #connectSoon(delayMs: number): void {
    this.#clock.setTimer(delayMs, () => {
      if (this.#isClosed || !this.#isWanted || this.#link !== 'offline') return
      this.#link = 'connecting'
      const { connect, peerUri } = this.#replication ?? {}
      assert(connect)
      connect(peerUri ?? '', new AbortController().signal).then(
        (stream) => this.#greet(stream),
        () => this.#lose(),
      )
    })
  }

  async #greet(stream: Duplex): Promise<void> {
    this.#stream = stream
    this.#heardMs = this.#clock.nowMs()
    stream.on('error', () => {})
    stream.on('close', () => {
      if (this.#stream === stream) this.#lose()
    })
    const isBeside = this.#mutants.has('image-beside-position')
    const early = isBeside ? this.#engine.image() : undefined
    await this.#engine.between(() => {
      if (this.#stream !== stream || this.#isClosed) return stream.destroy()
      this.#link = 'resyncing'
      this.#number++
      this.#send({ kind: 'image', number: this.#number, body: early ?? this.#engine.image() })
      const first = this.#number
      this.#hear(stream, first).catch(() => stream.destroy())
      this.#pump(stream).catch(() => stream.destroy())
      this.#watch(stream)
      return undefined
    })
  }

  async #hear(stream: Duplex, first: number): Promise<void> {
    for await (const { number, body } of framesOf(stream, false)) {
      this.#heardMs = this.#clock.nowMs()
      this.#applied = Math.max(this.#applied, number)
      this.#durable = Math.max(this.#durable, body.readUInt32BE())
      if (this.#durable >= first) this.#link = 'streaming'
      const isDone = (one: Waiter) => one.number <= (one.isDurable ? this.#durable : this.#applied)
      for (const waiter of this.#waiters) if (isDone(waiter)) waiter.done()
      this.#waiters = this.#waiters.filter((waiter) => !isDone(waiter))
    }
    stream.destroy()
  }

  async #pump(stream: Duplex): Promise<void> {
    while (this.#stream === stream) {
      const next = this.#queue.shift()
      if (!next) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
        continue
      }
      await new Promise<void>((resolve) => {
        stream.write(next, () => resolve())
      })
      if (this.#stream === stream) this.#queuedBytes -= weightOf(next)
    }
  }

  #watch(stream: Duplex): void {
    this.#clock.setTimer(pingMs, () => {
      if (this.#stream !== stream) return
      const deadlineMs = this.#replication?.deadlineMs ?? 5000
      const isDead = this.#clock.nowMs() - this.#heardMs > deadlineMs
      if (isDead && !this.#mutants.has('no-deadline')) return void stream.destroy()
      this.#send({ kind: 'ping', number: this.#number, body: Buffer.alloc(0) })
      this.#watch(stream)
    })
  }

  #lose(): void {
    const stream = this.#stream
    this.#stream = undefined
    stream?.destroy()
    this.#queue = []
    this.#queuedBytes = 0
    this.#link = 'offline'
    this.#wake()
    if (!this.#mutants.has('never-release')) {
      for (const waiter of this.#waiters) waiter.done()
      this.#waiters = []
    }
    if (this.#replication?.peerUri !== undefined) this.#connectSoon(retryMs)
  }
}

/** An image is as large as it is: the outbox is for entries. */
function weightOf(frame: Buffer): number {
  return frame.readUInt32BE() === frameKinds.indexOf('image') ? 0 : frame.length
}

function encodeFrame({ kind, number, body }: Frame): Buffer {
  const head = Buffer.alloc(headBytes)
  head.writeUInt32BE(frameKinds.indexOf(kind), 0)
  head.writeUInt32BE(number, 4)
  head.writeUInt32BE(body.length, 8)
  head.writeUInt32BE(zlib.crc32(body, zlib.crc32(head.subarray(0, 12))), 12)
  return Buffer.concat([head, body])
}

/** Throws at a frame that is not what was sent. */
async function* framesOf(
  stream: AsyncIterable<unknown>,
  ignoresCrc: boolean,
): AsyncGenerator<Frame> {
  let rest = Buffer.alloc(0)
  for await (const piece of stream) {
    rest = Buffer.concat([rest, piece as Buffer])
    while (rest.length >= headBytes) {
      const end = headBytes + rest.readUInt32BE(8)
      // A length that is wrong would be waited for until the deadline.
      if (rest.length < end) break
      const body = rest.subarray(headBytes, end)
      const crc = zlib.crc32(body, zlib.crc32(rest.subarray(0, 12)))
      if (crc !== rest.readUInt32BE(12) && !ignoresCrc) throw new Error('a wrong checksum')
      const kind = frameKinds[rest.readUInt32BE(0)]
      if (!kind) throw new Error('no such frame')
      yield { kind, number: rest.readUInt32BE(4), body }
      rest = rest.subarray(end)
    }
  }
}
