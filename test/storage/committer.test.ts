// Commits: who shares one, in which order its parts happen, and that a failure is for good.
import t from 'tap'
import { limits } from '../../src/core/limits.js'
import { silentLog } from '../../src/core/log.js'
import { ChunkAllocator } from '../../src/storage/chunk-allocator.js'
import { Committer } from '../../src/storage/committer.js'
import { batchExtraBytesMax, Journal } from '../../src/storage/journal.js'
import { Reclaimer } from '../../src/storage/reclaimer.js'
import { Life, Scheduler } from '../simulation/sim-clock.js'
import { failureOf } from '../support/failure.js'
import { gate, settled, WatchedFile } from '../support/watched-file.js'

const journalBytes = 256 * 1024

class Bench {
  readonly calls: string[]
  readonly data: WatchedFile
  readonly journalFile: WatchedFile
  readonly journal: Journal
  readonly scheduler = new Scheduler()
  readonly reclaimer: Reclaimer
  readonly committer: Committer
  readonly allocator = new ChunkAllocator(1000)
  readonly failures: unknown[] = []
  readonly taken: number[] = []
  readonly ended: boolean[] = []
  appliedSequence = 0
  positionStep = Number.POSITIVE_INFINITY

  private constructor(journalFile: WatchedFile, journal: Journal, calls: string[]) {
    this.calls = calls
    this.data = new WatchedFile('data', calls)
    this.journalFile = journalFile
    this.journal = journal
    const clock = this.scheduler.clockOf(new Life())
    const reclaimer = new Reclaimer({
      allocator: this.allocator,
      file: this.data,
      chunkBytes: 4096,
      clock,
      log: silentLog,
    })
    this.reclaimer = reclaimer
    this.committer = new Committer({
      data: this.data,
      journal,
      reclaimer,
      clock,
      log: silentLog,
      mutants: { skipDataSync: false, retryFailedSync: false, releaseEarly: false },
      appliedSequence: () => this.appliedSequence,
      positionStep: () => this.positionStep,
      onTaken: (batchNumber) => {
        this.taken.push(batchNumber)
        return (isDurable) => this.ended.push(isDurable)
      },
      onFailure: (error) => this.failures.push(error),
      durableSequence: 0,
    })
  }

  static async make(sizeBytes = journalBytes): Promise<Bench> {
    const calls: string[] = []
    const files = [0, 1].map(() => new WatchedFile('journal', calls, Buffer.alloc(sizeBytes)))
    const options = { salt: Buffer.alloc(8), coveredNumber: 0 }
    const journal = await Journal.open(files, options, () => {})
    return new Bench(files[0] as WatchedFile, journal, calls)
  }

  /** A write that changed a map. */
  change(chunk = 0): void {
    this.committer.dataWritten()
    this.committer.records.set(1, chunk, 1)
    this.committer.changed()
  }
}

t.test('a commit of nothing does nothing', async (t) => {
  const bench = await Bench.make()
  t.ok(bench.committer.isClean)
  await bench.committer.commit()
  t.strictSame(bench.calls, [])
})

t.test('data alone needs one sync and no batch', async (t) => {
  const bench = await Bench.make()
  bench.committer.dataWritten()
  t.notOk(bench.committer.isClean)
  bench.appliedSequence = 9
  await bench.committer.commit()
  t.strictSame(bench.calls, ['data sync'])
  t.equal(bench.committer.durableSequence, 9)
  t.ok(bench.committer.isClean)
})

t.test('a position that must be there after a crash gets a batch by itself', async (t) => {
  const bench = await Bench.make()
  bench.positionStep = 3
  bench.appliedSequence = 2
  await bench.committer.commit()
  t.strictSame(bench.calls, [], 'not far enough ahead')
  bench.appliedSequence = 3
  bench.committer.dataWritten()
  await bench.committer.commit()
  t.strictSame(bench.calls, ['data sync', 'journal write 0+4096', 'journal sync'])
  t.equal(bench.committer.durableSequence, 3)
  await bench.committer.commit()
  t.equal(bench.calls.length, 3, 'once')
})

t.test('the data is synced before the batch that names it', async (t) => {
  const bench = await Bench.make()
  bench.change()
  await bench.committer.commit()
  t.strictSame(bench.calls, ['data sync', 'journal write 0+4096', 'journal sync'])
  bench.committer.records.unmap(1, 0, 1)
  await bench.committer.commit()
  t.strictSame(bench.calls.slice(3), ['journal write 4096+4096', 'journal sync'])
})

t.test('everyone who asks during a commit shares the next one', async (t) => {
  const bench = await Bench.make()
  const { opened, open } = gate()
  bench.data.before = () => opened
  bench.change()
  const first = bench.committer.commit()
  await settled()
  bench.change(1)
  const later = Array.from({ length: 10 }, () => bench.committer.commit())
  t.equal(new Set([first, ...later]).size, 2)
  open()
  await Promise.all([first, ...later])
  t.equal(bench.calls.filter((call) => call === 'data sync').length, 2)
  t.equal(bench.journal.lastNumber, 2)
})

