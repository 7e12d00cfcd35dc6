// Memory with many clients: 256 connections, each with large reads and writes under way and replies that it is slow to take. What the highest resident memory
// has above the idle program's is held against what the server states (nbd/limits.ts).
import { NbdClient } from '../nbd/client.js'
import { besideBudgetBytesMax, defaultLimits } from '../nbd/limits.js'
import { MiB } from '../src/core/units.js'
import { Lockstep } from './lockstep.js'
import type { Options } from './options.js'
import { table } from './table.js'

const connectionsPerExport = 64
const requestBytes = MiB
const requestsPerConnection = 16

export type ConnectionsResult = {
  readonly connectionCount: number
  readonly residentBytes: number
  readonly peakBytes: number
  readonly requestCount: number
}

export async function measureConnections(options: Options): Promise<readonly ConnectionsResult[]> {
  const results: ConnectionsResult[] = []
  for (const connectionCount of [1, 64, defaultLimits.connectionCountMax]) {
    process.stderr.write(`${connectionCount} connections\n`)
    results.push(await measure(connectionCount, options))
  }
  return results
}

export function reportConnections(results: readonly ConnectionsResult[]): string {
  const mib = (bytes: number): string => `${Math.round(bytes / MiB)} MiB`
  const statedBytes = defaultLimits.processBytesMax + besideBudgetBytesMax
  const rows = results.map((one) => {
    const clientBytes = one.peakBytes - one.residentBytes
    return [
      String(one.connectionCount),
      String(one.requestCount),
      mib(one.residentBytes),
      mib(one.peakBytes),
      mib(clientBytes),
      clientBytes <= statedBytes ? '' : 'exceeded',
    ]
  })
  const head = [
    'connections',
    'requests of 1 MiB',
    'memory before',
    'highest memory',
    'for clients',
    '',
  ]
  return `${table(head, rows)}\nStated: at most ${mib(statedBytes)} for all clients, beside the program itself.\n`
}

async function measure(connectionCount: number, options: Options): Promise<ConnectionsResult> {
  const directory = `${options.directory}/connections-${connectionCount}`
  const lockstep = await Lockstep.start(directory)
  try {
    const exportCount = Math.ceil(connectionCount / connectionsPerExport)
    for (let index = 0; index < exportCount; index++) {
      await lockstep.ensureVolume(`vol${index}`, 64 * MiB)
    }
    const { residentBytes } = lockstep.daemon.memory()
    const clients: NbdClient[] = []
    for (let index = 0; index < connectionCount; index++) {
      const client = await NbdClient.connect({ path: `${directory}/bench.sock` })
      await client.go(`vol${index % exportCount}`)
      clients.push(client)
    }
    await Promise.all(clients.map(work))
    const { peakBytes } = lockstep.daemon.memory()
    await Promise.all(clients.map((client) => client.disconnect()))
    return {
      connectionCount,
      residentBytes,
      peakBytes,
      requestCount: connectionCount * requestsPerConnection,
    }
  } finally {
    await lockstep.daemon.stop()
  }
}

/** Half writes, half reads, all sent before the first answer is taken. */
async function work(client: NbdClient): Promise<void> {
  const data = Buffer.alloc(requestBytes, 0x5a)
  const answers: Promise<unknown>[] = []
  for (let index = 0; index < requestsPerConnection; index++) {
    const offset = (index % 8) * requestBytes
    answers.push(
      index % 2 === 0
        ? client.write({ offset, data })
        : client.read({ offset, lengthBytes: requestBytes }),
    )
  }
  await Promise.all(answers)
}
