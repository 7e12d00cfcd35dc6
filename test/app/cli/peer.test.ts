// peer, wait and dirty on the command line against the engine's double: words, exit codes, and what reaches the daemon.
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { LockstepError } from '../../../src/core/errors.js'
import type { Sequence } from '../../../src/core/units.js'
import type { PeerStatus } from '../../../src/engine/api.js'
import { refusalComplaints, runLine } from '../../support/command-line.js'
import { startControl } from '../../support/control.js'
import { scratch } from '../../support/process.js'

const peer: PeerStatus = {
  uri: 'nbd://192.0.2.7:10809',
  node: 'beta',
  link: 'offline',
  reason: 'Nobody is there.',
  mode: 'sync',
  appliedSequence: 0 as Sequence,
  durableSequence: 0 as Sequence,
  lagBytes: 0,
  lagSeconds: 0,
  lacksBytes: 4096,
  dirtyBytes: 4096,
  opLogEntries: 0,
  sentBytes: 0,
  receivedBytes: 0,
}

async function start(t: Test) {
  const { engine, path } = await startControl(t)
  const ask = (words: readonly string[]) =>
    runLine(words, { environment: { LOCKSTEP_DIR: dirname(path) } })
  return { engine, ask }
}

t.test('peer list, and status with a peer that is away', async (t) => {
  const { engine, ask } = await start(t)
  t.match((await ask(['peer', 'list'])).stdout, /^no peer: lockstep peer set/)
  engine.peers = [peer]
  t.match((await ask(['peer', 'list'])).stdout, /beta {2}offline.*\n {5}link: Nobody is there\.\n/)
  t.same(JSON.parse((await ask(['peer', 'list', '--json'])).stdout), { peers: [peer] })
  const ill = await ask(['status', '-x'])
  t.equal(ill.status, 6)
  t.match(ill.stdout, /status: changes do not reach beta: Nobody is there\.\n +action: lockstep/)
})

t.test('peer connect says what was decided; what has to be decided by people fails', async (t) => {
  const { engine, ask } = await start(t)
  const explained = await ask(['peer', 'connect', '--explain'])
  t.equal(explained.status, 0)
  t.match(explained.stdout, /^nothing: both nodes are at the same position\n +rule: same position/)
  t.same(engine.peerCalls, ['connect explain=true'])
  const reason = 'both wrote since they parted'
  for (const [kind, status] of [
    ['split-brain', 7],
    ['refuse', 5],
    ['resync', 0],
  ] as const) {
    engine.explanation = { rule: 'x', kind, operations: 0, bytes: 0, reason }
    const decided = await ask(['peer', 'connect'])
    t.equal(decided.status, status, kind)
    t.match(decided.stdout, `${kind}: ${reason}`)
  }
  engine.explanation = new LockstepError('PEER_UNREACHABLE', 'nobody listens', 'start it')
  const refusal = {
    status: 1,
    code: 'PEER_UNREACHABLE',
    message: /nobody listens/,
    action: /start it/,
  }
  t.same(await refusalComplaints(ask, ['peer', 'connect'], refusal), [])
})

t.test('peer disconnect and peer set', async (t) => {
  const { engine, ask } = await start(t)
  t.match(
    (await ask(['peer', 'disconnect'])).stdout,
    /disconnected until lockstep peer connect, or the next start/,
  )
  const set = await ask(['peer', 'set', 'nbd://192.0.2.7:10809', '--mode', 'async'])
  t.match(set.stdout, /the peer is nbd:.*10809, the mode is async; kept until/)
  t.same(engine.peerCalls, ['disconnect', 'set {"uri":"nbd://192.0.2.7:10809","mode":"async"}'])
  const usage = { status: 2, code: 'INVALID_ARGUMENT', action: /lockstep peer set/ }
  t.same(
    await refusalComplaints(ask, ['peer', 'set'], {
      ...usage,
      message: /an address, a mode or a rate/,
    }),
    [],
  )
  const noMode = { ...usage, message: /no mode "quick"/ }
  t.same(await refusalComplaints(ask, ['peer', 'set', '--mode', 'quick'], noMode), [])
  const wrong = { status: 2, code: 'INVALID_CONFIG', message: /not an nbd:/, action: /use nbd:/ }
  t.same(await refusalComplaints(ask, ['peer', 'set', 'http://x'], wrong), [])
  t.equal(engine.peerCalls.length, 2)
  const slower = await ask(['peer', 'set', '--max-rate', '50M'])
  t.match(slower.stdout, /a resync uses at most 50 MiB a second; kept until/)
  t.match((await ask(['peer', 'set', '--max-rate', '0'])).stdout, /as much as there is/)
  t.match(engine.peerCalls.slice(2), ['set {"maxRate":52428800}', 'set {"maxRate":0}'])
  t.equal((await ask(['peer', 'set', '--max-rate', 'fast'])).status, 2)
})

