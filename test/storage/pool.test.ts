// The life of a pool: checkpoints while it works, what it does when one fails, and how it closes.
import t from 'tap'
import { chunkBytes, filled, SmallNode } from '../support/small-node.js'

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
