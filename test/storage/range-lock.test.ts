// Overlapping ranges in arrival order, beside a naive model: a list in which whoever overlaps nobody before it runs.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { type Lease, RangeLock } from '../../src/storage/range-lock.js'

type Range = { readonly offset: number; readonly end: number }
type Entry = Range & { readonly serial: number }

function overlaps(a: Range, b: Range): boolean {
  return a.offset < b.end && b.offset < a.end
}

/** The lock as the sequencer uses it: take what is free, wait for the rest. */
class Driver {
  readonly lock = new RangeLock()
  readonly leases = new Map<number, Lease>()
  readonly started: number[] = []
  /** Model: everybody who has not released, in arrival order. */
  readonly present: Entry[] = []
  #serial = 0

  arrive(range: Range): void {
    const serial = this.#serial++
    const isFree = !this.present.some((one) => overlaps(one, range))
    assert.equal(this.lock.isFree(range.offset, range.end), isFree)
    assert.equal(this.lock.isIdle, this.present.length === 0)
    this.present.push({ ...range, serial })
    if (isFree) this.#start(serial, this.lock.take(range.offset, range.end))
    else this.lock.wait(range.offset, range.end, (lease) => this.#start(serial, lease))
    this.compare()
  }

  release(pick: number): void {
    const running = [...this.leases.keys()]
    const serial = running[pick % running.length]
    if (serial === undefined) return
    const lease = this.leases.get(serial)
    assert(lease)
    this.leases.delete(serial)
    this.present.splice(
      this.present.findIndex((one) => one.serial === serial),
      1,
    )
    this.lock.release(lease)
    this.compare()
  }

  /** Exactly those run that overlap nobody before them. */
  compare(): void {
    const mayRun = this.present.filter(
      (one, at) => !this.present.slice(0, at).some((before) => overlaps(before, one)),
    )
    const running = [...this.leases.keys()].sort((a, b) => a - b)
    assert.deepEqual(
      running,
      mayRun.map(({ serial }) => serial),
    )
  }

  #start(serial: number, lease: Lease): void {
    this.leases.set(serial, lease)
    this.started.push(serial)
  }
}

const ranges = fc
  .tuple(fc.nat(20), fc.integer({ min: 1, max: 6 }))
  .map(([offset, lengthBytes]) => ({ offset, end: offset + lengthBytes }))
const steps = fc.oneof(
  ranges.map((range) => (driver: Driver) => driver.arrive(range)),
  fc.nat(100).map((pick) => (driver: Driver) => driver.release(pick)),
)

t.test('whoever overlaps nobody before it runs, and nobody else', async () => {
  const property = fc.property(fc.array(steps, { maxLength: 60 }), (work) => {
    const driver = new Driver()
    for (const step of work) step(driver)
    while (driver.leases.size > 0) driver.release(0)
    assert.equal(driver.present.length, 0, 'everybody had a turn')
    assert(driver.lock.isIdle)
  })
  fc.assert(property, { seed: 1, numRuns: 500 })
})

t.test('overlapping ranges are granted in arrival order', async (t) => {
  const driver = new Driver()
  driver.arrive({ offset: 0, end: 10 })
  driver.arrive({ offset: 5, end: 15 })
  driver.arrive({ offset: 12, end: 20 })
  driver.arrive({ offset: 0, end: 2 })
  driver.arrive({ offset: 30, end: 40 })
  t.strictSame(driver.started, [0, 4], 'the third waits for the second, which waits itself')
  driver.release(0)
  t.strictSame(driver.started, [0, 4, 1, 3])
  driver.release(1)
  t.strictSame(driver.started, [0, 4, 1, 3, 2])
})

t.test('who starts may release at once, and start others by that', async (t) => {
  const lock = new RangeLock()
  const started: number[] = []
  const first = lock.take(0, 10)
  for (let serial = 1; serial <= 5; serial++) {
    lock.wait(0, 10, (lease) => {
      started.push(serial)
      lock.release(lease)
    })
  }
  lock.release(first)
  t.strictSame(started, [1, 2, 3, 4, 5])
  t.ok(lock.isIdle)
})

t.test('a lease is released once, and not before it began', async (t) => {
  const lock = new RangeLock()
  const lease = lock.take(0, 1)
  lock.release(lease)
  t.throws(() => lock.release(lease), { name: 'AssertionError' })
})
