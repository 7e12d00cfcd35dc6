// Operations from the link: every kind comes through unchanged, and every field that is missing, unknown, too long or of another type is refused.
import t from 'tap'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { Operation } from '../../src/core/operation.js'
import { readOperation, readOperationPayload } from '../../src/replication/operation-codec.js'
import { SeededRandom } from '../support/random.js'
import { generation, sequence, store } from './sample-frames.js'

const at = '2024-05-06T07:08:09.010Z'
const range = { offset: 512, lengthBytes: 1024 } as Extract<
  Operation,
  { kind: 'copy' }
>['range'] & {}
const record = {
  generation: generation('b'),
  parent: generation('a'),
  forkSequence: 9,
  isUnclean: true,
}
const table = {
  group: 'c'.repeat(32),
  generations: [{ generation: generation('a'), forkSequence: 0 }, record],
  nextStoreId: 5,
  stores: [
    { id: store(1), name: 'vol0', sizeBytes: 512, createdAt: at },
    {
      id: store(4),
      name: 'monday',
      sizeBytes: 2 ** 53 - 512,
      volumeId: store(1),
      position: { generation: generation('a'), sequence: sequence(3) },
      createdAt: at,
    },
  ],
} as const

/** Every kind, with every field that may be there; a new kind does not compile until it is here. */
const full: { readonly [K in Operation['kind']]: Extract<Operation, { readonly kind: K }> } = {
  'create-volume': { kind: 'create-volume', storeId: store(1), name: 'vol0', sizeBytes: 512 },
  'create-snapshots': {
    kind: 'create-snapshots',
    snapshots: [{ storeId: store(2), sourceId: store(1), name: 'monday' }],
  },
  delete: { kind: 'delete', storeId: store(2 ** 31 - 1) },
  rename: { kind: 'rename', storeId: store(1), name: 'vol0@a' },
  resize: { kind: 'resize', storeId: store(1), sizeBytes: 2 ** 40 },
  copy: { kind: 'copy', reason: 'share', sourceId: store(1), targetId: store(2), range },
  batch: { kind: 'batch', operations: [{ kind: 'delete', storeId: store(2) }] },
  'new-generation': { kind: 'new-generation', record },
  reset: { kind: 'reset', table },
  'resync-end': { kind: 'resync-end' },
  mark: {
    kind: 'mark',
    name: 'nightly',
    message: 'to whom it concerns, €',
    hook: 'dump',
    snapshot: 'x',
  },
  freeze: { kind: 'freeze', frozenId: 0, storeId: store(1) },
  thaw: { kind: 'thaw', frozenId: 2 ** 32 - 1 },
}
const sparse: readonly Operation[] = [
  { kind: 'copy', reason: 'restore', sourceId: store(1), targetId: store(2) },
  { kind: 'mark', name: 'nightly' },
  { kind: 'mark', name: 'nightly', message: '' },
  { kind: 'new-generation', record: { generation: generation('a'), forkSequence: 0 } },
]
const all = [...Object.values(full), ...sparse]
const throughJson = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

t.test('every kind comes through unchanged', async (t) => {
  for (const operation of all)
    t.strictSame(readOperation(throughJson(operation)), operation, operation.kind)
  t.strictSame(readOperationPayload(throughJson({ at, operation: full.delete })), {
    at,
    operation: full.delete,
  })
})

/** Each value that is somewhere inside, with a way to put another in its place or to take it away. */
function* places(
  value: unknown,
): Generator<{ readonly path: string; with(other: unknown): unknown; without(): unknown }> {
  if (typeof value !== 'object' || value === null) return
  for (const key of Object.keys(value)) {
    const copyWith = (other: unknown) => {
      const copy = structuredClone(value) as Record<string, unknown>
      copy[key] = other
      return copy
    }
    const without = () => {
      const copy = structuredClone(value) as Record<string, unknown>
      delete copy[key]
      return copy
    }
    yield { path: key, with: copyWith, without }
    const inner = (value as Record<string, unknown>)[key]
    for (const place of places(inner))
      yield {
        path: `${key}.${place.path}`,
        with: (other) => copyWith(place.with(other)),
        without: () => copyWith(place.without()),
      }
  }
}

const optional = /(range|message|hook|snapshot|parent|isUnclean|volumeId|position)$/

t.test('each field is needed, and of its type', async (t) => {
  const odd: readonly unknown[] = [
    null,
    -1,
    1.5,
    Number.NaN,
    2 ** 53,
    [],
    {},
    'x\u0000',
    '',
    [null],
    { toString: 1 },
  ]
  let count = 0
  for (const operation of Object.values(full)) {
    for (const place of places(throughJson(operation))) {
      if (!optional.test(place.path) && !/\.\d+$/.test(place.path))
        t.throws(
          () => readOperation(place.without()),
          ProtocolError,
          `without ${operation.kind}.${place.path}`,
        )
      for (const value of odd) {
        if (place.path === 'message' && (value === '' || value === 'x\u0000')) continue
        if (place.path === 'hook' && value === 'x\u0000') continue
        if (operation.kind === 'mark' && place.path === 'name' && value === 'x\u0000') continue
        // A group may have no stores.
        if (place.path === 'table.stores' && Array.isArray(value) && value.length === 0) continue
        count++
        const spoilt = throughJson(place.with(value))
        t.throws(
          () => readOperation(spoilt),
          ProtocolError,
          `${operation.kind}.${place.path} = ${JSON.stringify(value)}`,
        )
      }
    }
  }
  t.ok(count > 300, `${count} spoilt fields`)
})

