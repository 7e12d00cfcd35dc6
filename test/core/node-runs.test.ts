// The witness that a disk is not an old copy.
import t from 'tap'
import { judgeSighting, type RunRecord, runCountMax, withRun } from '../../src/core/node-runs.js'

const runs: readonly RunRecord[] = [
  { runId: 'first', startBatch: 0 },
  { runId: 'second', startBatch: 10 },
]
const seen = (runId: string, batchNumber: number) => ({ nodeId: 'a', runId, batchNumber })

t.test('what was seen in the present run is there up to the newest batch', (t) => {
  t.equal(judgeSighting(runs, 20, seen('second', 20)), 'there')
  t.equal(judgeSighting(runs, 20, seen('second', 21)), 'gone')
  t.end()
})

t.test('what was seen in an earlier run is there up to where the next began', (t) => {
  t.equal(judgeSighting(runs, 20, seen('first', 10)), 'there')
  t.equal(judgeSighting(runs, 20, seen('first', 11)), 'gone')
  t.end()
})

t.test('a run that an old copy cannot know is gone, however far the copy has come since', (t) => {
  t.equal(judgeSighting(runs, 1e6, seen('third', 11)), 'gone')
  t.end()
})

t.test('what is older than the list is unknown', (t) => {
  let many = runs
  for (let number = 0; number < runCountMax; number++)
    many = withRun(many, { runId: `later${number}`, startBatch: 100 + number })
  t.equal(many.length, runCountMax)
  t.equal(judgeSighting(many, 1000, seen('first', 4)), 'unknown')
  t.equal(judgeSighting(many, 1000, seen('elsewhere', 500)), 'gone')
  t.equal(judgeSighting([], 1000, seen('first', 4)), 'unknown', 'a directory from before the list')
  t.end()
})
