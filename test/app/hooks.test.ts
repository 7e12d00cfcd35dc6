// Hooks as real processes: what they are given, how they end, and that nothing runs that is not in the list.
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { checkHooks, HookRunner, readHooks } from '../../src/app/hooks.js'
import { limits } from '../../src/core/limits.js'
import type { Generation, Sequence } from '../../src/core/units.js'
import { failureOf, thrownBy } from '../support/failure.js'
import { scratch } from '../support/process.js'
import { waitFor } from '../support/wait.js'

const position = { generation: 'ab'.repeat(16) as Generation, sequence: 42 as Sequence }
const request = { hook: 'h', name: 'nightly', position }

/** A hook `h` that is this script. */
function runnerOf(t: Test, script: string, timeoutMs = 60_000) {
  const directory = scratch(t)
  const program = join(directory, 'hook')
  writeFileSync(program, `#!/bin/bash\n${script}\n`, { mode: 0o700 })
  const runner = new HookRunner({ hooks: { h: program }, timeoutMs, directory })
  t.teardown(() => runner.close())
  return { runner, directory, program }
}

t.test('a hook has an environment of its own, and nothing else', async (t) => {
  Object.assign(process.env, { LOCKSTEP_SECRET_OF_THE_DAEMON: 'x' })
  const { runner, directory } = runnerOf(t, 'env -0 | sort -z | tr "\\0" "|"; pwd; echo "$#"')
  const message = '$(touch /tmp/never); `id` "\n'
  const { output } = await runner.run({ ...request, message, snapshot: 'local.nightly' })
  t.match(output, `|LOCKSTEP_MESSAGE=${message}|`, 'a message is a message, no command')
  const names = [...output.matchAll(/(?:^|\|)([A-Z_]+)=/g)].map((match) => match[1])
  // The shell adds some, and the test runner to every process that is begun under it.
  t.same(
    names.filter((name) => !/^(PWD|SHLVL|_|NODE_OPTIONS|_TAPJS_.*)$/.test(name ?? '')),
    [
      'LOCKSTEP_DIR',
      'LOCKSTEP_GENERATION',
      'LOCKSTEP_HOOK',
      'LOCKSTEP_MARK',
      'LOCKSTEP_MESSAGE',
      'LOCKSTEP_SEQUENCE',
      'LOCKSTEP_SNAPSHOT',
      'PATH',
    ],
  )
  for (const part of [
    `LOCKSTEP_DIR=${directory}|`,
    `LOCKSTEP_GENERATION=${position.generation}|`,
    'LOCKSTEP_MARK=nightly|',
    'LOCKSTEP_SEQUENCE=42|',
    'LOCKSTEP_SNAPSHOT=local.nightly|',
  ])
    t.ok(output.includes(part), part)
  t.match(output, /\|\/\n0\n$/, 'in the root, without arguments')
})

t.test('its end is told: exit code, signal, and the end of what it said', async (t) => {
  const failing = runnerOf(t, 'echo to stdout; echo to stderr >&2; exit 3')
  t.match(await failing.runner.run(request), {
    name: 'h',
    exitCode: 3,
    isTimedOut: false,
    output: /to stdout/,
  })
  const killed = runnerOf(t, 'kill -KILL $$')
  t.match(await killed.runner.run(request), { signal: 'SIGKILL', isTimedOut: false })
  const loud = runnerOf(t, 'yes x | head -c 1000000; echo the end')
  const { output } = await loud.runner.run(request)
  t.equal(Buffer.byteLength(output), limits.hookOutputBytesMax)
  t.match(output, /the end\n$/)
  const strange = runnerOf(t, 'head -c 100000 /dev/urandom')
  const { output: bytes } = await strange.runner.run(request)
  t.ok(JSON.stringify(bytes).length < 48 * 1024, 'it fits the frame that brings it back')
})

