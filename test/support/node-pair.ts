// Two real daemons, a primary and its replica, with a proxy on the line between them: for tests of what only processes and sockets show.
import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { DaemonStatus } from '../../src/control/api.js'
import type { PeerStatus } from '../../src/engine/api.js'
import { BlockClient } from './block-client.js'
import { scratch } from './process.js'
import { LineProxy } from './proxy.js'
import { SeededRandom } from './random.js'
import { LockstepServer, type Owner } from './server.js'
import type { TwoMachines } from './two-machines.js'

export type NodePairOptions = {
  /** An existing, empty directory for both. */
  readonly directory: string
  readonly volumes: Readonly<Record<string, number>>
  /** Of the primary. */
  readonly serveArgs?: readonly string[]
  readonly replicaServeArgs?: readonly string[]
  readonly initArgs?: readonly string[]
  /** Instead of the proxy between them: the primary on one, the replica on the other. */
  readonly machines?: TwoMachines
  /** Somewhere else for the replica: an existing, empty directory. */
  readonly replicaDirectory?: string
}

/** Generous: the machine may be busy, and a lost peer is noticed after seconds. */
const syncSeconds = 90
/** Read of both nodes at once, to be compared. */
const pieceBytes = 1024 * 1024

export class NodePair {
  readonly primary: LockstepServer
  readonly replica: LockstepServer
  readonly proxy: LineProxy

  private constructor(primary: LockstepServer, replica: LockstepServer, proxy: LineProxy) {
    this.primary = primary
    this.replica = replica
    this.proxy = proxy
  }

  /** In sync, with `volumes`. */
  static start(t: Test, options: Omit<NodePairOptions, 'directory'>): Promise<NodePair> {
    return NodePair.open(t, { ...options, directory: scratch(t) })
  }

  /** For scripts, too. */
  static async open(t: Owner, options: NodePairOptions): Promise<NodePair> {
    const base = options.directory
    const directoryOf = (name: string): string => {
      mkdirSync(join(base, name))
      return join(base, name)
    }
    const { machines } = options
    const away = machines === undefined ? [] : ['--listen', machines.other.uri, '--insecure']
    const replica = await LockstepServer.start(t, {
      directory: options.replicaDirectory ?? directoryOf('replica'),
      initArgs: ['--secondary', '--node', 'replica', ...(options.initArgs ?? [])],
      serveArgs: [...away, ...(options.replicaServeArgs ?? [])],
      enter: machines?.other.enter ?? [],
    })
    const proxy = await LineProxy.start(t, replica.socketPath)
    const primary = await LockstepServer.start(t, {
      directory: directoryOf('primary'),
      volumes: options.volumes,
      initArgs: ['--node', 'primary', ...(options.initArgs ?? [])],
      serveArgs: ['--peer', machines?.other.uri ?? proxy.uri, ...(options.serveArgs ?? [])],
      enter: machines?.one.enter ?? [],
    })
    const pair = new NodePair(primary, replica, proxy)
    await pair.inSync()
    return pair
  }

  async inSync(): Promise<void> {
    const timeoutMs = syncSeconds * 1000
    const limit = { timeoutMs: timeoutMs + 20_000 }
    await this.primary.ask('peer.connect', {}, limit)
    await this.primary.ask('wait', { condition: 'in-sync', timeoutMs }, limit)
  }

  async peer(): Promise<PeerStatus> {
    const [peer] = (await statusOf(this.primary)).peers
    assert(peer)
    return peer
  }

  /** What is wrong with the replica as a copy; nothing when each store holds the same bytes on both nodes. A node's own snapshots are its own affair. */
  async differences(): Promise<readonly string[]> {
    const names = async (server: LockstepServer): Promise<readonly string[]> =>
      (await statusOf(server)).stores
        .filter((store) => store.isLocal !== true)
        .map((store) => `${store.name} ${store.sizeBytes}`)
        .sort()
    const here = await names(this.primary)
    const there = await names(this.replica)
    if (here.join() !== there.join()) return [`stores ${here.join()} but ${there.join()}`]
    const found: string[] = []
    for (const line of here) {
      const name = line.split(' ')[0] ?? ''
      const difference = await this.differenceOf(name, name)
      if (difference !== undefined) found.push(difference)
    }
    return found
  }

  /** How a store of the primary and one of the replica differ; undefined when they do not. */
  async differenceOf(here: string, there: string): Promise<string | undefined> {
    const mine = await BlockClient.open(this.primary.socketPath, here)
    const theirs = await BlockClient.open(this.replica.socketPath, there)
    try {
      return await firstDifference(mine, theirs, `${here} on the primary, ${there} on the replica`)
    } finally {
      await mine.close()
      await theirs.close()
    }
  }

  /** Bytes on the line, both ways, while `work` is done. */
  async wireBytes(work: () => Promise<unknown>): Promise<number> {
    const before = this.proxy.totalBytes
    await work()
    return this.proxy.totalBytes - before
  }
}

async function firstDifference(
  mine: BlockClient,
  theirs: BlockClient,
  what: string,
): Promise<string | undefined> {
  const { sizeBytes } = mine
  if (theirs.sizeBytes !== sizeBytes) return `${what}: ${sizeBytes} bytes, ${theirs.sizeBytes}`
  for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
    const lengthBytes = Math.min(pieceBytes, sizeBytes - offset)
    const pieces = [mine, theirs].map((client) => client.read(offset, lengthBytes))
    const [here, there] = await Promise.all(pieces)
    assert(here)
    assert(there)
    if (here.equals(there)) continue
    return `${what}: different at ${offset + here.findIndex((byte, at) => byte !== there[at])}`
  }
  return undefined
}

/** What the stores of these names hold, in whole. */
export async function readStores(
  server: LockstepServer,
  names: readonly string[],
): Promise<ReadonlyMap<string, Buffer>> {
  const found = new Map<string, Buffer>()
  for (const name of names) {
    const client = await BlockClient.open(server.socketPath, name)
    found.set(name, await client.readAll())
    await client.close()
  }
  return found
}

export async function statusOf(server: LockstepServer): Promise<DaemonStatus> {
  return (await server.ask('status')) as DaemonStatus
}

/** Writes to a volume until it is told to stop, whatever happens to the server: a connection that is lost is made again. */
export class Load {
  readonly #server: LockstepServer
  readonly #random: SeededRandom
  readonly #done: Promise<void>
  #isStopping = false
  writeCount = 0

  constructor(server: LockstepServer, name: string, seed: number) {
    this.#server = server
    this.#random = new SeededRandom(seed)
    this.#done = this.#run(name)
  }

  async stop(): Promise<void> {
    this.#isStopping = true
    await this.#done
  }

  async #run(name: string): Promise<void> {
    while (!this.#isStopping) {
      try {
        const client = await BlockClient.open(this.#server.socketPath, name)
        try {
          while (!this.#isStopping) await this.#write(client)
          await client.flush()
        } finally {
          await client.close().catch(() => {})
        }
      } catch {
        // The server was killed; it comes back.
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
  }

  async #write(client: BlockClient): Promise<void> {
    const random = this.#random
    const many = Array.from({ length: 8 }, () => {
      const lengthBytes = (1 + random.below(16)) * 4096
      const offset = random.below((client.sizeBytes - lengthBytes) / 512) * 512
      const data = Buffer.alloc(lengthBytes, 1 + random.below(255))
      return client.write(offset, data, { fua: random.below(8) === 0 })
    })
    await Promise.all(many)
    this.writeCount += many.length
  }
}
