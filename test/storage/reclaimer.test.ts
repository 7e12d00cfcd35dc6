// When a freed chunk may be used again: after its record is durable, after the reads that began before, after its bytes are gone.
import t from 'tap'
import { limits } from '../../src/core/limits.js'
import { silentLog } from '../../src/core/log.js'
import { ChunkAllocator } from '../../src/storage/chunk-allocator.js'
import { ChunkPage } from '../../src/storage/chunk-map.js'
import { Reclaimer } from '../../src/storage/reclaimer.js'
import { Life, Scheduler } from '../simulation/sim-clock.js'
import { chunkBytes, filled, SmallNode } from '../support/small-node.js'
import { gate, settled, WatchedFile } from '../support/watched-file.js'

/** A reclaimer over places 1 to 99, all in use. */
class Bench {
  readonly calls: string[] = []
  readonly warnings: object[] = []
  readonly file = new WatchedFile('data', this.calls, Buffer.alloc(100 * chunkBytes, 7))
  readonly allocator = new ChunkAllocator(100)
  readonly scheduler = new Scheduler()
  readonly #clock = this.scheduler.clockOf(new Life())
  /** Called when the reclaimer gives the turn to others. */
  onTurnEnd = (): void => {}
  readonly reclaimer = new Reclaimer({
    allocator: this.allocator,
    file: this.file,
    chunkBytes,
    clock: {
      ...this.#clock,
      defer: (callback) => {
        this.onTurnEnd()
        this.#clock.defer(callback)
      },
    },
    log: { ...silentLog, warn: (bindings) => void this.warnings.push(bindings) },
  })

  constructor() {
    for (let place = 1; place < 100; place++) this.allocator.allocate()
  }

  /** Releases places, as durable. */
  release(...places: readonly number[]): void {
    for (const place of places) this.reclaimer.releaseLater(place)
    this.reclaimer.durable(this.reclaimer.take())
  }

  free(): readonly number[] {
    const free: number[] = []
    for (let place = 1; place < 100; place++)
      if (this.allocator.count(place) === 0) free.push(place)
    return free
  }

  drain(): Promise<void> {
    return this.scheduler.run(this.reclaimer.drain())
  }
}

function pageWith(...places: readonly number[]): ChunkPage {
  const page = new ChunkPage(0)
  for (const [entry, place] of places.entries()) page.entries[entry * 3] = place
  page.usedCount = places.length
  return page
}

t.test('a place is free when its release is durable, and not before', async (t) => {
  const bench = new Bench()
  bench.reclaimer.releaseLater(5)
  t.ok(bench.reclaimer.hasUncommitted)
  const taken = bench.reclaimer.take()
  t.notOk(bench.reclaimer.hasUncommitted)
  await bench.drain()
  t.strictSame(bench.free(), [])
  bench.reclaimer.durable(taken)
  t.ok(bench.reclaimer.isWorking)
  await bench.drain()
  t.strictSame(bench.free(), [5])
  t.notOk(bench.reclaimer.isWorking)
})

t.test('neighbours are punched in one call, and read as zeroes then', async (t) => {
  const bench = new Bench()
  bench.release(12, 3, 4, 11, 5)
  await bench.drain()
  const size = chunkBytes
  t.strictSame(bench.calls, [
    `data punch ${3 * size}+${3 * size}`,
    `data punch ${11 * size}+${2 * size}`,
  ])
  t.strictSame(bench.free(), [3, 4, 5, 11, 12])
  t.ok(bench.free().every((place) => !bench.allocator.isStale(place)))
})

t.test('neighbours whose pages lie far apart are punched in one call', async (t) => {
  const bench = new Bench()
  const places = Array.from({ length: 3 * limits.releasePagesPerTurn }, (_, index) => index + 1)
  for (const place of [...places].reverse()) bench.reclaimer.releasePageLater(pageWith(place))
  bench.reclaimer.durable(bench.reclaimer.take())
  let gatheredMax = 0
  bench.onTurnEnd = () => {
    const isCounted = bench.reclaimer.freeingCount + bench.free().length
    gatheredMax = Math.max(gatheredMax, bench.reclaimer.freeingCount)
    t.equal(isCounted % limits.releasePagesPerTurn, 0, 'what is released and not free is counted')
  }
  await bench.drain()
  t.ok(gatheredMax >= 2 * limits.releasePagesPerTurn)
  t.strictSame(bench.calls, [`data punch ${chunkBytes}+${places.length * chunkBytes}`])
  t.strictSame(bench.free(), places)
  t.equal(bench.reclaimer.freeingCount, 0)
})

