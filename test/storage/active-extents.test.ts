// The waiting around the active set: who waits for what, what shares a batch, what leaves when the set is full, what an operation keeps.
import t from 'tap'
import { LockstepError } from '../../src/core/errors.js'
import { limits } from '../../src/core/limits.js'
import { extentBytes, type StoreId } from '../../src/core/units.js'
import { ActiveExtents, type ActiveExtentsOptions } from '../../src/storage/active-extents.js'
import { ActiveSet } from '../../src/storage/active-set.js'
import { failureOf } from '../support/failure.js'
import { ManualClock } from '../support/manual-clock.js'
import { gate, settled } from '../support/watched-file.js'

const volume = 1 as StoreId
const other = 2 as StoreId

/** A journal that says what it is asked, and does it when `open` is called. */
class Bench {
  readonly calls: string[] = []
  readonly set = new ActiveSet()
  readonly extents: ActiveExtents
  readonly gates: ReturnType<typeof gate>[] = []
  hasRoom = true
  roomBytes = Number.POSITIVE_INFINITY
  mayEnd = true
  fullCount = 0
  readonly suspects = new Set<number>()
  readonly clock = new ManualClock()
  reclaim: () => Promise<void> = () => Promise.resolve()

  constructor(options: Partial<ActiveExtentsOptions> = {}) {
    const waiting = (call: string) => (): Promise<void> => {
      this.calls.push(call)
      const one = gate()
      this.gates.push(one)
      return one.opened
    }
    this.extents = new ActiveExtents({
      set: this.set,
      journal: {
        active: ({ storeId, first, end }) => this.calls.push(`active ${storeId} ${first}-${end}`),
        inactive: ({ storeId, first, end }) =>
          this.calls.push(`inactive ${storeId} ${first}-${end}`),
        activate: waiting('activate'),
        commit: waiting('commit'),
        hasRoom: (lengthBytes) => this.hasRoom && lengthBytes <= this.roomBytes,
        reclaim: () => this.reclaim(),
        mayEnd: () => this.mayEnd,
        isSuspect: ({ first }) => this.suspects.has(first),
      },
      clock: this.clock,
      idleMs: 1000,
      onFull: () => this.fullCount++,
      itemsMax: 5,
      itemsPerEviction: 2,
      ...options,
    })
  }

  /** Everything that was begun is durable. */
  async open(): Promise<void> {
    for (const one of this.gates.splice(0)) one.open()
    await settled()
  }

  hold(extent: number, count = 1, storeId = volume): Promise<void> | undefined {
    return this.extents.hold(storeId, extent * extentBytes, count * extentBytes)
  }

  drop(extent: number, count = 1, storeId = volume): void {
    this.extents.drop(storeId, extent * extentBytes, count * extentBytes)
  }

  /** Extents made active and let go of. */
  async touch(...extents: readonly number[]): Promise<void> {
    for (const extent of extents) {
      const held = this.hold(extent)
      await this.open()
      await held
      this.drop(extent)
    }
  }
}

async function isSettled(work: Promise<void> | undefined): Promise<boolean> {
  let isDone = false
  work?.then(
    () => {
      isDone = true
    },
    () => {},
  )
  await settled()
  return isDone
}

t.test('a write waits until its extent is durably active, and the next one does not', async (t) => {
  const bench = new Bench()
  const held = bench.hold(3)
  t.ok(held)
  t.strictSame(bench.calls, ['active 1 3-4', 'activate'])
  t.notOk(await isSettled(held))
  const second = bench.extents.hold(volume, 3 * extentBytes + 512, 512)
  t.notOk(await isSettled(second), 'nor does another one go ahead meanwhile')
  await bench.open()
  await Promise.all([held, second])
  t.equal(bench.extents.hold(volume, 4 * extentBytes - 512, 512), undefined)
  t.equal(bench.extents.heldRecordBytes, 3 * 16)
  t.equal(bench.calls.filter((call) => call.startsWith('active')).length, 1)
})

