// A batch that is accepted gives the same result in every order; one whose order matters is a conflict.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { LockstepError } from '../../src/core/errors.js'
import type { DataOperation, OperationRequest } from '../../src/core/operation.js'
import { byteOffset, type StoreId } from '../../src/core/units.js'
import { checkBatch } from '../../src/engine/batch.js'
import { resolve } from '../../src/engine/resolve.js'
import { thrownBy } from '../support/failure.js'
import { Group, placesOf } from '../support/group.js'

const chunkBytes = 4096
type Simple = DataOperation

/** Volumes v and w of 8 chunks with different content, snapshots v@a, v@b and w@a. */
function exampleGroup(): Group {
  const group = new Group()
  for (const [index, name] of ['v', 'w'].entries()) {
    const store = group.volume(name, 8 * chunkBytes)
    for (let chunk = 0; chunk < 8; chunk++) store.map.set(chunk, 100 * (index + 1) + chunk)
  }
  for (const [index, full] of ['v@a', 'v@b', 'w@a'].entries()) {
    const store = group.snapshot(full)
    for (let chunk = 0; chunk < 8; chunk += 2) store.map.set(chunk, 1000 * (index + 1) + chunk)
  }
  return group
}

/** Everything that two nodes must agree on. Sequences, and with them positions, are the same in every order of a batch. */
function picture(group: Group): unknown {
  return [...group.state.stores.values()]
    .map((store) => [store.id, store.name, store.volumeId, store.sizeBytes, placesOf(store, 0, 10)])
    .sort(([a], [b]) => Number(a) - Number(b))
}

function permutations<T>(items: readonly T[]): readonly (readonly T[])[] {
  if (items.length < 2) return [items]
  return items.flatMap((item, at) =>
    permutations(items.toSpliced(at, 1)).map((rest) => [item, ...rest]),
  )
}

/** The group after the operations in this order; undefined when one of them cannot be done there. */
function after(operations: readonly Simple[]): string | undefined {
  const group = exampleGroup()
  for (const operation of operations) {
    // In another order a smaller id may come later.
    Object.assign(group.state, { nextStoreId: 0 })
    try {
      group.apply(operation)
    } catch (error) {
      assert.equal((error as Error).name, 'AssertionError')
      return undefined
    }
  }
  return JSON.stringify(picture(group))
}

const ids = fc.integer({ min: 1, max: 5 }).map((id) => id as StoreId)
const ranges = fc
  .tuple(fc.nat(8), fc.integer({ min: 1, max: 8 }))
  .filter(([first, count]) => first + count <= 8)
  .map(([first, count]) => ({
    offset: byteOffset(first * chunkBytes),
    lengthBytes: count * chunkBytes,
  }))
const operations: fc.Arbitrary<Simple> = fc.oneof(
  fc
    .tuple(ids, ids, fc.option(ranges, { nil: undefined }))
    .filter(([sourceId, targetId]) => sourceId !== targetId)
    .map(([sourceId, targetId, range]) => ({
      kind: 'copy' as const,
      reason: 'sync' as const,
      sourceId,
      targetId,
      ...(range === undefined ? {} : { range }),
    })),
  fc.tuple(ids, fc.nat(10)).map(([storeId, chunks]) => ({
    kind: 'resize' as const,
    storeId,
    sizeBytes: (chunks + 1) * chunkBytes,
  })),
  // Only snapshots: resolve refuses to delete a volume that has some.
  fc.integer({ min: 3, max: 5 }).map((id) => ({ kind: 'delete' as const, storeId: id as StoreId })),
  fc.tuple(ids, fc.constantFrom('x', 'y')).map(([storeId, name]) => ({
    kind: 'rename' as const,
    storeId,
    name,
  })),
  fc.tuple(ids, fc.integer({ min: 10, max: 12 })).map(([sourceId, id]) => ({
    kind: 'create-snapshots' as const,
    snapshots: [{ storeId: id as StoreId, sourceId, name: `s${id}` }],
  })),
)