t.test('one punch takes so much and no more', async (t) => {
  const calls: string[] = []
  const largeBytes = limits.punchBytesMax / 2
  const allocator = new ChunkAllocator(100)
  for (let place = 1; place < 100; place++) allocator.allocate()
  const file = new WatchedFile('data', calls, Buffer.alloc(0))
  const scheduler = new Scheduler()
  const clock = scheduler.clockOf(new Life())
  const options = { allocator, file, chunkBytes: largeBytes, clock, log: silentLog }
  const reclaimer = new Reclaimer(options)
  for (const place of [1, 2, 3, 4, 5]) reclaimer.releaseLater(place)
  reclaimer.durable(reclaimer.take())
  await scheduler.run(reclaimer.drain())
  const lengths = calls.map((call) => Number(/\+(\d+)/.exec(call)?.[1]) / largeBytes)
  t.strictSame(lengths, [2, 2, 1])
})

t.test('nobody gets a place while it is punched', async (t) => {
  const bench = new Bench()
  const { opened, open } = gate()
  bench.file.before = () => opened
  bench.release(3)
  await settled()
  t.strictSame([bench.free(), bench.reclaimer.freeingCount], [[], 1])
  open()
  await bench.drain()
  t.strictSame([bench.free(), bench.reclaimer.freeingCount], [[3], 0])
})

t.test('a read holds what is released after it began, and only that', async (t) => {
  const bench = new Bench()
  const first = bench.reclaimer.beginRead()
  bench.release(3)
  const second = bench.reclaimer.beginRead()
  bench.release(4)
  await bench.drain()
  t.strictSame(bench.free(), [])
  bench.reclaimer.endRead(first)
  await bench.drain()
  t.strictSame(bench.free(), [3], 'the second read began when 3 was gone from the maps')
  const third = bench.reclaimer.beginRead()
  bench.reclaimer.endRead(second)
  await bench.drain()
  t.strictSame(bench.free(), [3, 4])
  bench.reclaimer.endRead(third)
})

t.test('reads of one time are counted', async (t) => {
  const bench = new Bench()
  const epochs = [bench.reclaimer.beginRead(), bench.reclaimer.beginRead()]
  bench.release(3)
  bench.reclaimer.endRead(epochs[0] as number)
  await bench.drain()
  t.strictSame(bench.free(), [])
  bench.reclaimer.endRead(epochs[1] as number)
  await bench.drain()
  t.strictSame(bench.free(), [3])
  t.throws(() => bench.reclaimer.endRead(epochs[1] as number), { name: 'AssertionError' })
})

t.test('a page gives back its chunks with its last holder', async (t) => {
  const bench = new Bench()
  const page = pageWith(7, 8)
  page.holders = 2
  bench.allocator.retain(8)
  for (const expected of [[], [7]]) {
    bench.reclaimer.releasePageLater(page)
    bench.reclaimer.durable(bench.reclaimer.take())
    await bench.drain()
    t.strictSame(bench.free(), expected)
  }
  t.equal(bench.allocator.count(8), 1)
})

t.test('many pages are released a few a turn', async (t) => {
  const bench = new Bench()
  t.equal(limits.releasePagesPerTurn, 32)
  const count = 97
  const shared = pageWith(9)
  shared.holders = count
  for (let one = 0; one < count; one++) bench.reclaimer.releasePageLater(shared)
  bench.reclaimer.durable(bench.reclaimer.take())
  const held = [count]
  bench.onTurnEnd = () => held.push(shared.holders)
  await bench.drain()
  const steps = held.slice(1).map((holders, at) => (held[at] as number) - holders)
  t.strictSame(steps, [32, 32, 32, 1])
  t.strictSame(bench.free(), [9])
})

t.test('what cannot be punched is free and stale, and is not tried again', async (t) => {
  const bench = new Bench()
  bench.file.canPunch = false
  bench.release(3, 9)
  bench.release(5)
  await bench.drain()
  t.strictSame(bench.free(), [3, 5, 9])
  t.ok(bench.free().every((place) => bench.allocator.isStale(place)))
  t.equal(bench.calls.length, 1)
})

