// What a crash of a node that nobody writes to leaves to compare: nothing, after a while; what an earlier crash left is compared first all the same.
import t from 'tap'
import { limits } from '../../src/core/limits.js'
import { extentBytes, KiB } from '../../src/core/units.js'
import { EnginePair, type PairedNode, pattern } from '../support/engine-pair.js'

const extentCount = 16
const volumeBytes = extentCount * extentBytes
const idleMs = 2 * limits.activeExtentIdleMs + 1000

/** Lets so much time pass in the node's life. */
async function rest(pair: EnginePair, node: PairedNode, forMs: number): Promise<void> {
  const clock = pair.scheduler.clockOf(node.life)
  await pair.run(new Promise<void>((resolve) => void clock.setTimer(forMs, resolve)))
}

async function written(): Promise<EnginePair> {
  const pair = await EnginePair.inSync({ chunkBytes: 64 * KiB })
  await pair.a.create('vol1', volumeBytes)
  for (let extent = 0; extent < extentCount; extent++)
    await pair.a.write('vol1', extent * extentBytes + 8192, pattern(extent + 1))
  await pair.a.flush('vol1')
  await pair.sync()
  return pair
}

t.test('a crash of an idle node leaves nothing to compare', async (t) => {
  const pair = await written()
  const { a } = pair
  await rest(pair, a, 1.5 * limits.activeExtentIdleMs)
  await a.write('vol1', 5 * extentBytes, pattern(99))
  await a.flush('vol1')
  await rest(pair, a, 0.5 * limits.activeExtentIdleMs + 1000)
  a.crash()
  await a.start({ isAlone: true })
  t.equal(a.peer.dirtyBytes, extentBytes, 'but what was written a moment ago')
  await a.close()
  await a.start()
  await pair.sync()
  await rest(pair, a, idleMs)
  a.crash()
  await a.start({ isAlone: true })
  t.equal(a.peer.dirtyBytes, 0)
  await a.close()
  await pair.b.close()
})

t.test('what an earlier crash made suspect is compared first after the next one too', async (t) => {
  const pair = await written()
  const { a } = pair
  for (let block = 0; block < extentBytes; block += 64 * KiB)
    await a.write('vol1', 3 * extentBytes + block, pattern(block / 4096, 64 * KiB))
  await a.flush('vol1')
  await rest(pair, a, idleMs)
  await a.write('vol1', 3 * extentBytes, pattern(77))
  await pair.part()
  a.crash()
  await a.start({ isAlone: true })
  t.equal(a.peer.dirtyBytes, extentBytes)
  await rest(pair, a, idleMs)
  a.crash()
  await a.start()
  const before = a.peer.sentBytes
  pair.mend()
  await pair.sync()
  const movedBytes = a.peer.sentBytes - before
  t.ok(movedBytes < extentBytes / 8, `${movedBytes} bytes: digests, and what they showed`)
  await pair.same()
  await pair.close()
})