t.test('an accepted batch gives the same in every order', async (t) => {
  let acceptedCount = 0
  let refusedCount = 0
  const batches = fc.uniqueArray(operations, {
    minLength: 2,
    maxLength: 4,
    selector: (one) => (one.kind === 'create-snapshots' ? one.snapshots[0]?.storeId : one),
  })
  const property = fc.property(batches, (batch) => {
    const { state } = exampleGroup()
    try {
      checkBatch(state, batch)
    } catch (error) {
      assert(error instanceof LockstepError)
      assert.equal(error.code, 'CONFLICT')
      refusedCount++
      return
    }
    acceptedCount++
    const results = new Set(permutations(batch).map(after))
    assert.equal(results.size, 1)
    assert(!results.has(undefined), 'each order can be performed')
  })
  fc.assert(property, { seed: 1, numRuns: 3000 })
  t.ok(acceptedCount > 200, `${acceptedCount} accepted`)
  t.ok(refusedCount > 200, `${refusedCount} refused`)
})

function conflict(requests: readonly OperationRequest[]): string {
  const { state } = exampleGroup()
  const request = { kind: 'batch', operations: requests } as OperationRequest
  const error = thrownBy(() => resolve(state, request, { connectionCount: () => 0 }))
  assert(error instanceof LockstepError)
  return `${error.code}: ${error.message} > ${error.action}`
}

function accepted(requests: readonly OperationRequest[]): boolean {
  const { state } = exampleGroup()
  const request = { kind: 'batch', operations: requests } as OperationRequest
  return resolve(state, request, { connectionCount: () => 0 }).stores.length === requests.length
}

function restore(offset: number, lengthBytes: number): OperationRequest {
  return {
    kind: 'snapshot.restore',
    store: 'v@a',
    range: { offset: byteOffset(offset), lengthBytes },
  }
}

t.test('a conflict names both operations and what they touch', async (t) => {
  const said = conflict([
    { kind: 'snapshot.create', stores: ['w'], name: 'x' },
    { kind: 'snapshot.refresh', store: 'v@a' },
    { kind: 'volume.resize', name: 'v', sizeBytes: 512 },
  ])
  t.match(said, /^CONFLICT: operations 2 and 3 of the batch both touch v, .* > .*second batch/)
})

t.test('parts of one store may be changed together when they share no chunk', async (t) => {
  t.ok(accepted([restore(0, chunkBytes), restore(chunkBytes, chunkBytes)]))
  t.ok(accepted([restore(0, 100), restore(chunkBytes + 1, 100)]))
  t.match(conflict([restore(0, 100), restore(200, 100)]), /both touch v,/, 'one chunk, two writers')
  t.match(conflict([restore(0, 5000), restore(8191, 1)]), /both touch v,/)
})

t.test('many may read what nobody changes', async (t) => {
  const sync = { kind: 'sync', source: 'v@a', target: 'w' } as const
  t.ok(accepted([sync, { kind: 'snapshot.restore', store: 'v@a' }]))
  t.ok(
    accepted([
      { kind: 'snapshot.create', stores: ['v'], name: 'x' },
      { kind: 'snapshot.create', stores: ['v'], name: 'y' },
    ]),
  )
})

t.test('a name is given once', async (t) => {
  const create = { kind: 'volume.create', name: 'x', sizeBytes: 512 } as const
  t.match(conflict([create, create]), /both touch the name x,/)
  t.match(conflict([create, { kind: 'volume.rename', name: 'v', newName: 'x' }]), /the name x/)
  const snapshot = { kind: 'snapshot.create', stores: ['v'], name: 'x' } as const
  t.match(conflict([snapshot, snapshot]), /the name v@x/)
  const rename = { kind: 'snapshot.rename', store: 'v@b', newName: 'x' } as const
  t.match(conflict([snapshot, rename]), /the name v@x/)
})

t.test('a snapshot of a snapshot needs the volume’s name to stay', async (t) => {
  const snapshot = { kind: 'snapshot.create', stores: ['v@a'], name: 'x' } as const
  t.match(conflict([snapshot, { kind: 'volume.rename', name: 'v', newName: 'z' }]), /both touch v,/)
  t.match(conflict([snapshot, { kind: 'snapshot.delete', store: 'v@a' }]), /both touch v@a,/)
})
