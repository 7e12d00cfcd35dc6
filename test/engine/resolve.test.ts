// From names to ids: what each request becomes, and every refusal with its code, its sentence and its action.
import t, { type Test } from 'tap'
import { limits } from '../../src/core/limits.js'
import type { OperationRequest } from '../../src/core/operation.js'
import { byteOffset } from '../../src/core/units.js'
import { type Resolved, resolve } from '../../src/engine/resolve.js'
import { thrownBy } from '../support/failure.js'
import { Group } from '../support/group.js'

const chunkBytes = 4096
const GiB = 1024 ** 3

/** Volumes v (2 chunks, snapshots a and b) and w (9 chunks). */
function exampleGroup(): Group {
  const group = new Group()
  group.volume('v', 2 * chunkBytes)
  group.volume('w', 9 * chunkBytes)
  group.snapshot('v@a')
  group.snapshot('v@b')
  return group
}

function resolved(group: Group, request: OperationRequest, connectionCount = 0): Resolved {
  return resolve(group.state, request, { connectionCount: () => connectionCount })
}

function range(offset: number, lengthBytes: number) {
  return { offset: byteOffset(offset), lengthBytes }
}

type Refusal = readonly [request: unknown, code: string, message: RegExp, action: RegExp]

function refuses(t: Test, group: Group, refusals: readonly Refusal[], connectionCount = 0): void {
  for (const [request, code, message, action] of refusals) {
    const before = JSON.stringify(group.names())
    const error = thrownBy(() => resolved(group, request as OperationRequest, connectionCount))
    t.match(error, { name: 'LockstepError', code, message, action }, JSON.stringify(request))
    t.equal(JSON.stringify(group.names()), before)
  }
}

t.test('each request becomes its operation, with ids for names', async (t) => {
  const group = exampleGroup()
  const cases: readonly (readonly [OperationRequest, object, readonly string[], RegExp])[] = [
    [
      { kind: 'volume.create', name: 'x', sizeBytes: GiB },
      { kind: 'create-volume', storeId: 5, name: 'x', sizeBytes: GiB },
      ['x'],
      /created volume x, 1 GiB/,
    ],
    [{ kind: 'volume.delete', name: 'w' }, { kind: 'delete', storeId: 2 }, ['w'], /deleted w/],
    [
      { kind: 'volume.rename', name: 'v', newName: 'x' },
      { kind: 'rename', storeId: 1, name: 'x' },
      ['x'],
      /renamed v to x/,
    ],
    [
      { kind: 'volume.resize', name: 'v', sizeBytes: 512 },
      { kind: 'resize', storeId: 1, sizeBytes: 512 },
      ['v'],
      /resized v from 8 KiB to 512 bytes/,
    ],
    [
      { kind: 'snapshot.create', stores: ['v', 'w'], name: 'x' },
      {
        kind: 'create-snapshots',
        snapshots: [
          { storeId: 5, sourceId: 1, name: 'x' },
          { storeId: 6, sourceId: 2, name: 'x' },
        ],
      },
      ['v@x', 'w@x'],
      /created v@x, w@x/,
    ],
    [
      { kind: 'snapshot.create', stores: ['v@a'], name: 'x' },
      { kind: 'create-snapshots', snapshots: [{ storeId: 5, sourceId: 3, name: 'x' }] },
      ['v@x'],
      /created v@x/,
    ],
    [
      { kind: 'snapshot.delete', store: 'v@b' },
      { kind: 'delete', storeId: 4 },
      ['v@b'],
      /deleted v@b/,
    ],
    [
      { kind: 'snapshot.rename', store: 'v@a', newName: 'x' },
      { kind: 'rename', storeId: 3, name: 'x' },
      ['v@x'],
      /renamed v@a to v@x/,
    ],
    [
      { kind: 'snapshot.restore', store: 'v@a' },
      { kind: 'copy', reason: 'restore', sourceId: 3, targetId: 1 },
      ['v'],
      /restored v from v@a/,
    ],
    [
      { kind: 'snapshot.restore', store: 'v@a', range: range(1, 2) },
      { kind: 'copy', reason: 'restore', sourceId: 3, targetId: 1, range: range(1, 2) },
      ['v'],
      /restored bytes 1:2 of v from v@a/,
    ],
    [
      { kind: 'snapshot.refresh', store: 'v@a' },
      { kind: 'copy', reason: 'refresh', sourceId: 1, targetId: 3 },
      ['v@a'],
      /refreshed v@a from v/,
    ],
    [
      { kind: 'sync', source: 'v@a', target: 'w', range: range(0, 2 * chunkBytes) },
      {
        kind: 'copy',
        reason: 'sync',
        sourceId: 3,
        targetId: 2,
        range: range(0, 2 * chunkBytes),
      },
      ['w'],
      /synchronised bytes 0:8192 of w from v@a/,
    ],
  ]
  for (const [request, operation, stores, description] of cases) {
    const found = resolved(group, request)
    t.strictSame(found.operation, operation, request.kind)
    t.strictSame(found.stores, stores)
    t.match(found.description, description)
  }
})

