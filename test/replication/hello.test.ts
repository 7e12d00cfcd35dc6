// What a node says of itself and what was decided, as they come from outside: the right ones pass unchanged, everything else is a ProtocolError.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { GenerationRecord } from '../../src/core/operation.js'
import type { Generation, Sequence } from '../../src/core/units.js'
import { decide } from '../../src/replication/greeting.js'
import {
  type Decision,
  type Hello,
  helloGenerations,
  parseDecision,
  parseHello,
} from '../../src/replication/hello.js'

const record = (index: number): GenerationRecord => ({
  generation: index.toString(16).padStart(32, '0') as Generation,
  ...(index > 0 && { parent: (index - 1).toString(16).padStart(32, '0') as Generation }),
  forkSequence: index * 10,
  ...(index % 2 === 1 && { isUnclean: true }),
})
const hello: Hello = {
  ...{ versionMin: 1, versionMax: 4, nodeId: '0f3a', node: 'alpha', group: 'g-1' },
  ...{ role: 'primary', isBlank: false, isWhole: true, chunkBytes: 65536 },
  ...{ generations: [record(0), record(1)], sequence: 12 as Sequence },
  runs: [{ runId: 'r1', startBatch: 3 }],
  batchNumber: 8,
  primarySeen: { nodeId: 'n2', runId: 'r9', batchNumber: 4 },
}
const decision: Decision = {
  ...{ rule: 'by-map', kind: 'resync', direction: 'to-peer', fromSequence: 3 as Sequence },
  ...{ operations: 1, bytes: 4096, reason: 'node beta is at 3' },
}

/** As it comes out of a frame. */
function received(value: object): { readonly [key: string]: unknown } {
  return JSON.parse(JSON.stringify(value))
}

t.test('a hello and a decision come out as they went in', (t) => {
  t.same(parseHello(received(hello)), hello)
  t.same(parseHello(received({ ...hello, more: 'of a later version' })), hello)
  t.same(parseDecision(received(decision)), decision)
  const refused = decide(hello, { ...hello, nodeId: '1' })
  t.ok(refused.action)
  t.same(parseDecision(received(refused)), refused)
  t.end()
})

t.test('a node of another version is understood as far as its versions', (t) => {
  const strange = parseHello({ versionMin: 7, versionMax: 9, node: 'omega', role: 'arbiter' })
  t.match(decide(hello, { ...strange }), { rule: 'versions', kind: 'refuse' })
  t.throws(() => parseHello({ versionMin: 9, versionMax: 7, node: 'omega' }), ProtocolError)
  t.throws(() => parseHello({ versionMin: 0, versionMax: 0, node: 'omega' }), ProtocolError)
  t.end()
})

t.test('what is missing, of another type, too long or contradicts itself is refused', (t) => {
  const wrong: readonly object[] = [
    ...Object.keys(hello)
      .filter((key) => key !== 'primarySeen')
      .map((key) => ({ ...hello, [key]: undefined })),
    ...Object.keys(hello).map((key) => ({ ...hello, [key]: { toString: 1 } })),
    { ...hello, sequence: -1 },
    { ...hello, sequence: 2 ** 53 },
    { ...hello, sequence: 1.5 },
    { ...hello, node: 'two words' },
    { ...hello, node: `\u001b[2J` },
    { ...hello, node: 'x'.repeat(256) },
    { ...hello, group: '../..' },
    { ...hello, role: 'toString' },
    { ...hello, isWhole: false },
    { ...hello, isBlank: true },
    { ...hello, group: '' },
    { ...hello, generations: [] },
    { ...hello, generations: [null] },
    { ...hello, generations: [record(1), record(0)] },
    { ...hello, generations: [record(0), record(0)] },
    { ...hello, generations: [record(0), record(2)] },
    { ...hello, generations: [record(0), { ...record(1), forkSequence: 12.5 }] },
    { ...hello, generations: [{ ...record(0), forkSequence: 11 }, record(1)] },
    { ...hello, generations: Array.from({ length: 129 }, (_, index) => record(index)) },
    { ...hello, role: 'secondary', isBlank: true, group: '' },
    { ...hello, batchNumber: 2 },
    { ...hello, runs: {} },
    { ...hello, runs: [7] },
    { ...hello, runs: [{ runId: 'r1' }] },
    { ...hello, runs: Array.from({ length: 129 }, () => ({ runId: 'r1', startBatch: 0 })) },
    { ...hello, primarySeen: 'r9' },
    { ...hello, primarySeen: { nodeId: 'n2', runId: 'r9', batchNumber: -1 } },
  ]
  for (const body of wrong)
    t.throws(() => parseHello(received(body)), ProtocolError, JSON.stringify(body).slice(0, 80))
  for (const body of [
    { ...decision, kind: 'erase' },
    { ...decision, direction: 'up' },
    { ...decision, fromSequence: '3' },
    { ...decision, reason: 'two\nlines' },
    { ...decision, reason: 'x'.repeat(3000) },
    { ...decision, action: 7 },
    { ...decision, operations: null },
  ])
    t.throws(() => parseDecision(received(body)), ProtocolError, JSON.stringify(body).slice(0, 80))
  t.end()
})

t.test('whatever comes is a hello or a ProtocolError', (t) => {
  const junk = fc.jsonValue({ maxDepth: 2 })
  const bodies = fc.record(
    Object.fromEntries(
      Object.entries(hello).map(([key, value]) => [key, fc.oneof(fc.constant(value), junk)]),
    ),
    { noNullPrototype: true },
  )
  const property = fc.property(bodies, (body) => {
    try {
      parseHello(received(body))
    } catch (error) {
      assert(error instanceof ProtocolError)
    }
  })
  fc.assert(property, { seed: 3, numRuns: 3000 })
  t.end()
})

t.test('a long history is named by its newest part, which is enough to meet', (t) => {
  const all = Array.from({ length: 1000 }, (_, index) => record(index))
  const generations = helloGenerations(all)
  t.equal(generations.length, 128)
  const sequence = 9995 as Sequence
  const mine = parseHello(received({ ...hello, generations, sequence }))
  const old = all.slice(0, 900)
  const theirs = parseHello(
    received({
      ...{ ...hello, nodeId: 'b', role: 'secondary', sequence: 8995 },
      generations: helloGenerations(old),
    }),
  )
  t.match(
    decide(mine, theirs, {
      ...{ peerNodeId: 'b', isTrackingLost: false, dirtyBytes: 1, opLogEntries: 100 },
      allocatedBytes: 0,
    }),
    { kind: 'resync', fromSequence: 8995 },
  )
  t.end()
})
