// Looks at what the peer lacks that are cut into pieces: the answer is that of one moment, whatever happens meanwhile; one is under way at a time, for all who asked.
import assert from 'node:assert/strict'
import t from 'tap'
import type { StoreId } from '../../src/core/units.js'
import { LackLooks } from '../../src/engine/lack-looks.js'
import { type Lacked, LackWalk } from '../../src/engine/lacks.js'
import { failureOf } from '../support/failure.js'
import { blocksOf, LackingStream } from '../support/lacking-stream.js'
import { SeededRandom } from '../support/random.js'

function walkOf(bench: LackingStream): LackWalk {
  return new LackWalk(bench.pool, bench.stream, bench.tracking, {})
}

/** What one at once says at this moment, of what was ordered when `walk` was made. */
function seenBy(walk: LackWalk): ReadonlySet<string> {
  assert(walk.go(Number.POSITIVE_INFINITY))
  using lacked = walk.lacked
  return blocksOf(lacked)
}

function isIn(part: ReadonlySet<string>, whole: ReadonlySet<string>): boolean {
  return [...part].every((one) => whole.has(one))
}

const momentsMax = 400

/** True when the walk was cut off from what it had not seen yet. */
function check(bench: LackingStream, random: SeededRandom): boolean {
  const walk = walkOf(bench)
  const others = Array.from({ length: momentsMax }, () => walkOf(bench))
  const moments = [seenBy(others.pop() as LackWalk)]
  let wasOvertaken = false
  bench.isDisturbed = false
  let last = bench.outbox.oldestSequence
  while (!walk.go(1 + random.below(3))) {
    for (let count = random.below(5); count > 0; count--) bench.act()
    wasOvertaken ||= bench.outbox.oldestSequence > last
    last = bench.outbox.oldestSequence
    const other = others.pop()
    assert(other, 'it comes to an end')
    moments.push(seenBy(other))
  }
  using lacked = walk.lacked
  const found = blocksOf(lacked)
  const all = new Set(moments.flatMap((moment) => [...moment]))
  const isOfOne = moments.some((moment) => isIn(moment, found) && isIn(found, moment))
  // What is not sent any more, or failed, in the midst of it may count in addition.
  const isNotLess = moments.some((moment) => isIn(moment, found)) && isIn(found, all)
  assert(isOfOne || (bench.isDisturbed && isNotLess), 'it is what was the case at one moment')
  return wasOvertaken
}

t.test('a look in pieces says what one at once says, at a moment on its way', async (t) => {
  let overtakenCount = 0
  for (let seed = 1; seed <= 300; seed++) {
    const random = new SeededRandom(seed)
    const bench = new LackingStream(random)
    for (let count = random.below(200); count > 0; count--) bench.act()
    try {
      for (let round = 0; round < 3; round++) if (check(bench, random)) overtakenCount++
    } catch (error) {
      throw new Error(`seed ${seed}: ${String(error)}`, { cause: error })
    }
  }
  t.ok(overtakenCount > 50, `entries left meanwhile, ${overtakenCount} times`)
})

/** With this many writes of one block each that the peer has not applied. */
function withWrites(count: number): LackingStream {
  const bench = new LackingStream(new SeededRandom(1))
  for (let made = 0; made < count; made++) bench.change()
  return bench
}

function looksAt(bench: LackingStream): LackLooks {
  return new LackLooks({
    pool: bench.pool,
    stream: () => bench.stream,
    clock: bench.clock,
    entriesPerTurnMax: 4,
  })
}

function countOf(lacked: Lacked | undefined): number {
  return lacked === undefined ? -1 : blocksOf(lacked).size
}

async function turns(bench: LackingStream, count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) {
    // What a turn has resolved is told before the next one.
    await new Promise((resolve) => setImmediate(resolve))
    bench.clock.runDeferred()
  }
  await new Promise((resolve) => setImmediate(resolve))
}

