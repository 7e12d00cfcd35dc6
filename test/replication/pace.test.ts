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

/** Rounded; 'unknown' while nothing was done. */
function shown(meter: RateMeter): number | 'unknown' {
  const { perSecond } = meter
  return perSecond === undefined ? 'unknown' : Math.round(perSecond)
}

t.test('a steady rate is shown from the first sample on', (t) => {
  const meter = new RateMeter(0, 5000)
  t.equal(shown(meter), 'unknown')
  meter.count(100, 100)
  t.equal(shown(meter), 'unknown', 'too early')
  for (let atMs = 250; atMs <= 5000; atMs += 250) {
    meter.count(atMs, atMs)
    t.equal(shown(meter), 1000)
  }
  t.end()
})

t.test('looks before anything was done do not make the first rate too low', (t) => {
  const meter = new RateMeter(0, 5000)
  for (let atMs = 250; atMs <= 1000; atMs += 250) {
    meter.count(atMs, 0)
    t.equal(shown(meter), 'unknown')
  }
  meter.count(1250, 1000)
  const first = meter.perSecond ?? 0
  t.ok(Math.abs(first - 800) < 100, `${first} after 1000 in 1.25 s`)
  for (let atMs = 1500; atMs <= 3000; atMs += 250) meter.count(atMs, (atMs - 1000) * 4)
  const later = meter.perSecond ?? 0
  t.ok(Math.abs(later - 8000 / 3) < 500, `${later} after 8000 in 3 s`)
  t.end()
})

t.test('what is done at one moment counts as a whole, however many counts there are', (t) => {
  const meter = new RateMeter(0, 5000)
  for (let item = 1; item <= 64; item++) meter.count(1000, item * 256)
  const rate = meter.perSecond ?? 0
  t.ok(Math.abs(rate - 16_384) < 2000, `${rate} after 16,384 in 1 s`)
  for (let item = 65; item <= 128; item++) meter.count(1001, item * 256)
  const next = meter.perSecond ?? 0
  t.ok(Math.abs(next - 32_768) < 4000, `${next} after 32,768 in 1 s`)
  t.end()
})

t.test('a burst at the beginning does not stand for seconds', (t) => {
  const meter = new RateMeter(0, 5000)
  meter.count(250, 10_000)
  for (let atMs = 500; atMs <= 2500; atMs += 250) meter.count(atMs, 10_000)
  const rate = meter.perSecond ?? 0
  t.ok(Math.abs(rate - 4000) < 1000, `${rate} after 10,000 in 2.5 s`)
  t.end()
})

t.test('a change of rate shows within the window', (t) => {
  const meter = new RateMeter(0, 5000)
  for (let second = 1; second <= 30; second++) meter.count(second * 1000, second * 1000)
  for (let second = 31; second <= 40; second++) meter.count(second * 1000, 30_000)
  const rate = meter.perSecond ?? 0
  t.ok(rate < 150, `${rate} after 10 s of nothing`)
  t.ok(rate > 100)
  t.end()
})
