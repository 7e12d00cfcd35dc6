// What a secondary's events say of the primary's operations: bounded, however much a batch is about.
import t from 'tap'
import type { StoreId } from '../../src/core/units.js'
import { describeForeign, isOfResync, OperationStores } from '../../src/engine/operation-stores.js'
import type { GroupState } from '../../src/storage/group-state.js'

const copy = (reason: 'share' | 'sync') =>
  ({ kind: 'copy', reason, sourceId: 1 as StoreId, targetId: 2 as StoreId }) as const

t.test('a store is named once, and one that is gone as it was', (t) => {
  const stores = new Map([
    [1, { name: 'one' }],
    [2, { name: 'two' }],
  ])
  const naming = new OperationStores({ stores } as unknown as GroupState, {
    kind: 'batch',
    operations: [copy('sync'), copy('sync'), { kind: 'delete', storeId: 1 as StoreId }],
  })
  stores.delete(1)
  t.same(naming.names(), ['two', 'one'])
  t.end()
})

t.test('many stores are some of them, and a number', (t) => {
  t.equal(describeForeign('reset', []), 'reset from the primary')
  const names = ['a', 'b', 'c', 'd', 'e', 'f']
  t.equal(describeForeign('batch', names), 'batch from the primary: a, b, c, d and 2 more')
  t.end()
})

t.test("what a resync shares is nobody's operation", (t) => {
  t.ok(isOfResync({ kind: 'batch', operations: [copy('share'), copy('share')] }))
  t.notOk(isOfResync({ kind: 'batch', operations: [copy('share'), copy('sync')] }))
  t.notOk(isOfResync({ kind: 'resync-end' }))
  t.end()
})