t.test('what takes too long is ended, with all that it started', async (t) => {
  const { runner, directory } = runnerOf(
    t,
    'sleep 1000 & echo $! > "$LOCKSTEP_DIR/child"; echo begun; wait',
    300,
  )
  const outcome = await runner.run(request)
  t.match(outcome, { isTimedOut: true, signal: 'SIGTERM', output: 'begun\n' })
  const child = Number(readFileSync(join(directory, 'child'), 'utf8'))
  await waitFor('the child is gone', () => !isAlive(child))
})

t.test('what does not want to end is made to', async (t) => {
  const { runner } = runnerOf(t, 'trap "" TERM; while :; do sleep 0.1; done', 300)
  t.match(await runner.run(request), { isTimedOut: true, signal: 'SIGKILL' })
})

t.test('a process that it leaves behind does not hold it up', async (t) => {
  const { runner, directory } = runnerOf(t, 'sleep 1000 & echo $! > "$LOCKSTEP_DIR/child"; exit 0')
  t.match(await runner.run(request), { exitCode: 0, isTimedOut: false })
  const child = Number(readFileSync(join(directory, 'child'), 'utf8'))
  t.ok(isAlive(child), 'a service may be started')
  process.kill(child, 'SIGKILL')
})

t.test('a runner that is closed ends what runs and begins nothing', async (t) => {
  const { runner } = runnerOf(t, 'sleep 1000')
  const running = runner.run(request)
  await runner.close()
  t.match(await running, { signal: 'SIGTERM', isTimedOut: false })
  t.match(await failureOf(runner.run(request)), { code: 'BUSY' })
})

t.test('what is not in the list, or cannot be started, says what to do', async (t) => {
  const { runner, program } = runnerOf(t, 'exit 0')
  t.match(await failureOf(runner.run({ ...request, hook: 'other' })), {
    code: 'INVALID_ARGUMENT',
    message: /hook other did not run: .*it allows h$/,
    action: /\[hooks\] and below it other = "\/absolute\/path"/,
  })
  t.match(await failureOf(runner.run({ ...request, hook: 'constructor' })), {
    code: 'INVALID_ARGUMENT',
  })
  writeFileSync(program, '#!/nowhere/sh\n')
  t.match(await failureOf(runner.run(request)), { code: 'IO_ERROR', action: /begins with #!/ })
  chmodSync(program, 0o600)
  t.match(await failureOf(runner.run(request)), { code: 'IO_ERROR', message: /EACCES/ })
})

t.test('the list of the configuration is checked, with the place', async (t) => {
  const path = 'x.toml'
  t.same(readHooks({ backup: '/usr/bin/true' }, path), { backup: '/usr/bin/true' })
  for (const [value, message] of [
    [[], /x\.toml: hooks must be a table/],
    ['/bin/true', /must be a table/],
    [{ 'no name': '/bin/true' }, /"no name" cannot be a hook's name/],
    [{ backup: 'true' }, /hooks\.backup must be an absolute path, not "true"/],
    [{ backup: ['/bin/true'] }, /must be an absolute path/],
    [{ backup: '' }, /must be an absolute path/],
  ] as const)
    t.match(
      thrownBy(() => readHooks(value, path)),
      { code: 'INVALID_CONFIG', message },
    )
  const directory = scratch(t)
  const program = join(directory, 'hook')
  const check = () => checkHooks({ backup: program })
  t.match(await failureOf(check()), { message: /hook backup: .*ENOENT/ })
  mkdirSync(program)
  t.match(await failureOf(check()), { message: /is not a file/ })
  const other = join(directory, 'other')
  writeFileSync(other, '#!/bin/sh\n', { mode: 0o755 })
  await checkHooks({ backup: other })
  chmodSync(other, 0o777)
  t.match(await failureOf(checkHooks({ backup: other })), { message: /every user/ })
  chmodSync(other, 0o644)
  t.match(await failureOf(checkHooks({ backup: other })), {
    code: 'INVALID_CONFIG',
    action: `chmod +x ${other}`,
  })
})

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
