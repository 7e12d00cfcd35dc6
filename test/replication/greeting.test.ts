// The greeting over every combination of small domains, judged by what no rule looks at: the sets of entries that each node has.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { runCountMax } from '../../src/core/node-runs.js'
import type { GenerationRecord } from '../../src/core/operation.js'
import type { Generation, Sequence } from '../../src/core/units.js'
import {
  agreedVersion,
  decide,
  explain,
  type LocalKnowledge,
  movesData,
  objection,
} from '../../src/replication/greeting.js'
import {
  contradiction,
  type Decision,
  decisionKinds,
  type Hello,
  parseDecision,
} from '../../src/replication/hello.js'
import { root } from '../support/tree.js'

const generation = (name: string): Generation => name as Generation
const sequence = (value: number): Sequence => value as Sequence

/** A tree of histories: each line is what one node may have been through. */
const first: GenerationRecord = { generation: generation('root'), forkSequence: 0 }
const child = (
  parent: GenerationRecord,
  name: string,
  forkSequence: number,
  isUnclean = false,
) => ({
  generation: generation(name),
  parent: parent.generation,
  forkSequence,
  ...(isUnclean && { isUnclean }),
})
const clean = child(first, 'clean', 4)
const crash = child(first, 'crash', 4, true)
const other = child(first, 'other', 2)
const later = child(clean, 'later', 6)
const stranger: GenerationRecord = { generation: generation('stranger'), forkSequence: 0 }
const lines: readonly (readonly GenerationRecord[])[] = [
  [first],
  [first, clean],
  [first, crash],
  [first, other],
  [first, clean, later],
  [stranger],
]
const sequences = [1, 2, 3, 4, 5, 7]

const plain: Hello = {
  ...{ versionMin: 1, versionMax: 1, nodeId: 'a', node: 'alpha', group: 'g', role: 'primary' },
  ...{ isBlank: false, isWhole: true, chunkBytes: 65536, generations: [first] },
  ...{ sequence: sequence(5), runs: [{ runId: 'r1', startBatch: 0 }], batchNumber: 20 },
}
const replica: Hello = { ...plain, nodeId: 'b', node: 'beta', role: 'secondary' }
const blank: Hello = {
  ...{ ...replica, group: '', isBlank: true, generations: [], sequence: sequence(0) },
}
const knowledge: LocalKnowledge = {
  ...{ peerNodeId: 'b', isTrackingLost: false, dirtyBytes: 8192, opLogEntries: 2 },
  ...{ outboxFirst: sequence(1), outboxBytes: 100, allocatedBytes: 1 << 20 },
}

/** Everything that a primary and a secondary may say of their histories. */
function* histories(role: Hello['role']): Generator<Hello> {
  const base = role === 'primary' ? plain : replica
  for (const generations of lines)
    for (const at of sequences) {
      // A primary is in its newest generation; what is durable on a secondary may be before it.
      if (role === 'primary' && at < (generations.at(-1)?.forkSequence ?? 0)) continue
      const hello = { ...base, generations, sequence: sequence(at) }
      yield hello
      if (role === 'primary') continue
      yield { ...hello, isWhole: false }
      yield { ...hello, primarySeen: { nodeId: 'a', runId: 'r1', batchNumber: 20 } }
      yield { ...hello, primarySeen: { nodeId: 'a', runId: 'r1', batchNumber: 21 } }
      yield { ...hello, primarySeen: { nodeId: 'a', runId: 'r2', batchNumber: 7 } }
    }
  if (role === 'secondary') yield blank
}

function* knowledges(): Generator<LocalKnowledge> {
  const positions = lines.flatMap((line) =>
    [3, 5].map((at) => ({
      generation: line.at(-1)?.generation ?? first.generation,
      sequence: sequence(at),
    })),
  )
  yield { ...knowledge, peerNodeId: 'c' }
  for (const peerNodeId of [undefined, 'b'])
    for (const outboxFirst of [undefined, 4, 9])
      for (const isTrackingLost of [false, true])
        for (const acknowledged of [undefined, ...positions])
          for (const dirtyBytes of [0, 4096])
            yield {
              ...{ isTrackingLost, dirtyBytes, opLogEntries: 3, allocatedBytes: 1 << 20 },
              ...(peerNodeId && { peerNodeId }),
              ...(outboxFirst && { outboxFirst: sequence(outboxFirst) }),
              ...(acknowledged && { acknowledged }),
            }
}

