// The judge itself: what it calls legal and what not.
import t from 'tap'
import type { OperationRequest } from '../../src/core/operation.js'
import { Oracle, type StoreImage, type WriteEntry } from './oracle.js'

const sizeBytes = 2048

class History {
  readonly oracle = new Oracle()

  perform(
    request: OperationRequest,
    state: 'acknowledged' | 'failed' | 'none' = 'acknowledged',
  ): void {
    const entry = this.oracle.operation(request)
    if (state !== 'none') this.oracle.settleOperation(entry, state)
  }

  write(name: string, offset: number, lengthBytes: number, isAcknowledged = true): WriteEntry {
    const storeId = this.oracle.catalog.find(name)?.id ?? -1
    const entry = this.oracle.write({ storeId, offset, lengthBytes, fua: false, zero: false })
    if (isAcknowledged) this.oracle.settleWrite(entry, 'acknowledged')
    return entry
  }

  flush(name: string): void {
    this.oracle.acknowledgeFlush(this.oracle.flush(this.oracle.catalog.find(name)?.id ?? -1))
  }

  isLegal(images: readonly StoreImage[], judgement: 'crash' | 'live' = 'crash'): boolean {
    return typeof this.oracle.judge(images, judgement) !== 'string'
  }
}

/** A store's content: zeroes with the sectors of these writes laid over them. */
function image(
  name: string,
  ...parts: readonly { entry: WriteEntry; sectors: readonly number[] }[]
): StoreImage {
  const bytes = Buffer.alloc(sizeBytes)
  for (const { entry, sectors } of parts) {
    for (const sector of sectors) {
      const from = sector * 512 - entry.offset
      entry.data?.copy(bytes, sector * 512, from, from + 512)
    }
  }
  return { name, bytes }
}

function withVolume(): History {
  const history = new History()
  history.perform({ kind: 'volume.create', name: 'a', sizeBytes })
  return history
}

const snapshot: OperationRequest = { kind: 'snapshot.create', stores: ['a'], name: 's' }

t.test('what nobody flushed is old or new, sector by sector', async (t) => {
  const history = withVolume()
  const entry = history.write('a', 0, 1024)
  for (const sectors of [[], [0], [1], [0, 1]])
    t.ok(history.isLegal([image('a', { entry, sectors })]))
  t.notOk(history.isLegal([image('a', { entry, sectors: [0] })], 'live'), 'readers see all of it')
  history.flush('a')
  for (const sectors of [[], [0], [1]]) t.notOk(history.isLegal([image('a', { entry, sectors })]))
  t.ok(history.isLegal([image('a', { entry, sectors: [0, 1] })]))
})

t.test('a write that was flushed is visible unless a later one is', async (t) => {
  const history = withVolume()
  const first = history.write('a', 0, 512)
  history.flush('a')
  const second = history.write('a', 0, 512, false)
  t.ok(history.isLegal([image('a', { entry: first, sectors: [0] })]))
  t.ok(history.isLegal([image('a', { entry: second, sectors: [0] })]))
  t.notOk(history.isLegal([image('a')]))
})

t.test('a flush covers only what was acknowledged before it', async (t) => {
  const history = withVolume()
  const late = history.write('a', 0, 512, false)
  history.flush('a')
  t.ok(history.isLegal([image('a')]))
  t.ok(history.isLegal([image('a', { entry: late, sectors: [0] })]))
})

t.test('an acknowledged operation was performed; another one may have been', async (t) => {
  const history = withVolume()
  history.perform(snapshot, 'none')
  t.ok(history.isLegal([image('a')]))
  t.ok(history.isLegal([image('a'), image('a@s')]))
  t.notOk(history.isLegal([image('a@s')]))
  const other = withVolume()
  other.perform(snapshot)
  t.notOk(other.isLegal([image('a')]))
})

t.test('a failed operation is out once something after it is durable', async (t) => {
  const history = withVolume()
  history.perform(snapshot, 'failed')
  t.ok(history.isLegal([image('a'), image('a@s')]))
  history.flush('a')
  t.notOk(history.isLegal([image('a'), image('a@s')]))
})

