// Law 2 over whole lives: writes, operations, a peer that comes and goes, crashes at any disk call; after each of them what differs is dirty. And in the end,
// when everything dirty was sent, nothing differs.
import assert from 'node:assert/strict'
import t from 'tap'
import type { Operation } from '../../src/core/operation.js'
import { byteOffset, extentBytes, MiB, type StoreId } from '../../src/core/units.js'
import type { Store } from '../../src/storage/group-state.js'
import { SeededRandom } from '../simulation/random.js'
import { HangError } from '../simulation/sim-clock.js'
import { sectorBytes } from '../support/peer-model.js'
import { TrackedNode, type TrackedNodeOptions } from '../support/tracked-node.js'

const sizes = [13 * MiB, 5 * MiB, 4 * MiB, 9 * MiB + 3 * sectorBytes, 300 * MiB]
const counts = {
  ...{ lives: 0, crashes: 0, resyncs: 0, dirty: 0, differing: 0, suspects: 0 },
  ...{ spoiled: 0, verified: 0, repaired: 0 },
}

function storesOf(node: TrackedNode): readonly Store[] {
  return [...node.pool.state.stores.values()]
}

/** A range near the places where extents, blocks and the store end. */
function someRange(node: TrackedNode, sizeBytes: number, bytesMax: number) {
  const { random } = node
  const around = random.pick([0, 0, extentBytes, 2 * extentBytes, 3 * extentBytes, sizeBytes])
  const shift = (random.below(32) - 8) * 4096 + random.pick([0, 0, 1, 5]) * sectorBytes
  const offset = Math.max(0, Math.min(sizeBytes - sectorBytes, around + shift))
  const isRounded = random.chance(0.5)
  const wanted = isRounded ? 4096 * (1 + random.below(3)) : sectorBytes * (1 + random.below(12))
  const start = isRounded ? Math.floor(offset / 4096) * 4096 : offset
  const length = random.chance(0.1) ? bytesMax : Math.min(bytesMax, wanted)
  return { offset: byteOffset(start), lengthBytes: Math.min(length, sizeBytes - start) }
}

function someOperation(node: TrackedNode): Operation | undefined {
  const { random } = node
  const stores = storesOf(node)
  const storeId = node.pool.state.nextStoreId as StoreId
  const store = stores.length > 0 ? random.pick(stores) : undefined
  const kind = store === undefined ? 'create' : random.pick(kinds)
  if (kind === 'create' || store === undefined) {
    if (stores.length >= 6) return undefined
    return { kind: 'create-volume', storeId, name: `v${storeId}`, sizeBytes: random.pick(sizes) }
  }
  if (kind === 'snapshot') {
    if (stores.length >= 6) return undefined
    const snapshots = [{ storeId, sourceId: store.id, name: `s${storeId}` }]
    return { kind: 'create-snapshots', snapshots }
  }
  if (kind === 'delete') return { kind: 'delete', storeId: store.id }
  if (kind === 'resize') return { kind: 'resize', storeId: store.id, sizeBytes: random.pick(sizes) }
  const others = stores.filter((one) => one !== store)
  if (others.length === 0) return undefined
  const target = random.pick(others)
  const ends = { sourceId: store.id, targetId: target.id, reason: 'sync' } as const
  if (random.chance(0.4)) return { kind: 'copy', ...ends }
  const common = Math.min(store.sizeBytes, target.sizeBytes)
  return { kind: 'copy', ...ends, range: someRange(node, common, 6 * MiB) }
}

const kinds = [
  'create',
  'snapshot',
  'snapshot',
  'delete',
  'resize',
  'copy',
  'copy',
  'copy',
] as const