/** The entries of a node, by name. The same name is the same entry, wherever it is. */
function entriesOf(hello: Hello): Set<string> {
  const entries = new Set<string>()
  for (const [index, record] of hello.generations.entries()) {
    const next = hello.generations[index + 1]
    const end = Math.min(hello.sequence, next?.forkSequence ?? hello.sequence)
    for (let at = record.forkSequence + 1; at <= end; at++)
      entries.add(`${record.generation}:${at}`)
  }
  return entries
}

function isSubset(some: ReadonlySet<string>, of: ReadonlySet<string>): boolean {
  return [...some].every((entry) => of.has(entry))
}

/** The secondary's entries that the primary has not are unfinished writes of a primary that crashed where the secondary is told to go back to. */
function isOnlyCrashTail(primary: Hello, secondary: Hello): boolean {
  const known = entriesOf(primary)
  const strange = [...entriesOf(secondary)].filter((entry) => !known.has(entry))
  const parent = secondary.generations.at(-1)?.generation
  const fork = primary.generations.find((record) => record.parent === parent)
  if (strange.length === 0) return true
  if (fork?.isUnclean !== true) return false
  return strange.every((entry) => {
    const [of, at] = entry.split(':')
    return of === parent && Number(at) > fork.forkSequence
  })
}

/** As `judge`, which is asked once for each pair and kind. */
const judged = new Map<Hello, Map<Hello, Map<string, boolean>>>()
function isSafe(decision: Decision, primary: Hello, secondary: Hello): boolean {
  const bySecondary = judged.get(primary) ?? new Map<Hello, Map<string, boolean>>()
  judged.set(primary, bySecondary)
  const byKind = bySecondary.get(secondary) ?? new Map<string, boolean>()
  bySecondary.set(secondary, byKind)
  const key = `${decision.kind} ${decision.fromSequence}`
  const known = byKind.get(key) ?? judge(decision, primary, secondary)
  byKind.set(key, known)
  return known
}

/** Whether a secondary may do this, by the sets alone. */
function judge(decision: Decision, primary: Hello, secondary: Hello): boolean {
  if (!movesData(decision) || secondary.isBlank) return decision.kind !== 'nothing'
  // Seen beyond what the primary has: whatever it says, its disk is an old copy.
  const { primarySeen } = secondary
  if (primarySeen !== undefined && (primarySeen.runId !== 'r1' || primarySeen.batchNumber > 20))
    return false
  const theirs = entriesOf(secondary)
  if (![...theirs].some((entry) => entriesOf(primary).has(entry))) return false
  // A generation that the primary does not know may have been told to clients, even if it is empty.
  const known = new Set(primary.generations.map((record) => record.generation))
  if (secondary.generations.some((record) => !known.has(record.generation))) return false
  if (decision.kind === 'full') return isOnlyCrashTail(primary, secondary)
  const from = decision.fromSequence
  if (from === undefined) return false
  const kept = entriesOf({ ...secondary, sequence: sequence(Math.min(from, secondary.sequence)) })
  if (!isSubset(kept, entriesOf(primary)) || kept.size !== from) return false
  if (decision.kind === 'resync') return isOnlyCrashTail(primary, secondary)
  if (!isSubset(theirs, entriesOf(primary)) || from !== secondary.sequence) return false
  return decision.kind === 'resume' || secondary.isWhole
}

/** Every rule that decided in the tests before. */
const rulesSeen = new Set<string>()

t.test('every meeting of a primary and a secondary has an answer, and none endangers data', (t) => {
  const seen = new Map<string, number>()
  let count = 0
  for (const primary of histories('primary'))
    for (const secondary of histories('secondary'))
      for (const local of knowledges()) {
        const decision = decide(primary, secondary, local)
        const holds = (isTrue: boolean): void => {
          if (!isTrue) assert.fail(JSON.stringify({ decision, primary, secondary, local }))
        }
        const rule = `${decision.rule} ${decision.kind}`
        count++
        seen.set(rule, (seen.get(rule) ?? 0) + 1)
        // The whole text is looked at now and then: it does not depend on the numbers.
        if (count % 97 === 0) assert.deepEqual(parseDecision({ ...decision }), decision)
        holds(isSafe(decision, primary, secondary))
        holds((decision.action === undefined) === movesData(decision))
        if (!movesData(decision)) continue
        assert.equal(decision.direction, 'to-peer')
        holds(local.peerNodeId !== 'c')
        if (decision.kind === 'resume' || decision.kind === 'nothing')
          holds((local.outboxFirst ?? Infinity) <= secondary.sequence + 1)
        if (decision.kind === 'nothing') holds(local.dirtyBytes === 0 && decision.operations === 0)
        if (local.isTrackingLost || local.peerNodeId === undefined) holds(decision.kind === 'full')
      }
  t.ok(count > 100_000, `${count} meetings`)
  for (const rule of seen.keys()) rulesSeen.add(rule.split(' ')[0] ?? '')
  for (const rule of [
    ...['blank full', 'untracked full', 'tracking-lost full', 'other-node refuse'],
    ...['in-step nothing', 'in-step resume', 'in-outbox resume', 'by-map resync'],
    ...['beyond-crash resync', 'diverged refuse', 'old-primary refuse', 'old-secondary refuse'],
    ...['secondary-newer refuse', 'unrelated refuse', 'parted split-brain'],
  ])
    t.ok(seen.get(rule), `${rule}: ${seen.get(rule)}`)
  t.end()
})

