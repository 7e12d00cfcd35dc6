// The gate on a clock of its own: when writes are let through, and how long the rests are.
import t from 'tap'
import { WriteGate } from '../../src/storage/write-gate.js'

/** A gate on a clock of its own; `write(tookMs)` is true when the write was let through. */
function gateAt(startMs: number, runDelayMs: () => number | undefined = () => undefined) {
  const clock = { nowMs: startMs }
  const gate = new WriteGate(() => clock.nowMs, runDelayMs)
  const write = (tookMs: number): boolean => {
    const startedMs = gate.enter()
    if (startedMs === undefined) return false
    clock.nowMs += tookMs
    gate.wrote(startedMs)
    return true
  }
  return { clock, write }
}

/** The rest after a write of `tookMs`, in steps of a millisecond. */
function restMs({ clock, write }: ReturnType<typeof gateAt>, tookMs: number): number {
  if (!write(tookMs)) throw new Error('the gate is closed already')
  const startMs = clock.nowMs
  while (!write(0)) clock.nowMs += 1
  return clock.nowMs - startMs
}

t.test('quick writes are always let through', async (t) => {
  const { write } = gateAt(0)
  t.ok(Array.from({ length: 1000 }, () => write(0.01)).every(Boolean))
})

t.test('a slow write is followed by a rest of four times its length', async (t) => {
  t.equal(restMs(gateAt(0), 10), 40)
  t.equal(restMs(gateAt(123_456), 200), 800)
})

t.test('the rest doubles while the disk stays slow, up to ten seconds', async (t) => {
  const gate = gateAt(0)
  const rests = Array.from({ length: 12 }, () => restMs(gate, 10))
  t.same(rests.slice(0, 5), [40, 80, 160, 320, 640])
  t.equal(rests.at(-1), 10_000)
})

t.test('after a quiet time the rest is short again', async (t) => {
  const gate = gateAt(0)
  restMs(gate, 10)
  t.equal(restMs(gate, 10), 80)
  gate.clock.nowMs += 1000
  t.equal(restMs(gate, 10), 40)
})

t.test('waiting takes at most a fifth of the time', async (t) => {
  const gate = gateAt(0)
  let waitedMs = 0
  while (gate.clock.nowMs < 100_000) {
    if (gate.write(9)) waitedMs += 9
    else gate.clock.nowMs += 1
  }
  t.ok(waitedMs <= 20_000, `${waitedMs} ms of 100,000`)
})

t.test('a write that lost its processor does not close the gate', async (t) => {
  let runDelayMs = 0
  const { write } = gateAt(0, () => runDelayMs)
  for (let count = 0; count < 100; count++) {
    runDelayMs += 15
    t.ok(write(20))
  }
  t.ok(write(20), 'this one waited for the disk')
  t.notOk(write(0))
})

t.test('a busy processor hides a slow disk for one write only', async (t) => {
  let runDelayMs = 1_000_000
  const { write } = gateAt(0, () => runDelayMs)
  t.ok(write(50), 'the first slow write may have lost its processor')
  runDelayMs += 5
  t.ok(write(50))
  t.notOk(write(0))
})
