// A run of large reads is taken for cold after one of it had to wait, and for so many bytes only.
import t from 'tap'
import { ColdRuns, largeReadBytes } from '../../src/storage/node-disk-cold-runs.js'

const MiB = 1024 * 1024

t.test('what goes on where a read had to wait is not tried first', async (t) => {
  const runs = new ColdRuns()
  t.equal(runs.begin(0, MiB), 'unknown', 'nothing is known yet')
  runs.missed(0, MiB)
  t.equal(runs.begin(MiB, MiB), 'cold')
  t.equal(runs.begin(3 * MiB, MiB), 'cold', 'a little out of order')
  t.equal(runs.begin(2 * MiB, MiB), 'cold')
  t.equal(runs.begin(100 * MiB, MiB), 'unknown', 'somewhere else')
})

t.test('small reads are always tried, and teach nothing', async (t) => {
  const runs = new ColdRuns()
  runs.missed(0, largeReadBytes - 1)
  t.equal(runs.begin(0, MiB), 'unknown')
  runs.missed(0, MiB)
  t.equal(runs.begin(MiB, largeReadBytes - 1), 'unknown')
  t.equal(runs.begin(MiB, largeReadBytes), 'cold')
})

t.test('a long run is tried again now and then', async (t) => {
  const runs = new ColdRuns()
  runs.missed(0, MiB)
  let triedCount = 0
  for (let at = MiB; at < 1024 * MiB; at += MiB) {
    if (runs.begin(at, MiB) === 'cold') continue
    triedCount++
    // Still cold, in the first half of it.
    if (at < 512 * MiB) runs.missed(at, MiB)
  }
  t.ok(triedCount > 500, `${triedCount}: what has come into memory is read at once again`)
  t.ok(triedCount < 530, `${triedCount}: what has not is left to others`)
})

t.test('several readers are told apart, the oldest of many is forgotten', async (t) => {
  const runs = new ColdRuns()
  for (let reader = 0; reader < 8; reader++) runs.missed(reader * 100 * MiB, MiB)
  for (let reader = 0; reader < 8; reader++)
    t.equal(runs.begin(reader * 100 * MiB + MiB, MiB), 'cold')
  runs.missed(5000 * MiB, MiB)
  t.equal(runs.begin(2 * MiB, MiB), 'unknown')
  t.equal(runs.begin(102 * MiB, MiB), 'cold')
})

t.test('what is in memory but comes slowly is left to others too', async (t) => {
  const runs = new ColdRuns()
  runs.missed(0, MiB)
  let at = MiB
  while (runs.begin(at, MiB) === 'cold') at += MiB
  runs.took(at, MiB, 5)
  at += MiB
  t.equal(runs.begin(at, MiB), 'doubtful', 'one slow read may have lost its processor')
  runs.took(at, MiB, 0.2)
  at += MiB
  t.equal(runs.begin(at, MiB), 'doubtful')
  runs.took(at, MiB, 5)
  at += MiB
  t.equal(runs.begin(at, MiB), 'doubtful', 'not two in a row')
  runs.took(at, MiB, 5)
  t.equal(runs.begin(at + MiB, MiB), 'cold')
})

t.test('the time of a read that belongs to no run teaches nothing', async (t) => {
  const runs = new ColdRuns()
  runs.took(0, MiB, 5)
  runs.took(MiB, MiB, 5)
  t.equal(runs.begin(2 * MiB, MiB), 'unknown')
})