t.test('a flush that was asked for before an operation failed says nothing about it', async (t) => {
  const history = withVolume()
  const { oracle } = history
  const operation = oracle.operation(snapshot)
  const flush = oracle.flush(oracle.catalog.find('a')?.id ?? -1)
  oracle.settleOperation(operation, 'failed')
  oracle.acknowledgeFlush(flush)
  t.ok(history.isLegal([image('a'), image('a@s')]))
  t.ok(history.isLegal([image('a')]))
})

t.test('a failed operation may have had no effect, whatever took effect behind it', async (t) => {
  const history = withVolume()
  history.perform(snapshot, 'failed')
  history.perform({ kind: 'volume.create', name: 'b', sizeBytes }, 'none')
  t.ok(history.isLegal([image('a'), image('a@s'), image('b')]))
  t.ok(history.isLegal([image('a'), image('b')]), 'refused where it stood')
  t.ok(history.isLegal([image('a'), image('a@s')]))
  t.notOk(history.isLegal([image('a@s'), image('b')]))
  history.perform({ kind: 'snapshot.restore', store: 'a@s' } as OperationRequest, 'none')
  t.ok(history.isLegal([image('a'), image('b')]), 'what needs it did not happen either')
})

t.test('a snapshot holds no later write, and every durable earlier one', async (t) => {
  const history = withVolume()
  const before = history.write('a', 0, 512)
  history.flush('a')
  history.perform(snapshot)
  const after = history.write('a', 0, 512)
  const present = image('a', { entry: after, sectors: [0] })
  t.ok(history.isLegal([present, image('a@s', { entry: before, sectors: [0] })]))
  t.notOk(history.isLegal([present, image('a@s', { entry: after, sectors: [0] })]))
  t.notOk(history.isLegal([present, image('a@s')]))
})

t.test('a write was lost in every store that an operation carried it to, or in none', async (t) => {
  const history = withVolume()
  const entry = history.write('a', 0, 512)
  history.perform(snapshot)
  const kept = (name: string) => image(name, { entry, sectors: [0] })
  t.ok(history.isLegal([kept('a'), kept('a@s')]))
  t.ok(history.isLegal([image('a'), image('a@s')]))
  t.notOk(history.isLegal([kept('a'), image('a@s')]))
  t.notOk(history.isLegal([image('a'), kept('a@s')]))
})

t.test('bytes of another store or place are never legal', async (t) => {
  const history = withVolume()
  history.perform({ kind: 'volume.create', name: 'b', sizeBytes })
  const entry = history.write('b', 0, 512)
  t.notOk(history.isLegal([image('a', { entry, sectors: [0] }), image('b')]))
  const moved = image('b')
  entry.data?.copy(moved.bytes, 512)
  t.notOk(history.isLegal([image('a'), moved]))
})

t.test('what was cut off is zeroes when the volume grows again', async (t) => {
  const history = withVolume()
  const entry = history.write('a', 0, sizeBytes)
  history.flush('a')
  history.perform({ kind: 'volume.resize', name: 'a', sizeBytes: 512 })
  history.perform({ kind: 'volume.resize', name: 'a', sizeBytes })
  t.ok(history.isLegal([image('a', { entry, sectors: [0] })]))
  t.notOk(history.isLegal([image('a', { entry, sectors: [0, 1, 2, 3] })]))
})

t.test('of operations that failed not every choice is possible', async (t) => {
  const history = withVolume()
  history.perform(snapshot)
  const grown = image('a')
  history.perform({ kind: 'volume.resize', name: 'a', sizeBytes: 512 }, 'failed')
  const range = { offset: 1024 as never, lengthBytes: 512 }
  history.perform({ kind: 'snapshot.restore', store: 'a@s', range }, 'failed')
  t.ok(history.isLegal([grown, image('a@s')]), 'the range is there unless the volume was cut')
  t.ok(history.isLegal([{ name: 'a', bytes: Buffer.alloc(512) }, image('a@s')]))
  t.notOk(history.isLegal([{ name: 'a', bytes: Buffer.alloc(1024) }, image('a@s')]))
})

t.test('a durable write behind an operation means that the operation was performed', async (t) => {
  const history = withVolume()
  history.perform(snapshot, 'none')
  const entry = history.write('a', 0, 512)
  t.ok(history.isLegal([image('a', { entry, sectors: [0] })]))
  history.flush('a')
  t.notOk(history.isLegal([image('a', { entry, sectors: [0] })]))
  t.ok(history.isLegal([image('a', { entry, sectors: [0] }), image('a@s')]))
})
