// What the peer lacks in bytes: counted for who waits for it, told at most to who does not, and not found anew each time where it is a lot of work.
import t from 'tap'
import type { LackLooks } from '../../src/engine/lack-looks.js'
import { LacksMeter } from '../../src/engine/lacks-meter.js'
import { LackingStream } from '../support/lacking-stream.js'
import { SeededRandom } from '../support/random.js'

/** Looks that find `bytes`, and take `tookMs` each. */
class FakeLooks {
  busyMs = 0
  lookCount = 0
  bytes = 4096
  tookMs = 0

  async lookInPieces(): Promise<number> {
    this.lookCount++
    this.busyMs += this.tookMs
    return this.bytes
  }
}

function meterOf(bench: LackingStream, looks: FakeLooks): LacksMeter {
  return new LacksMeter({
    pool: bench.pool,
    stream: () => bench.stream,
    clock: bench.clock,
    looks: looks as unknown as LackLooks,
    countsApplied: false,
  })
}

t.test('what is a lot of work is as it was a moment ago', async (t) => {
  const bench = new LackingStream(new SeededRandom(1))
  bench.change()
  const looks = new FakeLooks()
  const meter = meterOf(bench, looks)
  t.equal(await meter.count(), 4096)
  looks.bytes = 8192
  t.equal(await meter.count(), 8192, 'a little is found each time')
  looks.tookMs = 100
  t.equal(await meter.count(), 8192)
  looks.bytes = 4096
  bench.clock.advance(1999)
  t.equal(await meter.count(), 8192)
  bench.clock.advance(1)
  t.equal(await meter.count(), 4096, 'one twentieth of the time at most')
  t.equal(looks.lookCount, 4)
})

t.test('a peer that has everything lacks nothing, without a look', async (t) => {
  const bench = new LackingStream(new SeededRandom(1))
  const looks = new FakeLooks()
  const meter = meterOf(bench, looks)
  t.equal(await meter.count(), 0)
  t.equal(meter.bytes, 0)
  bench.change()
  t.equal(await meter.count(), 4096)
  bench.settleAll()
  t.equal(await meter.count(), 0)
  t.equal(looks.lookCount, 1)
})
