// The check of law 2: differences are found where nothing tells of them, and the operations that the peer does not have are performed first.
import t from 'tap'
import type { Operation } from '../../../src/core/operation.js'
import type { Generation, StoreId } from '../../../src/core/units.js'
import { LawBroken } from '../laws.js'
import { checkDifference } from './difference.js'
import type { Inspection } from './pair-subject.js'

const id = (number: number) => number as StoreId

function holding(
  contents: Readonly<Record<number, string>>,
  more: Partial<Inspection> = {},
): Inspection {
  return {
    stores: Object.entries(contents).map(([number, text]) => {
      const bytes = Buffer.alloc(8192)
      bytes.write(text)
      return { id: Number(number), name: `store ${number}`, sizeBytes: bytes.length, bytes }
    }),
    beforeResync: undefined,
    isWhole: true,
    position: { generation: 'g', sequence: 10 },
    generations: [{ generation: 'g', forkSequence: 0 }],
    ...more,
  }
}

function tracking(
  operations: readonly (readonly [number, Operation])[] = [],
  dirty: (storeId: number, offset: number) => boolean = () => false,
): Pick<Inspection, 'tracking'> {
  const opLog = operations.map(([sequence, operation]) => ({ sequence, operation }))
  return { tracking: { opLog, isLost: false, mayDiffer: dirty } }
}

t.test('equal media are equal', async (t) => {
  t.equal(checkDifference(holding({ 1: 'x' }, tracking()), holding({ 1: 'x' })), 'equal')
})

t.test('a difference in a clean block breaks the law, in a dirty one it does not', async (t) => {
  const peer = holding({ 1: 'y' })
  t.throws(() => checkDifference(holding({ 1: 'x' }, tracking()), peer), LawBroken)
  const dirty = tracking([], (storeId, offset) => storeId === 1 && offset === 0)
  t.equal(checkDifference(holding({ 1: 'x' }, dirty), peer), 'different')
})

t.test('the op log is performed first, from the peer position on', async (t) => {
  const snapshot: Operation = {
    kind: 'create-snapshots',
    snapshots: [{ storeId: id(2), sourceId: id(1), name: 's' }],
  }
  const primary = holding({ 1: 'x', 2: 'x' }, tracking([[11, snapshot]]))
  t.equal(checkDifference(primary, holding({ 1: 'x' })), 'equal')
  const ahead = { position: { generation: 'g', sequence: 11 } }
  t.throws(() => checkDifference(primary, holding({ 1: 'x' }, ahead)), LawBroken)
  t.equal(checkDifference(primary, holding({ 1: 'x', 2: 'x' }, ahead)), 'equal')
})

t.test('a peer beyond a fork has the operations up to the fork', async (t) => {
  const create: Operation = { kind: 'create-volume', storeId: id(2), name: 'v', sizeBytes: 8192 }
  const forked = {
    ...tracking([[8, create]]),
    generations: [
      { generation: 'g' as Generation, forkSequence: 0 },
      { generation: 'h' as Generation, forkSequence: 7 },
    ],
  }
  t.equal(checkDifference(holding({ 1: '', 2: '' }, forked), holding({ 1: '' })), 'equal')
})

t.test('a whole peer that nobody tracks breaks the law, a blank one does not', async (t) => {
  t.throws(() => checkDifference(holding({}), holding({})), LawBroken)
  t.equal(checkDifference(holding({}), holding({}, { isWhole: false })), 'untracked')
})

t.test('a blank peer gets the table of stores', async (t) => {
  const table = {
    group: 'g',
    generations: [],
    nextStoreId: 2,
    stores: [{ id: id(1), name: 'a', sizeBytes: 8192, createdAt: '' }],
  }
  const blank = holding({}, { isWhole: false, position: { generation: 'own', sequence: 0 } })
  const reset = tracking([[5, { kind: 'reset', table }]], () => true)
  t.equal(checkDifference(holding({ 1: 'x' }, reset), blank), 'different')
})
