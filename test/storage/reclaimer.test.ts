// When a freed chunk may be used again: after its record is durable, after the reads that began before, after its bytes are gone.
import t from 'tap'
import { chunkBytes, filled, SmallNode } from '../support/small-node.js'

t.test('a release that its commit has taken is still counted', async (t) => {
  const node = await SmallNode.start({ disk: { completion: 'scheduled' } })
  await node.create('v', 1024 * 1024)
  await node.write('v', 0, filled(1, 4 * chunkBytes))
  await node.snapshot('v@a')
  await node.write('v', 0, filled(2))
  await node.zero('v', 2 * chunkBytes, chunkBytes)
  const done = node.perform({ kind: 'snapshot.delete', store: 'v@a' })
  for (let step = 0; step < 20; step++) {
    node.engine.checkInvariants()
    await node.scheduler.step()
  }
  await done
  await node.zero('v', 0, chunkBytes)
  node.fault = (call) => (call.kind === 'sync' ? { errno: 'EIO' } : undefined)
  await t.rejects(node.perform({ kind: 'snapshot.create', stores: ['v'], name: 'b' }))
  node.engine.checkInvariants()
})
