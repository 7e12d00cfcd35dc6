// A pool with a peer: what begins and ends tracking, what a restart finds, stores of this node's own, and a journal without room.
import t from 'tap'
import { silentLog } from '../../src/core/log.js'
import type { Operation } from '../../src/core/operation.js'
import { extentBytes, MiB, type Sequence, type StoreId } from '../../src/core/units.js'
import { firstLocalId, type Store } from '../../src/storage/group-state.js'
import { initPool } from '../../src/storage/init-pool.js'
import { Pool } from '../../src/storage/pool.js'
import type { SimMedium } from '../simulation/sim-medium.js'
import { chunkBytes, filled, journalBytes, SmallDisk } from '../support/small-node.js'

/** A pool on a small simulated disk, without an engine. */
class PoolBench extends SmallDisk {
  pool!: Pool

  static async start(
    options: { readonly medium?: SimMedium; readonly role?: 'secondary' } = {},
  ): Promise<PoolBench> {
    const { medium, role } = options
    const bench = new PoolBench(medium === undefined ? {} : { medium })
    const init = { node: 'a', random: bench.random, chunkBytes, journalBytes }
    if (medium === undefined)
      await bench.run(initPool(bench.disk, { ...init, ...(role === undefined ? {} : { role }) }))
    bench.pool = await bench.run(
      Pool.open({
        disk: bench.disk,
        clock: bench.clock,
        random: bench.random.fork('open'),
        log: silentLog,
        appliedSequence: () => undefined,
        onEvent: () => {},
      }),
    )
    return bench
  }

  perform(operation: Operation): number {
    const sequence = (this.pool.state.sequence + 1) as Sequence
    this.pool.perform({ kind: 'operation', sequence, at: 'now', operation }, [])
    return sequence
  }

  volume(sizeBytes = 8 * MiB): Store {
    const storeId = this.pool.state.nextStoreId as StoreId
    this.perform({ kind: 'create-volume', storeId, name: `v${storeId}`, sizeBytes })
    return this.store(storeId)
  }

  store(storeId: number): Store {
    return this.pool.state.stores.get(storeId as StoreId) as Store
  }

  /** A blank peer begins; everything allocated is dirty. */
  async track(): Promise<void> {
    this.pool.beginTracking('b')
    const table = { group: 'g', generations: [], nextStoreId: 2, stores: [] }
    this.perform({ kind: 'reset', table })
    await this.run(this.pool.commit())
  }

  async write(store: Store, offset: number): Promise<void> {
    await this.run(Promise.resolve(this.pool.write(store, offset, chunkBytes, [filled(1)])))
  }
}

t.test('without a peer nothing is tracked, and nothing is held', async (t) => {
  const bench = await PoolBench.start()
  const volume = bench.volume()
  t.equal(bench.pool.tracking, undefined)
  t.equal(bench.pool.hold(volume.id, 0, 4096), undefined)
  bench.pool.drop(volume.id, 0, 4096)
  await bench.write(volume, 0)
  await bench.run(bench.pool.commit())
})

t.test('tracking begins lost, and a reset makes dirty what is allocated', async (t) => {
  const bench = await PoolBench.start()
  const volume = bench.volume()
  await bench.write(volume, 5 * chunkBytes)
  const tracking = bench.pool.beginTracking('b')
  t.equal(tracking.isLost, true)
  const table = { group: 'g', generations: [], nextStoreId: 2, stores: [] }
  bench.perform({ kind: 'reset', table })
  t.equal(tracking.isLost, false)
  t.strictSame(tracking.nextDirty(volume.id, 0), {
    offset: 5 * chunkBytes,
    lengthBytes: chunkBytes,
  })
  t.equal(tracking.opLog.length, 1)
})

