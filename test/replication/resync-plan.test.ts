// What a resync sends, beside a model of both nodes: afterwards they are equal, share the same chunks, and nothing went over twice.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { blockBytes, GiB, KiB, MiB, type StoreId } from '../../src/core/units.js'
import {
  dataBytesOf,
  type ResyncItem,
  ResyncPass,
  type ResyncView,
} from '../../src/replication/resync-plan.js'
import { SeededRandom } from '../support/random.js'
import { blocksPerChunk, modelChunkBytes, ResyncModel } from '../support/resync-model.js'

/** Runs one pass, everything delivered at once, or nothing before its end. */
function runPass(model: ResyncModel, options: { readonly isSlow?: boolean } = {}): ResyncItem[] {
  const items: ResyncItem[] = []
  const pass = new ResyncPass(model)
  for (let item = pass.next(); item !== undefined; item = pass.next()) {
    if (item === 'pause') continue
    items.push(item)
    model.submit(item)
    if (!options.isSlow) model.deliver(model.queuedCount)
  }
  model.deliver(model.queuedCount)
  return items
}

/** One random change of the group, ordered like any other entry. */
function change(model: ResyncModel, random: SeededRandom): void {
  const stores = model.stores()
  const store = random.pick(stores)
  const blockCount = store.sizeBytes / blockBytes
  const first = random.below(blockCount)
  const end = Math.min(blockCount, first + 1 + random.below(6))
  const choice = random.below(20)
  if (choice < 10) model.write(store.id, first, end, 1 + random.below(1e6))
  else if (choice < 13) model.write(store.id, first, end, 0)
  else if (choice < 16 && stores.length < 9) model.snapshot(store.id)
  else if (choice < 17) model.restore(random.pick(stores).id, store.id)
  else if (choice < 18) model.resize(store.id, 1 + random.below(40))
  else if (choice < 19 && stores.length > 2) model.remove(store.id)
  else if (stores.length < 9) model.addVolume(1 + random.below(40))
}

function newModel(random: SeededRandom): ResyncModel {
  const model = new ResyncModel()
  model.addVolume(1 + random.below(40))
  model.addVolume(1 + random.below(40))
  for (let count = 20; count > 0; count--) change(model, random)
  model.deliver(model.queuedCount)
  return model
}

t.test('what a peer missed goes over once, and sharing is the same afterwards', (t) => {
  let shareCount = 0
  const property = fc.property(fc.integer(), (seed) => {
    const random = new SeededRandom(seed)
    const model = newModel(random)
    for (let count = random.below(40); count > 0; count--) change(model, random)
    model.lose()
    model.check()
    shareCount += runPass(model).filter(({ kind }) => kind === 'share').length
    assert.equal(model.dirtyBlocks(), 0)
    model.check()
    model.checkSharing()
    assert.deepEqual([...new Set(model.sent)], model.sent)
  })
  fc.assert(property, { seed: 7, numRuns: 600 })
  t.ok(shareCount > 100, `${shareCount} shares`)
  t.end()
})

t.test('while clients write and operations go on, passes end with equal nodes', (t) => {
  const property = fc.property(fc.integer(), (seed) => {
    const random = new SeededRandom(seed)
    const model = newModel(random)
    for (let count = random.below(40); count > 0; count--) change(model, random)
    model.lose()
    for (let passes = 0; passes < 12; passes++) {
      // Peace returns, or the last passes could be chased for ever.
      const isBusy = passes < 6
      const pass = new ResyncPass(model)
      for (let item = pass.next(); item !== undefined; item = pass.next()) {
        if (item !== 'pause') model.submit(item)
        while (isBusy && random.below(3) === 0) change(model, random)
        model.deliver(random.below(4))
        if (isBusy && random.below(40) === 0) model.lose()
      }
      model.deliver(model.queuedCount)
      model.check()
      if (isBusy || model.dirtyBlocks() > 0) continue
      model.checkSharing()
      return
    }
    assert.fail('blocks stay dirty')
  })
  fc.assert(property, { seed: 8, numRuns: 600 })
  t.end()
})

