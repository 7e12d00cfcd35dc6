// The states of the link: a sentence each, and no way that leads into a corner.
import t from 'tap'
import {
  isStreamOpen,
  type LinkState,
  linkSentences,
  linkTransitions,
  newLinkState,
  whyFollowing,
} from '../../src/replication/link-state.js'

const states = Object.keys(linkTransitions) as readonly LinkState[]

t.test('every state has a sentence, a way to offline, and a way back to streaming', async (t) => {
  for (const state of states) {
    t.match(linkSentences[state], /^[A-Z].*\.$/, state)
    const next = linkTransitions[state] as readonly LinkState[]
    if (state !== 'offline') t.ok(next.includes('offline'), `${state} may be lost`)
    t.notOk(next.includes(state), `${state} does not follow itself`)
    const reached = new Set<LinkState>([state])
    for (const one of reached) for (const to of linkTransitions[one]) reached.add(to)
    t.ok(reached.has('streaming'), `streaming can be reached from ${state}`)
  }
})

t.test('why the stream is open stays true while it is', (t) => {
  const whole = { sequence: 7, isWhole: true }
  t.equal(whyFollowing({ rule: 'in-step' }, whole), 'both nodes were at 7 when they met')
  const behind = whyFollowing({ rule: 'in-outbox' }, { ...whole, isWhole: false })
  t.match(behind, /^the stream went on behind 7 when they met; the resync .* goes on$/)
  t.end()
})

t.test('nothing streams without a greeting', async (t) => {
  for (const state of ['offline', 'connecting', 'refused'] as const) {
    const link = newLinkState()
    if (state !== 'offline') link.go(state, 'for the test')
    for (const to of ['replaying', 'resyncing', 'streaming'] as const)
      t.notOk(link.may(to), `${state} -> ${to}`)
  }
})

t.test('a resync goes on to streaming, and the stream is open in both', async (t) => {
  const seen: string[] = []
  const link = newLinkState(({ from, to }) => void seen.push(`${from} ${to}`))
  const way = [
    'connecting',
    'greeting',
    'replaying',
    'resyncing',
    'streaming',
    'resyncing',
    'offline',
  ] as const
  for (const state of way) {
    link.go(state, 'next')
    t.equal(isStreamOpen(state), state === 'resyncing' || state === 'streaming')
  }
  t.equal(seen.length, way.length)
  t.throws(() => link.go('streaming', 'a jump'), { name: 'AssertionError' })
})
