// A resync's hands on a real pool: it sees the stores of the stream and what is dirty there now, and shares only what is still shared at its place in the order.
import t from 'tap'
import type { DataOperation, Operation } from '../../src/core/operation.js'
import { byteOffset, type Sequence, type StoreId } from '../../src/core/units.js'
import type { PrimaryStream } from '../../src/engine/primary-stream.js'
import { resyncHost } from '../../src/engine/resync-host.js'
import type { DataEntry, Sequencer } from '../../src/engine/sequencer.js'
import { storeOf } from '../../src/storage/group-state.js'
import { SeededRandom } from '../simulation/random.js'
import { ManualClock } from '../support/manual-clock.js'
import { TrackedNode } from '../support/tracked-node.js'

const [v, a, w] = [1, 2, 3].map((id) => id as StoreId) as [StoreId, StoreId, StoreId]

/** A volume `v` of four chunks, its snapshot `a` which shares all of them, and a volume `w`; a peer that is tracked. */
async function start() {
  const node = new TrackedNode({ random: new SeededRandom(9) })
  await node.init()
  await node.attachBlank()
  const { pool } = node
  const perform = (operation: Operation): void => {
    const sequence = (pool.state.sequence + 1) as Sequence
    pool.perform({ kind: 'operation', sequence, at: '2024-01-01T00:00:00Z', operation }, [])
  }
  perform({ kind: 'create-volume', storeId: v, name: 'v', sizeBytes: 16_384 })
  const volume = storeOf(pool.state, v)
  for (let chunk = 0; chunk < 4; chunk++) {
    const written = pool.write(volume, chunk * 4096, 4096, [Buffer.alloc(4096, chunk + 1)])
    if (written !== undefined) await node.run(written)
  }
  const snapshots = [{ storeId: a, sourceId: v, name: 'a' }]
  perform({ kind: 'create-snapshots', snapshots })
  perform({ kind: 'create-volume', storeId: w, name: 'w', sizeBytes: 4096 })
  // They have left the outbox: so they are tracked.
  pool.tracking?.recover([])
  const chosen: DataOperation[] = []
  const submitted: DataEntry[] = []
  const stream = {
    clientsUnderWay: 2,
    isCalm: true,
    drained: async () => {},
  } as unknown as PrimaryStream
  const sequencer = {
    lastSequence: 7 as Sequence,
    isHolding: false,
    whenOpen: async () => {},
    submit: (entry: DataEntry) => {
      submitted.push(entry)
      entry.left?.(true)
      return undefined
    },
  } as unknown as Sequencer
  const host = resyncHost({
    pool,
    sequencer,
    stream,
    clock: new ManualClock(),
    pieceBytesMax: 8192,
    operate: async (choose) => void chosen.push(...choose()),
    end: () => {},
    mutants: new Set(),
  })
  return { node, pool, perform, host, chosen, submitted, sequencer }
}

t.test('it sees the stores of the stream, and none that the node keeps for itself', async (t) => {
  const { pool, host } = await start()
  const told = [
    { id: v, sizeBytes: 16_384, isVolume: true },
    { id: a, sizeBytes: 16_384, isVolume: false },
    { id: w, sizeBytes: 4096, isVolume: true },
  ]
  t.same(host.view.stores(), told)
  const snapshots = [{ storeId: pool.nextLocalId as StoreId, sourceId: v, name: 'v@local.x' }]
  pool.performLocal({ kind: 'create-snapshots', snapshots })
  t.same(host.view.stores(), told)
  t.equal(host.view.stores(), host.view.stores(), 'as long as nothing changes it is the same list')
  t.equal(host.view.place(v, 1), host.view.place(a, 1))
  t.equal(host.view.place(w, 0), 0)
  t.equal(host.view.place(99 as StoreId, 0), 0)
  t.equal(host.clientsWaiting(), true)
})

t.test('what is dirty ends where the store ends now', async (t) => {
  const { pool, host, perform } = await start()
  pool.tracking?.mark(v, { offset: byteOffset(4096), lengthBytes: 12_288 })
  t.same(host.view.nextDirty(v, 0, 16_384), { offset: 4096, lengthBytes: 12_288 })
  t.equal(host.view.isDirty(v, 8192, 4096), true)
  perform({ kind: 'resize', storeId: v, sizeBytes: 6144 })
  t.same(host.view.nextDirty(v, 0, 16_384), { offset: 4096, lengthBytes: 2048 })
  t.equal(host.view.nextDirty(99 as StoreId, 0, 4096), undefined)
})

t.test('it shares what is shared when everything before took effect', async (t) => {
  const { node, pool, host, chosen } = await start()
  const range = { offset: byteOffset(0), lengthBytes: 8192 }
  const copy = { sourceId: v, targetId: a, range }
  const submit = () => host.submit({ kind: 'share', copies: [copy] } as never, { isUrgent: false })
  await submit()
  t.same(chosen, [{ kind: 'copy', reason: 'share', ...copy }])
  const written = pool.write(storeOf(pool.state, v), 4096, 4096, [Buffer.alloc(4096, 9)])
  if (written !== undefined) await node.run(written)
  await submit()
  t.equal(chosen.length, 1, 'a client wrote to one of the chunks meanwhile')
  const beyond = { ...copy, targetId: w }
  await host.submit({ kind: 'share', copies: [beyond] } as never, { isUrgent: false })
  t.equal(chosen.length, 1, 'the target is shorter now')
})

t.test('a piece is an entry of the stream; a store that is gone has none', async (t) => {
  const { host, submitted, perform } = await start()
  const send = { kind: 'send', storeId: w, offset: 0, lengthBytes: 4096 }
  await host.submit(send as never, { isUrgent: true })
  t.match(submitted, [{ kind: 'resend', offset: 0, lengthBytes: 4096, fua: true, parts: [] }])
  await host.submit({ ...send, kind: 'zero' } as never, { isUrgent: false })
  t.match(submitted.at(-1), { kind: 'zero', mayUnmap: true, fua: false })
  perform({ kind: 'delete', storeId: w })
  await host.submit(send as never, { isUrgent: false })
  t.equal(submitted.length, 2)
})

t.test('data that an operation would come before is planned again', async (t) => {
  const { host, submitted, sequencer } = await start()
  Object.assign(sequencer, { isHolding: true })
  const send = { kind: 'send', storeId: v, offset: 0, lengthBytes: 4096 }
  await host.submit(send as never, { isUrgent: false })
  t.same(submitted, [], 'behind it the chunk may be shared')
  await host.submit({ ...send, kind: 'compare' } as never, { isUrgent: false })
  t.match(submitted, [{ kind: 'compare' }])
})
