// After a confirmation: a refusal says that nothing was changed, and only where that is certain.
import t from 'tap'
import { afterConfirmation } from '../../../src/app/cli/confirm.js'
import { LockstepError } from '../../../src/core/errors.js'

t.test('a refusal before anything was done says so; an uncertain end does not', async (t) => {
  t.equal(await afterConfirmation(Promise.resolve(7)), 7)
  const refused = (error: Error) => afterConfirmation(Promise.reject(error))
  for (const code of ['IN_USE', 'CONFLICT', 'BUSY', 'NO_SPACE', 'OUT_OF_RANGE'] as const)
    await t.rejects(refused(new LockstepError(code, 'vol0 is in use', 'detach it')), {
      code,
      message: 'vol0 is in use; nothing was changed',
      action: 'detach it',
    })
  for (const code of ['TIMED_OUT', 'UNREACHABLE', 'IO_ERROR', 'FAILED_STOP'] as const) {
    await t.rejects(refused(new LockstepError(code, 'who knows', '')), { message: 'who knows' })
  }
  await t.rejects(refused(new TypeError('a bug')), { name: 'TypeError', message: 'a bug' })
})

t.test('work of several steps that has begun is not said to have changed nothing', async (t) => {
  const refused = (isBegun: boolean) =>
    afterConfirmation(Promise.reject(new LockstepError('NO_SPACE', 'no room', '')), () => isBegun)
  await t.rejects(refused(false), { message: 'no room; nothing was changed' })
  await t.rejects(refused(true), { message: /^no room$/ })
})