t.test('a restart finds the peer, what is dirty and what was acknowledged', async (t) => {
  for (const isClean of [true, false]) {
    const bench = await PoolBench.start()
    const volume = bench.volume()
    await bench.write(volume, 0)
    await bench.track()
    const { state } = bench.pool
    const generation = state.generations[0]?.generation as never
    bench.pool.tracking?.acknowledged({ generation, sequence: 2 as Sequence })
    bench.pool.tracking?.clean(volume.id, { offset: 0 as never, lengthBytes: chunkBytes })
    bench.pool.tracking?.mark(volume.id, { offset: MiB as never, lengthBytes: 1 })
    const held = bench.pool.hold(volume.id, extentBytes, 512)
    await bench.run(held as Promise<void>)
    if (isClean) {
      bench.pool.drop(volume.id, extentBytes, 512)
      await bench.run(bench.pool.close({ sequence: state.sequence }))
    } else await bench.run(bench.pool.commit())
    const next = await PoolBench.start({ medium: bench.kill() })
    const { tracking } = next.pool
    t.equal(next.pool.state.peer?.nodeId, 'b')
    t.strictSame(tracking?.acknowledgedPosition, { generation, sequence: 2 })
    t.equal(tracking?.isDirty(volume.id, 0, 1), false)
    t.equal(tracking?.isDirty(volume.id, MiB, 1), true)
    t.equal(tracking?.isDirty(volume.id, extentBytes, 1), !isClean)
    t.equal(tracking?.isSuspect(volume.id, extentBytes), !isClean)
    t.equal(tracking?.opLog.length, isClean ? 0 : 1, 'acknowledged, but for a new generation')
  }
})

t.test('an unclean start of a primary with a peer is an operation, far ahead', async (t) => {
  const bench = await PoolBench.start()
  bench.volume()
  await bench.track()
  const before = bench.pool.state.sequence
  const next = await PoolBench.start({ medium: bench.kill() })
  const { state, tracking } = next.pool
  t.equal(state.sequence, before + 2 ** 32)
  t.equal(tracking?.leftSequence, state.sequence)
  t.match(tracking?.opLog.at(-1)?.operation, {
    kind: 'new-generation',
    record: { forkSequence: before, isUnclean: true },
  })
  t.equal(state.generations.at(-1)?.isUnclean, true)
})

t.test(
  'an unclean start is far ahead with a lost op log as well: a reset must be new to the peer',
  async (t) => {
    const bench = await PoolBench.start()
    bench.volume()
    bench.pool.beginTracking('b')
    await bench.run(bench.pool.commit())
    const before = bench.pool.state.sequence
    const next = await PoolBench.start({ medium: bench.kill() })
    const { state, tracking } = next.pool
    t.equal(tracking?.isLost, true)
    t.equal(state.sequence, before + 2 ** 32)
    t.equal(tracking?.leftSequence, state.sequence)
    t.match(state.generations.at(-1), { forkSequence: before, isUnclean: true })
    const again = await PoolBench.start({ medium: next.kill() })
    t.equal(again.pool.state.sequence, before + 2 * 2 ** 32, 'and the journal knows it')
  },
)

t.test('each start is a run, and what a secondary has seen outlives it', async (t) => {
  const bench = await PoolBench.start({ role: 'secondary' })
  const sighting = { nodeId: 'a', runId: 'r1', batchNumber: 7 }
  bench.pool.sawPrimary(sighting)
  await bench.run(bench.pool.commit())
  const lost = { ...sighting, batchNumber: 8 }
  const unsynced = await PoolBench.start({ medium: bench.kill() })
  t.strictSame(unsynced.pool.primarySeen, sighting, 'any commit takes it along')
  unsynced.pool.sawPrimary(sighting)
  unsynced.pool.markNotWhole()
  await unsynced.run(unsynced.pool.commit())
  unsynced.pool.sawPrimary(lost)
  const next = await PoolBench.start({ medium: unsynced.kill() })
  t.strictSame(next.pool.primarySeen, sighting)
  await next.run(next.pool.close({ sequence: 0 }))
  const last = await PoolBench.start({ medium: next.kill() })
  t.strictSame(last.pool.primarySeen, sighting, 'in the checkpoint as well')
  const { runs } = last.pool.state
  t.equal(runs.length, 4)
  for (const [index, run] of runs.entries())
    t.ok(run.startBatch >= (runs[index - 1]?.startBatch ?? 0))
})

