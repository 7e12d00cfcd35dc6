// How start, memory and operations grow with the volume: fully allocated volumes, from 1 GiB to 1 TiB, of which only the maps are real.
//
// The pool is made by storage's own code (a checkpoint with every chunk mapped, a data file that is one hole): to the server it is full. While an
// operation runs, a client reads and writes one block after the other; the longest of its requests is what the operation costs clients.
import { mkdir, truncate } from 'node:fs/promises'
import { NbdClient } from '../nbd/client.js'
import { systemRandom } from '../src/app/system.js'
import { formatBytes, GiB, type StoreId } from '../src/core/units.js'
import {
  checkpointName,
  describeState,
  readCheckpoint,
  saveCheckpoint,
} from '../src/storage/checkpoint.js'
import { ChunkMap, ChunkPage, pageEntryCount } from '../src/storage/chunk-map.js'
import { Store } from '../src/storage/group-state.js'
import { initPool } from '../src/storage/init-pool.js'
import { NodeDisk } from '../src/storage/node-disk.js'
import { PoolKeeper } from '../src/storage/page-keeper.js'
import { ControlClient } from './control.js'
import { Lockstep } from './lockstep.js'
import type { Options } from './options.js'
import { median } from './statistics.js'
import { table } from './table.js'

const sizes = [1, 16, 128, 1024].map((count) => count * GiB)
const operations = ['snapshot', 'restore', 'refresh'] as const

export type SizeResult = {
  readonly sizeBytes: number
  readonly startMs: readonly number[]
  readonly startAfterKillMs: readonly number[]
  readonly residentBytes: readonly number[]
  readonly peakBytes: readonly number[]
  /** For each operation: how long its caller waited, and the longest request of a client meanwhile. */
  readonly operations: Readonly<
    Record<
      (typeof operations)[number],
      readonly { readonly tookMs: number; readonly pauseMs: number }[]
    >
  >
}

export async function measureSizes(options: Options): Promise<readonly SizeResult[]> {
  const results: SizeResult[] = []
  for (const sizeBytes of sizes) {
    process.stderr.write(`size ${formatBytes(sizeBytes)}\n`)
    const rounds: Awaited<ReturnType<typeof measureOnce>>[] = []
    for (let round = 0; round < options.runCount; round++) {
      rounds.push(await measureOnce(`${options.directory}/full-${sizeBytes}-${round}`, sizeBytes))
    }
    results.push({
      sizeBytes,
      startMs: rounds.map((one) => one.startMs),
      startAfterKillMs: rounds.map((one) => one.startAfterKillMs),
      residentBytes: rounds.map((one) => one.residentBytes),
      peakBytes: rounds.map((one) => one.peakBytes),
      operations: {
        snapshot: rounds.map((one) => one.snapshot),
        restore: rounds.map((one) => one.restore),
        refresh: rounds.map((one) => one.refresh),
      },
    })
  }
  return results
}

export function reportSizes(results: readonly SizeResult[]): string {
  const ms = (values: readonly number[]): string => median(values).toFixed(1)
  const mib = (values: readonly number[]): string =>
    `${Math.round(median(values) / 1024 / 1024)} MiB`
  const starts = table(
    ['full volume of', 'start, ms', 'start after kill -9, ms', 'memory', 'highest memory'],
    results.map((one) => [
      formatBytes(one.sizeBytes),
      ms(one.startMs),
      ms(one.startAfterKillMs),
      mib(one.residentBytes),
      mib(one.peakBytes),
    ]),
  )
  const waits = table(
    ['full volume of', ...operations.flatMap((name) => [`${name}, ms`, 'longest request, ms'])],
    results.map((one) => [
      formatBytes(one.sizeBytes),
      ...operations.flatMap((name) => [
        ms(one.operations[name].map((sample) => sample.tookMs)),
        ms(one.operations[name].map((sample) => sample.pauseMs)),
      ]),
    ]),
  )
  return `${starts}\n${waits}`
}

async function measureOnce(directory: string, sizeBytes: number) {
  await makeFullPool(directory, sizeBytes)
  const { server, tookMs: startMs } = await timedStart(directory)
  const { residentBytes, peakBytes } = server.daemon.memory()
  const control = await ControlClient.connect(`${directory}/control.sock`)
  const client = await NbdClient.connect({ path: `${directory}/bench.sock` })
  await client.go('vol0')
  const snapshot = await underLoad(client, sizeBytes, () =>
    control.call('snapshot.create', { stores: ['vol0'], name: 'a' }),
  )
  const restore = await underLoad(client, sizeBytes, () =>
    control.call('snapshot.restore', { store: 'vol0@a' }),
  )
  const refresh = await underLoad(client, sizeBytes, () =>
    control.call('snapshot.refresh', { store: 'vol0@a' }),
  )
  await client.disconnect()
  control.close()
  await server.daemon.stop('SIGKILL')
  const again = await timedStart(directory)
  await again.server.daemon.stop()
  const startAfterKillMs = again.tookMs
  return { startMs, startAfterKillMs, residentBytes, peakBytes, snapshot, restore, refresh }
}

async function timedStart(directory: string) {
  const beginMs = performance.now()
  const server = await Lockstep.start(directory)
  return { server, tookMs: performance.now() - beginMs }
}

/** Runs an operation while the client works; what it took, and the longest request of the client from a second before to a second after. */
async function underLoad(client: NbdClient, sizeBytes: number, operation: () => Promise<unknown>) {
  let isOver = false
  let pauseMs = 0
  const load = (async () => {
    const data = Buffer.alloc(4096, 0x5a)
    const blockCount = sizeBytes / data.length
    for (let count = 1; !isOver; count++) {
      const offset = ((count * 7919 * 4096) % blockCount) * data.length
      const beginMs = performance.now()
      if (count % 2 === 0) await client.read({ offset, lengthBytes: data.length })
      else await client.write({ offset, data })
      pauseMs = Math.max(pauseMs, performance.now() - beginMs)
    }
  })()
  await wait(500)
  pauseMs = 0
  const beginMs = performance.now()
  await operation()
  const tookMs = performance.now() - beginMs
  await wait(500)
  isOver = true
  await load
  return { tookMs, pauseMs }
}

const wait = (delayMs: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, delayMs))

async function makeFullPool(directory: string, sizeBytes: number): Promise<void> {
  await mkdir(directory, { mode: 0o700 })
  await using disk = await NodeDisk.open(directory)
  await initPool(disk, { node: 'bench', random: systemRandom })
  const keeper = new PoolKeeper()
  const file = await disk.open(checkpointName)
  const { state } = await readCheckpoint(file, keeper)
  await file.close()
  const map = new ChunkMap(keeper)
  const chunkCount = sizeBytes / state.chunkBytes
  for (let first = 0; first < chunkCount; first += pageEntryCount) {
    const page = new ChunkPage(keeper.checkpointNumber)
    page.usedCount = Math.min(pageEntryCount, chunkCount - first)
    for (let entry = 0; entry < page.usedCount; entry++) page.entries[entry] = first + entry + 1
    map.adopt(first / pageEntryCount, page)
  }
  const id = state.nextStoreId++ as StoreId
  const createdAt = new Date().toISOString()
  state.stores.set(id, new Store({ id, name: 'vol0', sizeBytes, map, createdAt }))
  await saveCheckpoint(disk, {
    state: describeState(state, { batchNumber: 0, isClean: true }),
    maps: [{ storeId: id, pages: [...map.pages] }],
    entriesOf: (page) => page.entries,
  })
  await truncate(`${directory}/data`, (chunkCount + 1) * state.chunkBytes)
}