t.test('a short one is over at once, a long one takes a turn for each piece', async (t) => {
  const short = looksAt(withWrites(4)).look({}, countOf)
  t.ok(Number(short) > 1, 'no promise')
  const bench = withWrites(17)
  const expected = seenBy(walkOf(bench)).size
  let answer: number | undefined
  void Promise.resolve(looksAt(bench).look({}, countOf)).then((count) => {
    answer = count
  })
  await turns(bench, 3)
  t.equal(answer, undefined, 'three of five pieces')
  await turns(bench, 1)
  t.equal(answer, expected)
})

t.test(
  'one that is asked for while another is under way sees what was ordered since',
  async (t) => {
    const bench = withWrites(17)
    const looks = looksAt(bench)
    const first = looks.look({}, countOf)
    await turns(bench, 1)
    for (let count = 0; count < 40; count++) bench.change()
    const others = [
      looks.look({}, countOf),
      looks.look({ storeId: 1 as StoreId }, countOf),
      looks.look({ countsApplied: true }, countOf),
    ]
    const now = seenBy(walkOf(bench)).size
    await turns(bench, 80)
    const [early = 0, ...late] = await Promise.all([first, ...others])
    t.ok(early < now, 'as of when it was asked')
    t.same(late, [now, now, now])
  },
)

t.test('one look serves those who ask for parts, each with its own', async (t) => {
  const bench = withWrites(8)
  bench.operate(bench.snapshot(1 as StoreId))
  bench.settleAll()
  t.equal(bench.tracking.pending.length, 0)
  for (let count = 0; count < 20; count++) bench.change()
  const looks = looksAt(bench)
  const bytesOf = (id: number) => (lacked: Lacked | undefined) =>
    lacked?.stores.get(id as StoreId)?.dirty.dirtyBlockCount
  const now = [1, 2].map((id) => bytesOf(id)(seenLacked(bench)))
  t.ok(
    now.every((count) => Number(count) > 0),
    'both are lacking',
  )
  const busy = looks.look({}, countOf)
  const range = { offset: 0, lengthBytes: 4096 }
  const answers = [1, 2].map((id) => looks.look({ storeId: id as StoreId, range }, bytesOf(id)))
  await turns(bench, 40)
  await busy
  t.same(await Promise.all(answers), now)
})

t.test(
  'an answer that fails is that of one, and of a peer that is forgotten nothing is known',
  async (t) => {
    const bench = withWrites(17)
    const looks = looksAt(bench)
    const failing = failureOf(
      Promise.resolve(
        looks.look({}, () => {
          throw new Error('of one')
        }),
      ),
    )
    const other = looks.look({}, countOf)
    await turns(bench, 20)
    t.match(await failing, { message: 'of one' })
    t.ok(Number(await other) > 1)
    const forgotten = looks.look({}, countOf)
    await turns(bench, 1)
    bench.tracking.replayLost()
    await turns(bench, 20)
    t.equal(await forgotten, -1)
  },
)

t.test('what the entries change is counted as they come and go', async (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new SeededRandom(seed)
    const bench = new LackingStream(random)
    for (let count = 0; count < 100; count++) {
      bench.act()
      using lacked = seenLacked(bench)
      const dirtyCount = [...lacked.stores.values()].reduce(
        (sum, { dirty }) => sum + dirty.dirtyBlockCount,
        0,
      )
      if (bench.sizes.size === 1 && bench.tracking.totals.dirtyBytes === 0)
        t.ok(dirtyCount * 4096 <= bench.outbox.changedBytes)
    }
    bench.fold()
    bench.settleAll()
    t.equal(bench.outbox.changedBytes, 0)
  }
})

function seenLacked(bench: LackingStream): Lacked {
  const walk = walkOf(bench)
  walk.go(Number.POSITIVE_INFINITY)
  const { lacked } = walk
  assert(lacked)
  return lacked
}
