// A batch is an unordered set: no operation in it may touch what another one writes, so that every order gives the same result. Whatever is wrong with one
// of them is told with its place.
import { LockstepError, unreachable } from '../core/errors.js'
import type { DataOperation } from '../core/operation.js'
import { placeInBatch, type SingleRequest } from '../core/operation-words.js'
import { fullName, type GroupState, storeOf } from '../storage/group-state.js'

/** `key` is a store's id or a name; without a range all of it. */
type Touch = {
  readonly key: string
  readonly label: string
  readonly isWrite: boolean
  readonly offset: number
  readonly end: number
}

/** What `work` answers. What it refuses is said of the operation in a batch of which it is the one at `index`. */
export function ofBatch<T>(kind: SingleRequest['kind'], index: number, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error
    const message = `${placeInBatch(kind, index)}: ${error.message}`
    throw new LockstepError(error.code, message, error.action)
  }
}

/** Throws CONFLICT when the order of two operations would matter. */
export function checkBatch(state: GroupState, operations: readonly DataOperation[]): void {
  const seen = new Map<string, { readonly touch: Touch; readonly index: number }[]>()
  for (const [index, operation] of operations.entries()) {
    for (const touch of touches(state, operation)) {
      const others = seen.get(touch.key) ?? []
      const conflict = others.find(
        (other) =>
          other.index !== index &&
          (other.touch.isWrite || touch.isWrite) &&
          other.touch.offset < touch.end &&
          touch.offset < other.touch.end,
      )
      if (conflict !== undefined) {
        throw new LockstepError(
          'CONFLICT',
          `operations ${conflict.index + 1} and ${index + 1} of the batch both touch ${touch.label}, and one changes it`,
          'a batch has no order: put one of them into a second batch',
        )
      }
      seen.set(touch.key, [...others, { touch, index }])
    }
  }
}

function touches(state: GroupState, operation: DataOperation): readonly Touch[] {
  const store = (
    id: number,
    isWrite: boolean,
    range?: { readonly offset: number; readonly lengthBytes: number },
  ): Touch => ({
    key: `store ${id}`,
    label: fullName(state, storeOf(state, id as never)),
    isWrite,
    offset: range?.offset ?? 0,
    end: range === undefined ? Number.POSITIVE_INFINITY : range.offset + range.lengthBytes,
  })
  const name = (full: string): Touch => ({
    key: `name ${full}`,
    label: `the name ${full}`,
    isWrite: true,
    offset: 0,
    end: 1,
  })
  switch (operation.kind) {
    case 'create-volume':
      return [name(operation.name)]
    case 'create-snapshots':
      return operation.snapshots.flatMap((one) => {
        const source = storeOf(state, one.sourceId)
        const volume = source.volumeId === undefined ? source : storeOf(state, source.volumeId)
        // The volume is read even for a snapshot of its snapshot: it must not go or be renamed meanwhile.
        return [
          store(one.sourceId, false),
          store(volume.id, false),
          name(`${volume.name}@${one.name}`),
        ]
      })
    case 'delete':
    case 'resize':
      return [store(operation.storeId, true)]
    case 'rename': {
      const renamed = storeOf(state, operation.storeId)
      const full =
        renamed.volumeId === undefined
          ? operation.name
          : `${storeOf(state, renamed.volumeId).name}@${operation.name}`
      return [store(operation.storeId, true), name(full)]
    }
    case 'copy': {
      const { range } = operation
      if (range === undefined)
        return [store(operation.sourceId, false), store(operation.targetId, true)]
      // Two copies into one chunk would each prepare that chunk from what it was before both.
      const offset = Math.floor(range.offset / state.chunkBytes) * state.chunkBytes
      const end =
        Math.ceil((range.offset + range.lengthBytes) / state.chunkBytes) * state.chunkBytes
      return [
        store(operation.sourceId, false, range),
        store(operation.targetId, true, { offset, lengthBytes: end - offset }),
      ]
    }
    default:
      return unreachable(operation)
  }
}
