// The words of operations: what is refused whatever stores there are, and with which code.
import t from 'tap'
import {
  checkOperationWords,
  placeInBatch,
  type SingleRequest,
} from '../../src/core/operation-words.js'
import { byteOffset } from '../../src/core/units.js'

const range = (offset: number, lengthBytes: number) => ({
  range: { offset: byteOffset(offset), lengthBytes },
})
const store = 'v@a'

t.test('words that can be right pass as they are', async (t) => {
  const requests: readonly SingleRequest[] = [
    { kind: 'volume.create', name: 'v', sizeBytes: 512 },
    { kind: 'volume.delete', name: 'v' },
    { kind: 'volume.rename', name: 'v', newName: 'w' },
    { kind: 'volume.resize', name: 'v', sizeBytes: 1024 },
    { kind: 'snapshot.create', stores: 'all', name: 'a' },
    { kind: 'snapshot.create', stores: ['v', 'v@a', 'w'], name: 'b' },
    { kind: 'snapshot.delete', store: 'v@local.nightly' },
    { kind: 'snapshot.rename', store, newName: 'b' },
    { kind: 'snapshot.restore', store, ...range(0, 1) },
    { kind: 'snapshot.restore', store: 'v@before-resync' },
    { kind: 'snapshot.refresh', store },
    { kind: 'sync', source: 'v', target: 'v@a', ...range(2 ** 53 - 2, 1) },
  ]
  for (const request of requests) t.equal(checkOperationWords(request), request, request.kind)
})

type Wrong = readonly [request: SingleRequest, code: string, message: RegExp]

const wrong: readonly Wrong[] = [
  [{ kind: 'volume.create', name: 'a/b', sizeBytes: 512 }, 'INVALID_NAME', /"a\/b" is not a name/],
  [{ kind: 'volume.create', name: 'v@a', sizeBytes: 512 }, 'INVALID_NAME', /not a name/],
  [{ kind: 'volume.create', name: 'v', sizeBytes: 1000 }, 'INVALID_SIZE', /1000 bytes/],
  [{ kind: 'volume.delete', name: 'v@a' }, 'INVALID_NAME', /a snapshot, not a volume/],
  [{ kind: 'volume.rename', name: '-', newName: 'w' }, 'INVALID_NAME', /not a name/],
  [{ kind: 'volume.rename', name: 'v', newName: '' }, 'INVALID_NAME', /not a name/],
  [{ kind: 'volume.resize', name: 'v', sizeBytes: 0 }, 'INVALID_SIZE', /0 bytes/],
  [{ kind: 'volume.resize', name: 'v@a', sizeBytes: 512 }, 'INVALID_NAME', /not a volume/],
  [{ kind: 'snapshot.create', stores: ['v', 'x y'], name: 'a' }, 'INVALID_NAME', /"x y"/],
  [{ kind: 'snapshot.create', stores: ['v'], name: 'a/b' }, 'INVALID_NAME', /not a name/],
  [{ kind: 'snapshot.create', stores: 'all', name: 'local.a' }, 'INVALID_NAME', /for itself/],
  [{ kind: 'snapshot.create', stores: ['v', 'v'], name: 'a' }, 'INVALID_ARGUMENT', /v@a .*twice/],
  [{ kind: 'snapshot.delete', store: 'v' }, 'INVALID_NAME', /does not name a snapshot/],
  [{ kind: 'snapshot.delete', store: 'v@a@b' }, 'INVALID_NAME', /does not name a snapshot/],
  [{ kind: 'snapshot.delete', store: '@a' }, 'INVALID_NAME', /does not name a snapshot/],
  [{ kind: 'snapshot.rename', store, newName: 'before-resync' }, 'INVALID_NAME', /for itself/],
  [{ kind: 'snapshot.restore', store: 'v' }, 'INVALID_NAME', /does not name a snapshot/],
  [{ kind: 'snapshot.restore', store, ...range(0, 0) }, 'OUT_OF_RANGE', /0:0 is empty/],
  [{ kind: 'snapshot.refresh', store: 'v@' }, 'INVALID_NAME', /does not name a snapshot/],
  [{ kind: 'sync', source: 'v', target: 'v' }, 'INVALID_ARGUMENT', /the same store/],
  [{ kind: 'sync', source: 'v/', target: 'w' }, 'INVALID_NAME', /not a name/],
  [
    { kind: 'sync', source: 'v', target: 'w', ...range(2 ** 53 - 2, 2) },
    'OUT_OF_RANGE',
    /beyond what any store has/,
  ],
]

t.test('words that are wrong whatever stores there are', async (t) => {
  for (const [request, code, message] of wrong)
    t.throws(() => checkOperationWords(request), { code, message }, JSON.stringify(request))
})

t.test('an operation of a batch is named as people count', async (t) => {
  t.equal(placeInBatch('sync', 0), 'operation 1 (sync)')
  t.equal(placeInBatch(undefined, 1), 'operation 2')
})
