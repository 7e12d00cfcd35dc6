// Virtual time: the order of completions is a function of the seed, time passes only when nothing else can happen.
import t from 'tap'
import { SeededRandom } from './random.js'
import { HangError, Life, Scheduler } from './sim-clock.js'

async function order(seed: number | undefined): Promise<readonly number[]> {
  const scheduler = new Scheduler(seed === undefined ? {} : { order: new SeededRandom(seed) })
  const life = new Life()
  const found: number[] = []
  for (let i = 0; i < 20; i++) scheduler.post(life, () => void found.push(i))
  await scheduler.settle()
  return found
}

t.test('without a seed completions come in their order', async (t) => {
  t.same(
    await order(undefined),
    Array.from({ length: 20 }, (_, i) => i),
  )
})

t.test('the same seed gives the same order, another seed another one', async (t) => {
  const first = await order(1)
  t.same(await order(1), first)
  t.notSame(await order(2), first)
  t.same(
    [...first].sort((a, b) => a - b),
    await order(undefined),
  )
})

t.test(
  'timers fire in the order of their times, and only when nothing else is under way',
  async (t) => {
    const scheduler = new Scheduler()
    const clock = scheduler.clockOf(new Life())
    const found: string[] = []
    clock.setTimer(20, () => found.push('late'))
    clock.setTimer(10, () => found.push(`early at ${clock.nowMs()}`))
    clock.setTimer(15, () => found.push('never')).cancel()
    clock.defer(() => found.push('deferred'))
    await scheduler.settle(1000)
    t.same(found, ['deferred', 'early at 10', 'late'])
    t.equal(clock.nowMs(), 1000)
  },
)

t.test('what can never settle is a hang', async (t) => {
  const scheduler = new Scheduler()
  const life = new Life()
  await t.rejects(scheduler.run(new Promise(() => {})), HangError)
  const woken = new Promise<void>((resolve) => scheduler.post(life, resolve))
  life.end()
  await t.rejects(scheduler.run(woken), HangError, 'its life is over')
})

t.test('a wait ends with what it waits for', async (t) => {
  const scheduler = new Scheduler()
  const clock = scheduler.clockOf(new Life())
  const answer = new Promise<number>((resolve) => clock.setTimer(5, () => resolve(7)))
  t.equal(await scheduler.run(answer), 7)
  await t.rejects(scheduler.run(Promise.reject(new Error('no'))), { message: 'no' })
})

t.test('random numbers come from the seed alone', async (t) => {
  const draw = (random: SeededRandom) => Array.from({ length: 10 }, () => random.below(1000))
  t.same(draw(new SeededRandom(5)), draw(new SeededRandom(5)))
  t.notSame(draw(new SeededRandom(5)), draw(new SeededRandom(6)))
  t.notSame(draw(new SeededRandom(5).fork('a')), draw(new SeededRandom(5).fork('b')))
  t.match(new SeededRandom(5).hex(16), /^[0-9a-f]{32}$/)
})

t.test('time can pass while something is under way', async (t) => {
  const scheduler = new Scheduler()
  const life = new Life()
  const found: string[] = []
  scheduler.post(life, () => found.push('completed'))
  scheduler.clockOf(life).setTimer(10, () => found.push('rang'))
  scheduler.clockOf(life).setTimer(30, () => found.push('late'))
  await scheduler.elapse(20)
  t.same(found, ['rang'])
  t.equal(scheduler.nowMs, 20)
  await scheduler.settle()
  t.same(found, ['rang', 'completed'])
})