async function act(node: TrackedNode): Promise<void> {
  const { random } = node
  const choice = random.below(100)
  const stores = storesOf(node)
  if (choice < 50 && stores.length > 0) {
    const store = random.pick(stores)
    if (random.chance(0.02)) {
      await node.settle()
      node.change('zero', store, 0, store.sizeBytes)
      return node.settle()
    }
    const { offset, lengthBytes } = someRange(node, store.sizeBytes, 5 * MiB)
    const kind = lengthBytes > MiB || random.chance(0.2) ? 'zero' : 'write'
    if (lengthBytes > MiB) await node.settle()
    node.change(kind, store, offset, lengthBytes)
    if (lengthBytes > MiB) await node.settle()
  } else if (choice < 62) {
    const operation = someOperation(node)
    if (operation === undefined) return
    await node.operate(operation)
    // Beside what was copied, before that is durable.
    if (operation.kind === 'copy' && random.chance(0.7)) writeBeside(node, operation.targetId)
  } else if (choice < 70) node.send(random.below(6))
  else if (choice < 76) node.acknowledge(random.below(6))
  else if (choice < 80) node.flush()
  else if (choice < 92) for (let steps = random.below(6); steps > 0; steps--) await node.step()
  else if (choice < 95) node.disconnect({ folds: random.chance(0.6) })
  else if (choice < 97) await node.connect()
  else if (choice < 98) await node.run(node.pool.forceCheckpoint())
  else await resync(node, 6)
}

function writeBeside(node: TrackedNode, storeId: StoreId): void {
  const store = node.storeOf(storeId)
  for (let count = 1 + node.random.below(3); count > 0; count--) {
    const { offset, lengthBytes } = someRange(node, store.sizeBytes, 8192)
    node.change('write', store, offset, lengthBytes)
  }
}

/** Sends what is dirty, comparing first where that may help; at most `countMax` pieces. */
async function resync(node: TrackedNode, countMax: number): Promise<void> {
  if (!node.isConnected || node.tracking.totals.pendingOperations > 0) return
  counts.resyncs++
  let count = 0
  for (const store of storesOf(node)) {
    let from = 0
    for (; count < countMax; count++) {
      const run = node.tracking.nextDirty(store.id, from, 256 * 1024)
      if (run === undefined || run.offset >= store.sizeBytes) break
      const lengthBytes = Math.min(run.lengthBytes, store.sizeBytes - run.offset)
      if (node.tracking.isSuspect(store.id, run.offset)) {
        counts.suspects++
        await node.compare(store, run.offset, lengthBytes)
      } else await node.resend(store, run.offset, lengthBytes)
      from = run.offset + lengthBytes
    }
  }
}

/** Of lives in which media lose something: that happens, or a verify begins or ends. */
async function spoilOrVerify(node: TrackedNode, verdicts: (() => void)[]): Promise<void> {
  const { random } = node
  const stores = storesOf(node)
  if (stores.length === 0) return
  const store = random.pick(stores)
  const choice = random.below(4)
  if (choice === 0) verdicts.shift()?.()
  else if (choice === 1) {
    const verdict = await node.verify(store)
    if (verdict !== undefined) verdicts.push(verdict)
    counts.verified++
  } else {
    const { offset, lengthBytes } = someRange(node, store.sizeBytes, 16_384)
    if (await node.spoil(store, offset, lengthBytes)) counts.spoiled++
  }
}

/** Until nothing is dirty; then both have the same, but for what verify found, and when that is repaired too, the same. */
async function converge(node: TrackedNode): Promise<void> {
  node.disconnect({ folds: true })
  await node.connect()
  counts.repaired += await copyAll(node)
  node.repairAll()
  assert.equal(await copyAll(node), 0)
  for (const id of node.tracking.stores.keys()) assert.equal(node.tracking.differingBytes(id), 0)
}

/** Answers how many blocks differ when nothing is dirty any more. */
async function copyAll(node: TrackedNode): Promise<number> {
  for (let pass = 0; node.tracking.totals.dirtyBytes > 0; pass++) {
    assert(pass < 2000, 'the resync comes to an end')
    await resync(node, 40)
    node.send(node.outbox.length)
    node.acknowledge(node.outbox.length)
  }
  await node.settle()
  node.send(node.outbox.length)
  node.acknowledge(node.outbox.length)
  return (await node.checkLaw2()).differingBlocks
}

