// The outbox beside a naive model, in random schedules: what it sends and how entries leave is what a list of entries would do, and its memory is bounded.
import assert from 'node:assert/strict'
import t from 'tap'
import type { Entry } from '../../src/core/entry.js'
import { FrameReader } from '../../src/replication/frame-reader.js'
import { linkLimits } from '../../src/replication/limits.js'
import { Outbox, type Slot } from '../../src/replication/outbox.js'
import { ManualClock } from '../support/manual-clock.js'
import { SeededRandom } from '../support/random.js'
import { SpoilingKeeper } from '../support/spoiling-keeper.js'
import { sequence, store, whole } from './sample-frames.js'

const bytesMax = 200_000

type ModelEntry = {
  entry: Entry
  slot: Slot
  isKept: boolean
  isReady: boolean
  isSettled: boolean
  isFailed: boolean
}

/** All that is said of an entry when it leaves. */
function told(how: 'had' | 'lacked', entry: Entry, isFailed: boolean): string {
  const parts = entry.kind === 'write' ? { parts: [] } : {}
  return `${how} ${JSON.stringify({ ...entry, ...parts })}${isFailed ? ', failed' : ''}`
}

/** A primary with its outbox, a peer at the end of a connection, and what both should have seen. */
class Run {
  readonly random: SeededRandom
  readonly outbox: Outbox
  readonly left: string[] = []
  readonly expected: string[] = []
  entries: ModelEntry[] = []
  last = 0
  /** The peer: what it received in order, and what of it is durable. */
  reader = new FrameReader('primary')
  received = 0
  durable = 0
  /** Of a client, which keeps what it is asked to every other time. */
  readonly keeper = new SpoilingKeeper(() => this.random.below(2) === 0)
  overflows = 0
  resumes = 0

  readonly clock = new ManualClock()

  /** `lackedPerTurnMax`: more of them leave in later turns, which come now and then. */
  constructor(seed: number, lackedPerTurnMax?: number) {
    this.random = new SeededRandom(seed)
    this.outbox = new Outbox({
      clock: this.clock,
      lastSequence: sequence(0),
      bytesMax,
      ...(lackedPerTurnMax === undefined ? {} : { lackedPerTurnMax }),
      events: {
        had: (entry, { isFailed }) => void this.left.push(told('had', entry, isFailed)),
        lacked: (entry, { isFailed }) => void this.left.push(told('lacked', entry, isFailed)),
        sendable: () => {},
        overflow: () => {
          this.overflows++
          if (this.random.below(2) === 0) this.fold()
        },
      },
    })
  }

  step(): void {
    const { random } = this
    const choice = random.below(20)
    if (choice < 7) this.reserve()
    else if (choice < 11) this.advance()
    else if (choice < 15) this.send()
    else if (choice < 17) this.acknowledge()
    else if (choice === 17) this.reconnect()
    else if (choice === 18 && random.below(6) === 0) this.fold()
    else if (!this.outbox.isCollecting && !this.holdsOperation) {
      this.outbox.collect()
      this.reader = new FrameReader('primary')
      this.received = this.last
      this.durable = this.last
    }
    if (random.below(3) === 0) this.clock.runDeferred()
    this.check()
  }

  get holdsOperation(): boolean {
    const isOne = (one: string): boolean => one.includes('"kind":"operation"')
    return (
      this.entries.some(({ entry }) => entry.kind === 'operation') ||
      this.expected.slice(this.left.length).some(isOne)
    )
  }

  /** Turns as long as there are some that somebody waits for. */
  end(): void {
    while (this.outbox.isLeavingLater) this.clock.runDeferred()
    this.check()
    assert.equal(this.expected.length, 0)
  }

  reserve(): void {
    const entry = this.newEntry()
    this.last = entry.sequence
    // A fold in the middle of it concerns this entry as well.
    const model: ModelEntry = {
      entry,
      slot: undefined as unknown as Slot,
      isKept: this.outbox.isCollecting,
      isReady: false,
      isSettled: entry.kind !== 'write',
      isFailed: false,
    }
    this.entries.push(model)
    if (entry.kind !== 'write') {
      model.slot = this.outbox.reserve(entry)
      return
    }
    model.entry = { ...entry, parts: entry.parts.map((part) => Buffer.from(part)) }
    model.slot = this.outbox.reserve(entry, this.keeper)
    // The caller's memory is used again.
    this.keeper.settled(entry.parts)
  }

  newEntry(): Entry {
    const number = sequence(this.last + 1)
    const kind = this.random.below(10)
    if (kind === 0) return { kind: 'flush', sequence: number }
    if (kind === 1)
      return {
        kind: 'operation',
        sequence: number,
        at: '2024-05-06T07:08:09Z',
        operation: { kind: 'delete', storeId: store(9) },
      }
    const lengthBytes = 1 + this.random.below(this.random.pick([100, 5000, 60_000]))
    const data = Buffer.alloc(lengthBytes, number)
    const cut = this.random.below(lengthBytes + 1)
    const parts = [data.subarray(0, cut), data.subarray(cut)].filter((part) => part.length > 0)
    return {
      kind: 'write',
      sequence: number,
      storeId: store(1),
      offset: number * 512,
      lengthBytes,
      fua: number % 3 === 0,
      parts,
    }
  }

