// Marks as they are asked for: names, the message, and a snapshot that has the replica's prefix already.
import t from 'tap'
import { limits } from '../../src/core/limits.js'
import { checkMarkRequest } from '../../src/core/mark-request.js'

t.test('a mark keeps what it was given, and nothing else', async (t) => {
  t.same(checkMarkRequest({ name: 'nightly' }), { name: 'nightly' })
  const full = { name: 'a', message: 'before 4.2', hook: 'backup', snapshot: 'nightly' }
  t.same(checkMarkRequest(full), full)
})

t.test('the prefix of a replica is not doubled', async (t) => {
  for (const snapshot of ['q', 'local.q', 'local.local.q'])
    t.same(checkMarkRequest({ name: 'm', snapshot }), { name: 'm', snapshot: 'q' }, snapshot)
  t.same(checkMarkRequest({ name: 'local.m' }), { name: 'local.m' }, 'a mark is no snapshot')
})

t.test('what cannot be a name or a message is refused', async (t) => {
  const bad = { code: 'INVALID_NAME' }
  t.throws(() => checkMarkRequest({ name: 'x/../y' }), bad)
  t.throws(() => checkMarkRequest({ name: 'm', hook: '/bin/sh' }), bad)
  for (const snapshot of ['', 'local.', 'vol0@q', 'local.-'])
    t.throws(() => checkMarkRequest({ name: 'm', snapshot }), bad, snapshot)
  const wrong = { code: 'INVALID_ARGUMENT' }
  t.throws(() => checkMarkRequest({ name: 'm', message: 'a\0b' }), wrong)
  const most = limits.markMessageBytesMax
  t.ok(checkMarkRequest({ name: 'm', message: 'x'.repeat(most) }))
  t.throws(() => checkMarkRequest({ name: 'm', message: 'x'.repeat(most + 1) }), wrong)
})
