// Bytes in and out of stores: what is written in place, what is copied, how many disk calls it takes, and what a full disk leaves.
import t from 'tap'
import { SmallNode } from '../support/small-node.js'

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