  /** Something becomes ready, takes effect, or is refused. */
  advance(): void {
    const open = this.entries.filter(({ isReady, isSettled }) => !isReady || !isSettled)
    const model = open[this.random.below(Math.max(1, open.length))]
    if (model === undefined) return
    if (!model.isReady && !model.isSettled && this.random.below(8) === 0) {
      model.isReady = true
      model.isSettled = true
      model.entry = { kind: 'nothing', sequence: model.entry.sequence }
      this.expect()
      this.outbox.cancel(model.slot)
    } else if (!model.isReady) {
      model.isReady = true
      this.expect()
      this.outbox.ready(model.slot)
    } else {
      model.isSettled = true
      model.isFailed = this.random.below(5) === 0
      this.expect()
      this.outbox.settle(model.slot, { isFailed: model.isFailed })
    }
  }

  send(): void {
    const batch = this.outbox.take(this.random.pick([1, 10_000, 1 << 20]))
    if (batch === undefined) return
    for (const part of batch.parts) this.reader.push(Buffer.from(part))
    for (let frame = this.reader.next(); frame !== undefined; frame = this.reader.next()) {
      this.received++
      const model = this.entries.find(({ entry }) => entry.sequence === this.received)
      if (model) assert.deepEqual(whole(frame), whole(model.entry))
      else assert.equal('sequence' in frame && frame.sequence, this.received)
    }
    assert(!this.reader.isInsideFrame)
    assert.equal(this.received, batch.lastSequence)
  }

  acknowledge(): void {
    if (!this.outbox.isCollecting || this.received <= this.durable) return
    this.durable += this.random.below(this.received - this.durable + 1)
    this.expect()
    this.outbox.acknowledge(sequence(this.durable))
  }

  reconnect(): void {
    if (!this.outbox.isCollecting) return
    this.resumes++
    this.reader = new FrameReader('primary')
    this.received = this.durable
    this.outbox.rewind(sequence(this.durable))
  }

  fold(): void {
    for (const model of this.entries) model.isKept = false
    this.expect()
    this.outbox.fold()
  }

  /** What must leave now, in order. */
  expect(): void {
    for (let first = this.entries[0]; first !== undefined; first = this.entries[0]) {
      if (!first.isReady || !first.isSettled) return
      if (first.isKept && first.entry.sequence > this.durable) return
      this.entries.shift()
      this.expected.push(told(first.isKept ? 'had' : 'lacked', first.entry, first.isFailed))
    }
  }

  check(): void {
    const lateCount = this.expected.length - this.left.length
    assert.deepEqual(this.left, this.expected.splice(0, this.left.length))
    assert(lateCount === 0 || this.outbox.isLeavingLater)
    this.left.length = 0
    assert.equal(this.outbox.entryCount, this.entries.length + lateCount)
    const isHolding = this.entries.some(({ entry, isKept }) => isKept && entry.kind === 'write')
    assert(isHolding || this.keeper.viewCount === 0, 'what has left keeps no memory')
    const overhead = this.outbox.entryCount * linkLimits.entryOverheadBytes
    assert(this.outbox.usedBytes >= overhead)
    if (this.outbox.entryCount === 0) assert.equal(this.outbox.usedBytes, 0)
    // Those that the peer has, behind others that have not left yet, are still there.
    if (lateCount > 0) return
    const firstKept = this.entries.find(({ isKept }) => isKept)?.entry.sequence ?? this.last + 1
    assert.equal(this.outbox.firstSequence, this.outbox.isCollecting ? firstKept : undefined)
  }
}

t.test(
  'in random schedules entries leave as a list would let them, and frames arrive as they were',
  async (t) => {
    let overflows = 0
    let resumes = 0
    let entries = 0
    let kept = 0
    for (let seed = 0; seed < 300; seed++) {
      const run = new Run(seed % 150, seed < 150 ? undefined : 1 + (seed % 7))
      for (let step = 0; step < 400; step++) {
        try {
          run.step()
        } catch (error) {
          t.fail(`seed ${seed}, step ${step}: ${String((error as Error).stack)}`)
          return
        }
      }
      run.end()
      overflows += run.overflows
      resumes += run.resumes
      entries += run.last
      kept += run.keeper.keptCount
    }
    t.comment(
      `${entries} entries, ${kept} of them sent from where they came in, ${overflows} overflows, ${resumes} resumes`,
    )
    t.ok(overflows > 50)
    t.ok(kept > 1000)
    t.ok(resumes > 500)
  },
)