t.test('what the primary was seen to have so long ago that nobody can tell', (t) => {
  const runs = Array.from({ length: runCountMax }, (_, index) => ({
    runId: `r${index}`,
    startBatch: 100 + index,
  }))
  const primary: Hello = { ...plain, runs, batchNumber: 500 }
  const primarySeen = { nodeId: 'a', runId: 'before', batchNumber: 90 }
  const whole = decide(primary, { ...replica, primarySeen }, knowledge)
  t.match(whole, { rule: 'long-ago', kind: 'full' })
  const beyond = { ...replica, primarySeen, sequence: sequence(7) }
  const crashed = { ...primary, generations: [first, crash], sequence: sequence(9) }
  t.match(decide(crashed, beyond, knowledge), { rule: 'old-primary', kind: 'refuse' })
  t.match(decide({ ...primary, nodeId: 'e' }, { ...replica, primarySeen }, knowledge), {
    rule: 'in-step',
  })
  rulesSeen.add('long-ago')
  t.end()
})

t.test('both nodes refuse the same, and by the same rule', (t) => {
  const strangers: Hello[] = [
    { ...replica, nodeId: 'a' },
    { ...replica, group: 'h' },
    { ...replica, versionMin: 2, versionMax: 3 },
    { ...replica, chunkBytes: 4096 },
    { ...blank, chunkBytes: 4096 },
    { ...blank, nodeId: 'd' },
  ]
  const nodes = [
    ...[...histories('primary')].flatMap((one) => [one, { ...one, nodeId: 'e', node: 'epsilon' }]),
    ...histories('secondary'),
    ...strangers,
  ]
  let refusedCount = 0
  const rules = new Set<string>()
  for (const one of nodes)
    for (const another of nodes) {
      const here = decide(one, another, one.role === 'primary' ? knowledge : undefined)
      const there = decide(another, one, another.role === 'primary' ? knowledge : undefined)
      if (['old-secondary', 'other-node'].includes(here.rule)) continue
      if (['old-secondary', 'other-node'].includes(there.rule)) continue
      assert.equal(movesData(here), movesData(there), JSON.stringify({ here, there }))
      if (movesData(here)) continue
      refusedCount++
      rules.add(here.rule)
      assert.deepEqual([here.rule, here.kind], [there.rule, there.kind])
    }
  t.comment(`${refusedCount} refusals by ${[...rules].sort().join(', ')}`)
  for (const rule of rules) rulesSeen.add(rule)
  for (const rule of ['versions', 'itself', 'other-group', 'two-secondaries', 'two-primaries'])
    t.ok(rules.has(rule), rule)
  t.ok(rules.has('chunk-size'))
  t.end()
})

t.test('a secondary does what a right primary decides, and nothing that endangers it', (t) => {
  let refusedCount = 0
  for (const primary of histories('primary'))
    for (const secondary of histories('secondary')) {
      for (const local of knowledges()) {
        const told = decide(primary, secondary, local)
        if (objection(told, secondary, primary)) assert.fail(JSON.stringify(told))
      }
      for (const kind of decisionKinds)
        for (const from of [undefined, ...sequences]) {
          const told: Decision = {
            ...{
              rule: 'planted',
              kind,
              direction: 'to-peer',
              operations: 0,
              bytes: 0,
              reason: 'x',
            },
            ...(from !== undefined && { fromSequence: sequence(from) }),
          }
          const answer = objection(told, secondary, primary)
          if (answer === undefined) assert(isSafe(told, primary, secondary), JSON.stringify(told))
          else {
            refusedCount++
            assert(answer.action)
          }
        }
      const wrongWay = { ...decide(primary, secondary, knowledge), direction: 'from-peer' } as const
      if (movesData(wrongWay)) assert(objection(wrongWay, secondary, primary))
    }
  t.ok(refusedCount > 1000, `${refusedCount} refused`)
  t.end()
})

