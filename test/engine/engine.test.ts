// The engine as an operator and a client see it: answers, status, differences, events, and its end.
import t from 'tap'
import { chunkBytes, filled, SmallNode } from '../support/small-node.js'

const volumeBytes = 1024 * 1024

t.test('what was durable is counted as such after a checkpoint and a power cut', async (t) => {
  let node = await SmallNode.start()
  await node.create('v', volumeBytes)
  for (let chunk = 0; chunk < 50; chunk++) await node.write('v', chunk * chunkBytes, filled(1))
  await node.flush('v')
  const before = node.engine.status()
  t.ok(before.durableSequence > 50)
  await node.run(node.engine.checkpoint())
  node = await SmallNode.start({ medium: node.cutPower() })
  const after = node.engine.status()
  t.not(after.generation, before.generation, 'an unclean stop begins a new history')
  t.ok(after.sequence >= before.durableSequence, `${after.sequence} >= ${before.durableSequence}`)
})
