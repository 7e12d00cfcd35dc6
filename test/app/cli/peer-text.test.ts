// The other node as people read it: every state of the link, who says what, and what to type.
import t from 'tap'
import { statusText, unhealthyText } from '../../../src/app/cli/format.js'
import {
  explanationText,
  peerComplaints,
  peerListText,
  peerSection,
  resyncText,
} from '../../../src/app/cli/peer-text.js'
import type { DaemonStatus } from '../../../src/control/api.js'
import type { Sequence } from '../../../src/core/units.js'
import type { LinkName, PeerStatus } from '../../../src/engine/api.js'
import { EngineDouble } from '../../support/engine-double.js'

const plain = (_style: string, text: string): string => text

function peerOf(change: Partial<PeerStatus> = {}): PeerStatus {
  return {
    uri: 'nbd://192.0.2.7:10809',
    node: 'beta',
    link: 'streaming',
    reason: 'All is well.',
    mode: 'sync',
    appliedSequence: 12 as Sequence,
    durableSequence: 10 as Sequence,
    lagBytes: 0,
    lagSeconds: 0,
    lacksBytes: 0,
    dirtyBytes: 0,
    opLogEntries: 0,
    sentBytes: 0,
    receivedBytes: 0,
    ...change,
  }
}

function statusOf(peers: readonly PeerStatus[], change: Partial<DaemonStatus> = {}): DaemonStatus {
  const listeners = ['nbd://127.0.0.1:10809']
  return { ...new EngineDouble().status(), listeners, version: '1', pid: 1, peers, ...change }
}

t.test('without a peer nothing is said of one', (t) => {
  t.same(peerSection(statusOf([])), [])
  t.notMatch(statusText(statusOf([]), plain), /PEER/)
  t.match(peerListText([], 'primary'), /peer set/)
  t.end()
})

t.test('a peer is one line, with its lag in bytes and seconds and what it lacks', (t) => {
  const peer = peerOf({ lagBytes: 2048, lagSeconds: 1.25, lacksBytes: 8192, opLogEntries: 1 })
  const text = statusText(statusOf([peer]), plain)
  t.match(text, /PEER {2}LINK {7}MODE {2}LAG {11}LACKS {15}ADDRESS\n/)
  t.match(
    text,
    /beta {2}streaming {2}sync {2}2 KiB, 1\.[23] s {2}8 KiB, 1 operation {2}nbd:\/\/192/,
  )
  t.match(text, /link: All is well\./)
  t.match(text, /state: healthy/)
  t.match(statusText(statusOf([peerOf({ opLogEntries: 2 })]), plain), /0 bytes, 2 operations/)
  t.end()
})

t.test('a secondary says from where, and claims nothing of what it cannot know', (t) => {
  const unknown = { mode: null, lagBytes: null, lagSeconds: null, lacksBytes: null }
  const peer = peerOf({ uri: '192.0.2.1:40000', ...unknown, opLogEntries: null })
  const text = peerListText([peer], 'secondary')
  t.match(text, /FROM\n/)
  t.match(text, /beta {2}streaming {2}- {5}- {4}- {6}192\.0\.2\.1:40000/)
  t.end()
})

