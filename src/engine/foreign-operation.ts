// What an operation that came over the link must be before this node performs it. The codec has checked its shape; here is whether it fits the stores that
// are here. Behind this file operations are believed, and what does not fit there is an assertion: so whatever a peer sends, it fails here.
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import type {
  DataOperation,
  GenerationRecord,
  GroupTable,
  Operation,
  SnapshotSpec,
} from '../core/operation.js'
import { checkNamePart, checkUnreserved } from '../core/store-name.js'
import type { ByteRange, Sequence, StoreId } from '../core/units.js'
import { isLocalId, type Store } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import { checkBatch } from './batch.js'
import { snapshotsOf } from './names.js'

/** A primary cannot have gone further while this node was away: more than a hundred thousand unclean starts, each of which jumps. */
const sequenceStepMax = 2 ** 50
/** Sequences are counted on from here without losing precision. */
const sequenceMax = 2 ** 52

/** Throws ProtocolError when no primary can be so far beyond this node. */
export function checkSequence(sequence: Sequence, last: Sequence): void {
  if (sequence > sequenceMax || sequence - last > sequenceStepMax)
    throw new ProtocolError(`no primary is at ${sequence} while this node is at ${last}`)
}

export type Expected = {
  readonly sequence: Sequence
  /** The first operation after a decision to send everything, with the history that the primary told of. */
  readonly reset?: { readonly group: string; readonly generations: readonly GenerationRecord[] }
  /** Operations that were missed: their end is not the end of this resync. */
  readonly isReplay: boolean
}

/** Throws ProtocolError for an operation that this node cannot perform, or must not. */
export function checkOperation(pool: Pool, operation: Operation, expected: Expected): void {
  if (expected.reset !== undefined && operation.kind !== 'reset')
    throw new ProtocolError(`a ${operation.kind} came before the table of stores`)
  switch (operation.kind) {
    case 'new-generation':
      checkGeneration(pool.state.generations, operation.record, expected.sequence)
      return
    case 'reset':
      checkReset(operation.table, expected)
      return
    case 'resync-end':
      if (expected.isReplay) throw new ProtocolError('a resync ended before it began')
      if (pool.state.isWhole) throw new ProtocolError('a resync ended, and none was under way')
      return
    case 'freeze':
      needStore(pool, operation.storeId)
      return
    case 'mark':
    case 'thaw':
      return
    case 'batch':
      checkAll(pool, operation.operations)
      return
    default:
      checkAll(pool, [operation])
  }
}

function checkAll(pool: Pool, operations: readonly DataOperation[]): void {
  const { state } = pool
  let nextId: number = state.nextStoreId
  let created = 0
  let known: Set<string> | undefined
  const names = (): Set<string> => {
    known ??= namesOf(pool)
    return known
  }
  const create = (id: number): void => {
    if (id < nextId) throw new ProtocolError(`store ${id} was there before`)
    nextId = id + 1
    created++
  }
  for (const operation of operations) checkOne(pool, operation, { create, names })
  if (state.stores.size + created > limits.storeCountMax)
    throw new ProtocolError(`a group has at most ${limits.storeCountMax} stores`)
  if (operations.length < 2) return
  try {
    checkBatch(state, operations)
  } catch (error) {
    if (error instanceof LockstepError) throw new ProtocolError(error.message)
    throw error
  }
}

type Context = { readonly create: (id: number) => void; readonly names: () => Set<string> }

function checkOne(pool: Pool, operation: DataOperation, { create, names }: Context): void {
  switch (operation.kind) {
    case 'create-volume':
      create(operation.storeId)
      takeName(names(), checkedPart(operation.name))
      return
    case 'create-snapshots':
      for (const one of operation.snapshots) checkSnapshot(pool, one, { create, names })
      return
    case 'delete': {
      const store = needStore(pool, operation.storeId)
      if (store.volumeId === undefined && snapshotsOf(pool.state, store).length > 0)
        throw new ProtocolError(`store ${store.id} is to be deleted, and has snapshots`)
      return
    }
    case 'rename': {
      const store = needStore(pool, operation.storeId)
      const part = store.volumeId === undefined ? checkedPart : checkedSnapshotPart
      takeName(names(), fullOf(pool, store, part(operation.name)))
      return
    }
    case 'resize':
      needStore(pool, operation.storeId)
      return
    case 'copy': {
      const source = needStore(pool, operation.sourceId)
      const target = needStore(pool, operation.targetId)
      if (source === target) throw new ProtocolError(`store ${source.id} is copied to itself`)
      if (operation.range !== undefined)
        for (const one of [source, target]) need(one, operation.range)
      return
    }
  }
}

