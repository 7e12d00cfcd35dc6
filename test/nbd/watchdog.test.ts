// The watchdog expires after its time without progress, and only then.
import t from 'tap'
import { Watchdog } from '../../nbd/watchdog.js'
import { ManualTimers } from '../support/manual-timers.js'

function setUp(): { timers: ManualTimers; watchdog: Watchdog; expired: () => number } {
  const timers = new ManualTimers()
  let count = 0
  const watchdog = new Watchdog(timers, 400, () => void count++)
  return { timers, watchdog, expired: () => count }
}

t.test(
  'without progress it expires once, not before its time and at most a quarter after',
  async (t) => {
    const { timers, watchdog, expired } = setUp()
    watchdog.start(1)
    timers.advance(399)
    t.equal(expired(), 0)
    timers.advance(101)
    t.equal(expired(), 1)
    timers.advance(2000)
    t.equal(expired(), 1)
    t.equal(timers.count, 0)
  },
)

t.test('progress puts it off, however often it is told the same', async (t) => {
  const { timers, watchdog, expired } = setUp()
  for (let progress = 0; progress < 20; progress++) {
    watchdog.start(progress)
    watchdog.start(progress)
    timers.advance(300)
  }
  t.equal(expired(), 0)
  for (let step = 0; step < 8; step++) {
    watchdog.start(20)
    timers.advance(100)
  }
  t.equal(expired(), 1, 'telling it the same is no progress')
})

t.test('when nothing is awaited it does not expire, and its timer runs out', async (t) => {
  const { timers, watchdog, expired } = setUp()
  watchdog.start(1)
  timers.advance(350)
  watchdog.stop()
  timers.advance(2000)
  t.equal(expired(), 0)
  t.equal(timers.count, 0)
  watchdog.start(2)
  timers.advance(350)
  t.equal(expired(), 0, 'it begins anew')
  watchdog.close()
  t.equal(timers.count, 0)
})
