// The one order: sequences in arrival order, overlapping writes and operations in that order, nothing lost and nothing early.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import type { Sequence } from '../../src/core/units.js'
import { type DataEntry, Sequencer } from '../../src/engine/sequencer.js'
import type { Store } from '../../src/storage/group-state.js'
import { failureOf, thrownBy } from '../support/failure.js'
import { Group } from '../support/group.js'
import { gate, settled } from '../support/watched-file.js'

const chunkBytes = 4096
type Gate = ReturnType<typeof gate>

/** A sequencer whose pool takes as long as the test says. */
class Bench {
  readonly group = new Group()
  readonly store = this.group.volume('v', 100 * chunkBytes)
  /** What began and ended, in order. */
  readonly trace: string[] = []
  /** Writes under way, by their label; those with an open gate at the beginning are done at once. */
  readonly gates = new Map<string, Gate>()
  isInstant = false
  readonly sequencer: Sequencer

  constructor(options: { readonly missesInFlight?: boolean } = {}) {
    this.sequencer = new Sequencer({
      chunkBytes,
      lastSequence: 10,
      apply: (entry) => this.#apply(entry),
      missesInFlight: options.missesInFlight ?? false,
    })
  }

  /** A write of chunks `[first, end)`, named by its payload. */
  entry(label: string, first: number, end = first + 1, store: Store = this.store): DataEntry {
    const offset = first * chunkBytes
    const lengthBytes = (end - first) * chunkBytes
    return {
      kind: 'write',
      store,
      offset,
      lengthBytes,
      parts: [Buffer.from(label)],
      mayUnmap: false,
    }
  }

  write(label: string, first: number, end?: number): Promise<void> | undefined {
    return this.sequencer.submit(this.entry(label, first, end))
  }

  operate(label: string, prepare: () => Promise<void> = async () => {}) {
    return this.sequencer.operate({
      prepare: async () => {
        this.trace.push(`prepare ${label}`)
        await prepare()
      },
      perform: (sequence: Sequence) => this.trace.push(`perform ${label} ${sequence}`),
    })
  }

  async finish(label: string): Promise<void> {
    const found = this.gates.get(label)
    assert(found, `${label} is under way`)
    found.open()
    await settled()
  }

  #apply(entry: DataEntry): Promise<void> | undefined {
    const label = String(entry.parts[0])
    this.trace.push(`begin ${label}`)
    if (this.isInstant) return undefined
    const opened = gate()
    this.gates.set(label, opened)
    return opened.opened.finally(() => {
      this.gates.delete(label)
      this.trace.push(`end ${label}`)
    })
  }
}

t.test('what is applied at once is answered at once, and takes a sequence each', async (t) => {
  const bench = new Bench()
  bench.isInstant = true
  for (let count = 0; count < 5; count++) t.equal(bench.write('a', 0), undefined)
  t.equal(bench.sequencer.lastSequence, 15)
  t.equal(bench.sequencer.appliedSequence, 15)
  t.equal(bench.sequencer.takeFlush(), 16, 'a flush is an entry')
  t.ok(bench.store.lock.isIdle, 'and no lease is left')
})

t.test('overlapping writes begin in arrival order, others at once', async (t) => {
  const bench = new Bench()
  const writes = [bench.write('a', 0, 3), bench.write('b', 2, 5), bench.write('c', 4, 6)]
  writes.push(bench.write('d', 10), bench.write('e', 0))
  t.strictSame(bench.trace, ['begin a', 'begin d'])
  await bench.finish('d')
  await bench.finish('a')
  t.strictSame(bench.trace.slice(2), ['end d', 'end a', 'begin b', 'begin e'])
  await bench.finish('b')
  await bench.finish('e')
  await bench.finish('c')
  await Promise.all(writes)
})

t.test('two writes into one chunk overlap, whatever their bytes', async (t) => {
  const bench = new Bench()
  const half = { lengthBytes: 100, kind: 'write' as const }
  void bench.sequencer.submit({ ...bench.entry('a', 0), ...half })
  void bench.sequencer.submit({ ...bench.entry('b', 0), ...half, offset: 2000 })
  t.strictSame(bench.trace, ['begin a'])
  await bench.finish('a')
  t.strictSame(bench.trace, ['begin a', 'end a', 'begin b'])
})

t.test('stores do not wait for each other', async (t) => {
  const bench = new Bench()
  const other = bench.group.volume('w', chunkBytes)
  void bench.write('a', 0)
  void bench.sequencer.submit(bench.entry('b', 0, 1, other))
  t.strictSame(bench.trace, ['begin a', 'begin b'])
})

