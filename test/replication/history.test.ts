// Two lines of generations and where they part, by hand.
import t from 'tap'
import type { GenerationRecord } from '../../src/core/operation.js'
import type { Generation, Position, Sequence } from '../../src/core/units.js'
import type { Hello } from '../../src/replication/hello.js'
import { compareHistories, isBehind } from '../../src/replication/history.js'

function at(sequence: number, ...generations: readonly (readonly [string, number])[]): Hello {
  const records = generations.map(([name, forkSequence], index): GenerationRecord => {
    const parent = generations[index - 1]?.[0] as Generation | undefined
    return { generation: name as Generation, ...(parent && { parent }), forkSequence }
  })
  return {
    ...{ versionMin: 1, versionMax: 1, nodeId: 'a', node: 'a', group: 'g', role: 'secondary' },
    ...{ isBlank: false, isWhole: true, chunkBytes: 4096, generations: records },
    ...{ sequence: sequence as Sequence, runs: [], batchNumber: 0 },
  }
}

function position(generation: string, sequence: number): Position {
  return { generation: generation as Generation, sequence: sequence as Sequence }
}

t.test('in one generation the shorter one is what both have', (t) => {
  t.same(compareHistories(at(7, ['g', 0]), at(5, ['g', 0])), {
    commonSequence: 5,
    mine: { hasEntries: true },
    theirs: { hasEntries: false },
  })
  t.end()
})

t.test('a child parts from its parent at the fork, or before it', (t) => {
  const child = at(9, ['g', 0], ['h', 6])
  const fork = { sequence: 6, isUnclean: false }
  t.match(compareHistories(child, at(8, ['g', 0])), {
    commonSequence: 6,
    mine: { fork, hasEntries: true },
    theirs: { hasEntries: true },
  })
  t.match(compareHistories(child, at(4, ['g', 0])), {
    commonSequence: 4,
    theirs: { hasEntries: false },
  })
  t.end()
})

t.test('two children part at the lower fork', (t) => {
  const histories = compareHistories(at(9, ['g', 0], ['h', 6]), at(8, ['g', 0], ['i', 3]))
  t.match(histories, {
    commonSequence: 3,
    mine: { hasEntries: true },
    theirs: { hasEntries: true },
  })
  t.match(histories, { mine: { fork: { sequence: 6 } }, theirs: { fork: { sequence: 3 } } })
  t.end()
})

t.test('a node may know of a generation before what is durable there', (t) => {
  const slow = at(4, ['g', 0], ['h', 6])
  t.match(compareHistories(slow, at(9, ['g', 0], ['h', 6])), { commonSequence: 4 })
  t.match(compareHistories(slow, at(9, ['g', 0], ['i', 5])), { commonSequence: 4 })
  t.end()
})

t.test('strangers have nothing in common', (t) => {
  t.equal(compareHistories(at(4, ['g', 0]), at(4, ['h', 0])), undefined)
  t.equal(compareHistories(at(0), at(4, ['h', 0])), undefined)
  t.end()
})

t.test('positions are compared along the line, whatever generation they are named by', (t) => {
  const line = at(20, ['g', 0], ['h', 6], ['i', 9])
  t.equal(isBehind(line, position('g', 5), position('g', 6)), true)
  t.equal(isBehind(line, position('g', 6), position('h', 6)), false, 'the same state')
  t.equal(isBehind(line, position('i', 6), position('g', 6)), false, 'the same state')
  t.equal(isBehind(line, position('g', 6), position('h', 7)), true)
  t.equal(isBehind(line, position('g', 8), position('h', 7)), true, 'on a stub that was left')
  t.equal(isBehind(line, position('h', 9), position('i', 9)), false)
  t.equal(isBehind(line, position('g', 1), position('gone', 5000)), false, 'too old to be known')
  t.end()
})
