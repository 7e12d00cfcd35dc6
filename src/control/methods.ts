// The table of methods: name, summary, check of the parameters, an example, handler. One loop (call) serves them all, so a method cannot
// be reached with unchecked parameters. Operations go to the engine in the order of their lines; the engine decides the rest.
import { limits } from '../core/limits.js'
import { isNoVolume, noSuchStore } from '../core/no-such-store.js'
import type { OperationRequest } from '../core/operation.js'
import type { SingleRequest as Single } from '../core/operation-words.js'
import { type ByteRange, byteOffset } from '../core/units.js'
import type { EngineEvent } from '../engine/api.js'
import type { Daemon, DaemonStatus } from './api.js'
import { jobMethods } from './job-methods.js'
import { RpcCode, RpcError, type RpcRequest } from './json-rpc.js'
import { controlLimits } from './limits.js'
import { type Call, type Fields, type Method, method } from './method.js'
import { peerMethods } from './peer-methods.js'
import {
  type Check,
  FieldError,
  flag,
  integer,
  listOf,
  type ObjectOf,
  object,
  oneOf,
  optional,
  quote,
  text,
} from './schema.js'

const name = text({ bytesMax: controlLimits.nameBytesMax })
const bytes = integer({ min: 0, max: limits.storeSizeBytesMax })
const rangeFields = object({ offset: bytes, lengthBytes: bytes })
/** Which of them a volume can have is told in one place, with a code of its own (core/volume-size.ts). */
const sizeBytes = integer({ min: Number.NEGATIVE_INFINITY, max: Number.POSITIVE_INFINITY })
const range = optional<ByteRange>((value, field) => {
  const { offset, lengthBytes } = rangeFields(value, field)
  return { offset: byteOffset(offset), lengthBytes }
})
// Named here and not in the table: inside a generic call the compiler would widen their type.
const optionalName = optional(name)
const optionalFlag = optional(flag)
const optionalCells = optional(integer({ min: 1, max: controlLimits.cellCountMax }))
const requestId = optional(text({ bytesMax: controlLimits.requestIdBytesMax }))
const stores = optional<readonly string[] | 'all'>((value, field) =>
  value === 'all' ? 'all' : listOf(name, { countMax: controlLimits.storeCountMax })(value, field),
)

/** One operation: how it is called, what it takes, and the request it becomes. The same table serves methods and the elements of a batch. */
type OperationMethod = {
  readonly kind: Single['kind']
  readonly summary: string
  readonly example: object
  readonly fields: Fields
  request(params: unknown, field: string): Single
}

function operation<F extends Fields>(spec: {
  readonly kind: Single['kind']
  readonly summary: string
  readonly example: object
  readonly fields: F
  readonly request: (params: ObjectOf<NoInfer<F>>, field: string) => Single
}): OperationMethod {
  const check = object(spec.fields)
  return { ...spec, request: (params, field) => spec.request(check(params, field), field) }
}

const operations: readonly OperationMethod[] = [
  operation({
    kind: 'volume.create',
    summary: 'Creates a volume of zeroes.',
    example: { name: 'vol0', sizeBytes: 1073741824 },
    fields: { name, sizeBytes },
    request: (params) => ({ kind: 'volume.create', ...params }),
  }),
  operation({
    kind: 'volume.delete',
    summary: 'Deletes a volume. Its snapshots must be deleted first.',
    example: { name: 'vol0' },
    fields: { name },
    request: (params) => ({ kind: 'volume.delete', ...params }),
  }),
  operation({
    kind: 'volume.rename',
    summary: 'Renames a volume, and with it its snapshots.',
    example: { name: 'vol0', newName: 'vol1' },
    fields: { name, newName: name },
    request: (params) => ({ kind: 'volume.rename', ...params }),
  }),
  operation({
    kind: 'volume.resize',
    summary: 'Cuts a volume, or adds zeroes at its end.',
    example: { name: 'vol0', sizeBytes: 2147483648 },
    fields: { name, sizeBytes },
    request: (params) => ({ kind: 'volume.resize', ...params }),
  }),
  operation({
    kind: 'snapshot.create',
    summary: 'Creates one snapshot of each store, or of every volume, all at one position.',
    example: { stores: ['vol0'], name: 'monday' },
    fields: { stores, all: optionalFlag, name },
    request: snapshotCreate,
  }),
  operation({
    kind: 'snapshot.delete',
    summary: 'Deletes a snapshot.',
    example: { store: 'vol0@monday' },
    fields: { store: name },
    request: (params) => ({ kind: 'snapshot.delete', ...params }),
  }),
  operation({
    kind: 'snapshot.rename',
    summary: 'Gives a snapshot a new name after the @.',
    example: { store: 'vol0@monday', newName: 'tuesday' },
    fields: { store: name, newName: name },
    request: (params) => ({ kind: 'snapshot.rename', ...params }),
  }),
  operation({
    kind: 'snapshot.restore',
    summary: 'Makes the volume, or a range of it, what the snapshot is.',
    example: { store: 'vol0@monday', range: { offset: 0, lengthBytes: 1048576 } },
    fields: { store: name, range },
    request: (params) => ({ kind: 'snapshot.restore', ...params }),
  }),
  operation({
    kind: 'snapshot.refresh',
    summary: 'Makes the snapshot what its volume is now.',
    example: { store: 'vol0@monday' },
    fields: { store: name },
    request: (params) => ({ kind: 'snapshot.refresh', ...params }),
  }),
  operation({
    kind: 'sync',
    summary: 'Makes the target, or a range of it, what the source is.',
    example: { source: 'vol0', target: 'vol1' },
    fields: { source: name, target: name, range },
    request: (params) => ({ kind: 'sync', ...params }),
  }),
]