t.test('an operation waits for everything before, and holds back everything behind', async (t) => {
  const bench = new Bench()
  void bench.write('a', 0)
  void bench.write('b', 0)
  const operation = bench.operate('x')
  const behind = bench.write('c', 50)
  const second = bench.operate('y')
  await settled()
  t.strictSame(bench.trace, ['begin a'], 'c overlaps nothing, and waits all the same')
  await bench.finish('a')
  await bench.finish('b')
  t.strictSame(bench.trace.slice(4), ['prepare x', 'perform x 13', 'begin c'])
  t.strictSame(await operation, { sequence: 13, plan: undefined })
  await bench.finish('c')
  t.strictSame(bench.trace.slice(7), ['end c', 'prepare y', 'perform y 15'])
  await Promise.all([behind, second])
})

t.test('while an operation is prepared nothing begins', async (t) => {
  const bench = new Bench()
  const { opened, open } = gate()
  const operation = bench.operate('x', () => opened)
  const writes = [bench.write('a', 0), bench.write('b', 1)]
  await settled()
  t.strictSame(bench.trace, ['prepare x'])
  t.equal(bench.sequencer.lastSequence, 10, 'and nothing has a sequence')
  open()
  await operation
  t.strictSame(bench.trace, ['prepare x', 'perform x 11', 'begin a', 'begin b'])
  await bench.finish('a')
  await bench.finish('b')
  await Promise.all(writes)
})

t.test('an operation that is refused takes no sequence and opens the gate', async (t) => {
  const bench = new Bench()
  const operation = bench.operate('x', async () => {
    throw new Error('refused')
  })
  const write = bench.write('a', 0)
  t.match(await failureOf(operation), { message: 'refused' })
  t.strictSame(bench.trace, ['prepare x', 'begin a'])
  t.equal(bench.sequencer.lastSequence, 11)
  await bench.finish('a')
  await write
})

t.test('a write that fails holds up nobody', async (t) => {
  const bench = new Bench()
  const first = bench.write('a', 0)
  const second = bench.write('b', 0)
  const operation = bench.operate('x')
  bench.gates.get('a')?.fail(new Error('EIO'))
  t.match(await failureOf(first), { message: 'EIO' })
  await bench.finish('b')
  await second
  t.equal((await operation).sequence, 13)
  t.ok(bench.store.lock.isIdle)
})

t.test('a write that fails at once, does so behind an operation, too', async (t) => {
  const group = new Group()
  const store = group.volume('v', chunkBytes)
  const sequencer = new Sequencer({
    chunkBytes,
    lastSequence: 0,
    apply: () => {
      throw new Error('EIO')
    },
    missesInFlight: false,
  })
  const entry: DataEntry = {
    kind: 'write',
    store,
    offset: 0,
    lengthBytes: 1,
    parts: [],
    mayUnmap: false,
  }
  t.match(
    thrownBy(() => sequencer.submit(entry)),
    { message: 'EIO' },
  )
  const { opened, open } = gate()
  const operation = sequencer.operate({ prepare: () => opened, perform: () => {} })
  const waiting = sequencer.submit(entry)
  open()
  t.match(await failureOf(waiting), { message: 'EIO' })
  await operation
  t.equal(sequencer.appliedSequence, sequencer.lastSequence)
})

t.test('on a replica nothing takes effect behind an entry that failed', async (t) => {
  const bench = new Bench()
  const { sequencer } = bench
  sequencer.stopsAtFailure = true
  const first = failureOf(bench.write('a', 0))
  const second = bench.write('b', 1)
  const operation = failureOf(bench.operate('x'))
  const queued = failureOf(bench.write('c', 2))
  bench.gates.get('a')?.fail(new Error('EIO'))
  t.match(await first, { message: 'EIO' })
  t.match(await operation, { message: /before this one/ })
  t.match(await queued, { message: /before this one/ })
  t.equal(sequencer.appliedSequence, 10, 'no position covers it')
  await bench.finish('b')
  await second
  t.equal(sequencer.appliedSequence, 10)
  t.match(await failureOf(bench.operate('y')), { message: /before this one/ })
  t.match(
    thrownBy(() => bench.write('d', 3)),
    { message: /before this one/ },
  )
  t.notOk(bench.trace.some((line) => line.includes('prepare')))

  sequencer.rewind()
  t.equal(sequencer.lastSequence, 10, 'it comes again')
  bench.isInstant = true
  t.equal(bench.write('a', 0), undefined)
  t.equal(sequencer.appliedSequence, 11)
  await bench.operate('z')
  t.equal(sequencer.lastSequence, 12)
})

t.test('a replica that stopped at a failure can be closed, before it', async (t) => {
  for (const isClosedFirst of [true, false]) {
    const bench = new Bench()
    bench.sequencer.stopsAtFailure = true
    const write = failureOf(bench.write('a', 0))
    const early = isClosedFirst ? bench.sequencer.close() : undefined
    bench.gates.get('a')?.fail(new Error('EIO'))
    await write
    await (early ?? bench.sequencer.close())
    t.equal(bench.sequencer.lastSequence, 10)
  }
})

