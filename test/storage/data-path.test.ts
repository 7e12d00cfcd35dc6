// Bytes in and out of stores: what is written in place, what is copied, how many disk calls it takes, and what a full disk leaves.
import assert from 'node:assert/strict'
import t, { type Test } from 'tap'
import { failureOf } from '../support/failure.js'
import { chunkBytes, filled, SmallNode, type SmallNodeOptions } from '../support/small-node.js'

const volumeBytes = 64 * 1024 * 1024

t.test('zeroes that stay allocated let others have their turns', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', volumeBytes)
  const request = { offset: 0, lengthBytes: volumeBytes, fua: false }
  let callsInTurnMax = 0
  let callsBefore = node.disk.callCount
  let isDone = false
  const work = node.export('v').zero({ ...request, mayUnmap: false, fastOnly: false })
  const watch = (): void => {
    callsInTurnMax = Math.max(callsInTurnMax, node.disk.callCount - callsBefore)
    callsBefore = node.disk.callCount
    if (!isDone) node.clock.defer(watch)
  }
  node.clock.defer(watch)
  await node.run(Promise.resolve(work))
  isDone = true
  watch()
  const [{ lengthBytes, flags } = { lengthBytes: 0, flags: -1 }] = await node.status(
    'v',
    'base:allocation',
    request,
  )
  t.strictSame([lengthBytes, flags], [volumeBytes, 0], 'all of it is allocated')
  t.ok(callsInTurnMax <= 300, `at most ${callsInTurnMax} disk calls in one turn`)
})

const smallBytes = 16 * chunkBytes

async function nodeWithVolume(options: SmallNodeOptions = {}): Promise<SmallNode> {
  const node = await SmallNode.start(options)
  await node.create('v', smallBytes)
  return node
}

/** Calls on the data file while `work` runs, as `kind offset+length`. */
async function dataCalls(
  node: SmallNode,
  work: () => Promise<unknown>,
): Promise<readonly string[]> {
  const before = node.calls.length
  await work()
  return node.calls
    .slice(before)
    .filter((call) => call.name === 'data' && call.kind !== 'sync')
    .map(({ kind, offset, lengthBytes }) => `${kind} ${offset}+${lengthBytes}`)
}

async function holds(t: Test, node: SmallNode, store: string, expected: Buffer): Promise<void> {
  t.ok((await node.read(store, 0, expected.length)).equals(expected), `${store} holds that`)
}

t.test('a hole reads as zeroes, without the disk', async (t) => {
  const node = await nodeWithVolume()
  t.strictSame(await dataCalls(node, () => node.read('v', 100, smallBytes - 100)), [])
  await holds(t, node, 'v', filled(0, smallBytes))
})

t.test('what lies side by side is one call, written and read', async (t) => {
  const node = await nodeWithVolume()
  const bytes = filled(1, smallBytes - 700)
  const written = await dataCalls(node, () => node.write('v', 300, bytes))
  // To the end of the sector.
  t.strictSame(written, [`writeNow ${chunkBytes + 300}+${bytes.length + 400}`])
  const read = await dataCalls(node, () => node.read('v', 0, smallBytes))
  t.strictSame(read, [`readNow ${chunkBytes}+${smallBytes}`])
  const expected = Buffer.concat([filled(0, 300), bytes, filled(0, 400)])
  await holds(t, node, 'v', expected)
})

t.test('what nothing else refers to is written in place, and changes no map', async (t) => {
  const node = await nodeWithVolume()
  await node.write('v', 0, filled(1, 3 * chunkBytes))
  await node.flush('v')
  const calls = await dataCalls(node, () => node.write('v', chunkBytes + 10, filled(2, 502)))
  t.strictSame(calls, [`writeNow ${2 * chunkBytes + 10}+502`])
  const spanning = await dataCalls(node, () => node.write('v', 512, filled(3, 2 * chunkBytes)))
  t.strictSame(spanning, [`writeNow ${chunkBytes + 512}+${2 * chunkBytes}`])
  const before = node.calls.length
  await node.flush('v')
  const flush = node.calls.slice(before).map(({ kind, name }) => `${kind} ${name}`)
  t.strictSame(flush, ['sync data'], 'a flush is one sync')
})

t.test('what a snapshot shares is copied: in part by reading it, as a whole without', async (t) => {
  const node = await nodeWithVolume()
  const old = filled(1, 4 * chunkBytes)
  await node.write('v', 0, old)
  await node.snapshot('v@a')
  const part = await dataCalls(node, () => node.write('v', 100, filled(2, 50)))
  t.strictSame(part, [
    `readNow ${chunkBytes}+${chunkBytes}`,
    `writeNow ${5 * chunkBytes}+${chunkBytes}`,
  ])
  const whole = await dataCalls(node, () => node.write('v', chunkBytes, filled(3)))
  t.strictSame(whole, [`writeNow ${6 * chunkBytes}+${chunkBytes}`])
  const again = await dataCalls(node, () => node.write('v', 100, filled(4, 412)))
  t.strictSame(again, [`writeNow ${5 * chunkBytes + 100}+412`], 'in place from then on')
  const now = Buffer.from(old)
  now.fill(4, 100, 512).fill(3, chunkBytes, 2 * chunkBytes)
  await holds(t, node, 'v', now)
  await holds(t, node, 'v@a', old)
  await node.write('v@a', 3 * chunkBytes, filled(9))
  await holds(t, node, 'v', now)
  node.engine.checkInvariants()
})