t.test('a field that nobody knows is refused wherever it is', async (t) => {
  for (const operation of Object.values(full)) {
    const json = throughJson(operation) as Record<string, unknown>
    t.throws(() => readOperation({ ...json, extra: 1 }), /extra is unknown/, operation.kind)
    t.throws(
      () =>
        readOperation(
          JSON.parse(JSON.stringify(json).replace('{', '{"__proto__":{"kind":"thaw"},')),
        ),
      ProtocolError,
    )
  }
  const inner = [
    { ...full.copy, range: { ...range, extra: 1 } },
    { ...full.reset, table: { ...table, extra: 1 } },
    { kind: 'new-generation', record: { ...record, extra: 1 } },
    { kind: 'create-snapshots', snapshots: [{ storeId: 1, sourceId: 2, name: 'a', extra: 1 }] },
  ]
  for (const operation of inner) t.throws(() => readOperation(operation), /extra is unknown/)
})

t.test('kinds that inherit from nothing of ours are unknown', async (t) => {
  for (const kind of ['toString', '__proto__', 'constructor', 'write', '', null, 7])
    t.throws(() => readOperation({ kind }), ProtocolError, String(kind))
  for (const value of [null, [], 'delete', 7, undefined])
    t.throws(() => readOperation(value), ProtocolError)
})

t.test('numbers, names and lists have their bounds', async (t) => {
  const many = (count: number) => Array.from({ length: count }, () => full.delete)
  const bad: readonly (readonly [string, unknown])[] = [
    ['store 0', { kind: 'delete', storeId: 0 }],
    ['a store of the node itself', { kind: 'delete', storeId: 2 ** 31 }],
    ['half a sector', { ...full.resize, sizeBytes: 100 }],
    ['no size', { ...full.resize, sizeBytes: 0 }],
    ['a name of 256', { ...full['create-volume'], name: 'a'.repeat(256) }],
    ['a name with a space', { ...full['create-volume'], name: 'a b' }],
    ['a message of 4097', { ...full.mark, message: 'a'.repeat(4097) }],
    ['an empty batch', { kind: 'batch', operations: [] }],
    ['a batch of 257', { kind: 'batch', operations: many(257) }],
    ['a batch in a batch', { kind: 'batch', operations: [full.batch] }],
    ['a mark in a batch', { kind: 'batch', operations: [full.mark] }],
    ['no snapshots', { kind: 'create-snapshots', snapshots: [] }],
    [
      'a generation in capitals',
      { kind: 'new-generation', record: { ...record, generation: 'A'.repeat(32) } },
    ],
    ['an empty range', { ...full.copy, range: { offset: 0, lengthBytes: 0 } }],
    ['a range beyond everything', { ...full.copy, range: { offset: 2 ** 53 - 1, lengthBytes: 1 } }],
    [
      'a store twice',
      { kind: 'reset', table: { ...table, stores: [table.stores[0], table.stores[0]] } },
    ],
    [
      'a snapshot without volume',
      { kind: 'reset', table: { ...table, stores: [table.stores[1]] } },
    ],
    ['a store beyond the next', { kind: 'reset', table: { ...table, nextStoreId: 4 } }],
    ['no generation', { kind: 'reset', table: { ...table, generations: [] } }],
  ]
  for (const [what, operation] of bad) t.throws(() => readOperation(operation), ProtocolError, what)
  t.strictSame(readOperation({ kind: 'batch', operations: many(256) }).kind, 'batch')
  for (const time of ['now', '2024-05-06', `${at}${at}`, 7])
    t.throws(() => readOperationPayload({ at: time, operation: full.delete }), ProtocolError)
})

t.test('random JSON gives an operation or a refusal', async (t) => {
  const random = new SeededRandom(11)
  const texts = all.map((operation) => JSON.stringify(operation))
  let accepted = 0
  for (let round = 0; round < 20_000; round++) {
    const text = Buffer.from(random.pick(texts))
    for (let change = random.below(3); change >= 0; change--)
      text[random.below(text.length)] = random.pick([
        0x22, 0x2c, 0x30, 0x39, 0x5b, 0x7b, 0x7d, 0x61, 0x2d,
      ])
    let value: unknown
    try {
      value = JSON.parse(text.toString())
    } catch {
      continue
    }
    try {
      const operation = readOperation(value)
      accepted++
      if (
        JSON.stringify(throughJson(operation)) !==
        JSON.stringify(readOperation(throughJson(operation)))
      )
        t.fail(`not stable: ${text}`)
    } catch (error) {
      if (!(error instanceof ProtocolError)) t.fail(`${String(error)}: ${text}`)
    }
  }
  t.ok(accepted > 100, `${accepted} of 20,000 were operations nevertheless`)
})
