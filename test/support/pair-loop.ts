// Two real nodes under load, round after round with another fault: either of them, or both, killed with -9; the line between them cut within a frame, stalled,
// throttled, with a flipped bit. What was flushed is never lost, on either node; fio's blocks verify; and when a round is over both hold the same bytes in every
// store.
//
// The load is that of KillLoop on `vol0` (tagged sectors, operations on snapshots) and, beside it, fio on `vol1` and an operator with stores of his own.
import assert from 'node:assert/strict'
import { type FioEnded, fio, fioBlockBytes } from './fio.js'
import { KeptMarks, makeHook } from './kept-marks.js'
import { KillLoop } from './kill-loop.js'
import { NodePair } from './node-pair.js'
import { SeededRandom } from './random.js'
import type { LockstepServer, Owner } from './server.js'
import { othersVolumes, StoreChanges } from './store-changes.js'

const KiB = 1024
const MiB = 1024 * KiB

const faults = [
  ...['kill the replica', 'cut on the way there', 'kill the primary', 'flip a bit'],
  ...['stall', 'kill both', 'cut on the way back', 'throttle'],
] as const
export type PairFault = (typeof faults)[number]

/** How often each fault came, and what was done in all. */
export type PairLoopReport = {
  readonly rounds: Readonly<Record<string, number>>
  readonly requests: number
  readonly operations: number
  readonly connections: number
  /** That were read and held what the last run of fio had written, on one node or the other. */
  readonly blocksVerified: number
  /** Of each kind, by the operator with stores of his own. */
  readonly changes: StoreChanges['counts']
  /** Whose snapshots were compared, and whose hook ran. */
  readonly marksKept: number
  readonly marksNoted: number
}

/** After a fault that the primary survives. */
const requestsAfterMax = 400
/** A cut comes somewhere in so many bytes. */
const faultBytesMax = 1 * MiB
const throttleBytesPerSecond = 4 * MiB
const volumeBytes = 8 * MiB
const fioBytes = 4 * MiB
const fioBlocks = fioBytes / fioBlockBytes
const fioDepth = 16

export type PairLoopOptions = { readonly directory: string; readonly seed: number }

export class PairLoop {
  readonly pair: NodePair
  readonly changes: StoreChanges
  readonly marks: KeptMarks
  readonly #loop: KillLoop
  readonly #random: SeededRandom
  readonly #directory: string
  readonly #rounds: Record<string, number> = {}
  #fioRuns = 0
  #fioSeed = 1
  #blocksVerified = 0
  #gone: Promise<void> = Promise.resolve()

  private constructor(pair: NodePair, options: PairLoopOptions & { readonly notes: string }) {
    const { directory, seed, notes } = options
    this.pair = pair
    this.marks = new KeptMarks(pair, notes, othersVolumes)
    this.changes = new StoreChanges({
      ...{ primary: pair.primary, marks: this.marks, seed },
      ...{ chunkBytes: chunkBytesOf(seed), mirrorBytes: volumeBytes },
    })
    this.#directory = directory
    this.#loop = KillLoop.on(pair.primary, seed)
    this.#random = new SeededRandom(seed)
  }

  static async open(owner: Owner, options: PairLoopOptions): Promise<PairLoop> {
    const { directory, seed } = options
    const { config, notes } = makeHook(directory)
    const pair = await NodePair.open(owner, {
      directory,
      volumes: { vol0: volumeBytes, vol1: fioBytes, mirror: volumeBytes },
      initArgs: ['--chunk-size', String(chunkBytesOf(seed))],
      serveArgs: ['--peer-deadline', '2'],
      replicaServeArgs: ['--config', config],
    })
    return new PairLoop(pair, { ...options, notes })
  }

  get report(): PairLoopReport {
    const { requests, operations } = this.#loop.report
    const { connectionCount } = this.pair.proxy
    return {
      rounds: this.#rounds,
      ...{
        requests,
        operations,
        connections: connectionCount,
        blocksVerified: this.#blocksVerified,
      },
      changes: this.changes.counts,
      ...{ marksKept: this.marks.keptCount, marksNoted: this.marks.notedCount },
    }
  }

