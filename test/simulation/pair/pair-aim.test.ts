// What is aimed at is struck, a bounded number of times, the same for the same seed, and not at all when nobody aims or all is to be calm.
import t from 'tap'
import { SeededRandom } from '../random.js'
import { PairAim } from './pair-aim.js'

const frames = ['hello', 'replay', 'compare', 'compared', 'digest-answer', 'ready', 'write']

/** What became of so many frames, one step behind each. */
function strikesOf(aim: PairAim): readonly string[] {
  const strikes: string[] = []
  for (let step = 0; step < 400; step++) {
    const frame = frames[step % frames.length] ?? ''
    const cut = aim.met(frame)
    if (cut !== undefined) strikes.push(`${frame} ${cut.kind} ${cut.share}`)
    aim.heard('second', { kind: 'link', message: 'link replaying: a test' })
    if (aim.tick()) strikes.push(`end ${aim.take()}`)
  }
  return strikes
}

t.test('each kind of moment is struck by some seed, four times at most', async (t) => {
  const struck = new Set<string>()
  for (let seed = 0; seed < 300; seed++) {
    const strikes = strikesOf(new PairAim(new SeededRandom(seed), 1))
    t.ok(strikes.length <= 4)
    for (const strike of strikes) struck.add(strike.split(' ').slice(0, 2).join(' '))
  }
  for (const victim of ['first', 'second', 'both']) t.ok(struck.has(`end ${victim}`), victim)
  for (const frame of frames.slice(0, -1))
    t.ok(struck.has(`${frame} reset`) || struck.has(`${frame} end`), frame)
  t.notOk(
    [...struck].some((strike) => strike.startsWith('write')),
    'usual frames are left alone',
  )
})

t.test('the same seed strikes the same, and nothing is struck without an aim', async (t) => {
  for (let seed = 0; seed < 50; seed++) {
    const strikes = () => strikesOf(new PairAim(new SeededRandom(seed), 1))
    t.strictSame(strikes(), strikes())
    t.strictSame(strikesOf(new PairAim(new SeededRandom(seed), 0)), [])
    const calm = new PairAim(new SeededRandom(seed), 1)
    calm.calm()
    t.strictSame(strikesOf(calm), [])
  }
})
