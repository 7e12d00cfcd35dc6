// The part of an operation that takes time, before its step in the order: room in the journal, and new chunks where it shares a chunk only in part.
//
// Invariant: what cannot be prepared has changed nothing.
import { AssertionError } from 'node:assert/strict'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import type { Operation } from '../core/operation.js'
import { sharedChunks } from './apply-operation.js'
import type { Committer } from './committer.js'
import type { DataPath } from './data-path.js'
import { type GroupState, storeOf } from './group-state.js'

type Edge = Parameters<DataPath['prepareChunk']>[0]

/** Chunks that an operation needs besides the maps' sharing: prepared before its sequence, installed with it. */
export type Prepared = readonly { readonly install: () => void; readonly drop: () => void }[]

/** Writes the chunks that the operation shares only in part. No write to its stores may be under way until the end of what is prepared. Rejects with NO_SPACE or IO_ERROR. */
export async function prepareOperation(
  parts: { readonly state: GroupState; readonly committer: Committer; readonly io: DataPath },
  operation: Operation,
): Promise<Prepared> {
  const { state, committer, io } = parts
  const prepared: Prepared[number][] = []
  const isDelete = operation.kind === 'delete'
  const needBytes = JSON.stringify(operation).length + 256
  try {
    if (!committer.hasRoom(needBytes, isDelete ? 0 : limits.journalReserveBytes)) await io.reclaim()
    if (!committer.hasRoom(needBytes, isDelete ? 0 : limits.journalReserveBytes / 2))
      throw journalFull()
    for (const one of operation.kind === 'batch' ? operation.operations : [operation]) {
      for (const edge of edgesOf(state, one)) prepared.push(await io.prepareChunk(edge))
    }
    return prepared
  } catch (error) {
    for (const one of prepared) one.drop()
    throw refusalOf(error)
  }
}

/** Chunks of which an operation changes a part only. */
function edgesOf(state: GroupState, operation: Operation): readonly Edge[] {
  const { chunkBytes } = state
  if (operation.kind === 'resize') {
    // The bytes behind the smaller of both ends: one that shrinks must not show them again when it grows. One that grows writes behind its old end from now on, and a crash
    // that loses the growth must lose those writes too: in place they would stay, and the next growth would show them.
    const base = storeOf(state, operation.storeId)
    const smallerBytes = Math.min(operation.sizeBytes, base.sizeBytes)
    const from = smallerBytes % chunkBytes
    const chunk = Math.floor(smallerBytes / chunkBytes)
    if (operation.sizeBytes === base.sizeBytes || from === 0 || base.map.get(chunk) === 0) return []
    return [{ base, chunk, from, end: chunkBytes }]
  }
  if (operation.kind !== 'copy' || operation.range === undefined) return []
  const source = storeOf(state, operation.sourceId)
  const base = storeOf(state, operation.targetId)
  const { offset, lengthBytes } = operation.range
  const end = offset + lengthBytes
  const shared = sharedChunks(operation.range, {
    sourceBytes: source.sizeBytes,
    targetBytes: base.sizeBytes,
    chunkBytes,
  })
  const chunks = new Set<number>()
  if (offset < Math.min(end, shared.first * chunkBytes)) chunks.add(Math.floor(offset / chunkBytes))
  if (end > Math.max(offset, shared.end * chunkBytes))
    chunks.add(Math.floor((end - 1) / chunkBytes))
  return [...chunks]
    .filter((chunk) => base.map.get(chunk) !== source.map.get(chunk))
    .map((chunk) => {
      const start = chunk * chunkBytes
      return {
        base,
        chunk,
        source,
        from: Math.max(0, offset - start),
        end: Math.min(chunkBytes, end - start),
      }
    })
}

/** Why an operation could not be prepared, for people. */
function refusalOf(error: unknown): unknown {
  if (error instanceof LockstepError || error instanceof AssertionError) return error
  const errno = errnoNameOf(error)
  if (errno === 'ENOSPC' || errno === 'EDQUOT' || errno === 'EFBIG') return journalFull()
  return new LockstepError(
    'IO_ERROR',
    `the data file failed (${errno}); nothing was changed`,
    'check the medium and the kernel log, then try again',
  )
}

function journalFull(): LockstepError {
  return new LockstepError(
    'NO_SPACE',
    'there is no room for this operation',
    'delete a snapshot, or give the pool more space',
  )
}