t.test('after a crash digests go first, and only what differs follows', (t) => {
  let comparedCount = 0
  const property = fc.property(fc.integer(), (seed) => {
    const random = new SeededRandom(seed)
    const model = newModel(random)
    // Writes that the peer lacks, and some blocks about which nobody knows.
    for (let count = random.below(10); count > 0; count--) change(model, random)
    model.lose()
    const dirty = model.stores().flatMap(({ id }) => [...(model.dirty.get(id) ?? [])])
    const chunksKnown = new Set(dirty.map((block) => Math.floor(block / blocksPerChunk)))
    for (const { id, sizeBytes } of model.stores())
      if (random.below(2) === 0) model.doubt(id, 0, sizeBytes / blockBytes, true)
    for (let passes = 0; passes < 4 && model.dirtyBlocks() > 0; passes++)
      comparedCount += runPass(model).filter(({ kind }) => kind === 'compare').length
    assert.equal(model.dirtyBlocks(), 0)
    model.check()
    model.checkSharing()
    for (const sent of model.sent)
      assert(chunksKnown.has(Math.floor(Number(sent.split(':')[1]) / blocksPerChunk)))
  })
  fc.assert(property, { seed: 9, numRuns: 400 })
  t.ok(comparedCount > 100, `${comparedCount} comparisons`)
  t.end()
})

t.test('a blank peer gets a volume with ten snapshots once', (t) => {
  const model = new ResyncModel()
  const volume = model.addVolume(800)
  model.write(volume, 0, 600, 5)
  for (let count = 0; count < 10; count++) model.snapshot(volume)
  model.deliver(11 + 1)
  // The peer becomes blank: all that is in use is dirty.
  model.peer.maps.clear()
  for (const { id } of model.stores()) model.doubt(id, 0, 600, false)
  const items = runPass(model)
  const data = items.reduce((sum, item) => sum + dataBytesOf(item), 0)
  t.equal(data, 600 * blockBytes)
  t.equal(items.filter(({ kind }) => kind === 'share').length, 10, 'one run each')
  t.equal(model.dirtyBlocks(), 0)
  model.check()
  model.checkSharing()
  t.end()
})

/** One volume in which everything is dirty; `places` of its chunks repeat. */
function plainView(options: {
  readonly chunkBytes: number
  readonly sizeBytes: number
  readonly isHole?: (chunk: number) => boolean
  readonly isSuspect?: boolean
}): ResyncView {
  const stores = [{ id: 1 as StoreId, sizeBytes: options.sizeBytes, isVolume: true }]
  return {
    chunkBytes: options.chunkBytes,
    stores: () => stores,
    nextDirty: (_id, fromOffset, lengthBytesMax) =>
      fromOffset >= options.sizeBytes
        ? undefined
        : {
            offset: fromOffset,
            lengthBytes: Math.min(lengthBytesMax, options.sizeBytes - fromOffset),
          },
    isDirty: () => true,
    isSuspect: () => options.isSuspect ?? false,
    place: (_id, chunk) => (options.isHole?.(chunk) ? 0 : chunk + 1),
    holeEnd: (_id, chunk, end) => {
      let at = chunk
      while (at < end && options.isHole?.(at) === true) at++
      return at
    },
  }
}

function allOf(view: ResyncView): ResyncItem[] {
  const pass = new ResyncPass(view)
  const items: ResyncItem[] = []
  for (let item = pass.next(); item !== undefined; item = pass.next())
    if (item !== 'pause') items.push(item)
  return items
}

t.test('data goes in pieces of 256 KiB whatever a chunk has, and ends with the store', (t) => {
  for (const chunkBytes of [4 * KiB, 64 * KiB, 1 * MiB]) {
    const items = allOf(plainView({ chunkBytes, sizeBytes: 3 * MiB + 512 }))
    t.equal(items.length, 13)
    t.ok(items.every(({ kind }) => kind === 'send'))
    t.same(items.slice(0, 12).map(dataBytesOf), new Array(12).fill(256 * KiB))
    t.equal(items.map(dataBytesOf)[12], 512)
  }
  t.end()
})

t.test('holes go as ranges, however long', (t) => {
  const chunkBytes = 64 * KiB
  const sizeBytes = 5 * GiB
  const isHole = (chunk: number): boolean => chunk !== 20_000
  const items = allOf(plainView({ chunkBytes, sizeBytes, isHole }))
  const zeroes = items.filter(({ kind }) => kind === 'zero')
  t.equal(items.length - zeroes.length, 1)
  t.ok(zeroes.length <= 12, `${zeroes.length} ranges for 5 GiB`)
  let covered = 0
  for (const item of items) if (item.kind !== 'share') covered += item.lengthBytes
  t.equal(covered, sizeBytes)
  t.end()
})

