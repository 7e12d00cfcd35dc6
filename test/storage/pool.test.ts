// The life of a pool: checkpoints while it works, what it does when one fails, and how it closes.
import t from 'tap'
import { silentLog } from '../../src/core/log.js'
import { byteOffset } from '../../src/core/units.js'
import type { MediumCapture } from '../simulation/sim-medium.js'
import { failureOf } from '../support/failure.js'
import { type Call, chunkBytes, type Fault, filled, SmallNode } from '../support/small-node.js'

const volumeBytes = 1024 * 1024

async function nodeWithVolume(): Promise<SmallNode> {
  const node = await SmallNode.start()
  await node.create('v', volumeBytes)
  return node
}

t.test('a pool closes when the batch failed in which a checkpoint was to begin', async (t) => {
  const node = await nodeWithVolume()
  await node.write('v', 0, filled(1))
  node.fault = (call) => (call.kind === 'sync' ? { errno: 'EIO' } : undefined)
  await t.rejects(node.run(node.engine.checkpoint()), { code: 'FAILED_STOP' })
  await t.rejects(node.close(), { code: 'FAILED_STOP' })
  t.equal(node.callsOf('close', 'data').length, 1, 'its files are closed')
  t.equal(
    node.callsOf('open', 'checkpoint.tmp').length,
    0,
    'no checkpoint holds what is not durable',
  )
})

/** Uses the journal until one more batch makes a checkpoint due. */
async function fillHalfOfJournal(node: SmallNode): Promise<void> {
  const { journalBytes: sizeBytes } = node.engine.status().pool
  for (let at = 0; node.engine.status().pool.journalUsedBytes < sizeBytes / 2 - 4096; at++) {
    await node.write('v', at * chunkBytes, filled(1))
    await node.flush('v')
  }
}

t.test('a pool closes when its own last batch makes a checkpoint due', async (t) => {
  const node = await nodeWithVolume()
  await fillHalfOfJournal(node)
  t.equal(node.callsOf('rename').length, 0, 'no checkpoint was written so far')
  await node.write('v', volumeBytes - chunkBytes, filled(2))
  await node.close()
  const after = await SmallNode.start({ medium: node.kill() })
  t.ok((await after.read('v', volumeBytes - chunkBytes, chunkBytes)).equals(filled(2)))
  t.equal(after.engine.status().generation, node.engine.status().generation, 'a clean stop')
})

/** The file system has no room for a checkpoint. */
function noRoomForCheckpoint(call: Call): Fault | undefined {
  return call.kind === 'write' && call.name === 'checkpoint.tmp' ? { errno: 'ENOSPC' } : undefined
}

/** Changes the map of `v` until that is refused, many chunks a write and then one by one. Answers the first chunk not written. */
async function fillJournal(node: SmallNode): Promise<number> {
  let chunk = 0
  for (let countAtOnce = 256; countAtOnce > 0; ) {
    try {
      await node.write('v', chunk * chunkBytes, filled(1, countAtOnce * chunkBytes))
      if (chunk % 512 === 0) await node.flush('v')
      chunk += countAtOnce
    } catch (error) {
      if ((error as { errno?: unknown }).errno !== 'ENOSPC') throw error
      countAtOnce = countAtOnce > 1 ? 1 : 0
    }
  }
  return chunk
}

t.test('a full journal takes writes again when there is room for a checkpoint', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 1024 ** 3)
  node.fault = noRoomForCheckpoint
  const chunk = await fillJournal(node)
  t.ok((await node.read('v', 0, chunkBytes)).equals(filled(1)), 'reads go on')
  await node.write('v', 0, filled(2))
  t.pass('writes in place go on')
  const tries = node.callsOf('open', 'checkpoint.tmp').length
  const error = await failureOf(node.write('v', chunk * chunkBytes, filled(1)))
  t.match(error, { errno: 'ENOSPC' })
  t.equal(
    node.callsOf('open', 'checkpoint.tmp').length,
    tries,
    'not every write tries a checkpoint',
  )
  node.fault = () => undefined
  await node.scheduler.settle(1001)
  await node.write('v', chunk * chunkBytes, filled(3))
  t.ok((await node.read('v', chunk * chunkBytes, chunkBytes)).equals(filled(3)))
  node.engine.checkInvariants()
})

