// Refusals and the errno of whatever was thrown.
import t from 'tap'
import { errnoNameOf, errorCodes, LockstepError, unreachable } from '../../src/core/errors.js'

t.test('a refusal carries a code for scripts, a sentence and an action', async (t) => {
  const error = new LockstepError('NO_SPACE', 'the pool is full', 'delete a snapshot')
  t.match(error, { name: 'LockstepError', code: 'NO_SPACE', message: 'the pool is full' })
  t.equal(error.action, 'delete a snapshot')
  t.ok(error instanceof Error)
})

t.test('no code is an errno, and none is there twice', async (t) => {
  t.equal(new Set(errorCodes).size, errorCodes.length)
  for (const code of errorCodes) t.equal(errnoNameOf({ code }), 'EIO', code)
})

t.test('the errno is that of the system, and EIO for everything else', async (t) => {
  t.equal(errnoNameOf(Object.assign(new Error('full'), { code: 'ENOSPC' })), 'ENOSPC')
  t.equal(errnoNameOf({ code: 'E2BIG' }), 'E2BIG')
  const others = [undefined, null, 'ENOSPC', 7, {}, { code: 28 }, { code: 'ERR_OUT_OF_RANGE' }]
  for (const other of [...others, new Error('x'), { code: 'ENOSPC ' }])
    t.equal(errnoNameOf(other), 'EIO')
})

t.test('what the compiler excludes is an error when it happens all the same', async (t) => {
  t.throws(() => unreachable({ kind: 'new' } as never), { message: /unreachable.*new/ })
})
