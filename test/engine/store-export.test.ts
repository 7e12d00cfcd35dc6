// One store as the NBD library sees it: what becomes of a request whose store changed under it, and the errno of each failure.
import assert from 'node:assert/strict'
import t from 'tap'
import { RequestError } from '../../nbd/errors.js'
import type { Extent } from '../../nbd/export.js'
import { silentLog } from '../../src/core/log.js'
import { failureOf } from '../support/failure.js'
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

t.test('a change that waited for a shrink and lies behind the new end is refused', async (t) => {
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
  const trim = { ...range, mayUnmap: true, fastOnly: false, errnoBeyondEnd: 'EINVAL' } as const
  const trimming = waiting(target.zero(trim))
  await node.run(resizing)
  t.equal(await errnoOf(node, () => writing), 'ENOSPC')
  t.equal(await errnoOf(node, () => zeroing), 'ENOSPC')
  t.equal(await errnoOf(node, () => trimming), 'EINVAL')
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

const changedSince = 'x-lockstep:changed-since:'

t.test(
  'the errno of the disk becomes one that the wire knows, and the log keeps the cause',
  async (t) => {
    const expected: Readonly<Record<string, string>> = {
      EIO: 'EIO',
      ENOSPC: 'ENOSPC',
      EDQUOT: 'ENOSPC',
      EFBIG: 'ENOSPC',
      EPERM: 'EPERM',
      EROFS: 'EPERM',
      EACCES: 'EPERM',
      ENOMEM: 'EIO',
      EINVAL: 'EIO',
      ERR_UNKNOWN: 'EIO',
    }
    for (const now of ['always', 'never'] as const) {
      const logged: object[] = []
      const log = { ...silentLog, warn: (bindings: object) => logged.push(bindings) }
      const logs = { ...log, child: () => log }
      const node = await SmallNode.start({ disk: { now }, log: logs })
      await node.create('v', 2 * chunkBytes)
      for (const [errno, wire] of Object.entries(expected)) {
        node.fault = ({ kind }) => (kind === 'write' || kind === 'writeNow' ? { errno } : undefined)
        const work = () => node.export('v').write(writeOf(filled(1)))
        t.equal(await errnoOf(node, work), wire, `${errno}, ${now}`)
        // The session logs a full disk, and it may be full for every write.
        if (wire === 'ENOSPC') t.same(logged, [])
        else t.match(logged.at(-1), { err: { code: errno }, store: 'v' })
        logged.length = 0
      }
      node.fault = ({ kind }) =>
        kind === 'read' || kind === 'readNow' ? { errno: 'EIO' } : undefined
      await node.write('v', 0, filled(1))
      const read = () => node.export('v').read({ offset: 0, target: filled(0) })
      t.equal(await errnoOf(node, read), 'EIO')
    }
  },
)

function writeOf(bytes: Buffer, fua = false) {
  return { offset: 0, lengthBytes: bytes.length, parts: [bytes], fua }
}

t.test('a full pool is ENOSPC', async (t) => {
  const device = { name: '/dev/x', sizeBytes: 2 * chunkBytes }
  const node = await SmallNode.start({ disk: { device } })
  await node.create('v', 4 * chunkBytes)
  await node.write('v', 0, filled(1))
  const work = () => node.export('v').write({ ...writeOf(filled(1)), offset: chunkBytes })
  t.equal(await errnoOf(node, work), 'ENOSPC')
})

t.test('what FUA or a flush answered for survives a power cut', async (t) => {
  let node = await SmallNode.start()
  await node.create('v', 8 * chunkBytes)
  await node.write('v', 0, filled(1), true)
  await node.write('v', chunkBytes, filled(2))
  await node.run(
    node.export('v').zero({
      offset: 0,
      lengthBytes: 100,
      fua: true,
      mayUnmap: false,
      fastOnly: false,
    }),
  )
  await node.write('v', 2 * chunkBytes, filled(3))
  await node.flush('v')
  t.equal(node.export('v').flush(), undefined, 'a flush of nothing is answered at once')
  await node.write('v', 0, filled(4))
  node = await SmallNode.start({ medium: node.cutPower() })
  const expected = Buffer.concat([filled(1).fill(0, 0, 100), filled(2), filled(3)])
  t.ok((await node.read('v', 0, 3 * chunkBytes)).equals(expected))
})

t.test('zeroing fast is refused where it means writing', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', chunkBytes)
  const request = { offset: 0, lengthBytes: chunkBytes, fua: false, fastOnly: true }
  const zero = (mayUnmap: boolean) => () => node.export('v').zero({ ...request, mayUnmap })
  t.equal(await errnoOf(node, zero(false)), 'ENOTSUP')
  t.equal(await errnoOf(node, zero(true)), undefined)
})

t.test('a store can be compared with the other snapshots of its volume', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 4 * chunkBytes)
  await node.create('w', 512)
  await node.snapshot('v@a')
  await node.snapshot('w@c')
  await node.write('v', chunkBytes, filled(1))
  await node.snapshot('v@b')
  const contexts = (name: string) => node.export(name).metaContexts()
  t.strictSame(contexts('v'), ['base:allocation', `${changedSince}a`, `${changedSince}b`])
  t.strictSame(contexts('v@a'), ['base:allocation', `${changedSince}b`])
  t.strictSame(contexts('w'), ['base:allocation', `${changedSince}c`])
  const range = { offset: 0, lengthBytes: 4 * chunkBytes }
  const changed = [
    { lengthBytes: chunkBytes, flags: 0 },
    { lengthBytes: chunkBytes, flags: 1 },
    { lengthBytes: 2 * chunkBytes, flags: 0 },
  ]
  t.strictSame(await node.status('v', `${changedSince}a`, range), changed)
  t.strictSame(await node.status('v@a', `${changedSince}b`, range), changed)
  t.strictSame(await node.status('v', `${changedSince}b`, range), [
    { lengthBytes: 4 * chunkBytes, flags: 0 },
  ])
  await node.perform({ kind: 'snapshot.rename', store: 'v@a', newName: 'z' })
  t.strictSame(await node.status('v', `${changedSince}z`, range), changed)
  t.match(await failureOf(node.status('v', `${changedSince}a`, range)), { errno: 'EINVAL' })
  t.match(await failureOf(node.status('v', `${changedSince}c`, range)), { errno: 'EINVAL' })
})