t.test('wait for the nodes: 0 when it holds, 8 with the reason when it does not', async (t) => {
  const { engine, ask } = await start(t)
  const reached = await ask(['wait', '--for', 'in-sync', '--timeout', '5'])
  t.equal(reached.status, 0)
  t.equal(reached.stdout, 'in-sync\n')
  t.match(engine.peerCalls, [/^wait in-sync (5000|4\d\d\d)$/])
  const late = new LockstepError('TIMED_OUT', 'not promotable within 1 s: because', 'look')
  engine.condition = () => Promise.reject(late)
  const missed = await ask(['wait', '--for', 'promotable', '--timeout', '1'])
  t.equal(missed.status, 8)
  t.match(missed.stderr, /not promotable within 1 s: because\n {2}try: look/)
  const noPeer = new LockstepError('INVALID_ARGUMENT', 'no peer is configured', 'peer set')
  engine.condition = () => Promise.reject(noPeer)
  t.equal((await ask(['wait', '--for', 'in-sync'])).status, 1, 'what can never be is told at once')
})

t.test('wait for a daemon that is not there ends when its time is over', async (t) => {
  const dir = join(scratch(t), 'none')
  const missed = await runLine(['wait', '--for', 'in-sync', '--timeout', '0', '--dir', dir])
  t.equal(missed.status, 8)
  t.match(missed.stderr, /not in-sync within 0 s: no daemon answers/)
})

t.test('dirty with a peer is what the peer may lack', async (t) => {
  const { engine, ask } = await start(t)
  engine.addVolume('vol0', 1048576)
  t.match((await ask(['dirty'])).stdout, /changed since monday/)
  engine.peers = [peer]
  engine.hasTracking = true
  t.match((await ask(['dirty'])).stdout, /vol0: 64 KiB of 1 MiB \(6 %\) may differ on the peer\n/)
})

t.test('verify: 0 when the nodes are the same, 6 with the places when they differ', async (t) => {
  const { engine, ask } = await start(t)
  engine.addVolume('vol0', 131072)
  const same = await ask(['verify', 'vol0'])
  t.equal(same.status, 0)
  t.equal(same.stdout, 'vol0: the same on both nodes (128 KiB)\n')
  t.match(same.stderr, /vol0: compared 50 % of 128 KiB\nvol0: compared 100 % of 128 KiB\n/)
  engine.differing = [{ offset: 65536, lengthBytes: 65536 }]
  const other = await ask(['verify'])
  t.equal(other.status, 6)
  t.match(
    other.stdout,
    /vol0: 64 KiB of 128 KiB \(50 %\) may differ\n {2}65536 bytes from byte 65536 on\n/,
  )
  t.match(await ask(['verify', '--repair']), { status: 1, stderr: /^lockstep: no peer/ })
  engine.peers = [peer]
  const away = { status: 1, stderr: /^lockstep: the nodes cannot be compared now: Nobody is/ }
  t.match(await ask(['verify', '--repair']), away, 'refused before it asks')
  engine.peers = [{ ...peer, link: 'streaming' }]
  const unsure = await ask(['verify', '--repair'])
  t.equal(unsure.status, 5, 'the peer would lose something')
  const repaired = await ask(['verify', '--repair', '--yes'])
  t.equal(repaired.status, 0)
  t.match(repaired.stdout, /the peer gets what this node has/)
  t.same(engine.peerCalls, [
    'verify vol0 repair=false',
    'verify vol0 repair=false',
    'verify vol0 repair=true from=self',
  ])
})

t.test('verify --no-wait returns at once; job wait ends as verify would have', async (t) => {
  const { engine, ask } = await start(t)
  engine.differing = [{ offset: 0, lengthBytes: 65536 }]
  const begun = await ask(['verify', '--no-wait'])
  t.equal(begun.status, 0)
  t.equal(begun.stdout, 'verifying as job 1; its result: lockstep job wait 1\n')
  const ended = await ask(['job', 'wait', '1'])
  t.equal(ended.status, 6)
  t.match(ended.stdout, /vol0: 64 KiB of 128 KiB \(50 %\) may differ/)
  t.match((await ask(['job', 'list'])).stdout, /JOB {2}WHAT.*\n +1 {2}verify {2}done/)
  t.match(JSON.parse((await ask(['job', 'wait', '1', '--json'])).stdout), { state: 'done' })
  t.match(await ask(['job', 'wait', '9']), { status: 1, stderr: /no job "9"/ })
  t.match(await ask(['job', 'wait', '1', '--timeout', 'x']), { status: 2 })
})