function checkSnapshot(pool: Pool, one: SnapshotSpec, { create, names }: Context): void {
  const source = needStore(pool, one.sourceId)
  create(one.storeId)
  const volume = source.volumeId === undefined ? source : needStore(pool, source.volumeId)
  takeName(names(), `${volume.name}@${checkedSnapshotPart(one.name)}`)
}

function checkGeneration(
  generations: readonly GenerationRecord[],
  record: GenerationRecord,
  sequence: Sequence,
): void {
  const last = generations.at(-1)
  if (generations.some((one) => one.generation === record.generation))
    throw new ProtocolError('a generation begins twice')
  if (record.parent !== last?.generation)
    throw new ProtocolError('a generation begins that is no child of the present one')
  if (record.forkSequence >= sequence || record.forkSequence < (last?.forkSequence ?? 0))
    throw new ProtocolError(`a generation forks at ${record.forkSequence}, which cannot be`)
}

function checkReset(table: GroupTable, { reset, sequence }: Expected): void {
  if (reset === undefined) throw new ProtocolError('a table of stores came out of place')
  if (table.group !== reset.group)
    throw new ProtocolError('the table of stores is of another group')
  const told = reset.generations.at(-1)?.generation
  if (!table.generations.some((one) => one.generation === told))
    throw new ProtocolError('the table of stores is of another history')
  const known: GenerationRecord[] = []
  for (const record of table.generations) {
    const before = known.at(-1)
    // The first that is remembered has a parent that is not.
    if (before !== undefined) checkGeneration(known, record, sequence)
    known.push(record)
  }
  const names = new Set<string>()
  const volumes = new Map(table.stores.map((store) => [store.id, store]))
  for (const { name, volumeId } of table.stores) {
    const volume = volumeId === undefined ? undefined : volumes.get(volumeId)
    takeName(
      names,
      volume === undefined ? checkedPart(name) : `${volume.name}@${checkedSnapshotPart(name)}`,
    )
  }
}

function needStore(pool: Pool, id: StoreId): Store {
  const store = isLocalId(id) ? undefined : pool.state.stores.get(id)
  if (store === undefined)
    throw new ProtocolError(`an operation names store ${id}, which is not here`)
  return store
}

function need(store: Store, range: ByteRange): void {
  if (range.offset + range.lengthBytes > store.sizeBytes)
    throw new ProtocolError(`a copy goes behind the end of store ${store.id}`)
}

function fullOf(pool: Pool, store: Store, part: string): string {
  const volume = store.volumeId === undefined ? undefined : pool.state.stores.get(store.volumeId)
  return volume === undefined ? part : `${volume.name}@${part}`
}

function namesOf(pool: Pool): Set<string> {
  const names = new Set<string>()
  for (const store of pool.state.stores.values())
    names.add(isLocalId(store.id) ? store.name : fullOf(pool, store, store.name))
  return names
}

function takeName(names: Set<string>, name: string): void {
  if (names.has(name)) throw new ProtocolError(`there is a store "${name}" already`)
  names.add(name)
}

function checkedPart(name: string, check = checkNamePart): string {
  try {
    return check(name)
  } catch (error) {
    if (error instanceof LockstepError) throw new ProtocolError(error.message)
    throw error
  }
}

/** The names of what this node keeps for itself are none of the stream's: sooner or later there would be two stores of one. */
function checkedSnapshotPart(name: string): string {
  return checkedPart(name, (part) => checkUnreserved(checkNamePart(part)))
}