function snapshotCreate(
  params: { stores?: readonly string[] | 'all'; all?: boolean; name: string },
  field: string,
): Single {
  const all = params.all === true || params.stores === 'all'
  if (params.all === true && params.stores !== undefined) {
    throw new FieldError(
      `${field}${field === '' ? '' : '.'}stores`,
      'missing when "all" is true',
      params.stores,
      'present',
    )
  }
  if (!all && params.stores === undefined) {
    throw new FieldError(
      `${field}${field === '' ? '' : '.'}stores`,
      'an array of names, or "all": true',
      undefined,
    )
  }
  const chosen = all ? 'all' : (params.stores ?? [])
  return { kind: 'snapshot.create', stores: chosen, name: params.name }
}

const operationsByKind = new Map(operations.map((entry) => [entry.kind as string, entry]))
const kindOf = oneOf(operations.map((entry) => entry.kind))

/** One element of a batch: the operation's parameters and its `kind`. */
const batchElement: Check<Single> = (value, field) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new FieldError(field, 'an object', value)
  }
  const { kind, ...params } = value as Record<string, unknown>
  const entry = operationsByKind.get(kindOf(kind, `${field}.kind`))
  if (entry === undefined) throw new FieldError(`${field}.kind`, 'an operation', kind)
  return entry.request(params, field)
}

export function isOperationKind(kind: unknown): kind is Single['kind'] {
  return typeof kind === 'string' && operationsByKind.has(kind)
}

/** The operations of a batch document, as `lockstep batch` reads it from a file too. Throws FieldError. */
export const batchOperations = listOf(batchElement, { countMax: limits.batchOperationCountMax })

/** What `perform` takes, in one object: `kind` is the method. */
const checkedOperation: Check<OperationRequest> = (value, field) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new FieldError(field, 'an object', value)
  const { kind, ...params } = value as Record<string, unknown>
  if (kind !== 'batch') return batchElement(value, field)
  return { kind, ...object({ operations: batchOperations })(params, field) }
}

function performing(entry: OperationMethod): Method {
  return {
    name: entry.kind,
    summary: entry.summary,
    example: entry.example,
    run: (params, call) => {
      const { requestId: given, ...rest } = asObject(params)
      const id = requestId(given, 'requestId')
      return call.daemon.engine.perform(
        entry.request(rest, ''),
        id === undefined ? {} : { requestId: id },
      )
    },
  }
}

function asObject(params: unknown): Record<string, unknown> {
  if (typeof params === 'object' && params !== null && !Array.isArray(params)) {
    return params as Record<string, unknown>
  }
  throw new FieldError('', 'an object', params)
}

async function daemonStatus(daemon: Daemon): Promise<DaemonStatus> {
  const fileSystem = await daemon.fileSystem()
  return {
    ...(await daemon.engine.countedStatus()),
    listeners: daemon.listeners(),
    version: daemon.version,
    pid: process.pid,
    ...(fileSystem === undefined ? {} : { fileSystem }),
  }
}

/** Four places are enough for any picture. What is not empty does not become so, nor full what is not. */
function fraction(part: number): number {
  if (part <= 0 || part >= 1) return part
  return Math.min(0.9999, Math.max(0.0001, Math.round(part * 10_000) / 10_000))
}

function events(params: { follow?: boolean }, call: Call): { events: readonly EngineEvent[] } {
  if (params.follow === true) {
    call.onEnd(call.daemon.engine.onEvent((event) => call.notify('event', event)))
  }
  return { events: call.daemon.engine.recentEvents() }
}