t.test('a punch that failed once is tried for the next place', async (t) => {
  const bench = new Bench()
  bench.file.before = (_, offset) =>
    offset === 3 * chunkBytes ? Promise.reject(new Error('EIO')) : undefined
  bench.release(3, 9)
  await bench.drain()
  t.strictSame([bench.allocator.isStale(3), bench.allocator.isStale(9)], [true, false])
})

t.test('a file that fails every punch is one stack in the log', async (t) => {
  const bench = new Bench()
  const broken = Object.assign(new Error('EIO: i/o error, fallocate'), { code: 'EIO' })
  bench.file.before = () => Promise.reject(broken)
  for (let place = 3; place < 99; place += 2) bench.release(place)
  await bench.drain()
  t.equal(bench.calls.length, 48)
  t.same(bench.warnings, [
    { err: broken, first: 3, end: 4 },
    { kind: 'EIO', count: 10, first: 21, end: 22 },
  ])
})

t.test('after a start the free places are punched, in runs', async (t) => {
  const bench = new Bench()
  for (const place of [2, 3, 50, 99]) {
    bench.allocator.release(place)
    bench.allocator.free(place, true)
  }
  bench.reclaimer.sweep()
  await bench.scheduler.settle()
  const size = chunkBytes
  t.strictSame(bench.calls, [
    `data punch ${2 * size}+${2 * size}`,
    `data punch ${50 * size}+${size}`,
    `data punch ${99 * size}+${size}`,
  ])
  t.strictSame(bench.free(), [2, 3, 50, 99])
  t.ok(bench.free().every((place) => !bench.allocator.isStale(place)))
})

t.test('releases come before the rest of a sweep', async (t) => {
  const bench = new Bench()
  for (const place of [2, 50, 60]) {
    bench.allocator.release(place)
    bench.allocator.free(place, true)
  }
  bench.reclaimer.sweep()
  bench.release(7)
  await bench.scheduler.settle()
  const places = bench.calls.map((call) => Number(/punch (\d+)/.exec(call)?.[1]) / chunkBytes)
  t.equal(places.indexOf(7) <= 1, true, `${places}`)
  t.strictSame(bench.free(), [2, 7, 50, 60])
})

t.test('closing ends after the step under way, and frees nothing afterwards', async (t) => {
  const bench = new Bench()
  const { opened, open } = gate()
  bench.file.before = () => opened
  bench.release(3, 9, 20)
  await settled()
  const closing = bench.reclaimer.close()
  open()
  await bench.scheduler.run(closing)
  t.equal(bench.calls.length, 1, 'no further punch')
  bench.release(30)
  await bench.drain()
  t.notOk(bench.free().includes(30))
})

t.test('a release that its commit has taken is still counted', async (t) => {
  const node = await SmallNode.start({ disk: { completion: 'scheduled' } })
  await node.create('v', 1024 * 1024)
  await node.write('v', 0, filled(1, 4 * chunkBytes))
  await node.snapshot('v@a')
  await node.write('v', 0, filled(2))
  await node.zero('v', 2 * chunkBytes, chunkBytes)
  const done = node.perform({ kind: 'snapshot.delete', store: 'v@a' })
  for (let step = 0; step < 20; step++) {
    node.engine.checkInvariants()
    await node.scheduler.step()
  }
  await done
  await node.zero('v', 0, chunkBytes)
  node.fault = (call) => (call.kind === 'sync' ? { errno: 'EIO' } : undefined)
  await t.rejects(node.perform({ kind: 'snapshot.create', stores: ['v'], name: 'b' }))
  node.engine.checkInvariants()
})

t.test('nobody waits for a sweep: its places are free already', async (t) => {
  const bench = new Bench()
  bench.allocator.release(50)
  bench.allocator.free(50, true)
  const { opened, open } = gate()
  bench.file.before = (_, offset) => (offset === 50 * chunkBytes ? opened : undefined)
  bench.reclaimer.sweep()
  await settled()
  bench.release(3)
  await bench.drain()
  t.strictSame(bench.free(), [3])
  const closing = bench.reclaimer.close()
  open()
  await bench.scheduler.run(closing)
  t.strictSame(bench.free(), [3, 50])
})
