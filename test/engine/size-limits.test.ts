// The largest volume there is: everything works, and no call walks its length. Steps are counted, not timed.
import assert from 'node:assert/strict'
import t from 'tap'
import { byteOffset } from '../../src/core/units.js'
import { filled, SmallNode } from '../support/small-node.js'

const sizeBytes = 2 ** 53 - 512
/** A block status looks at 65,536 pages in two maps, and no call at more. The volume has 2^25 pages of 64 KiB chunks. */
const stepsMax = 140_000

/** How often anything is looked up in a Map while `work` runs: maps of pages are walked that way. */
async function stepsOf(work: () => Promise<unknown>): Promise<number> {
  const { get, has } = Map.prototype
  let steps = 0
  Map.prototype.get = function (key: unknown) {
    steps++
    return get.call(this, key)
  }
  Map.prototype.has = function (key: unknown) {
    steps++
    return has.call(this, key)
  }
  try {
    await work()
  } finally {
    Map.prototype.get = get
    Map.prototype.has = has
  }
  return steps
}

for (const chunkBytes of [4096, 65536, 1024 * 1024]) {
  t.test(`a volume of 2^53 - 512 bytes in chunks of ${chunkBytes} bytes`, async (t) => {
    let node = await SmallNode.start({ chunkBytes })
    let stepsSeen = 0
    const quick = async (what: string, work: () => Promise<unknown>): Promise<void> => {
      const calls = node.disk.callCount
      const steps = await stepsOf(work)
      stepsSeen = Math.max(stepsSeen, steps)
      assert(steps <= stepsMax, `${what}: ${steps} steps`)
      assert(
        node.disk.callCount - calls < 100,
        `${what}: ${node.disk.callCount - calls} disk calls`,
      )
      node.engine.checkInvariants()
    }
    const places = [0, 2 ** 40 + 12_345, 2 ** 52 - 100, sizeBytes - 700]
    await quick('create', () => node.create('v', sizeBytes))
    for (const offset of places) await quick('write', () => node.write('v', offset, filled(1, 700)))
    await quick('flush', () => node.flush('v'))
    const holdsAll = async (store: string): Promise<void> => {
      for (const offset of places)
        assert(
          (await node.read(store, offset, 700)).equals(filled(1, 700)),
          `${store} at ${offset}`,
        )
    }
    await holdsAll('v')
    await quick('status', async () => {
      const range = { offset: chunkBytes, lengthBytes: sizeBytes - chunkBytes }
      const extents = await node.status('v', 'base:allocation', range)
      assert.equal(extents[0]?.flags, 3)
    })
    await quick('snapshot', () => node.snapshot('v@a'))
    await quick('changed', async () => {
      const range = { offset: 0, lengthBytes: sizeBytes }
      const extents = await node.status('v', 'x-lockstep:changed-since:a', range)
      assert.equal(extents[0]?.flags, 0)
    })
    await quick('dirty', async () => assert.equal((await node.engine.dirty('v'))[0]?.dirtyBytes, 0))
    await quick('trim everything', () => node.zero('v', 0, sizeBytes))
    await quick('trim nothing', () => node.zero('v', 0, sizeBytes))
    await quick('flush', () => node.flush('v'))
    assert((await node.read('v', sizeBytes - 700, 700)).equals(filled(0, 700)))
    const range = { offset: byteOffset(1), lengthBytes: sizeBytes - 2 }
    const restore = { kind: 'snapshot.restore', store: 'v@a' } as const
    await quick('restore a range', () => node.perform({ ...restore, range }))
    assert((await node.read('v', 0, 2)).equals(Buffer.from([0, 1])))
    assert((await node.read('v', sizeBytes - 2, 2)).equals(Buffer.from([1, 0])))
    await quick('restore', () => node.perform(restore))
    await holdsAll('v')
    await quick('shrink', () =>
      node.perform({ kind: 'volume.resize', name: 'v', sizeBytes: 2 ** 52 - 512 }),
    )
    await quick('grow', () => node.perform({ kind: 'volume.resize', name: 'v', sizeBytes }))
    assert((await node.read('v', 2 ** 52 - 512, 412)).equals(filled(0, 412)))
    await quick('sync', () => node.perform({ kind: 'sync', source: 'v@a', target: 'v' }))
    await quick('checkpoint', () => node.run(node.engine.checkpoint()))
    await quick('trim the middle', () => node.zero('v', 1, sizeBytes - 2))
    await node.flush('v')
    node = await SmallNode.start({ medium: node.cutPower() })
    await holdsAll('v@a')
    assert((await node.read('v', 1, 699)).equals(filled(0, 699)))
    assert((await node.read('v', sizeBytes - 1, 1)).equals(filled(1, 1)))
    await quick('delete', () => node.perform({ kind: 'snapshot.delete', store: 'v@a' }))
    await node.close()
    t.ok(stepsSeen > 0, `at most ${stepsSeen} steps`)
  })
}
