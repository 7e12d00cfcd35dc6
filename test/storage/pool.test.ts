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