t.test('allocation is told in whole chunks, cut to what was asked', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 4 * chunkBytes)
  await node.write('v', chunkBytes + 5, filled(1, 1))
  const status = await node.status('v', 'base:allocation', { offset: 100, lengthBytes: 10_000 })
  t.strictSame(status, [
    { lengthBytes: chunkBytes - 100, flags: 3 },
    { lengthBytes: chunkBytes, flags: 0 },
    { lengthBytes: 10_100 - 2 * chunkBytes, flags: 3 },
  ])
})

t.test('filling the cache reads the range, and no more', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 8 * chunkBytes)
  await node.write('v', 0, filled(1, 8 * chunkBytes))
  const before = node.calls.length
  await node.run(node.export('v').cache({ offset: chunkBytes, lengthBytes: 2 * chunkBytes }))
  const reads = node.calls.slice(before).map((call) => [call.kind, call.offset, call.lengthBytes])
  t.strictSame(reads, [['readNow', 2 * chunkBytes, 2 * chunkBytes]])
})

t.test(
  'every context counts down the steps that it may look, and ends where they do',
  async (t) => {
    const node = await SmallNode.start()
    await node.create('v', 256 * chunkBytes)
    for (let chunk = 0; chunk < 256; chunk += 2)
      await node.write('v', chunk * chunkBytes, filled(1))
    await node.snapshot('v@s')
    for (let chunk = 0; chunk < 256; chunk += 2)
      await node.write('v', chunk * chunkBytes, filled(2))
    const range = { offset: 0, lengthBytes: 256 * chunkBytes, extentCountMax: 1000 }
    for (const context of ['base:allocation', `${changedSince}s`]) {
      const look = { stepsLeft: 1_000_000 }
      const target = node.export('v')
      t.equal((target.blockStatus({ ...range, context, look }) as Extent[]).length, 256)
      t.ok(look.stepsLeft < 1_000_000 - 256, context)
      look.stepsLeft = 330
      const short = target.blockStatus({ ...range, context, look }) as Extent[]
      t.ok(short.length > 1 && short.length < 20, `${short.length} extents of ${context}`)
      t.ok(look.stepsLeft <= 0)
    }
  },
)
