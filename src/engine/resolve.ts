// From what a person asked (stores by name) to the operation that every node performs (stores by id), or a refusal with nothing changed.
// Pure: looks at the state at the operation's place in the order, so a name that an earlier operation took is taken.
import { LockstepError, unreachable } from '../core/errors.js'
import { limits } from '../core/limits.js'
import { checkMarkRequest } from '../core/mark-request.js'
import type { DataOperation, MarkRequest, Operation, OperationRequest } from '../core/operation.js'
import type { SingleRequest } from '../core/operation-words.js'
import { shownText } from '../core/shown-text.js'
import { checkNamePart, checkUnreserved } from '../core/store-name.js'
import { type ByteRange, formatBytes, type StoreId } from '../core/units.js'
import { checkVolumeSize } from '../core/volume-size.js'
import { fullName, type GroupState, type Store, storeOf } from '../storage/group-state.js'
import { checkBatch, ofBatch } from './batch.js'
import {
  findStore,
  snapshotNamed,
  snapshotsOf,
  storeNamed,
  volumeNamed,
  volumesOf,
} from './names.js'

export type Resolved = {
  readonly operation: Operation
  /** Full names of the stores that exist afterwards, or are gone, in the words of the request. */
  readonly stores: readonly string[]
  /** One sentence for the log of events. */
  readonly description: string
}

/** What the engine knows besides the group's state. */
export type ResolveContext = { readonly connectionCount: (store: Store) => number }

export function resolve(
  state: GroupState,
  request: OperationRequest,
  context: ResolveContext,
): Resolved {
  let nextId = state.nextStoreId
  const takeId = (): StoreId => {
    if (state.stores.size + nextId - state.nextStoreId >= limits.storeCountMax) {
      throw new LockstepError(
        'LIMIT_REACHED',
        `a group has at most ${limits.storeCountMax} stores`,
        'delete snapshots that are no longer needed',
      )
    }
    return nextId++ as StoreId
  }
  if (request.kind !== 'batch') return resolveOne(state, request, context, takeId)
  if (
    request.operations.length === 0 ||
    request.operations.length > limits.batchOperationCountMax
  ) {
    throw new LockstepError(
      'INVALID_ARGUMENT',
      `a batch has 1 to ${limits.batchOperationCountMax} operations`,
      'split it',
    )
  }
  const all = request.operations.map((one, index) =>
    ofBatch(one.kind, index, () => resolveOne(state, one, context, takeId)),
  )
  const operations = all.map((one) => one.operation as DataOperation)
  checkBatch(state, operations)
  return {
    operation: { kind: 'batch', operations },
    stores: all.flatMap((one) => one.stores),
    description: `batch of ${all.length}: ${all.map((one) => one.description).join('; ')}`,
  }
}

function resolveOne(
  state: GroupState,
  request: SingleRequest,
  context: ResolveContext,
  takeId: () => StoreId,
): Resolved {
  switch (request.kind) {
    case 'volume.create': {
      const name = checkNewVolumeName(state, request.name)
      const operation = {
        kind: 'create-volume',
        storeId: takeId(),
        name,
        sizeBytes: checkVolumeSize(request.sizeBytes),
      } as const
      return {
        operation,
        stores: [name],
        description: `created volume ${name}, ${formatBytes(request.sizeBytes)}`,
      }
    }
    case 'volume.delete': {
      const volume = volumeNamed(state, request.name)
      const snapshots = snapshotsOf(state, volume)
      if (snapshots.length > 0) {
        throw new LockstepError(
          'HAS_SNAPSHOTS',
          `${request.name} has ${snapshots.length} snapshot${snapshots.length === 1 ? '' : 's'}`,
          deleteFirst(request.name, fullName(state, snapshots[0] as Store), snapshots.length),
        )
      }
      return resolveDelete(state, volume, context)
    }
    case 'snapshot.delete':
      return resolveDelete(state, snapshotNamed(state, request.store), context)
    case 'volume.rename': {
      const volume = volumeNamed(state, request.name)
      if (request.newName === request.name)
        throw nameTaken(request.name, 'it has that name already: choose another name')
      const name = checkNewVolumeName(state, request.newName)
      return {
        operation: { kind: 'rename', storeId: volume.id, name },
        stores: [name],
        description: `renamed ${request.name} to ${name}`,
      }
    }
    case 'snapshot.rename': {
      const snapshot = snapshotNamed(state, request.store)
      const full = checkNewSnapshotName(
        state,
        storeOf(state, snapshot.volumeId as StoreId),
        request.newName,
      )
      const operation = { kind: 'rename', storeId: snapshot.id, name: request.newName } as const
      return { operation, stores: [full], description: `renamed ${request.store} to ${full}` }
    }
    case 'volume.resize': {
      const volume = volumeNamed(state, request.name)
      const operation = {
        kind: 'resize',
        storeId: volume.id,
        sizeBytes: checkVolumeSize(request.sizeBytes),
      } as const
      const description = `resized ${request.name} from ${formatBytes(volume.sizeBytes)} to ${formatBytes(request.sizeBytes)}`
      return { operation, stores: [request.name], description }
    }
    case 'snapshot.create':
      return resolveSnapshots(state, request, takeId)
    case 'snapshot.restore':
    case 'snapshot.refresh':
    case 'sync':
      return resolveCopy(state, request)
    default:
      return unreachable(request)
  }
}

