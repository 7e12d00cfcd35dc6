// What a secondary shows of a refusal: never the words of the primary as its own.
import t from 'tap'
import type { Generation, Sequence } from '../../src/core/units.js'
import { decide } from '../../src/replication/greeting.js'
import type { Decision, Hello } from '../../src/replication/hello.js'
import { refusalHere } from '../../src/replication/told-refusal.js'

const primary: Hello = {
  versionMin: 1,
  versionMax: 1,
  nodeId: 'a',
  node: 'one',
  group: 'g',
  role: 'primary',
  isBlank: false,
  isWhole: true,
  chunkBytes: 65536,
  generations: [{ generation: 'x' as Generation, forkSequence: 0 }],
  sequence: 10 as Sequence,
  runs: [],
  batchNumber: 0,
}
const secondary: Hello = { ...primary, nodeId: 'b', node: 'two', role: 'secondary' }

function told(rule: string, reason: string, action?: string): Decision {
  const moved = { kind: 'refuse', operations: 0, bytes: 0 } as const
  return { rule, reason, ...moved, ...(action === undefined ? {} : { action }) }
}

t.test('what both nodes can see is said as this node sees it', (t) => {
  const stranger = { ...primary, group: 'h' }
  const there = decide(stranger, secondary, {
    isTrackingLost: false,
    dirtyBytes: 0,
    opLogEntries: 0,
    allocatedBytes: 0,
  })
  t.equal(there.reason, 'node two belongs to group g, this node to h')
  const here = refusalHere(there, secondary, stranger)
  t.equal(here.reason, 'node one belongs to group h, this node to g')
  t.match(here.action, /^on node one: lockstep peer set .*; or stop this node/)
  t.match(there.action, /^connect the nodes of one group: lockstep peer set URI/)
  t.end()
})

t.test('what only the primary knows is said of the primary', (t) => {
  const other = refusalHere(
    told('other-node', 'this node replicates to another'),
    secondary,
    primary,
  )
  t.match(other.reason, /^the primary one replicates to another node than this one/)
  t.match(other.action, /^on the primary: lockstep peer set /)
  const rough = { ...secondary, chunkBytes: 4096 }
  t.same(refusalHere(told('other-node', ''), rough, primary), other, 'and nothing else matters')
  const old = refusalHere(told('old-secondary', 'node two is at 10'), secondary, primary)
  t.match(old.reason, /^this node is at 10, and has told the primary one /)
  t.match(old.action, /^stop this node and make it anew/)
  t.end()
})

t.test('a refusal by a rule of another release is told as the words of the primary', (t) => {
  const first = refusalHere(told('weather', 'it rains on this node', 'wait'), secondary, primary)
  t.same(first, {
    reason: 'the primary one refuses: it rains on this node',
    action: 'on the primary: wait',
  })
  const { action } = refusalHere(told('weather', 'it rains'), secondary, primary)
  t.equal(action, 'on the primary: lockstep status')
  t.end()
})