const batchExample = {
  operations: [
    { kind: 'snapshot.delete', store: 'vol0@old' },
    { kind: 'snapshot.create', stores: ['vol0'], name: 'new' },
  ],
}

const all: readonly Method[] = [
  ...operations.map(performing),
  method({
    name: 'batch',
    summary: 'Performs a set of operations between two positions: all or none.',
    example: batchExample,
    fields: { operations: batchOperations, requestId },
    run: ({ operations: set, requestId: id }, call) => {
      const request: OperationRequest = { kind: 'batch', operations: set }
      return call.daemon.engine.perform(request, id === undefined ? {} : { requestId: id })
    },
  }),
  method({
    name: 'check',
    summary: 'Says what an operation or a batch would be refused for now. Changes nothing.',
    example: { operation: { kind: 'volume.delete', name: 'vol0' } },
    fields: { operation: checkedOperation },
    run: ({ operation: request }, { daemon }) => {
      daemon.engine.check(request)
      return { ok: true }
    },
  }),
  method({
    name: 'volume.list',
    summary: 'Lists the volumes.',
    fields: {},
    run: (_, { daemon }) => ({
      volumes: daemon.engine.status().stores.filter((store) => store.snapshotOf === undefined),
    }),
  }),
  method({
    name: 'snapshot.list',
    summary: 'Lists the snapshots, of one volume or of all.',
    example: { volume: 'vol0' },
    fields: { volume: optionalName },
    run: ({ volume }, { daemon }) => snapshotList(daemon, volume),
  }),
  method({
    name: 'status',
    summary: 'The state of the group, its stores, the pool and the peers.',
    fields: {},
    run: (_, { daemon }) => daemonStatus(daemon),
  }),
  method({
    name: 'dirty',
    summary:
      'How much of a store the peer may lack, or without a peer changed since its newest snapshot, and where.',
    example: { store: 'vol0' },
    fields: { store: optionalName, cells: optionalCells },
    run: async ({ store, cells }, { daemon }) => {
      const reports = await daemon.engine.dirty(store, cells)
      return {
        stores: reports.map((report) => ({ ...report, picture: report.picture.map(fraction) })),
      }
    },
  }),
  method({
    name: 'events',
    summary: 'The latest events; with "follow", further ones as notifications.',
    example: { follow: true },
    fields: { follow: optionalFlag },
    run: events,
  }),
  ...peerMethods,
  ...jobMethods,
  method({
    name: 'config',
    summary: 'The settings in force, and where each is from.',
    fields: {},
    run: (_, { daemon }) => ({ settings: daemon.settings() }),
  }),
  method({
    name: 'doctor',
    summary: 'What the daemon finds about itself.',
    fields: {},
    run: async (_, { daemon }) => ({ checks: await daemon.doctor() }),
  }),
  method({
    name: 'ping',
    summary: 'Answers.',
    fields: {},
    run: () => ({ pong: true }),
  }),
  method({
    name: 'version',
    summary: 'The version and the process of the daemon.',
    fields: {},
    run: (_, { daemon }) => ({ version: daemon.version, pid: process.pid }),
  }),
  method({
    name: 'methods',
    summary: 'This table.',
    fields: {},
    run: () => ({
      methods: all.map(({ name: title, summary, example }) => ({ name: title, summary, example })),
    }),
  }),
]

function snapshotList(daemon: Daemon, volume: string | undefined): object {
  const { stores: known } = daemon.engine.status()
  const named = known.find((store) => store.name === volume)
  if (volume !== undefined && named === undefined) throw noSuchStore(volume, known)
  if (named?.snapshotOf !== undefined) throw isNoVolume(named.name)
  const prefix = volume === undefined ? '' : `${volume}@`
  const isWanted = (store: { name: string; snapshotOf?: string }) =>
    store.snapshotOf !== undefined && store.name.startsWith(prefix)
  return { snapshots: known.filter(isWanted) }
}

export const methods: ReadonlyMap<string, Method> = new Map(all.map((entry) => [entry.name, entry]))

/** A line that calls `entry` with its example. */
export function exampleOf(entry: Method): string {
  return JSON.stringify({ jsonrpc: '2.0', id: 1, method: entry.name, params: entry.example })
}

/** Runs what `request` asks for. Throws, or rejects with, RpcError, FieldError, LockstepError; anything else is a bug. */
export function call(request: RpcRequest, context: Call): unknown {
  const entry = methods.get(request.method)
  if (entry === undefined) {
    throw new RpcError(RpcCode.METHOD_NOT_FOUND, `there is no method ${quote(request.method)}`, {
      action: `the methods are ${[...methods.keys()].join(', ')}`,
    })
  }
  return entry.run(request.params ?? {}, context)
}
