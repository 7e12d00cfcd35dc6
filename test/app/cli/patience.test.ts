// What a command says while its answer does not come: why, once, and only to people.
import t from 'tap'
import { Arguments, type Context } from '../../../src/app/cli/command.js'
import { Output, type Terminal } from '../../../src/app/cli/output.js'
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
    output: { note: (text: string) => notes.push(text), canRedraw: false } as unknown as Output,
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
  const waited = patiently(context, answered, { otherwise: 'a disk' })
  t.equal(await withDeadline(waited, 10_000, () => 'the answer'), 'done')
  t.same(notes, ['waiting: No connection to the peer.'])
})

t.test('else it is what the command knows, if it knows something', async (t) => {
  for (const peers of [[], [streaming]]) {
    const { context, notes, answered } = waitingContext(() => peers)
    await withDeadline(
      patiently(context, answered, { otherwise: 'a disk' }),
      10_000,
      () => 'the answer',
    )
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
  t.equal(await patiently(context, Promise.resolve(1), { otherwise: 'a disk' }), 1)
  const refusal = new LockstepError('BUSY', 'not now', 'later')
  await t.rejects(patiently(context, Promise.reject(refusal), { otherwise: 'a disk' }), refusal)
  t.same(notes, [])
})

t.test('when the reason cannot be had nothing is said', async (t) => {
  const { context, notes, answered } = waitingContext(() => {
    throw new LockstepError('UNREACHABLE', 'gone', 'serve')
  })
  const waited = patiently(context, answered, { otherwise: 'a disk' })
  t.equal(await withDeadline(waited, 10_000, () => 'the answer'), 'done')
  t.same(notes, [])
})

/** What is seen at each look, the last of it for ever; the answer comes when the test says so. */
function watched(looks: readonly object[], terminal: { readonly isTTY: boolean }) {
  const written: string[] = []
  let count = 0
  const stream = { ...terminal, columns: 80, write: (text: string) => written.push(text) }
  const output = new Output({
    isJson: false,
    terminal: { stdout: stream, stderr: stream, stdin: stream } as unknown as Terminal,
    environment: {},
  })
  let haveSeen: () => void = () => {}
  const seen = new Promise<void>((resolve) => {
    haveSeen = resolve
  })
  const request = async () => {
    const peer = looks[Math.min(count++, looks.length - 1)]
    if (count > looks.length) haveSeen()
    return { peers: [peer] }
  }
  const context = {
    arguments: new Arguments({}),
    output,
    client: async () => ({ request }),
  } as unknown as Context
  return { context, written, seen }
}

const quick = { silenceMs: 1, refusedMs: 5 }
const resync = { totalBytes: 2 ** 30, bytesPerSecond: 2 ** 20, secondsLeft: 600 }
const resyncing = (doneBytes: number) => ({
  link: 'resyncing',
  node: 'beta',
  reason: 'It copies.',
  resync: { ...resync, doneBytes },
})

t.test('a resync is told while it is waited for: a bar, or a line for each tenth', async (t) => {
  for (const isTTY of [true, false]) {
    const looks = [resyncing(0), resyncing(2 ** 28), resyncing(2 ** 28), streaming]
    const { context, written, seen } = watched(looks, { isTTY })
    await patiently(context, seen, { timing: quick })
    t.equal(written[0], 'waiting: It copies.\n')
    if (!isTTY)
      t.same(written.slice(1), [
        'beta: brought up to date 0 % of 1 GiB\n',
        'beta: brought up to date 20 % of 1 GiB\n',
      ])
    else t.match(written[2], /^\rbeta: \[#+\.+\] 25 %, 256 MiB of 1 GiB, 1 MiB\/s, 10 min left/)
    for (const line of written) t.ok((line.split('\u001b')[0] ?? '').trim().length < 80, line)
    if (isTTY) t.equal(written.at(-1), '\r\u001b[K', 'the bar is gone')
  }
})

const refused = { link: 'refused', reason: 'Both wrote.', action: 'lockstep resolve' }

t.test('a link that stays refused is not waited for by who needs it', async (t) => {
  const { context } = watched([offline, refused], { isTTY: false })
  const never = new Promise<never>(() => {})
  const waited = patiently(context, never, { needsLink: true, timing: quick })
  const { code, message, action } = {
    code: 'PEER_UNREACHABLE',
    message: 'Both wrote.',
    action: 'lockstep resolve',
  }
  await t.rejects(
    withDeadline(waited, 10_000, () => 'the end'),
    { code, message, action },
  )
  const parted = watched([{ ...refused, rule: 'parted' }], { isTTY: false })
  const other = patiently(parted.context, never, { needsLink: true, timing: quick })
  await t.rejects(
    withDeadline(other, 10_000, () => 'the end'),
    { code: 'SPLIT_BRAIN' },
  )
})

t.test('one that was refused for a moment is, and by who does not need it too', async () => {
  const away = [refused, offline]
  const { context, seen } = watched([...away, ...away, ...away, ...away], { isTTY: false })
  const timing = { silenceMs: 3, refusedMs: 5 }
  await patiently(context, seen, { needsLink: true, timing })
  const other = watched([refused, refused, refused, refused, refused, refused], { isTTY: false })
  await patiently(other.context, other.seen, { timing })
})
