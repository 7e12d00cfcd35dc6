// Clients in the log: each comes and goes by a line, and a client with many failures cannot fill it.
import t from 'tap'
import { type ErrnoName, RequestError } from '../../nbd/errors.js'
import { nbdHooks } from '../../src/app/nbd-hooks.js'
import { type Log, silentLog } from '../../src/core/log.js'

function recorder(): { log: Log; lines: string[] } {
  const lines: string[] = []
  const say = (_bindings: object, message: string) => {
    lines.push(message)
  }
  return { lines, log: { ...silentLog, info: say, warn: say, error: say } }
}

t.test('failures beyond a few a period become a number', (t) => {
  const { log, lines } = recorder()
  let nowMs = 100_000
  const clock = {
    nowMs: () => nowMs,
    wallTime: () => new Date(0),
    setTimer: () => ({ cancel: () => {} }),
    defer: () => {},
  }
  const hooks = nbdHooks({ log, clock, die: () => {} })
  const fail = () =>
    hooks.onRequestFailed?.(
      { id: 1, peer: 'unix', exportName: 'vol0' },
      { command: 'WRITE', offset: 0, lengthBytes: 1, error: new Error('x') },
    )
  for (let count = 0; count < 500; count++) fail()
  t.equal(lines.length, 20)
  nowMs += 10_000
  fail()
  t.same(lines.slice(20), ['request failed, and more like it', 'request failed'])
  t.end()
})

t.test('an end that is a bug is an error, others are information', (t) => {
  const { log, lines } = recorder()
  const clock = {
    nowMs: () => 0,
    wallTime: () => new Date(0),
    setTimer: () => ({ cancel: () => {} }),
    defer: () => {},
  }
  const hooks = nbdHooks({ log, clock, die: () => {} })
  hooks.onSessionStart?.({ id: 1, peer: 'unix' })
  hooks.onSessionEnd?.({ id: 1, peer: 'unix' }, { reason: 'timeout', message: '' })
  hooks.onSessionEnd?.({ id: 2, peer: 'unix' }, { reason: 'failed', message: '' })
  t.same(lines, ['client connected', 'client left', 'client lost'])
  t.end()
})

t.test('clients that come and go become a number, and who is none is not told of', (t) => {
  const { log, lines } = recorder()
  let nowMs = 0
  const clock = {
    nowMs: () => nowMs,
    wallTime: () => new Date(0),
    setTimer: () => ({ cancel: () => {} }),
    defer: () => {},
  }
  const hooks = nbdHooks({ log, clock, die: () => {} })
  const client = { id: 1, peer: 'unix', exportName: 'vol0' }
  for (let count = 0; count < 100; count++) {
    hooks.onSessionStart?.(client)
    hooks.onSessionEnd?.(client, { reason: 'disconnect', message: '' })
  }
  t.equal(lines.filter((line) => line === 'client connected').length, 20)
  t.equal(lines.filter((line) => line === 'client left').length, 20)
  nowMs = 10_000
  hooks.onSessionStart?.(client)
  t.same(lines.slice(40), ['client connected, and more like it', 'client connected'])
  const other = { id: 2, peer: 'unix' }
  for (const reason of ['taken', 'disconnect', 'end-of-stream'] as const)
    hooks.onSessionEnd?.(other, { reason, message: '' })
  t.equal(lines.length, 42)
  hooks.onSessionEnd?.(other, { reason: 'protocol-error', message: '' })
  t.equal(lines.at(-1), 'client left')
  t.end()
})

t.test(
  'a declared refusal has no stack, and is a warning only when it tells of the server',
  (t) => {
    const lines: { level: string; bindings: object }[] = []
    const at = (level: string) => (bindings: object) => {
      lines.push({ level, bindings })
    }
    const log = { ...silentLog, debug: at('debug'), warn: at('warn') }
    let nowMs = 0
    const clock = {
      nowMs: () => nowMs,
      wallTime: () => new Date(0),
      setTimer: () => ({ cancel: () => {} }),
      defer: () => {},
    }
    const hooks = nbdHooks({ log, clock, die: () => {} })
    const refuse = (errno: ErrnoName) =>
      hooks.onRequestFailed?.(
        { id: 1, peer: 'unix', exportName: 'vol0' },
        { command: 'WRITE', offset: 0, lengthBytes: 1, error: new RequestError(errno, 'why') },
      )
    for (const errno of ['ENOTSUP', 'EINVAL', 'EPERM', 'EIO'] as const) refuse(errno)
    t.same(
      lines.map(({ level }) => level),
      ['debug', 'debug', 'debug', 'warn'],
    )
    t.notOk(lines.some(({ bindings }) => 'err' in bindings))
    t.match(lines[3]?.bindings, { errno: 'EIO', cause: 'why' })
    lines.length = 0
    for (let count = 0; count < 50; count++) refuse('ENOSPC')
    t.equal(lines.length, 1)
    nowMs += 2000
    refuse('ENOSPC')
    t.same(lines[1]?.bindings, { untoldCount: 49 })
    t.equal(lines.length, 3)
    t.end()
  },
)
