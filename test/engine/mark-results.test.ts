// Who waits for the result of a mark gets it, whenever it comes; and nothing that another node sends is believed beyond its shape.
import t from 'tap'
import { limits } from '../../src/core/limits.js'
import type { Sequence } from '../../src/core/units.js'
import type { MarkResult } from '../../src/engine/api.js'
import { MarkResults } from '../../src/engine/mark-results.js'
import { failureOf } from '../support/failure.js'
import { ManualClock } from '../support/manual-clock.js'

const at = (sequence: number): Sequence => sequence as Sequence
const result: MarkResult = { name: 'm', snapshots: ['v@local.m'], snapshotCount: 1, problems: [] }

t.test('a result is given to all who ask, before or after it came', async (t) => {
  const told: number[] = []
  const results = new MarkResults(new ManualClock(), (sequence) => told.push(sequence))
  const early = [results.wait(at(5), 1000), results.wait(at(5), 1000)]
  results.came(at(5), result)
  t.same(await Promise.all(early), [result, result])
  t.same(await results.wait(at(5), 1000), result, 'asked again')
  t.same(told, [5])
})

t.test('a result that is told again is no news', async (t) => {
  const told: number[] = []
  const results = new MarkResults(new ManualClock(), (sequence) => told.push(sequence))
  results.came(at(5), result)
  results.came(at(5), { ...result, name: 'another' })
  t.same(told, [5])
  t.same(await results.wait(at(5), 1000), result)
})

t.test('a result that does not come is waited for until the time is over', async (t) => {
  const clock = new ManualClock()
  const results = new MarkResults(clock)
  const failure = failureOf(results.wait(at(7), 1000))
  clock.advance(1000)
  t.match(await failure, { code: 'TIMED_OUT', message: /sequence 7,.* within 1 s/ })
  results.came(at(7), result)
  t.same(await results.wait(at(7), 1), result)
})

t.test('the newest are kept, and no more', async (t) => {
  const clock = new ManualClock()
  const results = new MarkResults(clock)
  for (let sequence = 1; sequence <= limits.keptMarkResultsMax + 1; sequence++)
    results.came(at(sequence), { ...result, name: `m${sequence}` })
  t.equal((await results.wait(at(2), 1)).name, 'm2')
  const failure = failureOf(results.wait(at(1), 10))
  clock.advance(10)
  t.match(await failure, { code: 'TIMED_OUT' })
})

t.test('of what another node sends only the known shape is taken', async (t) => {
  const results = new MarkResults(new ManualClock())
  let count = 0
  const came = async (body: object): Promise<MarkResult> => {
    const sequence = at(++count)
    results.came(sequence, body)
    return results.wait(sequence, 1)
  }
  t.same(await came({}), { name: 'undefined', snapshots: [], snapshotCount: 0, problems: [] })
  const many = Array.from({ length: 10_000 }, () => ({ message: 'x' }))
  const strange = { name: 1, snapshots: many, hook: [], problems: many, more: 'x' }
  const taken = await came(strange)
  t.ok(taken.snapshots.length <= limits.markSnapshotsToldMax)
  t.ok(taken.problems.length < 100)
  t.same(taken.hook, { name: 'undefined', isTimedOut: false, output: '' })
  t.same(taken.problems[0], { message: 'x', action: '' })
  const hook = { name: 'h', exitCode: 3, isTimedOut: true, signal: 'SIGTERM', output: 'o' }
  t.same((await came({ ...result, hook, problems: [null, 7] })).hook, hook)
})

t.test('snapshots of a time when blocks were copied again are told to differ', async (t) => {
  const results = new MarkResults(new ManualClock())
  results.ordered(at(5), { name: 'm', dirtyBytes: 8192 })
  results.ordered(at(6), { name: 'm', dirtyBytes: 0 })
  for (const sequence of [5, 6]) results.came(at(sequence), result)
  const [problem] = (await results.wait(at(5), 1)).problems
  t.match(problem, { message: /up to 8 KiB of the snapshots may differ/, action: /once more/ })
  t.same((await results.wait(at(6), 1)).problems, [])
  results.ordered(at(7), { name: 'm', dirtyBytes: 8192 })
  results.came(at(7), { ...result, snapshots: [], snapshotCount: 0 })
  t.same((await results.wait(at(7), 1)).problems, [], 'nothing was kept')
})

t.test('what a peer forgot when it was started again is told as not known', async (t) => {
  const results = new MarkResults(new ManualClock())
  results.follows({ runId: 'one', sequence: at(4), isNew: true })
  for (const sequence of [5, 6, 7])
    results.ordered(at(sequence), { name: `m${sequence}`, dirtyBytes: 0 })
  results.came(at(5), result)
  const early = results.wait(at(6), 1000)
  const later = results.wait(at(7), 1000)
  results.follows({ runId: 'one', sequence: at(6), isNew: false })
  results.follows({ runId: 'two', sequence: at(6), isNew: false })
  t.match(await early, { name: 'm6', problems: [{ message: /was started again before it told/ }] })
  t.same(await results.wait(at(5), 1000), result, 'what came is kept')
  t.match(await results.wait(at(6), 1000), { name: 'm6', snapshots: [] }, 'asked afterwards')
  results.came(at(7), result)
  t.same(await later, result, 'what is behind its position it performs in this run')
  const lost = results.wait(at(8), 1000)
  results.follows({ runId: 'two', sequence: at(9), isNew: true })
  t.match(await lost, { problems: [{}] }, 'and a peer that begins anew performs none of them')
})

t.test('what cannot be made a text is taken for unknown, and nothing is thrown', async (t) => {
  const results = new MarkResults(new ManualClock())
  const deep: unknown = JSON.parse(`${'['.repeat(30_000)}${']'.repeat(30_000)}`)
  const odd: unknown = JSON.parse('{"toString":null,"valueOf":null}')
  for (const [index, bad] of [odd, deep].entries()) {
    const sequence = at(index + 1)
    results.came(sequence, {
      name: bad,
      snapshots: [bad],
      hook: { name: bad },
      problems: [{ message: bad }],
    })
    const { name, snapshots, hook, problems } = await results.wait(sequence, 1)
    t.same([name, snapshots, hook?.name], ['unknown', ['unknown'], 'unknown'])
    t.same(problems, [{ message: 'unknown', action: '' }])
  }
})