t.test('a node that is started again and again on a full file system loses nothing', async (t) => {
  let node = await SmallNode.start()
  await node.create('v', 1024 ** 3)
  node.fault = noRoomForCheckpoint
  const chunk = await fillJournal(node)
  await node.flush('v')
  let refusal: unknown
  for (let start = 0; start < 40 && refusal === undefined; start++) {
    node = new SmallNode({ medium: node.kill() })
    node.fault = noRoomForCheckpoint
    refusal = await node.open().catch((error: unknown) => error)
  }
  t.match(
    refusal,
    { code: 'NO_SPACE', action: /make room/ },
    'at some time there is no room to start',
  )
  node = await SmallNode.start({ medium: node.kill() })
  t.pass('with room it starts')
  const last = (chunk - 1) * chunkBytes
  t.ok((await node.read('v', last, chunkBytes)).equals(filled(1)))
  await node.write('v', chunk * chunkBytes, filled(2), true)
})

t.test('a checkpoint that fails again and again is one stack in the log', async (t) => {
  const warnings: object[] = []
  const told = { ...silentLog, warn: (bindings: object) => void warnings.push(bindings) }
  const node = await SmallNode.start({ log: { ...told, child: () => told } })
  await node.create('v', volumeBytes)
  const tries = async (count: number): Promise<void> => {
    for (let at = 0; at < count; at++) await node.run(node.engine.checkpoint())
  }
  node.fault = noRoomForCheckpoint
  await tries(12)
  t.match(warnings, [{ err: { code: 'ENOSPC' } }, { kind: 'ENOSPC', count: 10 }])
  t.equal(warnings.length, 2)
  const events = node.engine.recentEvents().filter(({ kind }) => kind === 'no-space')
  t.equal(events.length, 12, 'each is among the events')
  node.fault = () => undefined
  await tries(1)
  node.fault = noRoomForCheckpoint
  await tries(2)
  t.equal(warnings.length, 3, 'one that comes after a good one is told whole')
  t.match(warnings.at(-1), { err: { code: 'ENOSPC' } })
})

t.test('a checkpoint that fails gives back the space that it took', async (t) => {
  const node = await nodeWithVolume()
  node.fault = (call) =>
    call.kind === 'sync' && call.name === 'checkpoint.tmp' ? { errno: 'ENOSPC' } : undefined
  await node.run(node.engine.checkpoint())
  t.equal(node.medium.find('checkpoint.tmp')?.lengthBytes, 0)
})

t.test(
  'an operation whose chunks cannot be read or written is refused, and changes nothing',
  async (t) => {
    for (const [kind, errno, code] of [
      ['read', 'EIO', 'IO_ERROR'],
      ['write', 'EIO', 'IO_ERROR'],
      ['write', 'ENOSPC', 'NO_SPACE'],
      ['write', 'EDQUOT', 'NO_SPACE'],
    ] as const) {
      const node = await SmallNode.start({ disk: { now: 'never' } })
      await node.create('v', volumeBytes)
      await node.write('v', 0, filled(1))
      await node.snapshot('v@a')
      await node.write('v', 0, filled(2))
      node.fault = (call) => (call.kind === kind && call.name === 'data' ? { errno } : undefined)
      const range = { offset: byteOffset(100), lengthBytes: 100 }
      const work = node.perform({ kind: 'snapshot.restore', store: 'v@a', range })
      t.match(
        await failureOf(work),
        { name: 'LockstepError', code, action: /./ },
        `${kind} ${errno}`,
      )
      node.fault = () => undefined
      t.ok((await node.read('v', 0, chunkBytes)).equals(filled(2)))
      node.engine.checkInvariants()
      await node.perform({ kind: 'snapshot.restore', store: 'v@a', range })
      t.ok((await node.read('v', 100, 100)).equals(filled(1, 100)))
    }
  },
)

t.test('a volume grows again after a crash lost that, and what was written there', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 512)
  await node.write('v', 0, filled(1, 512))
  await node.flush('v')
  const captures: MediumCapture[] = []
  let isIssued = false
  let writing: Promise<void> | undefined
  node.beforeCall = () => {
    captures.push(node.medium.capture())
    // As soon as the volume is large enough: the growth is not durable then.
    if (isIssued || node.export('v').sizeBytes === 512) return
    isIssued = true
    writing = node.write('v', 512, filled(2, 512))
  }
  const grow = { kind: 'volume.resize', name: 'v', sizeBytes: chunkBytes } as const
  await node.perform(grow)
  await writing
  await node.flush('v')
  node.kill()
  let lostCount = 0
  for (const capture of captures) {
    const plan = { exhaustiveMax: 64, singles: true, randomCount: 8, random: node.random }
    for (const choice of capture.choices(plan)) {
      const after = await SmallNode.start({ medium: capture.after(choice) })
      const isLost = after.export('v').sizeBytes === 512
      if (isLost) await after.perform(grow)
      const { size } = new Set(await after.read('v', 512, 512))
      if (!isLost) continue
      lostCount++
      if (size !== 1 || (await after.read('v', 512, 1))[0] !== 0) return void t.fail('old bytes')
    }
  }
  t.ok(lostCount > 0, 'the growth was lost in some')
})
