// Operations as they cross the link: JSON, every kind and field checked by hand when it comes in. What comes out is exactly what the
// type says; whether the stores it names exist is the replica's to check.
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { limits } from '../core/limits.js'
import type {
  DataOperation,
  GenerationRecord,
  GroupTable,
  Operation,
  SnapshotSpec,
  StoreDescription,
} from '../core/operation.js'
import type { ByteRange, Generation, Position, Sequence, StoreId } from '../core/units.js'
import { JsonReader } from './json-reader.js'
import { linkLimits } from './limits.js'

const { storeIdEnd } = linkLimits
const numberMax = Number.MAX_SAFE_INTEGER
const generationPattern = /^[0-9a-f]{32}$/
const namePattern = /^[\x21-\x7e]{1,255}$/
const timePattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/

type Kind = Operation['kind']
type OfKind<K extends Kind> = Extract<Operation, { readonly kind: K }>
type Readers = { readonly [K in Kind]: (json: JsonReader) => OfKind<K> }

/** One row a kind: a new kind does not compile until it has one. */
const readers: Readers = {
  'create-volume': (json) => ({
    kind: 'create-volume',
    storeId: readStoreId(json, 'storeId'),
    name: readName(json, 'name'),
    sizeBytes: readSize(json),
  }),
  'create-snapshots': (json) => ({
    kind: 'create-snapshots',
    snapshots: json.array('snapshots', 1, limits.storeCountMax).map(readSnapshot),
  }),
  delete: (json) => ({ kind: 'delete', storeId: readStoreId(json, 'storeId') }),
  rename: (json) => ({
    kind: 'rename',
    storeId: readStoreId(json, 'storeId'),
    name: readName(json, 'name'),
  }),
  resize: (json) => ({
    kind: 'resize',
    storeId: readStoreId(json, 'storeId'),
    sizeBytes: readSize(json),
  }),
  copy: (json) => ({
    kind: 'copy',
    reason: json.oneOf('reason', ['restore', 'refresh', 'sync', 'share']),
    sourceId: readStoreId(json, 'sourceId'),
    targetId: readStoreId(json, 'targetId'),
    ...(json.has('range') && { range: readRange(json.object('range')) }),
  }),
  batch: (json) => ({
    kind: 'batch',
    operations: json
      .array('operations', 1, limits.batchOperationCountMax)
      .map((one, index) => readDataOperation(one, `operation.operations.${index}`)),
  }),
  'new-generation': (json) => ({
    kind: 'new-generation',
    record: readGenerationRecord(json.any('record')),
  }),
  reset: (json) => ({ kind: 'reset', table: readTable(json.object('table')) }),
  'resync-end': () => ({ kind: 'resync-end' }),
  mark: (json) => ({
    kind: 'mark',
    name: json.text('name', limits.nameBytesMax),
    ...(json.has('message') && {
      message: json.textOrNothing('message', linkLimits.messageBytesMax),
    }),
    ...(json.has('hook') && { hook: json.text('hook', limits.nameBytesMax) }),
    ...(json.has('snapshot') && { snapshot: readName(json, 'snapshot') }),
  }),
  freeze: (json) => ({
    kind: 'freeze',
    frozenId: json.integer('frozenId', 0, 2 ** 32 - 1),
    storeId: readStoreId(json, 'storeId'),
  }),
  thaw: (json) => ({ kind: 'thaw', frozenId: json.integer('frozenId', 0, 2 ** 32 - 1) }),
}

const kinds = Object.keys(readers) as readonly Kind[]

/** Throws ProtocolError for anything that is not exactly an operation. */
export function readOperation(value: unknown, what = 'operation'): Operation {
  const json = new JsonReader(value, what)
  const operation = readers[json.oneOf('kind', kinds)](json)
  json.end()
  return operation
}

function readDataOperation(value: unknown, what: string): DataOperation {
  const operation = readOperation(value, what)
  switch (operation.kind) {
    case 'create-volume':
    case 'create-snapshots':
    case 'delete':
    case 'rename':
    case 'resize':
    case 'copy':
      return operation
    default:
      throw new ProtocolError(`${what} is a ${operation.kind}, which is in no batch`)
  }
}