t.test('the data file ends with a whole sector, whatever is written', async (t) => {
  for (const now of ['always', 'never'] as const) {
    const node = await nodeWithVolume({ disk: { now } })
    const expected = filled(0, smallBytes)
    const sizeBytes = () => node.medium.find('data')?.lengthBytes
    const write = async (offset: number, lengthBytes: number, value: number): Promise<void> => {
      expected.fill(value, offset, offset + lengthBytes)
      await node.write('v', offset, filled(value, lengthBytes))
    }
    await write(100, 300, 1)
    t.equal(sizeBytes(), chunkBytes + 512, 'a new chunk')
    await write(450, 100, 2)
    t.equal(sizeBytes(), chunkBytes + 1024, 'in place, behind the end')
    await write(600, 2000, 3)
    await write(610, 20, 4)
    t.equal(sizeBytes(), chunkBytes + 3072, 'in place, within the file')
    await write(chunkBytes - 1, 2, 5)
    t.equal(sizeBytes(), 2 * chunkBytes + 512, 'in place and in a new chunk')
    await node.zero('v', chunkBytes + 1, 600, false)
    expected.fill(0, chunkBytes + 1, chunkBytes + 601)
    t.equal(sizeBytes(), 2 * chunkBytes + 1024, 'zeroes that stay allocated')
    await holds(t, node, 'v', expected)
  }
})

t.test('a crash that loses the length of a write tears no sector of it', async (t) => {
  const node = await nodeWithVolume()
  await node.write('v', 0, filled(1, 300))
  await node.flush('v')
  await node.write('v', 0, filled(2, 1024))
  node.life.end()
  const capture = node.medium.capture()
  const sectors = new Set<string>()
  for (const choice of capture.choices({
    exhaustiveMax: 64,
    singles: true,
    randomCount: 0,
    random: node.random,
  })) {
    const again = await SmallNode.start({ medium: capture.after(choice) })
    const found = await again.read('v', 0, 512)
    sectors.add([found[0], found[299], found[300], found[511]].join())
  }
  t.strictSame([...sectors].sort(), ['1,1,0,0', '2,2,2,2'])
})

t.test('a reused place never shows what it held', async (t) => {
  for (const canPunch of [true, false]) {
    const node = await nodeWithVolume({ disk: { canPunch } })
    await node.write('v', 0, filled(7, smallBytes))
    await node.zero('v', 0, smallBytes)
    await node.run(node.engine.reclaim())
    const calls = await dataCalls(node, () => node.write('v', 100, filled(1, 50)))
    const [from, lengthBytes] = canPunch ? [100, 412] : [0, chunkBytes]
    const [write = ''] = calls
    const [, offset = 0, written] = /^writeNow (\d+)\+(\d+)$/.exec(write)?.map(Number) ?? []
    t.strictSame([offset % chunkBytes, written], [from, lengthBytes], `punching ${canPunch}`)
    t.ok(offset < smallBytes + chunkBytes, 'a place that was used before')
    await holds(t, node, 'v', Buffer.concat([filled(0, 100), filled(1, 50), filled(0, 1000)]))
  }
})

t.test('zeroing any range gives zeroes there and leaves the rest', async (t) => {
  const edges = [0, 1, 4095, 4096, 4097, 8192, 12287, 12288, 14336]
  for (const mayUnmap of [true, false]) {
    const node = await SmallNode.start()
    // Not a whole number of chunks: what lies behind the end is nobody's.
    await node.create('v', 14336)
    for (const offset of edges) {
      for (const end of edges.filter((edge) => edge > offset)) {
        await node.write('v', 0, filled(5, 14336))
        await node.zero('v', offset, end - offset, mayUnmap)
        const expected = filled(5, 14336).fill(0, offset, end)
        assert((await node.read('v', 0, 14336)).equals(expected), `${offset} to ${end}`)
        const { allocatedBytes } = node.engine.status().stores[0] ?? assert.fail()
        const last = end === 14336 ? 4 : Math.floor(end / chunkBytes)
        const freed = mayUnmap ? Math.max(0, last - Math.ceil(offset / chunkBytes)) : 0
        assert.equal(allocatedBytes, (4 - freed) * chunkBytes, `${offset} to ${end}`)
      }
    }
    node.engine.checkInvariants()
    t.pass(`with mayUnmap ${mayUnmap}`)
  }
})

t.test('zeroing a hole does nothing, at any size', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 2 ** 53 - 512)
  await node.flush('v')
  const before = node.disk.callCount
  await node.zero('v', 0, 2 ** 53 - 512)
  await node.zero('v', 1000, 2 ** 52)
  await node.flush('v')
  t.equal(node.disk.callCount, before)
})