/** Throws INVALID_NAME or INVALID_ARGUMENT. */
export function resolveMark(request: MarkRequest): Resolved {
  const operation = { kind: 'mark', ...checkMarkRequest(request) } as const
  const said = request.message === undefined ? '' : `: ${shownText(request.message)}`
  return { operation, stores: [], description: `mark ${request.name}${said}` }
}

function resolveDelete(state: GroupState, store: Store, context: ResolveContext): Resolved {
  const name = fullName(state, store)
  checkUnused(name, context.connectionCount(store))
  return {
    operation: { kind: 'delete', storeId: store.id },
    stores: [name],
    description: `deleted ${name}`,
  }
}

/** Throws IN_USE when clients are connected. */
export function checkUnused(name: string, connectionCount: number): void {
  if (connectionCount === 0) return
  throw new LockstepError(
    'IN_USE',
    `${name} has ${connectionCount} open connection${connectionCount === 1 ? '' : 's'}`,
    'disconnect its clients (nbd-client -d /dev/nbdN), then try again',
  )
}

function resolveSnapshots(
  state: GroupState,
  request: Extract<SingleRequest, { kind: 'snapshot.create' }>,
  takeId: () => StoreId,
): Resolved {
  const isAll = request.stores === 'all'
  const sources = isAll
    ? volumesOf(state)
    : (request.stores as readonly string[]).map((name) => storeNamed(state, name))
  if (sources.length === 0) {
    throw new LockstepError(
      'INVALID_ARGUMENT',
      'there is nothing to take a snapshot of',
      isAll ? 'create a volume first: lockstep volume create vol0 1G' : 'name at least one store',
    )
  }
  const names = new Set<string>()
  const snapshots = sources.map((source) => {
    const volume = source.volumeId === undefined ? source : storeOf(state, source.volumeId)
    const full = checkNewSnapshotName(state, volume, request.name)
    if (names.has(full)) throw nameTaken(full, 'this request makes it twice')
    names.add(full)
    return { storeId: takeId(), sourceId: source.id, name: request.name }
  })
  return {
    operation: { kind: 'create-snapshots', snapshots },
    stores: [...names],
    description: `created ${[...names].join(', ')}`,
  }
}

function resolveCopy(
  state: GroupState,
  request: Extract<SingleRequest, { kind: 'snapshot.restore' | 'snapshot.refresh' | 'sync' }>,
): Resolved {
  const range = request.kind === 'snapshot.refresh' ? undefined : request.range
  const [source, target] = copyEnds(state, request)
  if (source === target)
    throw new LockstepError(
      'INVALID_ARGUMENT',
      'source and target are the same store',
      'name two different stores',
    )
  if (range !== undefined) {
    checkRange(range, source, fullName(state, source))
    checkRange(range, target, fullName(state, target))
  }
  const reason =
    request.kind === 'sync' ? 'sync' : request.kind === 'snapshot.restore' ? 'restore' : 'refresh'
  const operation = {
    kind: 'copy',
    reason,
    sourceId: source.id,
    targetId: target.id,
    ...(range === undefined ? {} : { range }),
  } as const
  const what = range === undefined ? '' : ` bytes ${range.offset}:${range.lengthBytes} of`
  const words = { restore: 'restored', refresh: 'refreshed', sync: 'synchronised' }[reason]
  return {
    operation,
    stores: [fullName(state, target)],
    description: `${words}${what} ${fullName(state, target)} from ${fullName(state, source)}`,
  }
}

function copyEnds(
  state: GroupState,
  request: Extract<SingleRequest, { kind: 'snapshot.restore' | 'snapshot.refresh' | 'sync' }>,
): readonly [Store, Store] {
  if (request.kind === 'sync')
    return [storeNamed(state, request.source), storeNamed(state, request.target)]
  const snapshot = snapshotNamed(state, request.store)
  const volume = storeOf(state, snapshot.volumeId as StoreId)
  return request.kind === 'snapshot.restore' ? [snapshot, volume] : [volume, snapshot]
}

function checkRange(range: ByteRange, store: Store, name: string): void {
  const isInside =
    Number.isSafeInteger(range.offset) &&
    Number.isSafeInteger(range.lengthBytes) &&
    range.offset >= 0 &&
    range.lengthBytes > 0
  if (isInside && range.offset + range.lengthBytes <= store.sizeBytes) return
  throw new LockstepError(
    'OUT_OF_RANGE',
    `the range ${range.offset}:${range.lengthBytes} is not inside ${name}, which has ${store.sizeBytes} bytes`,
    'give OFFSET:LENGTH inside both stores, such as 0:64K',
  )
}

function deleteFirst(volume: string, snapshot: string, count: number): string {
  const one = `lockstep snapshot delete ${snapshot}`
  if (count === 1) return `delete it first: ${one}`
  return `delete them first: ${one}, and the others that lockstep snapshot list ${volume} shows`
}

function checkNewVolumeName(state: GroupState, name: string): string {
  checkNamePart(name)
  if (findStore(state, name) !== undefined)
    throw nameTaken(
      name,
      `choose another name, or rename that one: lockstep volume rename ${name} NEW-NAME`,
    )
  return name
}

function checkNewSnapshotName(state: GroupState, volume: Store, name: string): string {
  const full = `${volume.name}@${checkNamePart(name)}`
  checkUnreserved(name)
  if (findStore(state, full) !== undefined) {
    throw nameTaken(
      full,
      `choose another name, or bring that one up to date: lockstep snapshot refresh ${full}`,
    )
  }
  return full
}

function nameTaken(name: string, action: string): LockstepError {
  return new LockstepError('NAME_TAKEN', `there is a store "${name}" already`, action)
}