/** `at` and `operation` of an operation's payload. */
export function readOperationPayload(value: unknown): {
  readonly at: string
  readonly operation: Operation
} {
  const json = new JsonReader(value, 'operation payload')
  const at = json.textLike('at', timePattern)
  const operation = readOperation(json.any('operation'))
  json.end()
  return { at, operation }
}

export function readGenerationRecord(value: unknown): GenerationRecord {
  const json = new JsonReader(value, 'generation record')
  const record: GenerationRecord = {
    generation: readGeneration(json, 'generation'),
    ...(json.has('parent') && { parent: readGeneration(json, 'parent') }),
    forkSequence: json.integer('forkSequence', 0, numberMax),
    ...(json.has('isUnclean') && { isUnclean: json.boolean('isUnclean') }),
  }
  json.end()
  return record
}

function readTable(json: JsonReader): GroupTable {
  const table: GroupTable = {
    group: json.textLike('group', namePattern),
    generations: json
      .array('generations', 1, linkLimits.generationCountMax)
      .map(readGenerationRecord),
    nextStoreId: json.integer('nextStoreId', 1, storeIdEnd),
    stores: json.array('stores', 0, limits.storeCountMax).map(readDescription),
  }
  json.end()
  checkTable(table)
  return table
}

/** What a table must be as a whole: no store twice, volumes are there, numbers below the next one. */
function checkTable(table: GroupTable): void {
  const ids = new Set(table.stores.map((store) => store.id))
  if (ids.size !== table.stores.length) throw new ProtocolError('a table has a store twice')
  const volumes = new Set(
    table.stores.filter((store) => store.volumeId === undefined).map((store) => store.id),
  )
  for (const store of table.stores) {
    if (store.id >= table.nextStoreId)
      throw new ProtocolError('a table has a store beyond its next number')
    if (store.volumeId !== undefined && !volumes.has(store.volumeId))
      throw new ProtocolError('a table has a snapshot without its volume')
  }
}

function readDescription(value: unknown): StoreDescription {
  const json = new JsonReader(value, 'store')
  const store: StoreDescription = {
    id: readStoreId(json, 'id'),
    name: readName(json, 'name'),
    sizeBytes: readSize(json),
    ...(json.has('volumeId') && { volumeId: readStoreId(json, 'volumeId') }),
    ...(json.has('position') && { position: readPosition(json.object('position')) }),
    createdAt: json.textLike('createdAt', timePattern),
  }
  json.end()
  return store
}

function readSnapshot(value: unknown): SnapshotSpec {
  const json = new JsonReader(value, 'snapshot')
  const snapshot: SnapshotSpec = {
    storeId: readStoreId(json, 'storeId'),
    sourceId: readStoreId(json, 'sourceId'),
    name: readName(json, 'name'),
  }
  json.end()
  return snapshot
}

function readPosition(json: JsonReader): Position {
  const position: Position = {
    generation: readGeneration(json, 'generation'),
    sequence: json.integer('sequence', 0, numberMax) as Sequence,
  }
  json.end()
  return position
}

function readRange(json: JsonReader): ByteRange {
  const range = {
    offset: json.integer('offset', 0, numberMax),
    lengthBytes: json.integer('lengthBytes', 1, numberMax),
  }
  json.end()
  if (range.offset + range.lengthBytes > limits.storeSizeBytesMax)
    throw new ProtocolError('a range ends beyond any store')
  return range as ByteRange
}

function readStoreId(json: JsonReader, key: string): StoreId {
  return json.integer(key, 1, storeIdEnd - 1) as StoreId
}

function readGeneration(json: JsonReader, key: string): Generation {
  return json.textLike(key, generationPattern) as Generation
}

function readName(json: JsonReader, key: string): string {
  return json.textLike(key, namePattern)
}

function readSize(json: JsonReader): number {
  const sizeBytes = json.integer('sizeBytes', 1, limits.storeSizeBytesMax)
  if (sizeBytes % limits.storeSizeAlignment === 0) return sizeBytes
  throw new ProtocolError(`a size of ${sizeBytes} is not in whole sectors`)
}