t.test('what is written while the data is synced waits for the next sync', async (t) => {
  const bench = await Bench.make()
  const { opened, open } = gate()
  bench.data.before = () => opened
  bench.committer.dataWritten()
  bench.appliedSequence = 1
  const first = bench.committer.commit()
  await settled()
  bench.committer.dataWritten()
  bench.appliedSequence = 2
  open()
  await first
  t.equal(bench.committer.durableSequence, 1)
  t.notOk(bench.committer.isClean)
  await bench.committer.commit()
  t.strictSame(bench.calls, ['data sync', 'data sync'])
  t.equal(bench.committer.durableSequence, 2)
})

t.test('releases go back when the batch is durable', async (t) => {
  const bench = await Bench.make()
  const place = bench.allocator.allocate()
  const { opened, open } = gate()
  bench.journalFile.before = (call) => (call === 'sync' ? opened : undefined)
  bench.reclaimer.releaseLater(place)
  bench.committer.records.unmap(1, 0, 1)
  const commit = bench.committer.commit()
  await settled()
  t.equal(bench.calls.at(-1), 'journal sync')
  t.notOk(bench.reclaimer.isWorking)
  open()
  await commit
  await bench.scheduler.run(bench.reclaimer.drain())
  t.equal(bench.allocator.count(place), 0)
})

for (const [what, call] of [
  ['the data', 'sync'],
  ['the journal', 'write'],
  ['the journal', 'sync'],
] as const) {
  t.test(`after a failed ${call} of ${what} nothing is committed any more`, async (t) => {
    const bench = await Bench.make()
    const file = what === 'the data' ? bench.data : bench.journalFile
    const place = bench.allocator.allocate()
    file.before = (kind) => (kind === call ? Promise.reject(new Error('medium')) : undefined)
    bench.change()
    bench.reclaimer.releaseLater(place)
    const queued = [bench.committer.commit()]
    await Promise.resolve()
    queued.push(bench.committer.commit())
    for (const work of queued)
      t.match(await failureOf(work), { code: 'FAILED_STOP', message: /medium/, action: /restart/ })
    file.before = () => undefined
    const { length } = bench.calls
    bench.change(1)
    t.match(await failureOf(bench.committer.commit()), { code: 'FAILED_STOP' })
    await bench.scheduler.settle(2 * limits.commitIntervalMs)
    t.equal(bench.calls.length, length, 'no call of the disk')
    t.equal(bench.failures.length, 1, 'it is told once')
    t.equal(bench.committer.failure, bench.failures[0])
    t.equal(bench.committer.durableSequence, 0)
    t.equal(bench.allocator.count(place), 1, 'its releases never come')
    t.strictSame(bench.ended, [false])
  })
}

t.test('a bug is no failed medium', async (t) => {
  const bench = await Bench.make()
  bench.change()
  bench.appliedSequence = 5
  await bench.committer.commit()
  bench.appliedSequence = 4
  bench.change()
  t.match(await failureOf(bench.committer.commit()), { name: 'AssertionError' })
  t.equal(bench.committer.failure, undefined)
})

t.test(
  'map changes that nobody flushes are committed after a while, data alone is not',
  async (t) => {
    const bench = await Bench.make()
    bench.committer.dataWritten()
    await bench.scheduler.settle(2 * limits.commitIntervalMs)
    t.strictSame(bench.calls, [])
    bench.change()
    await bench.scheduler.settle(limits.commitIntervalMs - 1)
    t.strictSame(bench.calls, [])
    await bench.scheduler.settle(1)
    t.equal(bench.journal.lastNumber, 1)
    bench.change()
    bench.committer.close()
    await bench.scheduler.settle(2 * limits.commitIntervalMs)
    t.equal(bench.journal.lastNumber, 1, 'not after close')
  },
)

t.test('many map changes start a commit by themselves', async (t) => {
  const bench = await Bench.make(4 * 1024 * 1024)
  for (let chunk = 0; chunk < limits.pendingMapChangesHigh; chunk++) bench.change(chunk)
  await settled()
  t.equal(bench.journal.lastNumber, 0)
  bench.change()
  await settled()
  t.equal(bench.journal.lastNumber, 1)
})

t.test('room counts what waits and what is on its way', async (t) => {
  const bench = await Bench.make(16 * 4096)
  const all = 16 * 4096 - 44
  t.ok(bench.committer.hasRoom(all, 0))
  t.notOk(bench.committer.hasRoom(all + 1, 0))
  t.notOk(bench.committer.hasRoom(all, 1))
  for (let chunk = 0; chunk < 100; chunk++) bench.change(chunk)
  t.ok(bench.committer.hasRoom(all - 1600, 0))
  t.notOk(bench.committer.hasRoom(all - 1599, 0))
  const { opened, open } = gate()
  bench.data.before = () => opened
  const commit = bench.committer.commit()
  await settled()
  bench.change()
  const rest = all - 1616 - batchExtraBytesMax
  t.ok(bench.committer.hasRoom(rest, 0))
  t.notOk(bench.committer.hasRoom(rest + 1, 0), 'the batch takes whole blocks')
  open()
  await commit
  t.ok(bench.committer.hasRoom(all - 16, 0), 'in the other file')
})

