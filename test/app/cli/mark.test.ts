// mark and peer forget on the command line against the engine's double: words, exit codes, and what reaches the daemon.
import { dirname } from 'node:path'
import t, { type Test } from 'tap'
import { markText } from '../../../src/app/cli/mark.js'
import { LockstepError } from '../../../src/core/errors.js'
import type { Generation, Sequence } from '../../../src/core/units.js'
import { runLine } from '../../support/command-line.js'
import { startControl } from '../../support/control.js'

async function start(t: Test) {
  const { engine, path } = await startControl(t)
  const ask = (words: readonly string[]) =>
    runLine(words, { environment: { LOCKSTEP_DIR: dirname(path) } })
  return { engine, ask }
}

const hook = { name: 'backup', isTimedOut: false, output: '' }
const result = { name: 'nightly', snapshots: [], snapshotCount: 0, problems: [] }

t.test('a mark is made with what was said, and does not wait', async (t) => {
  const { engine, ask } = await start(t)
  const words = ['mark', 'nightly', '--message', 'a b', '--hook', 'backup', '--snapshot', 'x']
  const done = await ask(words)
  t.equal(done.status, 0)
  t.equal(done.stdout, 'marked nightly at sequence 1\n')
  t.same(engine.peerCalls, [
    'mark {"name":"nightly","message":"a b","hook":"backup","snapshot":"x"}',
  ])
})

t.test('with --wait the result is told; what was not done is exit code 3', async (t) => {
  const { engine, ask } = await start(t)
  const line = ['mark', 'nightly', '--wait', '--timeout', '7']
  const kept = await ask(line)
  t.equal(kept.status, 0)
  t.match(kept.stdout, /\n {2}the replica keeps vol0@local\.nightly\n/)
  t.ok(engine.peerCalls.includes('result of 1 in 7000'))
  engine.markOutcome = { ...result, hook: { ...hook, exitCode: 1, output: 'no\nroom\n' } }
  const failed = await ask(line)
  t.equal(failed.status, 3)
  t.match(failed.stdout, /hook backup failed with exit code 1\n {4}\| no\n {4}\| room\n/)
  engine.markOutcome = { ...result, problems: [{ message: 'it cannot', action: 'do this' }] }
  const partly = await ask(line)
  t.equal(partly.status, 3)
  t.match(partly.stdout, /problem: it cannot\n {6}try: do this\n/)
  const json = await ask([...line, '--json'])
  t.match(JSON.parse(json.stdout), { position: {}, result: { problems: [{ action: 'do this' }] } })
  engine.markOutcome = new LockstepError('TIMED_OUT', 'not told', 'look')
  t.equal((await ask(line)).status, 8)
  t.match(await ask(['mark', 'x', '--timeout', '7']), {
    status: 2,
    stderr: /--timeout needs --wait/,
  })
  t.match(await ask(['mark']), { status: 2, stderr: /NAME is missing/ })
})

t.test('what another machine says cannot move the cursor', async (t) => {
  const position = { generation: 'g' as Generation, sequence: 3 as Sequence }
  const output = 'a\u001b[2Jb\rc\u009bd\te\n'
  const answer = {
    position,
    stores: [],
    result: { ...result, hook: { ...hook, exitCode: 0, output } },
  }
  const text = markText('m', answer)
  t.match(text, /\| a\ufffd\[2Jb\ufffdc\ufffdd {2}e$/)
  const loud = { ...result, hook: { ...hook, exitCode: 0, output: 'x\n'.repeat(1000) } }
  t.equal(markText('m', { ...answer, result: loud }).split('\n').length, 23)
  const ended = { ...result, hook: { ...hook, isTimedOut: true, signal: 'SIGTERM' } }
  t.match(markText('m', { ...answer, result: ended }), /took too long and was ended/)
  const signalled = { ...result, hook: { ...hook, signal: 'SIGSEGV' } }
  t.match(markText('m', { ...answer, result: signalled }), /was ended by SIGSEGV/)
})

t.test('peer forget says what is lost, and needs to be meant', async (t) => {
  const { engine, ask } = await start(t)
  const refused = await ask(['peer', 'forget'])
  t.equal(refused.status, 5)
  t.match(refused.stderr, /will be lost: when it returns it needs everything again/)
  t.same(engine.peerCalls, [])
  const done = await ask(['peer', 'forget', '--yes'])
  t.equal(done.status, 0)
  t.match(done.stdout, /^forgot beta; the link stays closed/)
  t.same(engine.peerCalls, ['forget'])
})
