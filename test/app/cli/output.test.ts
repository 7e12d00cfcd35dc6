// Results, failures and their exit codes: fixed, scripts depend on them.
import { AssertionError } from 'node:assert'
import { PassThrough } from 'node:stream'
import t from 'tap'
import { exitCodeOf, Output, type Terminal } from '../../../src/app/cli/output.js'
import { UsageError } from '../../../src/app/cli/usage-error.js'
import { errorCodes, LockstepError } from '../../../src/core/errors.js'

function capture(options: { isJson?: boolean; isTTY?: boolean; noColor?: string } = {}) {
  const said = { stdout: '', stderr: '' }
  const stream = (name: 'stdout' | 'stderr') => {
    const through = new PassThrough()
    through.on('data', (chunk: Buffer) => {
      said[name] += chunk.toString()
    })
    return Object.assign(through, { isTTY: options.isTTY ?? false })
  }
  const terminal = {
    stdout: stream('stdout'),
    stderr: stream('stderr'),
    stdin: stream('stdout'),
  } as unknown as Terminal
  const environment = options.noColor === undefined ? {} : { NO_COLOR: options.noColor }
  return { said, output: new Output({ isJson: options.isJson ?? false, terminal, environment }) }
}

t.test('each refusal has its exit code', (t) => {
  const special: Readonly<Record<string, number>> = {
    INVALID_CONFIG: 2,
    UNREACHABLE: 4,
    NEEDS_CONFIRMATION: 5,
    NOT_WHOLE: 5,
    SPLIT_BRAIN: 7,
    TIMED_OUT: 8,
    INTERRUPTED: 130,
  }
  for (const code of errorCodes) t.equal(exitCodeOf(code), special[code] ?? 1, code)
  const { output } = capture()
  t.equal(output.failure(new UsageError('a', 'b')), 2)
  t.equal(output.failure(new TypeError('a')), 1)
  t.equal(output.failure(new AssertionError({ message: 'a' })), 70)
  t.end()
})

t.test('people get a sentence and what to type', (t) => {
  const { said, output } = capture()
  output.failure(new LockstepError('NO_SUCH_STORE', 'there is no store "a"', 'lockstep status'))
  t.same(said, {
    stdout: '',
    stderr: 'lockstep: there is no store "a"\n  try: lockstep status\n',
  })
  t.end()
})

t.test('scripts get one JSON document, also for a failure', (t) => {
  const { said, output } = capture({ isJson: true })
  output.note('for people')
  output.failure(new LockstepError('NO_SPACE', 'full', 'delete'))
  output.failure(new LockstepError('INTERRUPTED', 'again', ''))
  t.same(JSON.parse(said.stdout), {
    error: { code: 'NO_SPACE', message: 'full', action: 'delete' },
  })
  t.equal(said.stderr, 'lockstep: again\n', 'a second failure does not make a second document')
  t.end()
})

t.test('a failure begins on a line of its own: a bar that was drawn goes', (t) => {
  const { said, output } = capture({ isTTY: true })
  const interrupted = new LockstepError('INTERRUPTED', 'interrupted', '')
  output.failure(interrupted)
  t.equal(said.stderr, 'lockstep: interrupted\n', 'nothing was drawn')
  output.redraw('bar')
  output.failure(interrupted)
  t.ok(said.stderr.endsWith('\rbar\u001b[K\r\u001b[Klockstep: interrupted\n'), said.stderr)
  t.end()
})

t.test('colours are for terminals, and NO_COLOR turns them off', (t) => {
  t.equal(capture({ isTTY: true }).output.paint('red', 'x'), '\u001b[31mx\u001b[0m')
  t.equal(capture({ isTTY: true, noColor: '1' }).output.paint('red', 'x'), 'x')
  t.equal(capture({ isTTY: true, noColor: '' }).output.paint('red', 'x'), '\u001b[31mx\u001b[0m')
  t.equal(capture({ isTTY: false }).output.paint('red', 'x'), 'x')
  t.end()
})

t.test('what other machines said cannot move the cursor, and colours stay', (t) => {
  const { said, output } = capture({ isTTY: true })
  const name = 'a\u001b[31mb\u001b[2Jc\u0007\u009bd\r\te'
  output.result({}, `${output.paint('bold', 'node')}: ${name}\nnext`)
  t.equal(
    said.stdout,
    '\u001b[1mnode\u001b[0m: a\u001b[31mb\ufffd[2Jc\ufffd\ufffdd\ufffd\te\nnext\n',
  )
  output.note('\u001b]0;title\u0007')
  output.failure(new LockstepError('IO_ERROR', 'a\u001bc', '\u001b[5m'))
  t.equal(said.stderr, '\ufffd]0;title\ufffd\nlockstep: a\ufffdc\n  try: \ufffd[5m\n')
  t.end()
})
