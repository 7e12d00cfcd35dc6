// SIGTERM while clients are connected, idle, busy and in the middle of a request: the daemon ends by itself with 0, and every write whose
// answer a client got is there after the next start, flushed by the client or not.
import { connect } from 'node:net'
import t from 'tap'
import { BlockClient } from '../support/block-client.js'
import { LiveWriter, liveVolumeBytes, momentOf } from '../support/live-writer.js'
import { missingTools, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'

const skip = missingTools('nbdsh')
const server = await LockstepServer.start(t, {
  directory: scratch(t),
  volumes: { live0: liveVolumeBytes, live1: liveVolumeBytes },
})
const uris = (): readonly string[] => [server.uri('live0'), server.tcpUri('live1')]

t.test('a clean stop keeps every answered write', { skip }, async (t) => {
  for (let round = 0; round < 3; round++) {
    const writer = LiveWriter.start(t, uris())
    await writer.rounds(3)
    t.equal(await server.stop(), 0, 'exit code')
    const last = await writer.interrupted()
    await server.serve()
    const moment = await momentOf(uris())
    t.ok(moment >= last * 128, `${moment} blocks written, ${last * 128} known to be answered`)
  }
})

t.test('clients that stay do not keep it from stopping', async (t) => {
  const idle = await BlockClient.open(server.socketPath, 'live0')
  const stranger = connect(server.port, '127.0.0.1')
  stranger.on('error', () => {})
  const half = connect(server.socketPath)
  half.on('error', () => {})
  await new Promise((resolve) => half.once('data', resolve))
  half.write('IHAVEOPT')
  const control = await server.control()
  t.equal(await server.stop(), 0)
  await t.rejects(idle.read(0, 512), { name: 'ConnectionLost' })
  stranger.destroy()
  half.destroy()
  control.close()
  await server.serve()
})
