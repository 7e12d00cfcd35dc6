// The limit and the meter of a resync, on times that the test names.
import t from 'tap'
import { Pace, RateMeter } from '../../src/replication/pace.js'

t.test('bytes wait until those before them have had their time', (t) => {
  const pace = new Pace(1000)
  t.equal(pace.waitMs(0), 0)
  pace.spend(0, 500)
  t.equal(pace.waitMs(0), 500)
  t.equal(pace.waitMs(499), 1)
  t.equal(pace.waitMs(500), 0)
  pace.spend(600, 100)
  t.equal(pace.waitMs(600), 100)
  t.end()
})

t.test('no burst follows a pause', (t) => {
  const pace = new Pace(1000)
  pace.spend(0, 100)
  pace.spend(60_000, 1000)
  t.equal(pace.waitMs(60_000), 1000)
  t.end()
})

t.test('without a limit nothing waits, also what waited before', (t) => {
  const pace = new Pace(10)
  pace.spend(0, 1000)
  pace.setMax(undefined)
  t.equal(pace.waitMs(0), 0)
  t.throws(() => pace.setMax(0), { code: 'ERR_ASSERTION' })
  t.end()
})

t.test('a steady rate is shown from the first sample on', (t) => {
  const meter = new RateMeter(0, 5000)
  t.equal(meter.perSecond, 0)
  meter.count(100, 100)
  t.equal(meter.perSecond, 0, 'too early')
  for (let atMs = 250; atMs <= 5000; atMs += 250) {
    meter.count(atMs, atMs)
    t.equal(Math.round(meter.perSecond), 1000)
  }
  t.end()
})

t.test('a change of rate shows within the window', (t) => {
  const meter = new RateMeter(0, 5000)
  meter.count(1000, 1000)
  for (let second = 2; second <= 11; second++) meter.count(second * 1000, 1000)
  t.ok(meter.perSecond < 150, `${meter.perSecond} after 10 s of nothing`)
  t.ok(meter.perSecond > 100)
  t.end()
})
