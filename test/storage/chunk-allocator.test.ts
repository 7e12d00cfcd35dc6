// The allocator beside a naive one: an array of counts and one of stale marks.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { ChunkAllocator } from '../../src/storage/chunk-allocator.js'

const segmentPlaceCount = 65536

type Model = { readonly counts: number[]; readonly stale: boolean[]; highWater: number }
const capacity = 40

class Allocate implements fc.Command<Model, ChunkAllocator> {
  check = () => true
  toString = () => 'allocate'
  run(model: Model, real: ChunkAllocator): void {
    const place = real.allocate()
    const isFull = model.counts.every((count, at) => at === 0 || count > 0)
    if (isFull) {
      assert.equal(place, 0)
      return
    }
    assert(place > 0)
    assert(place < capacity)
    assert.equal(model.counts[place], 0)
    assert.equal(real.isStale(place), model.stale[place] ?? false)
    const hasFreeBelow = model.counts.some((count, at) => at < model.highWater && count === 0)
    assert.equal(place < model.highWater, hasFreeBelow, 'the file grows only when it must')
    model.counts[place] = 1
    model.highWater = Math.max(model.highWater, place + 1)
    compare(model, real)
  }
}

/** Does something to one of the places in use. */
class Use implements fc.Command<Model, ChunkAllocator> {
  readonly #what: 'retain' | 'release' | 'release-stale'
  readonly #pick: number

  constructor(what: 'retain' | 'release' | 'release-stale', pick: number) {
    this.#what = what
    this.#pick = pick
  }

  check = (model: Readonly<Model>) => this.#places(model).length > 0
  toString = () => `${this.#what} ${this.#pick}`

  run(model: Model, real: ChunkAllocator): void {
    const places = this.#places(model)
    const place = places[this.#pick % places.length] as number
    const count = model.counts[place] as number
    if (this.#what === 'retain') {
      real.retain(place)
      model.counts[place] = count + 1
    } else if (real.release(place)) {
      assert.equal(count, 1, 'the last one')
      real.free(place, this.#what === 'release-stale')
      model.counts[place] = 0
      model.stale[place] = this.#what === 'release-stale'
    } else model.counts[place] = count - 1
    compare(model, real)
  }

  #places(model: Readonly<Model>): readonly number[] {
    return [...model.counts.keys()].filter((at) => at > 0 && (model.counts[at] as number) > 0)
  }
}

/** Takes a run of stale places, as the sweep does, and frees them clean. */
class Sweep implements fc.Command<Model, ChunkAllocator> {
  readonly #from: number

  constructor(from: number) {
    this.#from = from
  }

  check = () => true
  toString = () => `sweep ${this.#from}`