t.test('all is every volume, and no snapshot', async (t) => {
  const { stores } = resolved(exampleGroup(), { kind: 'snapshot.create', stores: 'all', name: 'x' })
  t.strictSame(stores, ['v@x', 'w@x'])
})

t.test('stores that are not there are refused by every request', async (t) => {
  const there = /^one of v, w/
  const requests: readonly unknown[] = [
    { kind: 'volume.delete', name: 'x' },
    { kind: 'volume.rename', name: 'x', newName: 'y' },
    { kind: 'volume.resize', name: 'x', sizeBytes: 512 },
    { kind: 'snapshot.create', stores: ['v', 'x'], name: 's' },
    { kind: 'snapshot.delete', store: 'x' },
    { kind: 'snapshot.rename', store: 'x', newName: 'y' },
    { kind: 'snapshot.restore', store: 'x' },
    { kind: 'snapshot.refresh', store: 'x' },
    { kind: 'sync', source: 'x', target: 'v' },
    { kind: 'sync', source: 'v', target: 'x' },
    { kind: 'batch', operations: [{ kind: 'volume.delete', name: 'x' }] },
  ]
  const refusals = requests.map(
    (request): Refusal => [request, 'NO_SUCH_STORE', /there is no store "x"/, there],
  )
  refuses(t, exampleGroup(), refusals)
})

t.test('a volume is no snapshot, and a snapshot no volume', async (t) => {
  const refusals: readonly Refusal[] = [
    [{ kind: 'volume.delete', name: 'v@a' }, 'NO_SUCH_STORE', /is a snapshot/, /before the @/],
    [{ kind: 'volume.resize', name: 'v@a', sizeBytes: 512 }, 'NO_SUCH_STORE', /is a snap/, /./],
    [{ kind: 'volume.rename', name: 'v@a', newName: 'x' }, 'NO_SUCH_STORE', /is a snap/, /./],
    [{ kind: 'snapshot.delete', store: 'v' }, 'NO_SUCH_STORE', /is a volume/, /v@a, v@b/],
    [{ kind: 'snapshot.restore', store: 'w' }, 'NO_SUCH_STORE', /is a volume/, /create w@NAME/],
    [{ kind: 'snapshot.refresh', store: 'v' }, 'NO_SUCH_STORE', /is a volume/, /./],
    [{ kind: 'snapshot.rename', store: 'v', newName: 'x' }, 'NO_SUCH_STORE', /is a vol/, /./],
  ]
  refuses(t, exampleGroup(), refusals)
})

