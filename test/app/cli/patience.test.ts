// What a command says while its answer does not come: why, once, and only to people.
import t from 'tap'
import { Arguments, type Context } from '../../../src/app/cli/command.js'
import type { Output } from '../../../src/app/cli/output.js'
import { patiently } from '../../../src/app/cli/patience.js'
import { LockstepError } from '../../../src/core/errors.js'
import { withDeadline } from '../../support/process.js'

type Peer = { readonly link: string; readonly reason: string }

/** A command whose answer comes when the reason was asked for. */
function waitingContext(peers: () => readonly Peer[]) {
  const notes: string[] = []
  let answer: (value: string) => void = () => {}
  const answered = new Promise<string>((resolve) => {
    answer = resolve
  })
  const request = async (method: string) => {
    t.equal(method, 'peer.list')
    try {
      return { peers: peers() }
    } finally {
      setImmediate(() => answer('done'))
    }
  }
  const context = {
    arguments: new Arguments({}),
    output: { note: (text: string) => notes.push(text) } as unknown as Output,
    environment: {},
    directory: () => '/nowhere',
    client: async () => ({ request }),
  } as unknown as Context
  return { context, notes, answered }
}

const streaming = { link: 'streaming', reason: 'all is well' }
const offline = { link: 'offline', reason: 'No connection to the peer.' }

t.test('a link that does not stream is the reason', async (t) => {
  const { context, notes, answered } = waitingContext(() => [offline])
  const waited = patiently(context, answered, 'a disk')
  t.equal(await withDeadline(waited, 10_000, () => 'the answer'), 'done')
  t.same(notes, ['waiting: No connection to the peer.'])
})

t.test('else it is what the command knows, if it knows something', async (t) => {
  for (const peers of [[], [streaming]]) {
    const { context, notes, answered } = waitingContext(() => peers)
    await withDeadline(patiently(context, answered, 'a disk'), 10_000, () => 'the answer')
    t.same(notes, ['waiting: a disk'])
    const silent = waitingContext(() => peers)
    await withDeadline(patiently(silent.context, silent.answered), 10_000, () => 'the answer')
    t.same(silent.notes, [])
  }
})

t.test('an answer that comes at once, or fails, is only passed on', async (t) => {
  const { context, notes } = waitingContext(() => {
    throw new Error('nobody asks')
  })
  t.equal(await patiently(context, Promise.resolve(1), 'a disk'), 1)
  const refusal = new LockstepError('BUSY', 'not now', 'later')
  await t.rejects(patiently(context, Promise.reject(refusal), 'a disk'), refusal)
  t.same(notes, [])
})

t.test('when the reason cannot be had nothing is said', async (t) => {
  const { context, notes, answered } = waitingContext(() => {
    throw new LockstepError('UNREACHABLE', 'gone', 'serve')
  })
  const waited = patiently(context, answered, 'a disk')
  t.equal(await withDeadline(waited, 10_000, () => 'the answer'), 'done')
  t.same(notes, [])
})