t.test('changes above a bound wait for the commit, whatever the journal holds', async (t) => {
  const bench = await Bench.make(8 * 1024 * 1024)
  t.ok(bench.committer.hasRoom(limits.pendingMapChangesMax * 16, 0))
  t.notOk(bench.committer.hasRoom(limits.pendingMapChangesMax * 16 + 1, 0))
})

t.test('a checkpoint is offered the number of the batch, and told how it ended', async (t) => {
  const bench = await Bench.make()
  await bench.committer.commit()
  bench.change()
  await bench.committer.commit()
  bench.committer.dataWritten()
  await bench.committer.commit()
  bench.change()
  await bench.committer.commit()
  t.strictSame(bench.taken, [0, 1, 1, 2])
  t.strictSame(bench.ended, [true, true, true, true])
})

t.test('what room was promised beside a batch on its way fits behind it, rounded up', async (t) => {
  const bench = await Bench.make(16 * 4096)
  // The other file is full, so everything goes into what is left of this one.
  for (let batch = 0; batch < 16; batch++) await bench.journal.append(Buffer.alloc(1), 0)
  const { opened, open } = gate()
  bench.data.before = () => opened
  // A batch of one block and a little, in the last file with room.
  while (bench.committer.records.lengthBytes <= 4096) bench.change()
  const commit = bench.committer.commit()
  await settled()
  while (bench.committer.hasRoom(16, 0)) bench.change()
  open()
  await commit
  t.ok(bench.committer.records.lengthBytes <= bench.journal.payloadBytesMax)
  await bench.committer.commit()
})

t.test('activations are a batch of their own, without a sync of the data', async (t) => {
  const bench = await Bench.make()
  bench.committer.dataWritten()
  bench.committer.records.set(1, 0, 1)
  bench.appliedSequence = 7
  bench.committer.activations.active(1, 0, 1)
  const first = bench.committer.activate()
  bench.committer.activations.active(1, 1, 2)
  t.equal(bench.committer.activate(), first, 'those of one turn share it')
  await first
  t.strictSame(bench.calls, ['journal write 0+4096', 'journal sync'])
  t.strictSame(bench.taken, [], 'no checkpoint begins with it')
  t.equal(bench.committer.durableSequence, 0, 'nothing else is durable by it')
  t.ok(bench.committer.records.lengthBytes > 0, 'the records wait for their sync')
  await bench.committer.commit()
  t.strictSame(bench.calls.slice(2), ['data sync', 'journal write 4096+4096', 'journal sync'])
  t.equal(bench.committer.durableSequence, 7)
})

t.test('a commit that waits takes activations along', async (t) => {
  const bench = await Bench.make()
  bench.change()
  const commit = bench.committer.commit()
  bench.committer.activations.active(1, 0, 1)
  t.equal(bench.committer.activate(), commit)
  await commit
  t.equal(bench.journal.lastNumber, 1)
  t.equal(bench.committer.activations.lengthBytes, 0)
})

t.test('activations that would fill the journal begin a checkpoint', async (t) => {
  const bench = await Bench.make(16 * 4096)
  while (!bench.journal.wantsCheckpoint) await bench.journal.append(Buffer.alloc(16), 0)
  bench.committer.activations.active(1, 0, 1)
  await bench.committer.activate()
  t.equal(bench.taken.length, 1)
})

t.test('an activation that fails is the same failure for good', async (t) => {
  const bench = await Bench.make()
  bench.journalFile.before = (call) =>
    call === 'sync' ? Promise.reject(new Error('medium')) : undefined
  bench.committer.activations.active(1, 0, 1)
  t.match(await failureOf(bench.committer.activate()), { code: 'FAILED_STOP', message: /medium/ })
  bench.journalFile.before = () => undefined
  t.match(await failureOf(bench.committer.activate()), { code: 'FAILED_STOP' })
  t.match(await failureOf(bench.committer.commit()), { code: 'FAILED_STOP' })
  t.equal(bench.failures.length, 1)
})

t.test('room counts activations as a batch of their own', async (t) => {
  const bench = await Bench.make(16 * 4096)
  const all = 16 * 4096 - 44
  bench.committer.activations.active(1, 0, 1)
  t.ok(bench.committer.hasRoom(all - 16 - batchExtraBytesMax, 0))
  t.notOk(bench.committer.hasRoom(all - 15 - batchExtraBytesMax, 0))
})