  run(model: Model, real: ChunkAllocator): void {
    const run = real.takeStaleRun(this.#from)
    if (this.#from >= model.highWater) {
      assert.equal(run, undefined)
      return
    }
    assert(run)
    const isMatch = (at: number): boolean =>
      at < model.highWater && model.counts[at] === 0 && model.stale[at] === true
    let first = this.#from
    while (first < model.highWater && !isMatch(first)) first++
    let end = first
    while (isMatch(end)) end++
    if (first < end) assert.deepEqual(run, { first, end })
    else assert.equal(run.first, run.end)
    for (let at = run.first; at < run.end; at++) {
      assert.equal(real.count(at), 1, 'nobody gets it meanwhile')
      real.free(at, false)
      model.stale[at] = false
    }
    compare(model, real)
  }
}

function compare(model: Model, real: ChunkAllocator): void {
  assert.equal(real.highWater, model.highWater)
  let usedCount = 0
  for (let at = 1; at < model.highWater; at++) {
    assert.equal(real.count(at), model.counts[at])
    if ((model.counts[at] as number) > 0) usedCount++
    else assert.equal(real.isStale(at), model.stale[at])
  }
  assert.equal(real.usedCount, usedCount)
  assert.equal(real.freeCount, capacity - 1 - usedCount)
}

t.test('places are handed out and taken back as a naive allocator would', async () => {
  const commands = [
    fc.constant(new Allocate()),
    fc.nat(1000).map((pick) => new Use('retain', pick)),
    fc.nat(1000).map((pick) => new Use('release', pick)),
    fc.nat(1000).map((pick) => new Use('release-stale', pick)),
    fc.integer({ min: 1, max: capacity }).map((from) => new Sweep(from)),
  ]
  const property = fc.property(fc.commands(commands, { maxCommands: 120 }), (work) => {
    const setup = () => ({
      model: {
        counts: [1, ...new Array<number>(capacity - 1).fill(0)],
        stale: new Array<boolean>(capacity).fill(false),
        highWater: 1,
      },
      real: new ChunkAllocator(capacity),
    })
    fc.modelRun(setup, work)
  })
  fc.assert(property, { seed: 1, numRuns: 300 })
})

t.test('place 0 is never handed out, and a pool has an end', async (t) => {
  const allocator = new ChunkAllocator(4)
  t.strictSame(
    Array.from({ length: 5 }, () => allocator.allocate()),
    [1, 2, 3, 0, 0],
  )
  t.equal(allocator.freeCount, 0)
  t.ok(allocator.release(2))
  t.equal(allocator.allocate(), 0, 'released is not free')
  allocator.free(2, true)
  t.equal(allocator.allocate(), 2)
})

t.test('neighbours in time are neighbours in the file', async (t) => {
  const allocator = new ChunkAllocator(1000)
  for (let place = 1; place < 100; place++) t.equal(allocator.allocate(), place)
  for (const place of [10, 11, 12, 50, 51]) {
    t.ok(allocator.release(place))
    allocator.free(place, false)
  }
  t.strictSame(
    Array.from({ length: 6 }, () => allocator.allocate()),
    [10, 11, 12, 50, 51, 100],
  )
})

t.test('after recovery, what no map names is free and stale', async (t) => {
  const allocator = new ChunkAllocator(20)
  allocator.countReference(5)
  allocator.countReference(5)
  allocator.countReference(2)
  allocator.raiseHighWater(9)
  allocator.raiseHighWater(3)
  t.equal(allocator.highWater, 9)
  t.equal(allocator.usedCount, 2)
  t.equal(allocator.count(5), 2)
  const places = Array.from({ length: 6 }, () => allocator.allocate()).sort()
  t.strictSame(places, [1, 3, 4, 6, 7, 8])
  t.ok(places.every((place) => allocator.isStale(place)))
  t.equal(allocator.allocate(), 9)
  t.equal(allocator.isStale(9), false, 'the file never had it')
})

t.test('recovery counts over any number of segments', async (t) => {
  const allocator = new ChunkAllocator(10 * segmentPlaceCount)
  allocator.countReference(3 * segmentPlaceCount + 7)
  t.equal(allocator.highWater, 3 * segmentPlaceCount + 8)
  allocator.raiseHighWater(5 * segmentPlaceCount)
  t.equal(allocator.highWater, 5 * segmentPlaceCount)
  t.equal(allocator.usedCount, 1)
  t.equal(allocator.freeCount, 10 * segmentPlaceCount - 2)
})

t.test('a file larger than its pool does not make the pool larger', async (t) => {
  const allocator = new ChunkAllocator(5)
  allocator.raiseHighWater(1000)
  t.equal(allocator.highWater, 5)
  t.equal(allocator.freeCount, 4)
})

t.test('bounds of segments are no bounds of the pool', async (t) => {
  const end = 2 * segmentPlaceCount + 10
  const allocator = new ChunkAllocator(end)
  for (let place = 1; place < end; place++)
    if (allocator.allocate() !== place) t.fail(`place ${place}`)
  t.equal(allocator.allocate(), 0)
  const places = [segmentPlaceCount - 1, segmentPlaceCount, 2 * segmentPlaceCount, end - 1]
  for (const place of places) {
    t.ok(allocator.release(place))
    allocator.free(place, true)
  }
  t.strictSame(allocator.takeStaleRun(1), { first: segmentPlaceCount - 1, end: segmentPlaceCount })
  t.strictSame(allocator.takeStaleRun(segmentPlaceCount), {
    first: segmentPlaceCount,
    end: segmentPlaceCount + 1,
  })
  t.strictSame(
    [allocator.allocate(), allocator.allocate(), allocator.allocate()],
    [2 * segmentPlaceCount, end - 1, 0],
  )
})

t.test('more references than a count can hold are a bug, not an overflow', async (t) => {
  const allocator = new ChunkAllocator(4)
  const place = allocator.allocate()
  for (let count = 1; count < 65535; count++) allocator.retain(place)
  t.throws(() => allocator.retain(place), { name: 'AssertionError' })
  t.equal(allocator.count(place), 65535)
})

t.test('releasing what is free is a bug', async (t) => {
  const allocator = new ChunkAllocator(4)
  const place = allocator.allocate()
  allocator.retain(place)
  t.throws(() => allocator.free(place, true), { name: 'AssertionError' }, 'two references')
  t.notOk(allocator.release(place))
  allocator.free(place, true)
  t.throws(() => allocator.release(place), { name: 'AssertionError' })
  t.throws(() => allocator.retain(place), { name: 'AssertionError' })
})
