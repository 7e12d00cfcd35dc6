// The poller keeps the loop turning only after work, only for a bounded time, and only where that pays off.
import t from 'tap'
import { Poller } from '../../nbd/poller.js'

const alone = { isCrowd: false, isInFlight: false }
const waiting = { isCrowd: false, isInFlight: true }
const crowd = { isCrowd: true, isInFlight: false }

function setUp(pollUsMax = 48) {
  let nowUs = 0
  const due: (() => void)[] = []
  const poller = new Poller({
    pollUsMax,
    nowMs: () => nowUs / 1000,
    nextTurn: (callback) => void due.push(callback),
  })
  /** Turns until the loop would sleep; `turnUs` pass in each. */
  const turnUntilAsleep = (turnUs = 5): number => {
    let count = 0
    for (let turn = due.shift(); turn !== undefined && count < 1000; turn = due.shift()) {
      nowUs += turnUs
      turn()
      count++
    }
    return count
  }
  const isTurning = (): boolean => due.length > 0
  const turnOnce = (turnUs = 5): void => {
    nowUs += turnUs
    due.shift()?.()
  }
  const calm = (): void => {
    for (let step = 0; step < 64; step++) poller.worked(alone)
  }
  return { poller, turnUntilAsleep, turnOnce, isTurning, calm }
}

t.test('the loop turns for the time given after work, then sleeps', async (t) => {
  const { poller, turnUntilAsleep, isTurning, calm } = setUp(48)
  calm()
  t.notOk(isTurning(), 'not before it knows that there is no crowd')
  poller.worked(alone)
  t.ok(isTurning())
  t.equal(turnUntilAsleep(5), 10)
  t.notOk(isTurning())
})

t.test('work within the time begins it anew, with one turn due at a time', async (t) => {
  const { poller, turnOnce, turnUntilAsleep, isTurning, calm } = setUp(48)
  calm()
  for (let request = 0; request < 100; request++) {
    poller.worked(alone)
    for (let turn = 0; turn < 4; turn++) turnOnce(5)
    t.ok(isTurning(), 'still awake after 20 µs')
  }
  t.equal(turnUntilAsleep(5), 6)
})

t.test('each time in a row that nothing came, it tries twice as many waits later', async (t) => {
  const { poller, turnUntilAsleep, isTurning, calm } = setUp()
  calm()
  const tries: number[] = []
  for (let request = 0; request < 5000; request++) {
    poller.worked(alone)
    if (!isTurning()) continue
    tries.push(request)
    turnUntilAsleep()
  }
  const between = tries.slice(1).map((request, index) => request - (tries[index] ?? 0) - 1)
  t.same(between.slice(0, 5), [1, 2, 4, 8, 16])
  t.equal(Math.max(...between), 1024)
})

t.test('one success makes it try again at once', async (t) => {
  const { poller, turnUntilAsleep, turnOnce, isTurning, calm } = setUp()
  calm()
  for (let failure = 0; failure < 3; failure++) {
    while (!isTurning()) poller.worked(alone)
    turnUntilAsleep()
  }
  while (!isTurning()) poller.worked(alone)
  turnOnce()
  poller.worked(alone)
  t.ok(isTurning())
  turnUntilAsleep()
  poller.worked(alone)
  t.notOk(isTurning(), 'that one failed: one wait is slept through')
  poller.worked(alone)
  t.ok(isTurning())
})

t.test('waiting for an export is judged apart from waiting for a client', async (t) => {
  const { poller, turnUntilAsleep, turnOnce, isTurning, calm } = setUp()
  calm()
  for (let request = 0; request < 200; request++) {
    poller.worked(waiting)
    if (isTurning()) turnUntilAsleep()
    poller.worked(alone)
    t.ok(isTurning(), 'the client is quick, whatever the disk is')
    turnOnce()
  }
})

t.test('many small requests together are not waited for', async (t) => {
  const { poller, turnUntilAsleep, isTurning, calm } = setUp()
  for (let step = 0; step < 500; step++) poller.worked(step % 50 === 0 ? crowd : alone)
  t.notOk(isTurning())
  calm()
  poller.worked(alone)
  t.ok(isTurning())
  poller.worked(crowd)
  t.ok(turnUntilAsleep() <= 1, 'a crowd ends the turning')
})

t.test('with a time of 0 the loop never turns', async (t) => {
  const { poller, isTurning, calm } = setUp(0)
  calm()
  poller.worked(alone)
  t.notOk(isTurning())
})