t.test('a taken name is refused, with what may have been meant', async (t) => {
  const twice = { kind: 'snapshot.create', stores: ['v', 'v'], name: 'x' }
  const related = { kind: 'snapshot.create', stores: ['v', 'v@a'], name: 'x' }
  const refusals: readonly Refusal[] = [
    [
      { kind: 'volume.create', name: 'v', sizeBytes: 512 },
      'NAME_TAKEN',
      /"v"/,
      /rename v NEW-NAME$/,
    ],
    [{ kind: 'volume.rename', name: 'w', newName: 'v' }, 'NAME_TAKEN', /"v"/, /another name/],
    [{ kind: 'volume.rename', name: 'v', newName: 'v' }, 'NAME_TAKEN', /"v"/, /has that name/],
    [{ kind: 'snapshot.create', stores: ['v'], name: 'a' }, 'NAME_TAKEN', /"v@a"/, /refresh v@a/],
    [{ kind: 'snapshot.create', stores: 'all', name: 'a' }, 'NAME_TAKEN', /"v@a"/, /./],
    [{ kind: 'snapshot.rename', store: 'v@a', newName: 'b' }, 'NAME_TAKEN', /"v@b"/, /./],
    [twice, 'NAME_TAKEN', /"v@x"/, /makes it twice/],
    [related, 'NAME_TAKEN', /"v@x"/, /makes it twice/],
  ]
  refuses(t, exampleGroup(), refusals)
})

t.test(
  'what is no size of a volume has a code of its own, and is shown as it was given',
  async (t) => {
    const sizes = [0, -512, 513, 2 ** 53, 2 ** 60]
    const refusals = sizes.flatMap((sizeBytes): readonly Refusal[] => {
      const message = new RegExp(`cannot have ${BigInt(sizeBytes)} bytes`)
      return [
        [{ kind: 'volume.create', name: 'x', sizeBytes }, 'INVALID_SIZE', message, /such as/],
        [{ kind: 'volume.resize', name: 'v', sizeBytes }, 'INVALID_SIZE', message, /such as/],
      ]
    })
    refuses(t, exampleGroup(), refusals)
  },
)

t.test('what is no name is refused wherever one is given', async (t) => {
  const requests: readonly unknown[] = [
    { kind: 'volume.create', name: 'a@b', sizeBytes: 512 },
    { kind: 'volume.rename', name: 'v', newName: '' },
    { kind: 'snapshot.create', stores: ['v'], name: '@' },
    { kind: 'snapshot.rename', store: 'v@a', newName: 'v@c' },
  ]
  const refusals = requests.map(
    (request): Refusal => [request, 'INVALID_NAME', /is not a name/, /vol0/],
  )
  refuses(t, exampleGroup(), refusals)
})

t.test('a size is a multiple of 512 below 2^53', async (t) => {
  const group = exampleGroup()
  const sizes = [
    0,
    -512,
    1,
    511,
    513,
    512.5,
    2 ** 53,
    2 ** 60,
    Number.NaN,
    Number.POSITIVE_INFINITY,
  ]
  for (const sizeBytes of sizes) {
    const refusals = [
      { kind: 'volume.create', name: 'x', sizeBytes },
      { kind: 'volume.resize', name: 'v', sizeBytes },
    ].map((request): Refusal => [request, 'INVALID_SIZE', /cannot have/, /multiple of 512/])
    refuses(t, group, refusals)
  }
  for (const sizeBytes of [512, 2 ** 53 - 512])
    t.ok(resolved(group, { kind: 'volume.create', name: 'x', sizeBytes }))
})

t.test('a range lies inside both stores', async (t) => {
  const group = exampleGroup()
  const ranges = [
    [0, 2 * chunkBytes + 1],
    [2 * chunkBytes, 1],
    [0, 0],
    [-1, 5],
    [0, -5],
    [0.5, 1],
    [0, 1.5],
    [2 ** 53 - 1, 2 ** 53 - 1],
    [Number.NaN, 1],
  ]
  for (const [offset, lengthBytes] of ranges) {
    const given = { offset, lengthBytes }
    const refusals = [
      { kind: 'snapshot.restore', store: 'v@a', range: given },
      { kind: 'sync', source: 'w', target: 'v', range: given },
      { kind: 'sync', source: 'v', target: 'w', range: given },
    ].map((request): Refusal => [request, 'OUT_OF_RANGE', /is not inside [vw]/, /0:64K/])
    refuses(t, group, refusals)
  }
  const whole = { kind: 'sync', source: 'w', target: 'v', range: range(0, 2 * chunkBytes) } as const
  t.ok(resolved(group, whole))
})

