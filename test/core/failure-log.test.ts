// A disk that fails every request: one stack of each kind, then numbers.
import t from 'tap'
import { LockstepError } from '../../src/core/errors.js'
import { FailureLog } from '../../src/core/failure-log.js'
import { silentLog } from '../../src/core/log.js'

const words = { first: 'request failed', again: 'requests go on failing' }

t.test('the first failure of a kind is told whole, later ones are counted', (t) => {
  const lines: { bindings: object; message: string }[] = []
  const warn = (bindings: object, message: string) => void lines.push({ bindings, message })
  const failures = new FailureLog({ ...silentLog, warn }, words)
  const broken = Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' })
  for (let count = 0; count < 1234; count++) failures.failed(broken, { store: 'vol0' })
  t.same(lines, [
    { bindings: { err: broken, store: 'vol0' }, message: 'request failed' },
    ...[10, 100, 1000].map((count) => ({
      bindings: { kind: 'EIO', count, store: 'vol0' },
      message: 'requests go on failing',
    })),
  ])
  lines.length = 0
  const others = [
    Object.assign(new Error('x'), { code: 'ENXIO' }),
    new LockstepError('FAILED_STOP', 'stopped', 'restart'),
    new TypeError('a bug'),
    undefined,
  ]
  for (const error of [...others, ...others]) failures.failed(error, { store: 'vol1' })
  t.same(
    lines,
    others.map((err) => ({ bindings: { err, store: 'vol1' }, message: 'request failed' })),
  )
  t.end()
})

t.test('what fails again after it worked is told whole again', (t) => {
  const messages: string[] = []
  const warn = (_: object, message: string) => void messages.push(message)
  const failures = new FailureLog({ ...silentLog, warn }, words)
  for (let count = 0; count < 5; count++) failures.failed(new Error('x'), {})
  t.same(messages, ['request failed'])
  failures.worked()
  for (let count = 0; count < 10; count++) failures.failed(new Error('x'), {})
  t.same(messages, ['request failed', 'request failed', 'requests go on failing'])
  t.end()
})