t.test('holes are passed over as runs, however large the store is', (t) => {
  const sizeBytes = 8 * 1024 * 1024 * GiB
  const stores = [1, 2].map((id) => ({ id: id as StoreId, sizeBytes, isVolume: id === 1 }))
  let lookCount = 0
  const items = allOf({
    ...plainView({ chunkBytes: 64 * KiB, sizeBytes }),
    stores: () => stores,
    place: () => {
      lookCount++
      return 0
    },
    holeEnd: (_id, _chunk, end, look) => {
      lookCount++
      look.stepsLeft--
      return end
    },
  })
  t.equal(items.length, 2 * 8 * 1024)
  t.ok(lookCount <= 4 * items.length, `${lookCount} looks for ${items.length} ranges of a TiB`)
  t.end()
})

t.test('digests of 4 MiB go in one entry', (t) => {
  const items = allOf(plainView({ chunkBytes: 64 * KiB, sizeBytes: 10 * MiB, isSuspect: true }))
  t.same(
    items.map((item) => item.kind !== 'share' && [item.kind, item.lengthBytes, dataBytesOf(item)]),
    [
      ['compare', 4 * MiB, 64 * 32],
      ['compare', 4 * MiB, 64 * 32],
      ['compare', 2 * MiB, 32 * 32],
    ],
  )
  t.end()
})

t.test('a hole with one dirty block is zeroed as a whole, so that the peer has a hole too', (t) => {
  const chunkBytes = 64 * KiB
  const view = plainView({ chunkBytes, sizeBytes: 4 * chunkBytes, isHole: () => true })
  const items = allOf({
    ...view,
    nextDirty: (_id, fromOffset) =>
      fromOffset > chunkBytes + 8 * KiB
        ? undefined
        : { offset: chunkBytes + 8 * KiB, lengthBytes: 4 * KiB },
  })
  t.same(items, [{ kind: 'zero', storeId: 1, offset: chunkBytes, lengthBytes: chunkBytes }])
  t.end()
})

t.test(
  'after a crash a snapshot waits until its volume was compared, and takes it from there',
  (t) => {
    const model = new ResyncModel()
    const volume = model.addVolume(blocksPerChunk)
    model.write(volume, 0, blocksPerChunk, 7)
    model.snapshot(volume)
    model.deliver(3)
    for (const { id } of model.stores()) {
      model.doubt(id, 0, blocksPerChunk, true)
      model.peer.set(id, 0, 8)
    }
    t.same(
      runPass(model, { isSlow: true }).map((item) => [
        item.kind,
        item.kind !== 'share' && item.storeId,
      ]),
      [['compare', volume]],
    )
    t.same(
      runPass(model).map((item) => [item.kind, item.kind !== 'share' && item.lengthBytes]),
      [
        ['send', blockBytes],
        ['share', false],
      ],
    )
    model.check()
    t.equal(model.dirtyBlocks(), 0)
    t.end()
  },
)

t.test('volumes go before snapshots, and older before newer', (t) => {
  const model = new ResyncModel()
  const gone = model.addVolume(4)
  const old = model.snapshot(gone)
  const newer = model.snapshot(gone)
  model.remove(gone)
  const volume = model.addVolume(4)
  for (const id of [newer, volume, old]) model.write(id, 0, 4, id)
  model.lose()
  t.same(
    runPass(model).map((item) => item.kind === 'send' && item.storeId),
    [volume, old, newer],
  )
  t.end()
})

t.test('many shared runs go in batches of 256, and a long search lets others run', (t) => {
  const chunkCount = 40_000
  const sizeBytes = chunkCount * modelChunkBytes
  const stores = [1, 2].map((id) => ({ id: id as StoreId, sizeBytes, isVolume: id === 1 }))
  const isOwn = (chunk: number): boolean => chunk % 2 === 0 || chunk > 2000
  const view: ResyncView = {
    ...plainView({ chunkBytes: modelChunkBytes, sizeBytes }),
    stores: () => stores,
    nextDirty: (id, fromOffset, lengthBytesMax) =>
      id === 1 || fromOffset >= sizeBytes
        ? undefined
        : { offset: fromOffset, lengthBytes: Math.min(lengthBytesMax, sizeBytes - fromOffset) },
    isDirty: (id) => id === 2,
    place: (id, chunk) => (id === 2 && isOwn(chunk) ? chunkCount : 1) + chunk,
    holeEnd: (_id, chunk) => chunk,
  }
  const pass = new ResyncPass(view)
  const sizes: number[] = []
  let pauseCount = 0
  for (let item = pass.next(); item !== undefined; item = pass.next()) {
    if (item === 'pause') pauseCount++
    else if (item.kind === 'share') sizes.push(item.copies.length)
  }
  t.same(sizes, [256, 256, 256, 232])
  t.ok(pauseCount > 0, `${pauseCount} pauses`)
  t.end()
})
