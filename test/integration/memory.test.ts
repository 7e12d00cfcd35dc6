// What clients cost in memory stays within what is stated, however many there are and however much they ask for at once.
import t from 'tap'
import { NbdClient } from '../../nbd/client.js'
import { besideBudgetBytesMax } from '../../nbd/limits.js'
import { memoryOf, scratch, withDeadline } from '../support/process.js'
import { LockstepServer } from '../support/server.js'

const MiB = 1024 * 1024
const budgetBytes = 64 * MiB
const connectionCount = 256
const connectionsPerExport = 64
const requestsPerConnection = 4

/** Reads and writes in turn, all sent before the first answer is taken. */
async function work(client: NbdClient): Promise<void> {
  const data = Buffer.alloc(MiB, 0x5a)
  const answers = Array.from({ length: requestsPerConnection }, (_, index) => {
    const offset = index * MiB
    return index % 2 === 0
      ? client.write({ offset, data })
      : client.read({ offset, lengthBytes: MiB })
  })
  await Promise.all<unknown>(answers)
}

t.test('256 connections with large requests stay within the budget and 96 MiB', async (t) => {
  const exports = Array.from(
    { length: connectionCount / connectionsPerExport },
    (_, i) => `vol${i}`,
  )
  const server = await LockstepServer.start(t, {
    directory: scratch(t),
    volumes: Object.fromEntries(exports.map((name) => [name, requestsPerConnection * MiB])),
    serveArgs: ['--memory-bytes', String(budgetBytes)],
  })
  // The program itself: its code compiled and its heap grown by what one client asks of it.
  const first = await NbdClient.connect({ path: server.socketPath })
  await first.go(exports[0] ?? '')
  for (let round = 0; round < 5; round++) await work(first)
  await first.disconnect()
  const beforeBytes = memoryOf(server.pid, 'VmRSS')
  const clients: NbdClient[] = []
  for (let index = 0; index < connectionCount; index++) {
    const client = await NbdClient.connect({ path: server.socketPath })
    t.teardown(() => client.destroy())
    await client.go(exports[index % exports.length] ?? '')
    clients.push(client)
  }
  await withDeadline(
    Promise.all(clients.map(work)),
    90_000,
    () => 'requests are left without an answer',
  )
  const clientBytes = memoryOf(server.pid, 'VmHWM') - beforeBytes
  t.comment(`${Math.round(clientBytes / MiB)} MiB for the clients`)
  t.ok(clientBytes <= budgetBytes + besideBudgetBytesMax)
})