type LiveOptions = Partial<TrackedNodeOptions> & { readonly spoilShare?: number }

async function live(seed: number, options: LiveOptions = {}): Promise<void> {
  const random = new SeededRandom(seed)
  const node = new TrackedNode({ random, itemsMax: random.pick([2, 3, 5, 12]), ...options })
  counts.lives++
  await node.init()
  await node.operate({
    kind: 'create-volume',
    storeId: 1 as StoreId,
    name: 'v1',
    sizeBytes: random.pick(sizes),
  })
  for (let write = 0; write < 5; write++) {
    const store = node.storeOf(1)
    const { offset, lengthBytes } = someRange(node, store.sizeBytes, 64 * 1024)
    node.change('write', store, offset, lengthBytes)
    await node.settle()
  }
  await node.attachBlank()
  for (let round = 0; round < 4; round++) await liveRound(node, options.spoilShare ?? 0)
  await converge(node)
}

/** Some actions, and then an end of the life in one of the ways there are. */
async function liveRound(node: TrackedNode, spoilShare: number): Promise<void> {
  const { random } = node
  const verdicts: (() => void)[] = []
  if (random.chance(0.8)) node.crashAtCall = node.diskCalls + 1 + random.below(120)
  try {
    const actionCount = random.below(60)
    for (let action = 0; action < actionCount && !node.hasCrashed; action++) {
      await act(node)
      if (spoilShare > 0 && random.chance(spoilShare)) await spoilOrVerify(node, verdicts)
    }
    if (!node.hasCrashed && random.chance(0.3)) {
      await node.restartCleanly()
      assert.equal(node.tracking.totals.pendingOperations, 0)
      await check(node)
      return
    }
  } catch (error) {
    if (!(error instanceof HangError && node.hasCrashed)) throw error
  }
  counts.crashes++
  await node.crashAndRecover(random.chance(0.7))
  node.pool.checkInvariants()
  await check(node)
  // Again, before anything else happened: recovery changes nothing that matters.
  if (random.chance(0.3)) {
    await node.crashAndRecover(true)
    await check(node)
  }
  if (random.chance(0.6)) await node.connect()
}

async function check(node: TrackedNode): Promise<void> {
  const { dirtyBlocks, differingBlocks } = await node.checkLaw2()
  counts.dirty += dirtyBlocks
  counts.differing += differingBlocks
}

async function lives(first: number, count: number, options: LiveOptions = {}) {
  for (let seed = first; seed < first + count; seed++) {
    try {
      await live(seed, options)
    } catch (error) {
      throw new Error(`seed ${seed}: ${String(error)}`, { cause: error })
    }
  }
}

t.test('after any crash what differs is dirty, and sending it makes both equal', async (t) => {
  t.setTimeout(110_000)
  const { LIVES = '40', SEED = '1' } = process.env
  const count = Number(LIVES)
  await lives(Number(SEED), count)
  t.comment(JSON.stringify(counts))
  t.ok(counts.crashes > count, 'there were crashes')
  t.ok(counts.differing > count, 'there were differences')
  t.ok(counts.suspects > 0, 'digests were compared')
})

t.test('what a medium lost and verify found is known, after any crash', async (t) => {
  t.setTimeout(110_000)
  const { LIVES = '40', SEED = '1' } = process.env
  const count = Number(LIVES)
  await lives(Number(SEED), count, { spoilShare: 0.15 })
  t.comment(JSON.stringify(counts))
  t.ok(counts.spoiled > count, 'media lost something')
  t.ok(counts.verified > count, 'stores were verified')
  t.ok(counts.repaired > 0, 'and what was found was there at the end')
})

for (const mutant of [
  'skip-activate-sync',
  'inactive-before-peer-durable',
  'forget-active-at-recovery',
  'snapshot-forgets-active',
  'copy-forgets-dirty',
  'algebra-at-perform',
])
  t.test(`a node with ${mutant} is found out`, async (t) => {
    t.setTimeout(110_000)
    await t.rejects(lives(1, 150, { mutants: new Set([mutant]) }))
  })
