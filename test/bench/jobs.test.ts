// The jobs: each name is there once and says what the job is, and patterns choose among them.
import t from 'tap'
import { allJobs, isWriting, jobsMatching } from '../../bench/jobs.js'

t.test('every size, pattern, depth, transport and temperature is there once', async (t) => {
  const names = allJobs.map(({ name }) => name)
  t.equal(new Set(names).size, names.length)
  t.equal(names.length, 2 * (6 + 4 + 4))
  for (const name of ['unix-4k-randread-32', 'tcp-128k-write-8', 'unix-1m-read-4-cold'])
    t.ok(names.includes(name), name)
  t.notOk(allJobs.some(({ isCold, pattern }) => isCold && isWriting(pattern)))
})

t.test('a pattern is a whole name', async (t) => {
  t.equal(jobsMatching([]).length, allJobs.length)
  t.same(
    jobsMatching([/^unix-4k-rand.*-1$/]).map(({ name }) => name),
    ['unix-4k-randread-1', 'unix-4k-randwrite-1', 'unix-4k-randrw-1'],
  )
})
