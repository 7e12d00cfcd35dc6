// Law 2 as a check: what two media hold when both nodes have stopped differs at most where the primary's medium says so, once the peer has performed
// the operations that the primary's medium keeps for it. And the naive performer of those operations, on plain bytes.
import assert from 'node:assert/strict'
import { unreachable } from '../../../src/core/errors.js'
import type { Operation } from '../../../src/core/operation.js'
import { blockBytes } from '../../../src/core/units.js'
import { LawBroken } from '../laws.js'
import { describeSector } from '../tags.js'
import type { Inspection } from './pair-subject.js'

type Bytes = Map<number, Buffer>

/** What the comparison came to, for the counts. */
export type Difference = 'untracked' | 'lost' | 'apart' | 'equal' | 'different'

/** Throws LawBroken when the two differ where nothing says so. */
export function checkDifference(primary: Inspection, secondary: Inspection): Difference {
  const { tracking } = primary
  if (!tracking) {
    if (secondary.isWhole) throw new LawBroken('the peer is whole, and nothing tracks what it has')
    return 'untracked'
  }
  if (tracking.isLost) return 'lost'
  const position = positionIn(primary, secondary)
  if (position === undefined) {
    if (secondary.isWhole) throw new LawBroken('the peer is whole in a history that nobody knows')
    return 'apart'
  }
  const copies: Bytes = new Map(secondary.stores.map(({ id, bytes }) => [id, Buffer.from(bytes)]))
  for (const { sequence, operation } of tracking.opLog) {
    if (sequence > position) performNaively(copies, operation)
  }
  const ids = primary.stores.map(({ id }) => id).sort((a, b) => a - b)
  const copyIds = [...copies.keys()].sort((a, b) => a - b)
  if (ids.join() !== copyIds.join()) {
    throw new LawBroken(
      `behind the op log the peer has stores ${copyIds.join()}, not ${ids.join()}`,
    )
  }
  let isEqual = true
  for (const { id, name, bytes } of primary.stores) {
    const copy = copies.get(id)
    assert(copy)
    if (copy.length !== bytes.length) {
      throw new LawBroken(`${name} has ${copy.length} bytes on the peer, not ${bytes.length}`)
    }
    for (let offset = 0; offset < bytes.length; offset += blockBytes) {
      const end = Math.min(bytes.length, offset + blockBytes)
      if (bytes.compare(copy, offset, end, offset, end) === 0) continue
      isEqual = false
      if (tracking.mayDiffer(id, offset)) continue
      throw new LawBroken(describeBlock(name, bytes.subarray(0, end), copy, offset))
    }
  }
  return isEqual ? 'equal' : 'different'
}

/** How far the peer has come in the primary's history; undefined when its history is another one. */
function positionIn(primary: Inspection, secondary: Inspection): number | undefined {
  const { generation, sequence } = secondary.position
  const index = primary.generations.findIndex((record) => record.generation === generation)
  // A blank node has a history of its own until it is given the table of stores.
  const isReset = primary.tracking?.opLog.some(({ operation }) => operation.kind === 'reset')
  if (index < 0) return isReset ? 0 : undefined
  const child = primary.generations[index + 1]
  return child ? Math.min(sequence, child.forkSequence) : sequence
}

function describeBlock(name: string, bytes: Buffer, copy: Buffer, offset: number): string {
  let at = offset
  while (bytes[at] === copy[at]) at++
  const sector = at - (at % 512)
  return [
    `law 2: ${name} differs at ${at}, in a block that is neither dirty nor active`,
    `    primary: ${describeSector(bytes.subarray(sector, sector + 512), sector)}`,
    `    peer:    ${describeSector(copy.subarray(sector, sector + 512), sector)}`,
  ].join('\n')
}

/** What an operation does to bytes, by the book. */
export function performNaively(stores: Bytes, operation: Operation): void {
  switch (operation.kind) {
    case 'create-volume':
      stores.set(operation.storeId, Buffer.alloc(operation.sizeBytes))
      return
    case 'create-snapshots':
      for (const { storeId, sourceId } of operation.snapshots) {
        stores.set(storeId, Buffer.from(bytesOf(stores, sourceId)))
      }
      return
    case 'delete':
      bytesOf(stores, operation.storeId)
      stores.delete(operation.storeId)
      return
    case 'resize': {
      const resized = Buffer.alloc(operation.sizeBytes)
      bytesOf(stores, operation.storeId).copy(resized)
      stores.set(operation.storeId, resized)
      return
    }
    case 'copy': {
      const source = bytesOf(stores, operation.sourceId)
      const target = bytesOf(stores, operation.targetId)
      const { range } = operation
      if (!range) stores.set(operation.targetId, Buffer.from(source))
      else source.copy(target, range.offset, range.offset, range.offset + range.lengthBytes)
      return
    }
    case 'batch':
      for (const one of operation.operations) performNaively(stores, one)
      return
    case 'reset':
      stores.clear()
      for (const { id, sizeBytes } of operation.table.stores)
        stores.set(id, Buffer.alloc(sizeBytes))
      return
    case 'rename':
    case 'new-generation':
    case 'resync-end':
    case 'mark':
    case 'freeze':
    case 'thaw':
      return
    default:
      unreachable(operation)
  }
}

function bytesOf(stores: Bytes, id: number): Buffer {
  const bytes = stores.get(id)
  if (!bytes) throw new LawBroken(`the op log names store ${id}, which the peer does not have`)
  return bytes
}