t.test('two primaries never move data, and only those that both wrote are a split brain', (t) => {
  for (const one of histories('primary'))
    for (const base of histories('primary')) {
      const another = { ...base, nodeId: 'b', node: 'beta' }
      const decision = decide(one, another, knowledge)
      assert(!movesData(decision))
      const [mine, theirs] = [entriesOf(one), entriesOf(another)]
      const isRelated = [...mine].some((entry) => theirs.has(entry))
      const isSplit = isRelated && !isSubset(mine, theirs) && !isSubset(theirs, mine)
      assert.equal(decision.kind, isSplit ? 'split-brain' : 'refuse', JSON.stringify(decision))
    }
  t.end()
})

t.test('the bytes and operations that --explain shows are those of the way it goes', (t) => {
  const resume = decide({ ...plain, sequence: sequence(9) }, replica, knowledge)
  t.match(resume, { rule: 'in-outbox', operations: 4, bytes: 8292, fromSequence: 5 })
  const { outboxFirst: _, ...folded } = knowledge
  const resync = decide({ ...plain, sequence: sequence(9) }, replica, folded)
  t.match(resync, { rule: 'by-map', operations: 2, bytes: 8292, fromSequence: 5 })
  t.match(decide(plain, blank, knowledge), { rule: 'blank', operations: 1, bytes: 1 << 20 })
  t.equal(
    explain(resync),
    'resync: node beta is at 5, and what it may lack is known by map only.\nrule: by-map\ngoes over: to the peer: 2 operations, 8.1 KiB',
  )
  t.match(explain(decide(plain, { ...replica, group: 'h' }, knowledge)), /\naction: .*peer set/)
  t.match(explain(decide(replica, plain)), /goes over: from the peer$|nothing/)
  t.end()
})

t.test('a replica that stopped in a resync goes on with it, in step or not', (t) => {
  const unfinished = { ...replica, isWhole: false }
  t.match(decide(plain, unfinished, { ...knowledge, dirtyBytes: 0 }), {
    ...{ kind: 'resume', rule: 'in-step' },
    reason: /resync that was begun goes on/,
  })
  t.match(decide({ ...plain, sequence: sequence(7) }, unfinished, knowledge), { kind: 'resume' })
  t.end()
})

t.test('what was folded does not go by the outbox, not even to a peer that has it', (t) => {
  const { outboxFirst: _, ...folded } = knowledge
  t.match(decide(plain, replica, folded), { kind: 'resync', fromSequence: 5 })
  t.match(decide(plain, replica, { ...folded, outboxFirst: sequence(6), dirtyBytes: 0 }), {
    ...{ kind: 'nothing', operations: 0 },
  })
  t.end()
})

t.test('a generation without an entry does not go over by the outbox', (t) => {
  const begun = { ...plain, generations: [first, child(first, 'new', 5)] }
  const local = { ...knowledge, outboxFirst: sequence(6) }
  t.match(decide(begun, replica, local), { kind: 'resync', fromSequence: 5 })
  t.match(decide({ ...begun, sequence: sequence(6) }, replica, local), { kind: 'resume' })
  t.end()
})

t.test('the newest version that both speak is spoken', (t) => {
  const speaks = (versionMin: number, versionMax: number): Hello => ({
    ...{ ...plain, versionMin, versionMax },
  })
  t.equal(agreedVersion(speaks(1, 3), speaks(2, 5)), 3)
  t.equal(agreedVersion(speaks(2, 5), speaks(1, 3)), 3)
  t.equal(agreedVersion(speaks(1, 2), speaks(3, 4)), undefined)
  t.match(decide(plain, { ...blank, versionMin: 2, versionMax: 4 }, knowledge), {
    rule: 'versions',
    reason: /1 to 1.*2 to 4/,
  })
  t.end()
})

t.test('the table in docs/LINK.md has these rules and no others', (t) => {
  const text = readFileSync(join(root, 'docs/LINK.md'), 'utf8')
  const table = text.slice(text.indexOf('| rule |'), text.indexOf('Every refusal has'))
  const told = [...table.matchAll(/^\| `([^|]+)` \|/gm)].flatMap(
    (row) => row[1]?.split('`, `') ?? [],
  )
  t.same(told.sort(), [...rulesSeen].sort())
  t.end()
})

t.test('the histories that are tested here are possible', (t) => {
  for (const role of ['primary', 'secondary'] as const)
    for (const hello of histories(role)) assert.equal(contradiction(hello), undefined)
  t.end()
})
