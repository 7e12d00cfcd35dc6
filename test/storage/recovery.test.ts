// From what is on the disk to a running node: what a killed process left in the page cache, what is missing, what belongs to somebody else.
import t from 'tap'
import { chunkBytes, filled, SmallNode } from '../support/small-node.js'

const volumeBytes = 1024 * 1024

async function nodeWithVolume(): Promise<SmallNode> {
  const node = await SmallNode.start()
  await node.create('v', volumeBytes)
  return node
}

t.test('a flush covers what a killed process had written and not synced', async (t) => {
  let node = await nodeWithVolume()
  await node.write('v', 0, filled(1), true)
  await node.write('v', 0, filled(2))
  node.life.end()
  // The same medium: everything written is in the page cache, and not yet durable.
  node = await SmallNode.start({ medium: node.medium })
  t.ok((await node.read('v', 0, chunkBytes)).equals(filled(2)), 'clients see the write')
  await node.flush('v')
  node = await SmallNode.start({ medium: node.cutPower() })
  t.ok((await node.read('v', 0, chunkBytes)).equals(filled(2)), 'and it survives')
})

t.test('no journal is used again before the name of its checkpoint is durable', async (t) => {
  let node = await nodeWithVolume()
  for (let chunk = 0; chunk < 5; chunk++) await node.write('v', chunk * chunkBytes, filled(1), true)
  node.beforeCall = (call) => {
    if (call.kind === 'syncDirectory') node.life.end()
  }
  await t.rejects(node.run(node.engine.checkpoint()), { name: 'HangError' }, 'killed')
  node = await SmallNode.start({ medium: node.medium })
  await node.write('v', 5 * chunkBytes, filled(2), true)
  node = await SmallNode.start({ medium: node.cutPower() })
  t.ok((await node.read('v', 4 * chunkBytes, chunkBytes)).equals(filled(1)))
  t.ok((await node.read('v', 5 * chunkBytes, chunkBytes)).equals(filled(2)))
})