t.test('a range over two extents needs both', async (t) => {
  const bench = new Bench()
  await bench.touch(0)
  const held = bench.extents.hold(volume, extentBytes - 512, 1024)
  t.ok(held)
  t.equal(bench.calls.at(-2), 'active 1 1-2', 'only what is missing gets a record')
  await bench.open()
  await held
  t.equal(bench.extents.hold(volume, extentBytes - 512, 1024), undefined)
})

t.test('a full set lets go of what was not used for longest, with a commit', async (t) => {
  const bench = new Bench()
  await bench.touch(0, 1, 2)
  t.equal(bench.hold(0), undefined, 'used again, and kept')
  bench.calls.length = 0
  const held = bench.hold(3)
  t.strictSame(bench.calls.slice(-3), ['inactive 1 1-2', 'inactive 1 2-3', 'commit'])
  await bench.open()
  await held
  t.equal(bench.set.get(volume, 1), undefined)
  t.ok(bench.set.get(volume, 0))
  t.equal(bench.fullCount, 0)
})

t.test(
  'whoever needs an extent that is leaving waits until it is gone, and makes it active again',
  async (t) => {
    const bench = new Bench()
    await bench.touch(0, 1, 2)
    const third = bench.hold(3)
    const again = bench.hold(0)
    t.ok(again)
    t.equal(bench.calls.filter((call) => call === 'active 1 0-1').length, 1)
    await bench.open()
    await third
    t.equal(bench.calls.filter((call) => call === 'active 1 0-1').length, 2, 'behind its end')
    t.notOk(await isSettled(again))
    await bench.open()
    await again
  },
)

t.test(
  'when everything is referred to, a write waits for others to leave, and nobody overtakes it',
  async (t) => {
    const bench = new Bench()
    for (const extent of [0, 1, 2, 3, 5]) {
      void bench.hold(extent)
      await bench.open()
    }
    const waiting = bench.hold(4)
    const behind = bench.hold(0)
    t.ok(behind, 'its extent is active, but somebody waits before it')
    await bench.open()
    t.notOk(await isSettled(waiting))
    t.equal(bench.extents.waitingCount, 2)
    t.ok(bench.fullCount > 0, 'the owner hears of it')
    bench.drop(1)
    await bench.open()
    await bench.open()
    await Promise.all([waiting, behind])
    t.equal(bench.set.get(volume, 1), undefined)
  },
)

t.test('a long range is one item', async (t) => {
  const bench = new Bench()
  const held = bench.hold(10, 1000)
  t.strictSame(bench.calls, ['active 1 10-1010', 'activate'])
  await bench.open()
  await held
  t.equal(bench.set.itemCount, 1)
  t.equal(bench.hold(10, 1000), undefined)
  t.ok(bench.hold(20), 'a short one has an item of its own')
  bench.drop(10, 1000)
  bench.drop(10, 1000)
  t.equal(bench.set.getLong(volume, { first: 10, end: 1010 })?.references, 0)
})

t.test(
  'what an operation makes active is kept until it leaves, and needs a record before it is written',
  async (t) => {
    const bench = new Bench()
    await bench.touch(0, 5)
    const copy = { kind: 'copy', reason: 'sync', sourceId: volume, targetId: other } as const
    bench.extents.performed(9, copy)
    t.strictSame(
      [0, 5].map((extent) => bench.set.get(other, extent)?.state),
      ['derived', 'derived'],
    )
    const held = bench.hold(0, 1, other)
    t.ok(held, 'the record of the operation may not be durable')
    t.ok(bench.calls.includes('active 2 0-1'))
    await bench.open()
    await held
    bench.drop(0, 1, other)
    t.equal(bench.set.get(other, 0)?.references, 1)
    bench.extents.operationLeft(9)
    t.equal(bench.set.get(other, 0)?.references, 0)
    bench.extents.operationLeft(9)
    t.equal(bench.set.get(other, 5)?.references, 0)
  },
)