t.test('the applied sequence stops before the oldest entry under way', async (t) => {
  const bench = new Bench()
  void bench.write('a', 0)
  void bench.write('b', 1)
  void bench.write('c', 1)
  t.equal(bench.sequencer.lastSequence, 13)
  t.equal(bench.sequencer.appliedSequence, 10)
  await bench.finish('b')
  t.equal(bench.sequencer.appliedSequence, 10)
  await bench.finish('a')
  t.equal(bench.sequencer.appliedSequence, 12)
  await bench.finish('c')
  t.equal(bench.sequencer.appliedSequence, 13)
})

t.test('closing takes nothing more and waits for what is there', async (t) => {
  const bench = new Bench()
  const write = bench.write('a', 0)
  const operation = bench.operate('x')
  let isClosed = false
  const closing = bench.sequencer.close().then(() => {
    isClosed = true
  })
  t.match(
    thrownBy(() => bench.write('b', 9)),
    { errno: 'ESHUTDOWN' },
  )
  await settled()
  t.equal(isClosed, false)
  await bench.finish('a')
  await Promise.all([write, operation, closing])
  t.strictSame(bench.trace, ['begin a', 'end a', 'prepare x', 'perform x 12'])
})

t.test('the switchable bug is one: the operation overtakes what is in flight', async (t) => {
  const bench = new Bench({ missesInFlight: true })
  void bench.write('a', 0)
  await bench.operate('x')
  t.strictSame(bench.trace, ['begin a', 'prepare x', 'perform x 12'])
})

const steps = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.tuple(fc.constant('write'), fc.nat(6), fc.integer({ min: 1, max: 3 })),
  },
  { weight: 1, arbitrary: fc.tuple(fc.constant('operate'), fc.constant(0), fc.constant(0)) },
  { weight: 4, arbitrary: fc.tuple(fc.constant('finish'), fc.nat(9), fc.constant(0)) },
)

t.test('any mix begins and ends in the one order', async () => {
  const property = fc.asyncProperty(fc.array(steps, { maxLength: 30 }), async (work) => {
    const bench = new Bench()
    const arrivals: { readonly label: string; readonly first: number; readonly end: number }[] = []
    const answers: (Promise<unknown> | undefined)[] = []
    for (const [kind, at, count] of work) {
      if (kind === 'finish') {
        const labels = [...bench.gates.keys()]
        const label = labels[at % labels.length]
        if (label !== undefined) await bench.finish(label)
        continue
      }
      const label = `${arrivals.length}`
      const isWrite = kind === 'write'
      arrivals.push(isWrite ? { label, first: at, end: at + count } : { label, first: 0, end: 99 })
      answers.push(isWrite ? bench.write(label, at, at + count) : bench.operate(label))
    }
    let isAnswered = false
    const all = Promise.all(answers).then(() => {
      isAnswered = true
    })
    for (let round = 0; !isAnswered && round < 200; round++) {
      await settled()
      for (const label of bench.gates.keys()) await bench.finish(label)
    }
    assert(isAnswered, 'everybody is answered')
    await all
    checkOrder(bench.trace, arrivals)
    assert.equal(bench.sequencer.lastSequence, 10 + arrivals.length)
    assert.equal(bench.sequencer.appliedSequence, bench.sequencer.lastSequence)
  })
  await fc.assert(property, { seed: 1, numRuns: 150 })
})

/** Of two that overlap, the later one begins behind the end of the earlier one. */
function checkOrder(
  trace: readonly string[],
  arrivals: readonly { readonly label: string; readonly first: number; readonly end: number }[],
): void {
  const beginOf = (label: string): number =>
    trace.findIndex((line) => line === `begin ${label}` || line === `prepare ${label}`)
  const endOf = (label: string): number =>
    trace.findIndex((line) => line === `end ${label}` || line.startsWith(`perform ${label} `))
  for (const [index, later] of arrivals.entries()) {
    assert(beginOf(later.label) >= 0, `${later.label} began`)
    for (const earlier of arrivals.slice(0, index)) {
      if (earlier.first >= later.end || later.first >= earlier.end) continue
      assert(endOf(earlier.label) < beginOf(later.label), `${earlier.label} before ${later.label}`)
    }
  }
}

t.test('it tells when an operation holds nothing back any more', async (t) => {
  const bench = new Bench()
  bench.isInstant = true
  t.equal(bench.sequencer.isHolding, false)
  await bench.sequencer.whenOpen()
  const prepared = gate()
  const operating = bench.operate('one', () => prepared.opened)
  t.equal(bench.sequencer.isHolding, true)
  let isOpen = false
  const opened = bench.sequencer.whenOpen().then(() => {
    isOpen = true
  })
  const written = bench.write('behind', 1)
  await settled()
  t.equal(isOpen, false)
  prepared.open()
  await operating
  await written
  await opened
  t.equal(bench.sequencer.isHolding, false)
})
