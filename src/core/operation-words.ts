// What is wrong with the words of an operation whatever stores there are: names, sizes and ranges. Who takes an operation from people refuses it here, before
// anybody is asked; whoever performs it looks again, and at the stores as well.
import { LockstepError, unreachable } from './errors.js'
import type { OperationRequest } from './operation.js'
import {
  checkNamePart,
  checkSnapshotName,
  checkStoreName,
  checkUnreserved,
  checkVolumeName,
} from './store-name.js'
import type { ByteRange } from './units.js'
import { checkVolumeSize } from './volume-size.js'

export type SingleRequest = Exclude<OperationRequest, { kind: 'batch' }>

/** Which of a batch is meant: people count from 1. */
export function placeInBatch(kind: SingleRequest['kind'] | undefined, index: number): string {
  return `operation ${index + 1}${kind === undefined ? '' : ` (${kind})`}`
}

/** `request` itself. Throws INVALID_NAME, INVALID_SIZE, OUT_OF_RANGE or INVALID_ARGUMENT. */
export function checkOperationWords<R extends SingleRequest>(request: R): R {
  checkWords(request)
  return request
}

function checkWords(request: SingleRequest): void {
  switch (request.kind) {
    case 'volume.create':
      checkNamePart(request.name)
      checkVolumeSize(request.sizeBytes)
      return
    case 'volume.delete':
      checkVolumeName(request.name)
      return
    case 'volume.rename':
      checkVolumeName(request.name)
      checkNamePart(request.newName)
      return
    case 'volume.resize':
      checkVolumeName(request.name)
      checkVolumeSize(request.sizeBytes)
      return
    case 'snapshot.create':
      checkNewSnapshots(request)
      return
    case 'snapshot.rename':
      checkSnapshotName(request.store)
      checkUnreserved(checkNamePart(request.newName))
      return
    case 'snapshot.delete':
    case 'snapshot.refresh':
      checkSnapshotName(request.store)
      return
    case 'snapshot.restore':
      checkSnapshotName(request.store)
      checkRange(request.range)
      return
    case 'sync':
      checkSync(request)
      return
    default:
      unreachable(request)
  }
}

function checkNewSnapshots({
  stores,
  name,
}: Extract<SingleRequest, { kind: 'snapshot.create' }>): void {
  if (stores !== 'all') {
    for (const store of stores) checkStoreName(store)
    const twice = stores.find((store, index) => stores.indexOf(store) !== index)
    if (twice !== undefined)
      throw new LockstepError(
        'INVALID_ARGUMENT',
        `${twice}@${name} is given twice`,
        'name each store once',
      )
  }
  checkUnreserved(checkNamePart(name))
}

function checkSync({ source, target, range }: Extract<SingleRequest, { kind: 'sync' }>): void {
  checkStoreName(source)
  checkStoreName(target)
  if (source === target)
    throw new LockstepError(
      'INVALID_ARGUMENT',
      'source and target are the same store',
      'name two different stores',
    )
  checkRange(range)
}

/** Inside some store: no store has more than 2^53 - 1 bytes. */
function checkRange(range: ByteRange | undefined): void {
  if (range === undefined) return
  const { offset, lengthBytes } = range
  if (lengthBytes > 0 && Number.isSafeInteger(offset + lengthBytes)) return
  const what = lengthBytes > 0 ? 'ends beyond what any store has' : 'is empty'
  throw new LockstepError(
    'OUT_OF_RANGE',
    `the range ${offset}:${lengthBytes} ${what}`,
    'give OFFSET:LENGTH inside both stores, such as 0:64K',
  )
}
