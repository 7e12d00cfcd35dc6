// Long work by its number: it goes on without whoever began it, ends once, and is remembered for a while.
import t from 'tap'
import { Jobs } from '../../src/control/jobs.js'
import { LockstepError } from '../../src/core/errors.js'
import { failureOf, thrownBy } from '../support/failure.js'

/** Work that a test ends. */
function work() {
  let resolve: (result: object) => void = () => {}
  let reject: (error: unknown) => void = () => {}
  const ended = new Promise<object>((onDone, onFail) => {
    resolve = onDone
    reject = onFail
  })
  return { run: () => ended, resolve, reject }
}

t.test('a job tells how far it is, and how it ended', async (t) => {
  const jobs = new Jobs()
  const { run, resolve } = work()
  let tell: (progress: object) => void = () => {}
  const { job, ended } = jobs.start('verify', (progress) => {
    tell = progress
    return run()
  })
  t.match(jobs.list(), [{ job, method: 'verify', state: 'running', startedAt: /^\d{4}-.*Z$/ }])
  await Promise.resolve()
  tell({ doneBytes: 1 })
  t.match(jobs.list(), [{ progress: { doneBytes: 1 } }])
  const late = failureOf(jobs.wait(job, 1))
  t.match(await late, { code: 'TIMED_OUT', action: /job wait 1/ })
  const waiting = jobs.wait(job, 60_000)
  resolve({ stores: [] })
  t.same(await ended, { stores: [] })
  t.match(await waiting, { state: 'done', result: { stores: [] } })
  t.match(await jobs.wait(job, 1), { state: 'done' }, 'asked again')
})

t.test('a job that fails is told to who asks, and hurts nobody else', async (t) => {
  const jobs = new Jobs()
  const refusal = new LockstepError('BUSY', 'not now', 'later')
  const first = jobs.start('verify', () => Promise.reject(refusal))
  t.match(await jobs.wait(first.job, 60_000), {
    state: 'failed',
    error: { code: 'BUSY', message: 'not now', action: 'later' },
  })
  const second = jobs.start('verify', () => Promise.reject(new Error('of the system')))
  t.match(await jobs.wait(second.job, 60_000), {
    error: { code: 'IO_ERROR', message: 'of the system', action: /log/ },
  })
  t.match(await failureOf(jobs.wait('7', 1)), {
    code: 'INVALID_ARGUMENT',
    message: /no job "7"/,
  })
})

t.test('so many run at once, and so many are remembered', async (t) => {
  const jobs = new Jobs()
  const running = Array.from({ length: 16 }, () => {
    const one = work()
    return { ...one, ...jobs.start('verify', one.run) }
  })
  t.match(
    thrownBy(() => jobs.start('verify', work().run)),
    { code: 'LIMIT_REACHED' },
  )
  running[1]?.resolve({})
  await running[1]?.ended
  for (let count = 0; count < 150; count++) await jobs.start('x', async () => ({})).ended
  const known = jobs.list()
  t.ok(known.length <= 117, `${known.length} are known`)
  t.equal(known.filter(({ state }) => state === 'running').length, 15, 'what runs is not forgotten')
  t.match(await failureOf(jobs.wait('2', 1)), { code: 'INVALID_ARGUMENT' }, 'the oldest is')
})

t.test('a job that is cancelled is told so, and says how far it came', async (t) => {
  const jobs = new Jobs()
  t.equal(jobs.running('verify'), undefined)
  const { job } = jobs.start('verify', async (tell, signal) => {
    tell({ doneBytes: 1 })
    await new Promise((resolve) => {
      if (signal.aborted) resolve(undefined)
      signal.addEventListener('abort', resolve)
    })
    throw new LockstepError('CANCELLED', 'cancelled when 1 byte was compared', 'begin anew')
  })
  t.equal(jobs.running('verify'), job)
  t.equal(jobs.running('resync'), undefined)
  const waiting = jobs.wait(job, 60_000)
  const report = await jobs.cancel(job, 60_000)
  t.match(report, { state: 'cancelled', error: { code: 'CANCELLED' }, progress: { doneBytes: 1 } })
  t.same(await waiting, report, 'who waits hears it as well')
  t.equal(jobs.running('verify'), undefined)
})

t.test('a job that ends by itself before it hears of it has its result', async (t) => {
  const jobs = new Jobs()
  const { job } = jobs.start('verify', async () => ({ stores: [] }))
  t.match(await jobs.cancel(job, 60_000), { state: 'done', result: { stores: [] } })
  t.match(await jobs.cancel(job, 60_000), { state: 'done' }, 'nor later')
  t.match(await failureOf(jobs.cancel('7', 1)), { code: 'INVALID_ARGUMENT', action: /job list/ })
})
