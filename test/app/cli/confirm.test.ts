// After a confirmation: a refusal says that nothing was changed, and only where that is certain.
import t from 'tap'
import { afterConfirmation } from '../../../src/app/cli/confirm.js'
import { LockstepError } from '../../../src/core/errors.js'

t.test('a refusal before anything was done says so; an uncertain end does not', async (t) => {
  t.equal(await afterConfirmation(Promise.resolve(7)), 7)
  const refused = (error: Error) => afterConfirmation(Promise.reject(error))
  await t.rejects(refused(new LockstepError('IN_USE', 'vol0 is in use', 'detach it')), {
    code: 'IN_USE',
    message: 'vol0 is in use; nothing was changed',
    action: 'detach it',
  })
  for (const code of ['TIMED_OUT', 'UNREACHABLE', 'IO_ERROR', 'FAILED_STOP'] as const) {
    await t.rejects(refused(new LockstepError(code, 'who knows', '')), { message: 'who knows' })
  }
  await t.rejects(refused(new TypeError('a bug')), { name: 'TypeError', message: 'a bug' })
})