t.test('calls that do a part, or would block, change nothing of the result', async (t) => {
  for (const now of ['always', 'never', 'random'] as const) {
    const node = await nodeWithVolume({ disk: { now } })
    await node.write('v', 0, filled(1, smallBytes))
    await node.snapshot('v@a')
    const kinds = new Set<string>(['write', 'writeNow'])
    node.fault = (call) => (kinds.has(call.kind) && call.name === 'data' ? 'short' : undefined)
    await node.write('v', 100, filled(2, 3 * chunkBytes))
    await node.zero('v', 5 * chunkBytes + 1, 2 * chunkBytes)
    const expected = filled(1, smallBytes).fill(2, 100, 100 + 3 * chunkBytes)
    expected.fill(0, 5 * chunkBytes + 1, 7 * chunkBytes + 1)
    await holds(t, node, 'v', expected)
    await holds(t, node, 'v@a', filled(1, smallBytes))
    node.engine.checkInvariants()
  }
})

t.test('a write that fails leaves the old content and takes no space', async (t) => {
  for (const [now, kind] of [
    ['always', 'writeNow'],
    ['never', 'write'],
    ['never', 'read'],
  ] as const) {
    const node = await nodeWithVolume({ disk: { now } })
    await node.write('v', 0, filled(1, 2 * chunkBytes))
    await node.snapshot('v@a')
    const { usedBytes } = node.engine.status().pool
    node.fault = (call) =>
      call.kind === kind && call.name === 'data' ? { errno: 'EIO' } : undefined
    const error = await failureOf(node.write('v', 100, filled(2, chunkBytes)))
    t.match(error, { errno: 'EIO' }, `failed ${kind}`)
    node.fault = () => undefined
    await holds(t, node, 'v', filled(1, 2 * chunkBytes))
    t.equal(node.engine.status().pool.usedBytes, usedBytes)
    node.engine.checkInvariants()
  }
})

/** A device with room for 8 chunks behind the label. */
const device = { name: '/dev/x', sizeBytes: 9 * chunkBytes }

t.test('a full pool refuses what needs room, and nothing else', async (t) => {
  const node = await nodeWithVolume({ disk: { device } })
  await node.write('v', 0, filled(1, 8 * chunkBytes))
  const full = await failureOf(node.write('v', 8 * chunkBytes, filled(2, 1)))
  t.match(full, { errno: 'ENOSPC', message: /no free chunk/ })
  const part = await failureOf(node.write('v', 7 * chunkBytes, filled(2, 2 * chunkBytes)))
  t.match(part, { errno: 'ENOSPC' })
  await holds(t, node, 'v', Buffer.concat([filled(1, 8 * chunkBytes), filled(0)]))
  await node.write('v', 100, filled(3, 100))
  t.pass('a write in place goes on')
  await node.snapshot('v@a')
  t.match(await failureOf(node.write('v', 0, filled(4, 1))), { errno: 'ENOSPC' })
  await node.perform({ kind: 'snapshot.delete', store: 'v@a' })
  await node.write('v', 0, filled(4, 1))
  t.pass('and again when the snapshot is gone')
  node.engine.checkInvariants()
})

t.test('what was freed and not committed is found when the pool is full', async (t) => {
  const node = await nodeWithVolume({ disk: { device } })
  await node.write('v', 0, filled(1, 8 * chunkBytes))
  await node.zero('v', 0, 4 * chunkBytes)
  const syncs = node.callsOf('sync').length
  await node.write('v', 10 * chunkBytes, filled(2, 4 * chunkBytes))
  t.ok(node.callsOf('sync').length > syncs, 'a commit came before')
  t.ok((await node.read('v', 10 * chunkBytes, 4 * chunkBytes)).equals(filled(2, 4 * chunkBytes)))
  t.match(await failureOf(node.write('v', 0, filled(1))), { errno: 'ENOSPC' })
  node.engine.checkInvariants()
})

t.test('a full file system is tried once more when something was freed', async (t) => {
  const node = await nodeWithVolume()
  await node.write('v', 0, filled(1, 4 * chunkBytes))
  let failures = 1
  node.fault = (call) => {
    if (call.name !== 'data' || call.kind !== 'writeNow' || failures-- <= 0) return undefined
    return { errno: 'ENOSPC' }
  }
  await node.zero('v', 0, chunkBytes)
  await node.write('v', 5 * chunkBytes, filled(2))
  t.ok((await node.read('v', 5 * chunkBytes, chunkBytes)).equals(filled(2)))
  await node.flush('v')
  await node.run(node.engine.reclaim())
  node.fault = (call) =>
    call.name === 'data' && call.kind.startsWith('write') ? { errno: 'ENOSPC' } : undefined
  t.match(await failureOf(node.write('v', 9 * chunkBytes, filled(2))), { errno: 'ENOSPC' })
  node.engine.checkInvariants()
})
