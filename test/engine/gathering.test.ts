// What an asynchronous primary has to send waits for more of it, and never for long.
import t from 'tap'
import { Gathering } from '../../src/engine/gathering.js'
import { ManualClock } from '../support/manual-clock.js'

function gathering() {
  const clock = new ManualClock()
  const dueAtMs: number[] = []
  const state = { added: 0, isPressing: false }
  const one = new Gathering({ clock, due: () => void dueAtMs.push(clock.nowMs()) })
  const begin = (): void => one.begin(() => ({ ...state }))
  return { clock, dueAtMs, state, one, begin }
}

t.test('what was added is due when nothing follows for a moment', async (t) => {
  const { clock, dueAtMs, state, begin } = gathering()
  begin()
  for (let count = 0; count < 5; count++) {
    state.added++
    clock.advance(4)
  }
  t.same(dueAtMs, [])
  clock.advance(4)
  t.equal(dueAtMs.length, 1)
  clock.advance(1000)
  t.equal(dueAtMs.length, 1, 'once')
})

t.test('a burst that does not end is due after a second', async (t) => {
  const { clock, dueAtMs, state, begin } = gathering()
  begin()
  for (let passedMs = 0; passedMs < 2500; passedMs += 2) {
    state.added++
    clock.advance(2)
    begin()
  }
  t.equal(dueAtMs.length, 2)
  t.ok(
    dueAtMs.every((atMs, index) => atMs - (dueAtMs[index - 1] ?? 1_000_000) <= 1010),
    String(dueAtMs),
  )
})

t.test('a loop that stood still has seen no pause of the clients', async (t) => {
  const { clock, dueAtMs, state, begin } = gathering()
  begin()
  clock.sleep(30)
  clock.advance(0)
  t.same(dueAtMs, [], 'nobody was read in that time')
  state.added++
  clock.advance(4)
  t.same(dueAtMs, [])
  clock.advance(4)
  t.equal(dueAtMs.length, 1)
})

t.test('what presses is due at the next tick', async (t) => {
  const { clock, dueAtMs, state, begin } = gathering()
  begin()
  state.added++
  state.isPressing = true
  clock.advance(4)
  t.equal(dueAtMs.length, 1)
})

t.test('nothing is due any more when the connection has ended', async (t) => {
  const { clock, dueAtMs, one, begin } = gathering()
  begin()
  one.close()
  clock.advance(1000)
  t.same(dueAtMs, [])
})
