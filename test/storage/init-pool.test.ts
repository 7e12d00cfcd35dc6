// A new pool: what is refused before anything is written, and what an interrupted init leaves.
import t, { type Test } from 'tap'
import { LockstepError } from '../../src/core/errors.js'
import { writeFully } from '../../src/storage/disk-io.js'
import { type InitOptions, initPool } from '../../src/storage/init-pool.js'
import { journalBytes, SmallDisk, SmallNode, smallMedium } from '../support/small-node.js'

const KiB = 1024

function init(node: SmallDisk, options: Partial<InitOptions> = {}): Promise<void> {
  const { random, disk } = node
  return node.run(initPool(disk, { node: 'a', random, chunkBytes: 4096, journalBytes, ...options }))
}

async function refused(t: Test, work: Promise<void>, code: string): Promise<void> {
  const error = await work.catch((cause: unknown) => cause)
  t.ok(error instanceof LockstepError && error.action !== '', 'a refusal with an action')
  t.match(error, { code })
}

t.test('sizes that a pool cannot have are refused before anything is written', async (t) => {
  for (const chunkBytes of [0, 1, 2048, 4095, 6000, 2 ** 21, -4096, 4096.5, Number.NaN]) {
    const node = new SmallDisk()
    await refused(t, init(node, { chunkBytes }), 'INVALID_SIZE')
    t.equal(node.disk.callCount, 0, `chunk size ${chunkBytes}`)
  }
  for (const bytes of [0, 4096, 256 * KiB + 1, 256 * KiB - 4096, Number.POSITIVE_INFINITY]) {
    const node = new SmallDisk()
    await refused(t, init(node, { journalBytes: bytes }), 'INVALID_SIZE')
    t.equal(node.disk.callCount, 0, `journal size ${bytes}`)
  }
})

t.test('a directory that holds a pool is refused, and left as it is', async (t) => {
  const node = new SmallDisk({ medium: await smallMedium() })
  await refused(t, init(node, { overwrite: true }), 'ALREADY_INITIALISED')
  t.equal(node.callsOf('write').length, 0)
})

for (const at of [0, 1000, 64 * KiB, 1024 * KiB - 1, 3 * 1024 * KiB]) {
  t.test(`a device with something at byte ${at} is taken only when told to`, async (t) => {
    const device = { name: '/dev/x', sizeBytes: 4 * 1024 * KiB }
    const node = new SmallDisk({ device })
    const file = await node.run(node.disk.open(device.name))
    await node.run(writeFully(file, [Buffer.from('x')], at))
    await refused(t, init(node, { dataName: device.name }), 'NEEDS_CONFIRMATION')
    await init(node, { dataName: device.name, overwrite: true })
    const started = await SmallNode.start({ medium: node.kill(), disk: { device } })
    await started.create('v', 64 * KiB)
    t.ok((await started.read('v', 0, 64 * KiB)).equals(Buffer.alloc(64 * KiB)), 'no old bytes')
  })
}

t.test('the data of another pool is taken only when told to', async (t) => {
  const medium = await smallMedium()
  medium.remove('checkpoint')
  const node = new SmallDisk({ medium })
  await refused(t, init(node), 'NEEDS_CONFIRMATION')
  await init(node, { overwrite: true })
  t.equal((await SmallNode.start({ medium: node.kill() })).engine.status().stores.length, 0)
})

t.test('a crash at any call of init leaves no pool, or a whole one', async (t) => {
  const whole = new SmallDisk()
  await init(whole)
  let stateCount = 0
  for (let last = 0; last < whole.disk.callCount; last++) {
    const node = new SmallDisk()
    node.beforeCall = ({ index }) => {
      if (index === last) node.life.end()
    }
    await init(node).catch(() => {})
    const capture = node.medium.capture()
    const plan = { exhaustiveMax: 64, singles: false, randomCount: 8, random: node.random }
    for (const choice of capture.choices(plan)) {
      const medium = capture.after(choice)
      stateCount++
      if (medium.names().includes('checkpoint')) await SmallNode.start({ medium })
      else await init(new SmallDisk({ medium }), { overwrite: true })
    }
  }
  t.ok(stateCount > 100, `${stateCount} states`)
})
