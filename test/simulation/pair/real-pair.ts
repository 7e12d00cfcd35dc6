// The real engine as the subject of the checker of two nodes. What a medium holds is told by the pool's own recovery, without an engine above it.
import assert from 'node:assert/strict'
import { silentLog } from '../../../src/core/log.js'
import { beforeResyncName } from '../../../src/core/store-name.js'
import { Engine, initGroup } from '../../../src/engine/engine.js'
import {
  fullName,
  type GroupState,
  isLocalId,
  presentGeneration,
  type Store,
} from '../../../src/storage/group-state.js'
import { Pool } from '../../../src/storage/pool.js'
import { SeededRandom } from '../random.js'
import { Life, Scheduler } from '../sim-clock.js'
import { SimDisk } from '../sim-disk.js'
import type { SimMedium } from '../sim-medium.js'
import type { InspectedStore, Inspection, PairSubject } from './pair-subject.js'

export const realPair: PairSubject = {
  name: 'lockstep',
  tracksDifferences: true,
  init: initGroup,
  open: (options) => Engine.open(options),
  inspect,
}

async function inspect(medium: SimMedium): Promise<Inspection> {
  const scheduler = new Scheduler()
  const life = new Life()
  const random = new SeededRandom(1)
  const disk = new SimDisk({ medium, life, scheduler, random, canPunch: true, now: 'always' })
  const pool = await scheduler.run(
    Pool.open({
      disk,
      clock: scheduler.clockOf(life),
      random,
      log: silentLog,
      appliedSequence: () => undefined,
      onEvent: () => {},
    }),
  )
  pool.checkInvariants()
  const { state, tracking } = pool
  const stores: InspectedStore[] = []
  const kept: InspectedStore[] = []
  for (const store of state.stores.values()) {
    const found = await scheduler.run(contentOf(pool, state, store))
    if (isLocalId(store.id)) kept.push(found)
    else stores.push(found)
  }
  life.end()
  assert.deepEqual(disk.violations, [])
  return {
    stores,
    beforeResync: kept.filter(isFromBefore).map(({ name, bytes }) => ({
      name: nameBefore(name),
      bytes,
    })),
    isWhole: state.isWhole,
    position: { generation: presentGeneration(state), sequence: state.sequence },
    generations: state.generations,
    ...(tracking
      ? {
          tracking: {
            opLog: tracking.opLog,
            isLost: tracking.isLost,
            mayDiffer: (storeId, offset) =>
              stores.some((one) => one.id === storeId) &&
              (tracking.isDirty(storeIdOf(state, storeId), offset, 1) ||
                tracking.isDiffering(storeIdOf(state, storeId), offset, 1)),
          },
        }
      : {}),
  }
}

async function contentOf(pool: Pool, state: GroupState, store: Store): Promise<InspectedStore> {
  const bytes = Buffer.alloc(store.sizeBytes)
  if (bytes.length > 0) await pool.read(store, 0, bytes)
  return { id: store.id, name: fullName(state, store), sizeBytes: store.sizeBytes, bytes }
}

function storeIdOf(state: GroupState, id: number): Store['id'] {
  for (const store of state.stores.values()) if (store.id === id) return store.id
  return assert.fail(`no store ${id}`)
}

function isFromBefore({ name }: InspectedStore): boolean {
  return name.includes(`@${beforeResyncName}`)
}

/** `vol0@before-resync` was `vol0`; `vol0@before-resync.monday` was `vol0@monday`. */
function nameBefore(name: string): string {
  const [volume, rest = ''] = name.split('@')
  const snapshot = rest.slice(beforeResyncName.length + 1)
  return snapshot === '' ? `${volume}` : `${volume}@${snapshot}`
}