t.test('a store cannot be copied to itself, and nothing has no snapshot', async (t) => {
  const same = { kind: 'sync', source: 'v', target: 'v' }
  refuses(t, exampleGroup(), [
    [same, 'INVALID_ARGUMENT', /the same store/, /two different/],
    [{ kind: 'snapshot.create', stores: [], name: 'x' }, 'INVALID_ARGUMENT', /nothing/, /at least/],
  ])
  refuses(t, new Group(), [
    [
      { kind: 'snapshot.create', stores: 'all', name: 'x' },
      'INVALID_ARGUMENT',
      /nothing to take/,
      /lockstep volume create/,
    ],
  ])
})

t.test('a volume with snapshots, or a store with connections, is not deleted', async (t) => {
  const group = exampleGroup()
  refuses(t, group, [
    [
      { kind: 'volume.delete', name: 'v' },
      'HAS_SNAPSHOTS',
      /v has 2 snapshots/,
      /delete v@a, .* list v /,
    ],
  ])
  const requests: readonly Refusal[] = [
    [{ kind: 'volume.delete', name: 'w' }, 'IN_USE', /w has 1 open connection$/, /nbd-client -d/],
    [{ kind: 'snapshot.delete', store: 'v@a' }, 'IN_USE', /v@a has 1 open/, /disconnect/],
  ]
  refuses(t, group, requests, 1)
  const two: Refusal = [{ kind: 'volume.delete', name: 'w' }, 'IN_USE', /2 open connections$/, /./]
  refuses(t, group, [two], 2)
})

t.test('a batch has 1 to 256 operations, each checked', async (t) => {
  const group = exampleGroup()
  const create = (count: number) =>
    Array.from({ length: count }, (_, index) => ({
      kind: 'volume.create' as const,
      name: `x${index}`,
      sizeBytes: 512,
    }))
  refuses(t, group, [
    [{ kind: 'batch', operations: [] }, 'INVALID_ARGUMENT', /1 to 256/, /split/],
    [{ kind: 'batch', operations: create(257) }, 'INVALID_ARGUMENT', /1 to 256/, /split/],
    [
      { kind: 'batch', operations: [...create(1), { kind: 'volume.delete', name: 'none' }] },
      'NO_SUCH_STORE',
      /^operation 2 \(volume\.delete\): there is no store "none"$/,
      /^one of v/,
    ],
  ])
  const { operation, stores, description } = resolved(group, {
    kind: 'batch',
    operations: create(256),
  })
  t.match(operation, { kind: 'batch', operations: { length: 256 } })
  const ids = operation.kind === 'batch' ? operation.operations.map((one) => one) : []
  t.match(ids[255], { storeId: 5 + 255 }, 'each has an id of its own')
  t.equal(stores.length, 256)
  t.match(description, /^batch of 256: created volume x0/)
})

t.test('a group has at most so many stores, and a refusal makes none', async (t) => {
  const group = new Group()
  for (let index = 0; index < limits.storeCountMax - 2; index++) group.volume(`v${index}`, 512)
  const create = (name: string) => ({ kind: 'volume.create', name, sizeBytes: 512 }) as const
  const three = { kind: 'batch', operations: ['a', 'b', 'c'].map(create) }
  refuses(t, group, [
    [three, 'LIMIT_REACHED', /at most 4096/, /delete snapshots/],
    [
      { kind: 'snapshot.create', stores: ['v0', 'v1', 'v2'], name: 'x' },
      'LIMIT_REACHED',
      /at most/,
      /./,
    ],
  ])
  t.ok(resolved(group, { kind: 'batch', operations: ['a', 'b'].map(create) }))
})