  /** Load with one fault in it, then both nodes up, in sync, and equal. Answers the fault; they come in turn. Rejects when anything was lost. */
  async round(): Promise<PairFault> {
    const count = Object.values(this.#rounds).reduce((sum, one) => sum + one, 0)
    const fault = faults[count % faults.length] as PairFault
    this.#rounds[fault] = (this.#rounds[fault] ?? 0) + 1
    if (fault === 'kill the primary' || fault === 'kill both') await this.#killPrimary(fault)
    else await this.#survive(fault)
    await this.pair.inSync()
    await this.#loop.judge()
    await this.verify()
    await this.changes.judge()
    assert.deepEqual(await this.pair.differences(), [], `both nodes after "${fault}"`)
    return fault
  }

  /** Rejects when a block of `vol1` is not what the last run of fio wrote, on either node. */
  async verify(): Promise<void> {
    const nodes = [this.pair.primary, this.pair.replica]
    const verified = nodes.map(async (node) => {
      const ended = await this.#fio(node, ['--verify_only'])
      assert.equal(ended.blocksRead, fioBlocks, 'fio read every block')
    })
    await settled(verified)
  }

  async #killPrimary(fault: 'kill the primary' | 'kill both'): Promise<void> {
    const { primary, replica, proxy } = this.pair
    this.#nextFioRun()
    await this.#fio(primary, ['--do_verify=0', '--end_fsync=1'])
    const connections = proxy.connectionCount
    let isKilled = false
    const changing = this.changes.until(() => isKilled)
    const loading = this.#loop.load(() => {
      isKilled = true
      if (fault === 'kill both') this.#gone = replica.kill9().gone
      return this.#loop.kill()
    })
    await settled([loading, changing])
    await this.#gone
    if (fault === 'kill both') await replica.serve()
    // As long as one connection carried everything, a flush was answered when the replica had it, too.
    if (proxy.connectionCount === connections) await this.#loop.judgeCopy(replica)
    await primary.serve()
    await this.#loop.judge()
  }

  async #survive(fault: PairFault): Promise<void> {
    const { primary, replica, proxy } = this.pair
    const afterBytes = 1 + this.#random.below(faultBytesMax)
    const requestsAfter = 100 + this.#random.below(requestsAfterMax)
    const strike = (): number => {
      if (fault === 'kill the replica') this.#gone = replica.kill9().gone
      if (fault === 'cut on the way there') proxy.cutAfterBytes = afterBytes
      if (fault === 'cut on the way back') proxy.cutBackAfterBytes = afterBytes >> 8
      if (fault === 'flip a bit') proxy.flipAfterBytes = afterBytes
      if (fault === 'stall') proxy.isStalled = true
      if (fault === 'throttle') proxy.bytesPerSecondMax = throttleBytesPerSecond
      return requestsAfter
    }
    this.#nextFioRun()
    const writing = this.#fio(primary, ['--fsync=100', '--do_verify=1'])
    let isOver = false
    const changing = this.changes.until(() => isOver)
    const loading = this.#loop.load(strike).finally(() => {
      isOver = true
    })
    try {
      await settled([loading, writing, changing])
    } finally {
      proxy.calm()
      await this.#gone
      if (fault === 'kill the replica') await replica.serve()
    }
  }

  #nextFioRun(): void {
    this.#fioRuns++
    this.#fioSeed = 1 + this.#random.below(2 ** 31)
  }

  /** Writes every block of `vol1`, or reads it; a wrong one makes fio fail. */
  async #fio(server: LockstepServer, flags: readonly string[]): Promise<FioEnded> {
    const ended = await fio(
      {
        ...{ uri: server.uri('vol1'), offset: 0, sizeBytes: fioBytes, depth: fioDepth },
        ...{ seed: this.#fioSeed, runNumber: this.#fioRuns },
      },
      { cwd: this.#directory, flags },
    )
    assert(ended.isOk, `fio of run ${this.#fioRuns} failed:\n${ended.said}`)
    this.#blocksVerified += ended.blocksRead
    return ended
  }
}

/** An even seed has the small chunks. */
function chunkBytesOf(seed: number): number {
  return seed % 2 === 0 ? 4 * KiB : 64 * KiB
}

/** All of them come to an end before anything is rejected: what happens next may be a start. */
async function settled(work: readonly Promise<unknown>[]): Promise<void> {
  for (const one of await Promise.allSettled(work)) if (one.status === 'rejected') throw one.reason
}