t.test('a copied range makes active what it touches, a deleted store nothing', async (t) => {
  const bench = new Bench({ itemsMax: 100 })
  await bench.touch(0, 1, 2, 3)
  const held = bench.hold(10, 100)
  await bench.open()
  await held
  const range = { offset: extentBytes + 1, lengthBytes: extentBytes } as never
  const ends = { reason: 'sync', sourceId: volume, targetId: other } as const
  bench.extents.performed(1, { kind: 'copy', ...ends, range })
  t.strictSame(
    [...bench.set.items()].filter((item) => item.storeId === other).map((item) => item.first),
    [1, 2],
  )
  const snapshots = [{ storeId: 3 as StoreId, sourceId: volume, name: 's' }]
  bench.extents.performed(2, {
    kind: 'batch',
    operations: [{ kind: 'create-snapshots', snapshots }],
  })
  t.equal([...bench.set.items()].filter((item) => item.storeId === 3).length, 5)
  bench.extents.performed(3, { kind: 'delete', storeId: volume })
  t.equal(bench.set.get(volume, 0), undefined)
  bench.drop(0)
  t.equal(bench.set.itemCount, 7)
})

t.test('a full journal refuses those who wait when a checkpoint brings no room', async (t) => {
  const bench = new Bench()
  bench.hasRoom = false
  t.match(await failureOf(bench.hold(0)), { code: 'NO_SPACE', action: /room/ })
  t.equal(bench.extents.heldRecordBytes, 0)
  bench.reclaim = async () => {
    bench.hasRoom = true
  }
  const held = bench.hold(0)
  await settled()
  await bench.open()
  await held
  t.equal(bench.set.get(volume, 0)?.state, 'active')
})

t.test('a change of a whole store needs room for all that its blocks may need', async (t) => {
  const bench = new Bench()
  // 2^41 blocks are 513 records of the number of blocks that fits in one.
  const extentCount = 2 ** 31
  const needBytes = 513 * 16
  bench.roomBytes = 2000
  let reclaimCount = 0
  bench.reclaim = async () => {
    reclaimCount++
  }
  t.match(await failureOf(bench.hold(0, extentCount)), { code: 'NO_SPACE' })
  t.equal(reclaimCount, 1, 'a checkpoint that brings no room is not tried for ever')
  bench.roomBytes = 64 * 16 + needBytes
  const held = bench.hold(0, extentCount)
  await bench.open()
  await held
  t.equal(bench.extents.heldRecordBytes, needBytes)
  t.equal(bench.hold(0, extentCount), undefined)
  t.equal(bench.extents.heldRecordBytes, 2 * needBytes)
  bench.drop(0, extentCount)
  bench.drop(0, extentCount)
  t.equal(bench.extents.heldRecordBytes, 0)
  t.equal(bench.set.itemCount, 1)
})

t.test('a failed journal refuses for good', async (t) => {
  const bench = new Bench()
  const held = bench.hold(0)
  const failure = new LockstepError('FAILED_STOP', 'the medium', 'restart')
  bench.gates[0]?.fail(failure)
  t.equal(await failureOf(held), failure)
  t.equal(bench.extents.heldRecordBytes, 0)
  t.equal(bench.set.get(volume, 0)?.references, 0)
})

t.test('whoever waits for room when the journal fails is refused', async (t) => {
  const failure = new LockstepError('FAILED_STOP', 'the medium', 'restart')
  // What takes the room is on its way to the journal, and will never be there.
  const queued = new Bench({ itemsMax: 1 })
  const first = queued.hold(0)
  const behind = queued.hold(1)
  queued.gates[0]?.fail(failure)
  t.equal(await failureOf(first), failure)
  t.equal(await failureOf(behind), failure)
  // What takes the room is held by an entry that may never leave.
  const held = new Bench({ itemsMax: 1 })
  const mine = held.hold(0)
  await held.open()
  await mine
  const other = held.hold(1)
  held.extents.failed(failure)
  t.equal(await failureOf(other), failure)
  t.equal(await failureOf(held.hold(2)), failure, 'and so is everybody later')
})

