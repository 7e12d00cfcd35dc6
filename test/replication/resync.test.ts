// The runner of a resync, on a clock that the test moves and a host that settles when it is told: bounds, yielding, rate, ends.
import assert from 'node:assert/strict'
import t from 'tap'
import type { Clock, Timer } from '../../src/core/clock.js'
import { blockBytes, KiB, MiB, type StoreId } from '../../src/core/units.js'
import { Resync, type ResyncHost } from '../../src/replication/resync.js'
import { resyncLimits } from '../../src/replication/resync-limits.js'
import type { ResyncItem, ResyncView } from '../../src/replication/resync-plan.js'
import { SeededRandom } from '../support/random.js'
import { blocksPerChunk, ResyncModel } from '../support/resync-model.js'

/** Time stands until the test moves it; deferred callbacks run when it yields. */
class TestClock implements Clock {
  #nowMs = 1000
  #timers = new Set<{ readonly atMs: number; readonly callback: () => void }>()
  #deferred: (() => void)[] = []

  get timerCount(): number {
    return this.#timers.size
  }

  nowMs(): number {
    return this.#nowMs
  }

  wallTime(): Date {
    return new Date(0)
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + delayMs, callback }
    this.#timers.add(timer)
    return { cancel: () => void this.#timers.delete(timer) }
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback)
  }

  /** Lets everything run that can without time. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 20; quiet++) {
      await Promise.resolve()
      const deferred = this.#deferred.splice(0)
      if (deferred.length > 0) quiet = 0
      for (const callback of deferred) callback()
    }
  }

  async advance(byMs: number): Promise<void> {
    const untilMs = this.#nowMs + byMs
    for (;;) {
      const due = [...this.#timers].sort((a, b) => a.atMs - b.atMs)[0]
      if (due === undefined || due.atMs > untilMs) break
      this.#nowMs = due.atMs
      this.#timers.delete(due)
      due.callback()
      await this.settle()
    }
    this.#nowMs = untilMs
    await this.settle()
  }
}

/** One volume that is dirty from `dirtyFrom` on, nothing shared; items settle by `take`. */
class PlainHost implements ResyncHost {
  readonly clock = new TestClock()
  readonly view: ResyncView
  readonly items: Exclude<ResyncItem, { kind: 'share' }>[] = []
  readonly #sizeBytes: number
  readonly #clean = new Set<number>()
  #settles: { readonly resolve: () => void; readonly reject: (error: Error) => void }[] = []
  isBusy = false
  endCount = 0
  isOutboxEmpty = true
  drainedCount = 0
  hurryCount = 0
  /** Numbers of the items that the peer was to make durable at once. */
  readonly urgent: number[] = []

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes
    const stores = [{ id: 1 as StoreId, sizeBytes, isVolume: true }]
    this.view = {
      chunkBytes: 64 * KiB,
      stores: () => stores,
      nextDirty: (_id, fromOffset, lengthBytesMax) => this.#nextDirty(fromOffset, lengthBytesMax),
      isDirty: () => true,
      isSuspect: () => false,
      place: (_id, chunk) => chunk + 1,
      holeEnd: (_id, chunk) => chunk,
    }
  }

  get underWayCount(): number {
    return this.#settles.length
  }

  submit(item: ResyncItem, { isUrgent }: { readonly isUrgent: boolean }): Promise<void> {
    assert(item.kind !== 'share')
    this.items.push(item)
    if (isUrgent) this.urgent.push(this.items.length)
    return new Promise((resolve, reject) => {
      const done = (): void => {
        for (let at = 0; at < item.lengthBytes; at += blockBytes) this.#clean.add(item.offset + at)
        resolve()
      }
      this.#settles.push({ resolve: done, reject })
    })
  }

  async take(count: number): Promise<void> {
    for (const { resolve } of this.#settles.splice(0, count)) resolve()
    await this.clock.settle()
  }

  async fail(count: number, error: Error): Promise<void> {
    for (const { reject } of this.#settles.splice(0, count)) reject(error)
    await this.clock.settle()
  }

  hurry(): void {
    this.hurryCount++
  }

  clientsWaiting(): boolean {
    return this.isBusy
  }

  bytesToMove(): number {
    return this.dirtyBytes()
  }

  dirtyBytes(): number {
    return this.#sizeBytes - this.#clean.size * blockBytes
  }

  isDrained(): boolean {
    return this.isOutboxEmpty
  }

  async drained(): Promise<void> {
    this.drainedCount++
    if (this.drainedCount > 2) this.isOutboxEmpty = true
  }

  end(): void {
    assert.equal(this.dirtyBytes(), 0)
    assert(this.isOutboxEmpty)
    this.endCount++
  }

  #nextDirty(
    fromOffset: number,
    lengthBytesMax: number,
  ): { readonly offset: number; readonly lengthBytes: number } | undefined {
    let offset = fromOffset
    while (offset < this.#sizeBytes && this.#clean.has(offset)) offset += blockBytes
    if (offset >= this.#sizeBytes) return undefined
    let end = offset
    while (end < this.#sizeBytes && !this.#clean.has(end)) end += blockBytes
    return { offset, lengthBytes: Math.min(end - offset, lengthBytesMax) }
  }
}

t.test('no more is under way than the bound, and it ends once all is clean', async (t) => {
  const host = new PlainHost(40 * MiB)
  const resync = new Resync(host, { bytesInFlightMax: 16 * MiB })
  const run = resync.run()
  await host.clock.settle()
  t.equal(host.underWayCount, 64, '16 MiB in pieces of 256 KiB')
  await host.take(1)
  t.equal(host.underWayCount, 64, 'one goes, one comes')
  while (host.underWayCount > 0) await host.take(10)
  t.equal(await run, 'done')
  t.equal(host.endCount, 1)
  t.equal(host.items.length, 160, 'each piece once')
  t.equal(resync.progress.doneBytes, 40 * MiB)
  t.equal(resync.progress.totalBytes, 40 * MiB)
  t.equal(host.clock.timerCount, 0)
})

t.test('before it waits, the peer was told to make durable what it waits for', async (t) => {
  const host = new PlainHost(20 * MiB)
  const resync = new Resync(host, { bytesInFlightMax: 16 * MiB })
  const run = resync.run()
  await host.clock.settle()
  t.same(host.urgent, [16, 32, 48, 64], 'four times in what may be under way')
  t.equal(host.hurryCount, 0)
  await host.take(64)
  t.equal(host.items.length, 80)
  t.same(host.urgent.slice(4), [80])
  await host.take(16)
  t.equal(await run, 'done')

  const small = new PlainHost(1 * MiB)
  const smallRun = new Resync(small).run()
  await small.clock.settle()
  t.same(small.urgent, [])
  t.equal(small.hurryCount, 1, 'too little for an urgent item: at the end of the pass')
  await small.take(1)
  t.equal(small.hurryCount, 1, 'once')
  await small.take(3)
  t.equal(await smallRun, 'done')
})

t.test('while clients wait it goes down to its floor, and goes on there', async (t) => {
  const host = new PlainHost(40 * MiB)
  host.isBusy = true
  const resync = new Resync(host, { bytesInFlightMax: 16 * MiB })
  const run = resync.run()
  await host.clock.settle()
  t.equal(host.underWayCount, 2, '512 KiB')
  await host.take(1)
  t.equal(host.underWayCount, 2)
  host.isBusy = false
  await host.take(1)
  t.equal(host.underWayCount, 64)
  host.isBusy = true
  await host.take(60)
  t.equal(host.underWayCount, 4, 'nothing new above the floor')
  resync.stop()
  t.equal(await run, 'stopped')
})

t.test('it holds the rate that it was given', async (t) => {
  const host = new PlainHost(64 * MiB)
  const resync = new Resync(host, { bytesPerSecondMax: 1 * MiB })
  const run = resync.run()
  await host.clock.settle()
  for (let second = 0; second < 10; second++)
    for (let quarter = 0; quarter < 4; quarter++) {
      await host.take(64)
      await host.clock.advance(250)
    }
  const sentBytes = host.items.length * 256 * KiB
  t.ok(Math.abs(sentBytes - 10 * MiB) <= 256 * KiB, `${sentBytes} bytes in 10 s`)
  await host.take(64)
  const { bytesPerSecond, secondsLeft, doneBytes, totalBytes } = resync.progress
  t.ok(Math.abs((bytesPerSecond ?? 0) - MiB) < 0.3 * MiB, `${bytesPerSecond} bytes a second`)
  t.ok(Math.abs((secondsLeft ?? 0) - 54) < 20, `${secondsLeft} s left`)
  t.equal(totalBytes, 64 * MiB)
  t.equal(doneBytes, sentBytes)
  resync.setRate(undefined)
  await host.clock.advance(300)
  t.ok(host.underWayCount >= 64, 'no limit any more')
  resync.stop()
  t.equal(await run, 'stopped')
  t.equal(host.clock.timerCount, 0)
})

t.test(
  'rate and time left are unknown until something has gone over, and honest then',
  async (t) => {
    const host = new PlainHost(64 * MiB)
    const resync = new Resync(host)
    const run = resync.run()
    await host.clock.settle()
    const unknown = { doneBytes: 0, totalBytes: 64 * MiB, bytesPerSecond: null, secondsLeft: null }
    t.same(resync.progress, unknown)
    for (let quarter = 0; quarter < 4; quarter++) {
      await host.clock.advance(250)
      t.same(resync.progress, unknown)
    }
    await host.take(64)
    await host.clock.advance(250)
    const first = resync.progress
    t.equal(first.doneBytes, 16 * MiB)
    const rate = first.bytesPerSecond ?? 0
    t.ok(Math.abs(rate - (16 * MiB) / 1.25) < 2 * MiB, `${rate} after 16 MiB in 1.25 s`)
    t.ok(Math.abs((first.secondsLeft ?? 0) - 3.75) < 1, `${first.secondsLeft} s for 48 MiB`)
    await host.clock.advance(200_000)
    t.match(resync.progress, { bytesPerSecond: 0, secondsLeft: null }, 'nothing goes over any more')
    resync.stop()
    t.equal(await run, 'stopped')
  },
)

t.test('a lost link ends it at once, and the next run sends only what is left', async (t) => {
  const host = new PlainHost(30 * MiB)
  const first = new Resync(host)
  const run = first.run()
  await host.clock.settle()
  await host.take(50)
  first.stop()
  t.equal(await run, 'stopped', 'without waiting for what is under way')
  t.equal(host.endCount, 0)
  const leftBytes = host.dirtyBytes()
  t.equal(leftBytes, 30 * MiB - 50 * 256 * KiB)
  const sentCount = host.items.length
  await host.fail(1000, new Error('the link is lost'))
  const second = new Resync(host)
  const secondRun = second.run()
  await host.clock.settle()
  while (host.underWayCount > 0) await host.take(7)
  t.equal(await secondRun, 'done')
  t.equal((host.items.length - sentCount) * 256 * KiB, leftBytes)
})

t.test('stopped before it began it does nothing', async (t) => {
  const host = new PlainHost(1 * MiB)
  const resync = new Resync(host)
  resync.stop()
  t.equal(await resync.run(), 'stopped')
  t.equal(host.items.length, 0)
})

t.test(
  'what cannot be read is tried again after a while, and it does not end before',
  async (t) => {
    const host = new PlainHost(1 * MiB)
    const resync = new Resync(host)
    const run = resync.run()
    await host.clock.settle()
    await host.fail(1, Object.assign(new Error('bad sector'), { code: 'EIO' }))
    await host.take(3)
    t.equal(host.items.length, 4)
    t.equal(host.underWayCount, 0, 'it waits')
    await host.clock.advance(resyncLimits.retryMs - 1)
    t.equal(host.items.length, 4)
    await host.clock.advance(1)
    t.equal(host.items.length, 5, 'the one that failed')
    await host.take(1)
    t.equal(await run, 'done')
  },
)

t.test('it waits for the outbox before it ends', async (t) => {
  const host = new PlainHost(256 * KiB)
  host.isOutboxEmpty = false
  const run = new Resync(host).run()
  await host.clock.settle()
  await host.take(1)
  t.equal(await run, 'done')
  t.equal(host.drainedCount, 3)
})

t.test('a failed assertion in the host is not taken for a bad disk', async (t) => {
  const host = new PlainHost(1 * MiB)
  const run = new Resync(host).run()
  run.catch(() => {})
  await host.clock.settle()
  await host.fail(1, new assert.AssertionError({ message: 'a bug' }))
  await t.rejects(run, { message: 'a bug' })
})

t.test('with clients that write and links that are lost both nodes end equal', async (t) => {
  let stopCount = 0
  for (let seed = 0; seed < 60; seed++) {
    const random = new SeededRandom(seed)
    const model = new ResyncModel()
    const clock = new TestClock()
    for (let count = 0; count < 3; count++) model.addVolume(8 * blocksPerChunk)
    const write = (): void => {
      const first = random.below(31)
      model.write(1 + random.below(3), first, first + 1, random.below(1e6))
    }
    for (let count = 0; count < 30; count++) random.below(4) > 0 ? write() : model.snapshot(1)
    model.lose()
    const host: ResyncHost = {
      ...{ view: model, clock },
      submit: (item) => new Promise((resolve) => model.submit(item, resolve)),
      clientsWaiting: () => random.below(2) === 0,
      dirtyBytes: () => model.dirtyBlocks() * blockBytes,
      bytesToMove: () => model.dirtyBlocks() * blockBytes,
      isDrained: () => model.queuedCount === 0,
      hurry: () => {},
      drained: () => new Promise((resolve) => model.whenEmpty(resolve)),
      end: () => assert.equal(model.dirtyBlocks(), 0),
    }
    let result: string | undefined
    for (let turns = 0; result !== 'done'; turns++) {
      assert(turns < 100, 'it does not end')
      result = undefined
      const resync = new Resync(host)
      const run = resync.run().then((value) => {
        result = value
      })
      for (let steps = 0; result === undefined; steps++) {
        assert(steps < 10_000)
        await clock.settle()
        if (turns < 5 && random.below(3) === 0) write()
        model.deliver(1 + random.below(5))
        if (turns < 5 && random.below(30) === 0) {
          model.lose()
          resync.stop()
          stopCount++
        }
        if (random.below(10) === 0) await clock.advance(1000)
      }
      await run
    }
    model.deliver(model.queuedCount)
    model.check()
    model.checkSharing()
  }
  t.ok(stopCount > 20, `${stopCount} links lost`)
})