t.test('an unclean start of a secondary begins no history', async (t) => {
  const bench = await PoolBench.start({ role: 'secondary' })
  const next = await PoolBench.start({ medium: bench.kill() })
  t.equal(next.pool.state.generations.length, 1)
})

t.test('a secondary that is not whole stays so until the resync ends', async (t) => {
  let bench = await PoolBench.start()
  bench.pool.markNotWhole()
  await bench.run(bench.pool.commit())
  bench = await PoolBench.start({ medium: bench.kill() })
  t.equal(bench.pool.state.isWhole, false)
  bench.perform({ kind: 'resync-end' })
  await bench.run(bench.pool.commit())
  bench = await PoolBench.start({ medium: bench.kill() })
  t.equal(bench.pool.state.isWhole, true)
})

t.test('stores of the node itself outlive their source, a reset and a restart', async (t) => {
  let bench = await PoolBench.start()
  const volume = bench.volume()
  await bench.write(volume, 0)
  const { sequence } = bench.pool.state
  t.equal(bench.pool.nextLocalId, firstLocalId)
  const storeId = bench.pool.nextLocalId as StoreId
  const snapshots = [{ storeId, sourceId: volume.id, name: 'before-resync/v1' }]
  bench.pool.performLocal({ kind: 'create-snapshots', snapshots })
  t.equal(bench.pool.state.sequence, sequence, 'it takes no sequence')
  await bench.write(volume, 0)
  bench.perform({ kind: 'delete', storeId: volume.id })
  await bench.run(bench.pool.commit())
  bench = await PoolBench.start({ medium: bench.kill() })
  t.match(bench.store(storeId), { name: 'before-resync/v1', volumeId: undefined })
  const bytes = Buffer.alloc(chunkBytes)
  await bench.run(Promise.resolve(bench.pool.read(bench.store(storeId), 0, bytes)))
  t.ok(bytes.equals(filled(1)))
  t.equal(bench.pool.nextLocalId, firstLocalId + 1, 'an id is given once')
  bench.pool.checkInvariants()
  bench.pool.performLocal({ kind: 'delete', storeId })
  await bench.run(bench.pool.close({ sequence: bench.pool.state.sequence }))
  bench = await PoolBench.start({ medium: bench.kill() })
  t.equal(bench.store(storeId), undefined)
  t.equal(bench.pool.nextLocalId, firstLocalId + 1)
})

t.test('a forgotten peer is forgotten after a restart', async (t) => {
  const bench = await PoolBench.start()
  const volume = bench.volume()
  await bench.track()
  bench.pool.endTracking()
  t.equal(bench.pool.hold(volume.id, 0, 512), undefined)
  await bench.run(bench.pool.commit())
  const next = await PoolBench.start({ medium: bench.kill() })
  t.equal(next.pool.tracking, undefined)
  t.equal(next.pool.state.peer, undefined)
})

t.test('a burst that the journal has no room for loses the difference, not the pool', async (t) => {
  const bench = await PoolBench.start()
  const volume = bench.volume(1024 * MiB)
  await bench.track()
  const { tracking } = bench.pool
  let sequence = bench.pool.state.sequence
  for (let block = 0; block < 40_000 && tracking?.isLost === false; block++) {
    const place = { storeId: volume.id, offset: 2 * block * 4096, lengthBytes: 4096 }
    const entry = { kind: 'write', sequence: ++sequence as Sequence, ...place } as const
    tracking.lacked({ ...entry, fua: false, parts: [] })
  }
  t.equal(tracking?.isLost, true)
  await bench.run(bench.pool.commit())
  const next = await PoolBench.start({ medium: bench.kill() })
  t.equal(next.pool.tracking?.isLost, true)
  const table = { group: 'g', generations: [], nextStoreId: 2, stores: [] }
  next.perform({ kind: 'reset', table })
  t.equal(next.pool.tracking?.isLost, false)
  await next.run(next.pool.commit())
})