t.test('a resync shows how far it is, its rate and the time left', (t) => {
  const resync = { doneBytes: 1024, totalBytes: 4096, bytesPerSecond: 512, secondsLeft: 6 }
  const bar = `[${'#'.repeat(6)}${'.'.repeat(18)}]`
  t.equal(resyncText(resync), `${bar} 25 %, 1 KiB of 4 KiB, 512 bytes/s, 6 s left`)
  t.match(resyncText({ ...resync, secondsLeft: 600 }), /10 min left/)
  t.match(resyncText({ ...resync, secondsLeft: 9000 }), /2\.5 h left/)
  t.match(resyncText({ ...resync, secondsLeft: Number.POSITIVE_INFINITY }), /unknown time left/)
  const stopped = { ...resync, bytesPerSecond: 0, secondsLeft: null }
  t.match(resyncText(stopped), /1 KiB of 4 KiB, 0 bytes\/s, unknown time left$/)
  const begun = { ...resync, bytesPerSecond: null, secondsLeft: null }
  t.equal(resyncText(begun), `${bar} 25 %, 1 KiB of 4 KiB`, 'no rate that nobody knows')
  t.match(resyncText({ ...resync, doneBytes: 0, totalBytes: 0 }), /#\] 0 %/)
  t.match(statusText(statusOf([peerOf({ link: 'resyncing', resync })]), plain), /resync: \[#/)
  t.end()
})

t.test('every state but streaming is a complaint, with something to type', (t) => {
  const links: readonly (readonly [LinkName, RegExp, RegExp])[] = [
    ['offline', /changes do not reach beta: All is well/, /lockstep peer connect/],
    ['connecting', /changes do not reach beta/, /lockstep peer connect/],
    ['greeting', /changes do not reach beta/, /lockstep peer connect/],
    ['replaying', /beta does not have everything yet/, /wait --for in-sync/],
    ['resyncing', /beta does not have everything yet/, /wait --for in-sync/],
    ['refused', /All is well/, /peer connect --explain/],
  ]
  for (const [link, said, action] of links) {
    const [complaint, ...others] = peerComplaints(statusOf([peerOf({ link })]))
    t.same(others, [])
    t.match(complaint?.status, said, link)
    t.match(complaint?.action, action, link)
  }
  t.same(peerComplaints(statusOf([peerOf()])), [])
  const told = peerOf({ link: 'refused', action: 'do this' })
  t.equal(peerComplaints(statusOf([told]))[0]?.action, 'do this', 'who knows better is heard')
  const unnamed = peerComplaints(statusOf([peerOf({ link: 'offline', uri: '' })]))
  t.match(unnamed, [{ action: /peer set/ }])
  t.end()
})

t.test('a peer that has everything may still need somebody', (t) => {
  const differences = [
    { store: 'vol0', differingBytes: 65_536 },
    { store: 'vol0@a', differingBytes: 65_536 },
  ]
  const different = statusOf([peerOf({ differences })])
  t.match(peerComplaints(different), [
    {
      status: /128 KiB of vol0 and 1 more that differ on beta/,
      action: /^lockstep verify --repair/,
    },
  ])
  const one = peerComplaints(statusOf([peerOf({ differences: differences.slice(0, 1) })]))
  t.match(one, [{ action: /^lockstep verify vol0 --repair/ }])
  t.match(statusText(different, plain), /state: needs attention/)
  const list = peerListText([peerOf({ differences })], 'primary')
  t.match(list, / 0 bytes, 128 KiB differ /)
  t.match(list, /status: verify found 128 KiB of vol0 and 1 more that differ on beta/)
  t.match(list, /action: lockstep verify --repair/)
  const stalled = peerComplaints(statusOf([peerOf({ isStalled: true })]))
  t.match(stalled, [{ status: /writers wait for beta/, action: /other node/ }])
  const silent = peerComplaints(statusOf([peerOf({ unconfirmedSeconds: 7 })]))
  t.match(silent, [
    {
      status: /^beta has made nothing durable for 7 s of what it was sent, .*: its disk hangs, or/,
      action: /^lockstep status on the other node/,
    },
  ])
  t.end()
})

t.test('a peer with the name of this node is called the peer', (t) => {
  const node = 'machine'
  const status = statusOf([peerOf({ node, link: 'offline' })], { node })
  t.match(peerComplaints(status), [{ status: /^changes do not reach the peer:/ }])
  const there = statusOf([peerOf({ node, link: 'offline' })], { node, role: 'secondary' })
  t.match(peerComplaints(there), [{ status: /^the primary is not connected/ }])
  t.end()
})

t.test('a secondary complains of its primary, and of being unfinished', (t) => {
  const secondary = { role: 'secondary', isWhole: true } as const
  const { node: _, ...stranger } = peerOf({ link: 'offline', uri: '' })
  const alone = peerComplaints(statusOf([stranger], secondary))
  t.match(alone, [{ status: /no primary has connected/, action: /on the primary/ }])
  const left = peerComplaints(statusOf([peerOf({ link: 'offline' })], secondary))
  t.match(left, [{ status: /beta is not connected/ }])
  const unfinished = statusOf([peerOf({ link: 'resyncing' })], { ...secondary, isWhole: false })
  t.match(peerComplaints(unfinished), [{ status: /not whole/, action: /wait --for in-sync/ }])
  t.match(unhealthyText(unfinished, plain), /not whole/)
  const blank = statusOf([], { ...secondary, isWhole: false, group: '' })
  t.same(peerComplaints(blank), [], 'a blank one is not unfinished')
  t.match(statusText(blank, plain), /group: none yet/)
  t.end()
})

t.test('an explanation names rule, direction, operations, bytes and what to type', (t) => {
  const text = explanationText({
    rule: 'blank',
    kind: 'full',
    direction: 'to-peer',
    operations: 1,
    bytes: 2048,
    reason: 'the secondary is blank',
    action: 'type this',
  })
  t.match(text, /^full: the secondary is blank\n/)
  t.match(text, /rule: blank\n/)
  t.match(text, /direction: from this node to the peer\n/)
  t.match(text, /at most 2 KiB of data and 1 operation\n/)
  t.match(text, /action: type this$/)
  const none = { rule: 'r', kind: 'resume', operations: 3, bytes: 0, reason: 'x' }
  t.match(explanationText(none), /direction: nothing\n.*and 3 entries$/)
  t.end()
})

t.test('a replica without its primary says who was turned away, and what to do', (t) => {
  const from = '192.0.2.7:40000'
  const turnedAway = { from, reason: 'the secret is another one', action: 'mend it', secondsAgo: 1 }
  const lost = peerOf({ link: 'offline', mode: null, turnedAway })
  const status = statusOf([lost], { role: 'secondary', isWhole: true })
  t.same(peerComplaints(status)[1], {
    status:
      'somebody who called from 192.0.2.7:40000 1 second ago to be the primary was turned away: the secret is another one',
    action: 'mend it',
  })
  t.end()
})