t.test('what nobody has used for long leaves by itself, all with one commit', async (t) => {
  const bench = new Bench({ itemsMax: 50 })
  t.equal(bench.clock.timerCount, 0, 'an empty set needs no timer')
  await bench.touch(0, 1)
  bench.clock.advance(600)
  await bench.touch(2)
  const held = bench.hold(3)
  await bench.open()
  await held
  bench.calls.length = 0
  bench.clock.advance(1000)
  t.same(bench.calls, [], 'all were used since the sweep before')
  await bench.touch(1)
  bench.calls.length = 0
  bench.clock.advance(1000)
  t.same(bench.calls, ['inactive 1 0-1', 'inactive 1 2-3', 'commit'])
  const back = bench.hold(0)
  t.notOk(await isSettled(back), 'whoever needs one that is leaving waits until it is gone')
  await bench.open()
  t.equal(bench.set.get(volume, 2), undefined)
  await bench.open()
  await back
  bench.drop(0)
  bench.clock.advance(3000)
  await bench.open()
  bench.clock.advance(1000)
  await bench.open()
  t.same(
    [...bench.set.items()].map(({ first }) => first),
    [3],
    'what is referred to stays',
  )
  bench.drop(3)
  bench.clock.advance(1000)
  await bench.open()
  t.equal(bench.set.itemCount, 0)
  bench.clock.advance(1000)
  t.equal(bench.clock.timerCount, 0)
})

t.test('what was active at a start stays until it is dirty', async (t) => {
  const bench = new Bench({ itemsMax: 50 })
  bench.set.add(volume, { first: 0, end: 3 }, 'active')
  bench.clock.advance(10_000)
  t.same(bench.calls, [], 'however long the start takes')
  bench.extents.recovered()
  bench.clock.advance(1000)
  t.equal(bench.calls.at(-1), 'commit')
  await bench.open()
  t.equal(bench.set.itemCount, 0)
})

t.test('a suspect extent stays, and so does what has no room for its record', async (t) => {
  const bench = new Bench({ itemsMax: 50 })
  await bench.touch(0, 1, 2, 3)
  bench.suspects.add(1)
  bench.mayEnd = false
  bench.clock.advance(3000)
  bench.mayEnd = true
  bench.roomBytes = limits.journalReserveBytes
  bench.calls.length = 0
  bench.clock.advance(1000)
  t.same(bench.calls, [], 'the room that is kept for others is not for this')
  bench.roomBytes += 2 * 16
  bench.clock.advance(1000)
  t.same(bench.calls, ['inactive 1 0-1', 'commit'], 'half of three')
  await bench.open()
  bench.roomBytes = Number.POSITIVE_INFINITY
  bench.clock.advance(1000)
  await bench.open()
  t.same(
    [...bench.set.items()].map(({ first }) => first),
    [1],
  )
  bench.suspects.clear()
  bench.clock.advance(1000)
  await bench.open()
  t.equal(bench.set.itemCount, 0)
})

t.test('nothing leaves by itself behind a failure, a stop or the end of tracking', async (t) => {
  for (const end of ['failed', 'stop', 'close'] as const) {
    const bench = new Bench({ itemsMax: 50 })
    await bench.touch(0)
    bench.extents[end](new LockstepError('FAILED_STOP', 'the medium', 'restart'))
    t.equal(bench.clock.timerCount, 0, end)
  }
})

t.test('nothing leaves while the journal does not tell all', async (t) => {
  const bench = new Bench()
  bench.mayEnd = false
  await bench.touch(0, 1, 2, 3, 5)
  const held = bench.hold(4)
  await bench.open()
  t.notOk(await isSettled(held))
  bench.mayEnd = true
  bench.extents.resume()
  await bench.open()
  await bench.open()
  await held
})

t.test('when tracking ends, whoever waits goes on', async (t) => {
  const bench = new Bench({ itemsMax: 1 })
  void bench.hold(0)
  await bench.open()
  const held = bench.hold(1)
  bench.extents.close()
  await held
  t.equal(bench.set.itemCount, 0)
  bench.drop(0)
})

t.test(
  'a checkpoint has all but what is leaving; a clean stop only what is in flight',
  async (t) => {
    const bench = new Bench()
    await bench.touch(0, 1, 2)
    const held = bench.hold(3)
    const firsts = (isClean: boolean): readonly number[] =>
      bench.extents.describe({ isClean }).map((item) => item.first)
    t.strictSame(firsts(false), [2, 3])
    t.strictSame(firsts(true), [3])
    await bench.open()
    await held
  },
)
