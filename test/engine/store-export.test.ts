// One store as the NBD library sees it: what becomes of a request whose store changed under it, and the errno of each failure.
import assert from 'node:assert/strict'
import t from 'tap'
import { RequestError } from '../../nbd/errors.js'
import { chunkBytes, filled, SmallNode } from '../support/small-node.js'

/** A request that is not answered yet; its failure is looked at later. */
function waiting(work: Promise<void> | undefined): Promise<void> {
  assert(work instanceof Promise)
  work.catch(() => {})
  return work
}

/** How a request fails on the wire; undefined when it does not. */
async function errnoOf(
  node: SmallNode,
  request: () => Promise<void> | undefined,
): Promise<string | undefined> {
  try {
    await node.run(request())
  } catch (error) {
    if (error instanceof RequestError) return error.errno
    throw error
  }
  return undefined
}

t.test('a write that waited for a shrink and lies behind the new end is refused', async (t) => {
  const node = await SmallNode.start({ disk: { completion: 'scheduled', now: 'never' } })
  await node.create('v', 2 * chunkBytes)
  await node.write('v', 0, filled(1, 2 * chunkBytes))
  const target = node.export('v')
  const before = node.disk.callCount
  const resizing = node.engine.perform({ kind: 'volume.resize', name: 'v', sizeBytes: 512 })
  while (node.disk.callCount === before) await Promise.resolve()
  const range = { offset: chunkBytes, lengthBytes: chunkBytes, fua: false }
  const writing = waiting(target.write({ ...range, parts: [filled(7)] }))
  const zeroing = waiting(target.zero({ ...range, mayUnmap: false, fastOnly: false }))
  await node.run(resizing)
  t.equal(await errnoOf(node, () => writing), 'ENOSPC')
  t.equal(await errnoOf(node, () => zeroing), 'ENOSPC')
  await node.perform({ kind: 'volume.resize', name: 'v', sizeBytes: 2 * chunkBytes })
  const bytes = await node.read('v', 512, 2 * chunkBytes - 512)
  t.ok(bytes.equals(filled(0, bytes.length)), 'growing again brings zeroes')
})

t.test('a request for more than the store has now is refused', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 2 * chunkBytes)
  const target = node.export('v')
  await node.perform({ kind: 'volume.resize', name: 'v', sizeBytes: 512 })
  const range = { offset: chunkBytes, lengthBytes: chunkBytes, fua: false }
  const zeroes = { ...range, mayUnmap: true, fastOnly: false }
  t.equal(await errnoOf(node, () => target.read({ offset: 0, target: filled(0, 513) })), 'EINVAL')
  t.equal(await errnoOf(node, () => target.write({ ...range, parts: [filled(7)] })), 'ENOSPC')
  t.equal(await errnoOf(node, () => target.zero(zeroes)), 'ENOSPC')
  t.equal(await errnoOf(node, () => target.cache(range)), 'EINVAL')
})

t.test('a write that waited while its store was deleted is refused', async (t) => {
  const node = await SmallNode.start({ disk: { completion: 'scheduled', now: 'never' } })
  await node.create('v', 2 * chunkBytes)
  await node.write('v', 0, filled(1))
  const target = node.export('v')
  const before = node.disk.callCount
  const resizing = node.engine.perform({ kind: 'volume.resize', name: 'v', sizeBytes: 512 })
  const deleting = node.engine.perform({ kind: 'volume.delete', name: 'v' })
  while (node.disk.callCount === before) await Promise.resolve()
  const request = { offset: 0, lengthBytes: 512, parts: [filled(7, 512)], fua: true }
  const writing = waiting(target.write(request))
  await node.run(Promise.all([resizing, deleting]))
  t.equal(await errnoOf(node, () => writing), 'EIO')
  node.engine.checkInvariants()
})

t.test('filling the cache stops when the store became smaller', async (t) => {
  const node = await SmallNode.start({ disk: { completion: 'scheduled', now: 'never' } })
  await node.create('v', 4 * 1024 * 1024)
  for (let at = 0; at < 4; at++) await node.write('v', at * 1024 * 1024, filled(1))
  const target = node.export('v')
  const caching = target.cache({ offset: 0, lengthBytes: 4 * 1024 * 1024 }) as Promise<void>
  await node.perform({ kind: 'volume.resize', name: 'v', sizeBytes: 512 })
  await t.resolves(node.run(caching))
})
