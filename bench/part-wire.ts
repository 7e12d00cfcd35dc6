// What replication costs on the line between the nodes, counted there: operations on a volume that is full, and what a replica gets that was away.
import { formatBytes, MiB } from '../src/core/units.js'
import { fio } from './fio.js'
import { Lockstep } from './lockstep.js'
import type { Options } from './options.js'
import { Pair } from './pair.js'
import { table } from './table.js'
import { WireCounter } from './wire-counter.js'

export type WireResult = {
  readonly what: string
  readonly wireBytes: number
  readonly wireBytesMax: number
  /** What copying whatever changed in any store would move. */
  readonly copiedBytes: number
  /** In the pools of both nodes, where it matters. */
  readonly usedBytes?: { readonly primary: number; readonly replica: number }
}

/** An operation, whatever it changes. */
const operationBytesMax = 1024
/** Of what is asked for data: this much more. */
const overhead = 1.05
/** A greeting and an op log of a dozen operations. */
const greetingBytesMax = 16 * 1024

export async function measureWire(options: Options): Promise<readonly WireResult[]> {
  const pair = await Pair.start(`${options.directory}/pair`, options.sizeBytes)
  const counter = await WireCounter.start(pair.replica.socketPath)
  const line = new Line(pair, counter, options)
  try {
    return [...(await operations(line)), await awayWithAll(line), await awayWithSnapshots(line)]
  } finally {
    counter.close()
    await pair.stop()
  }
}

export function reportWire(results: readonly WireResult[]): string {
  const rows = results.map(({ what, wireBytes, wireBytesMax, copiedBytes, usedBytes }) => {
    const apart =
      usedBytes === undefined ? 0 : Math.abs(usedBytes.replica / usedBytes.primary - 1) * 100
    return [
      what,
      bytesText(wireBytes),
      bytesText(wireBytesMax),
      bytesText(copiedBytes),
      usedBytes === undefined ? '' : `${apart.toFixed(1)} %`,
      wireBytes > wireBytesMax || apart > 5 ? 'short' : '',
    ]
  })
  const head = ['', 'on the wire', 'asked: at most', 'copying what changed', 'space apart', '']
  return table(head, rows)
}

const bytesText = (bytes: number): string => (bytes < 4096 ? `${bytes} bytes` : formatBytes(bytes))

class Line {
  readonly pair: Pair
  readonly options: Options
  readonly #counter: WireCounter

  constructor(pair: Pair, counter: WireCounter, options: Options) {
    this.pair = pair
    this.options = options
    this.#counter = counter
  }

  call(method: string, params: object): Promise<unknown> {
    return this.pair.control.call(method, params)
  }

  async connect(): Promise<void> {
    await this.pair.connect(this.#counter.uri)
    await this.pair.inSync()
  }

  /** Bytes that pass until `work` is done and the replica has all of it. */
  async count(work: () => Promise<unknown>): Promise<number> {
    await this.pair.inSync().catch(() => {})
    const before = this.#counter.bytes
    await work()
    await this.pair.inSync()
    return this.#counter.bytes - before
  }

  /** What passes when the replica is back that was away while `work` was done. */
  async away(work: () => Promise<unknown>): Promise<number> {
    await this.pair.inSync()
    await this.pair.replica.daemon.stop()
    await work()
    const before = this.#counter.bytes
    this.pair.replica = await Lockstep.start(this.pair.replica.directory)
    await this.connect()
    return this.#counter.bytes - before
  }

  async write(store: string, sizeBytes: number): Promise<void> {
    const shape = { pattern: 'write', requestBytes: MiB, depth: 4 } as const
    const { directory: scratch } = this.options
    await fio(this.pair.primary.unixUri(store), shape, { sizeBytes, scratch })
  }
}

/** Every block of the volume differs from the snapshot, and none is sent. */
async function operations(line: Line): Promise<readonly WireResult[]> {
  const { sizeBytes } = line.options
  await line.connect()
  await line.call('snapshot.create', { stores: ['bench'], name: 'empty' })
  await line.write('bench', sizeBytes)
  const results: WireResult[] = []
  for (const [what, method, params] of [
    ['a snapshot of', 'snapshot.create', { stores: ['bench'], name: 'full' }],
    ['a restore of', 'snapshot.restore', { store: 'bench@empty' }],
    ['a refresh of', 'snapshot.refresh', { store: 'bench@full' }],
    ['a sync of', 'sync', { source: 'bench@full', target: 'bench' }],
  ] as const) {
    // A refresh and a sync have something to do: every block is another one again.
    if (what !== 'a snapshot of' && what !== 'a restore of') await line.write('bench', sizeBytes)
    results.push({
      what: `${what} ${formatBytes(sizeBytes)}`,
      wireBytes: await line.count(() => line.call(method, params)),
      wireBytesMax: operationBytesMax,
      copiedBytes: sizeBytes,
    })
  }
  return results
}

async function awayWithAll(line: Line): Promise<WireResult> {
  const writtenBytes = 10 * MiB
  const wireBytes = await line.away(async () => {
    await line.call('volume.create', { name: 'new', sizeBytes: writtenBytes })
    await line.write('new', writtenBytes)
    await line.call('snapshot.create', { stores: ['new', 'bench'], name: 'away' })
    const range = { offset: 0, lengthBytes: 16 * MiB }
    await line.call('snapshot.restore', { store: 'bench@full', range })
    await line.call('snapshot.delete', { store: 'bench@empty' })
  })
  return {
    what: 'away: a volume, 10 MiB in it, snapshots, a restored range, a deletion',
    wireBytes,
    wireBytesMax: writtenBytes * overhead + greetingBytesMax,
    // The volume and its snapshot, and what was restored.
    copiedBytes: 2 * writtenBytes + 16 * MiB,
  }
}

async function awayWithSnapshots(line: Line): Promise<WireResult> {
  const writtenBytes = 64 * MiB
  const snapshotCount = 10
  const wireBytes = await line.away(async () => {
    await line.write('bench', writtenBytes)
    for (let index = 0; index < snapshotCount; index++)
      await line.call('snapshot.create', { stores: ['bench'], name: `s${index}` })
  })
  const usedBytes = await usedByBoth(line.pair)
  return {
    what: `away: 64 MiB, then ${snapshotCount} snapshots`,
    wireBytes,
    wireBytesMax: writtenBytes * overhead + greetingBytesMax,
    copiedBytes: writtenBytes * (1 + snapshotCount),
    usedBytes,
  }
}

async function usedByBoth(pair: Pair) {
  const used = async (node: Lockstep): Promise<number> =>
    JSON.parse(await node.command('status', '--json')).pool.usedBytes
  return { primary: await used(pair.primary), replica: await used(pair.replica) }
}
