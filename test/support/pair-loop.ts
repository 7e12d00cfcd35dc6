// Two real nodes under load, round after round with another fault: either of them, or both, killed with -9; the line between them cut within a frame, stalled,
// throttled, with a flipped bit. What was flushed is never lost, on either node; fio's blocks verify; and when a round is over both hold the same bytes in every
// store.
//
// The load is that of KillLoop on `vol0` (tagged sectors, operations on snapshots) and, beside it, fio on `vol1`.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { KillLoop } from './kill-loop.js'
import { NodePair } from './node-pair.js'
import { output } from './process.js'
import { SeededRandom } from './random.js'
import type { LockstepServer, Owner } from './server.js'

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
  readonly fioRuns: number
}

/** After a fault that the primary survives. */
const requestsAfterMax = 400
/** A cut comes somewhere in so many bytes. */
const faultBytesMax = 1 * MiB
const throttleBytesPerSecond = 4 * MiB
const fioBytes = 4 * MiB
const fioTimeoutMs = 90_000

export class PairLoop {
  readonly pair: NodePair
  readonly #loop: KillLoop
  readonly #random: SeededRandom
  readonly #directory: string
  readonly #rounds: Record<string, number> = {}
  #fioRuns = 0
  #gone: Promise<void> = Promise.resolve()

  private constructor(pair: NodePair, directory: string, seed: number) {
    this.pair = pair
    this.#directory = directory
    this.#loop = KillLoop.on(pair.primary, seed)
    this.#random = new SeededRandom(seed)
  }

  static async open(
    owner: Owner,
    options: { readonly directory: string; readonly seed: number },
  ): Promise<PairLoop> {
    const { directory, seed } = options
    const pair = await NodePair.open(owner, {
      directory,
      volumes: { vol0: 8 * MiB, vol1: fioBytes },
      initArgs: ['--chunk-size', seed % 2 === 0 ? '4K' : '64K'],
      serveArgs: ['--peer-deadline', '2'],
    })
    return new PairLoop(pair, directory, seed)
  }

  get report(): PairLoopReport {
    const { requests, operations } = this.#loop.report
    const { connectionCount } = this.pair.proxy
    return {
      rounds: this.#rounds,
      ...{ requests, operations, connections: connectionCount, fioRuns: this.#fioRuns },
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
    assert.deepEqual(await this.pair.differences(), [], `both nodes after "${fault}"`)
    return fault
  }

  async #killPrimary(fault: 'kill the primary' | 'kill both'): Promise<void> {
    const { primary, replica, proxy } = this.pair
    const seed = this.#random.below(1000)
    await this.#fio(primary, seed, ['--rw=randwrite', '--do_verify=0', '--end_fsync=1'])
    const connections = proxy.connectionCount
    await this.#loop.load(() => {
      if (fault === 'kill both') this.#gone = replica.kill9().gone
      return this.#loop.kill()
    })
    await this.#gone
    if (fault === 'kill both') await replica.serve()
    // As long as one connection carried everything, a flush was answered when the replica had it, too.
    if (proxy.connectionCount === connections) await this.#loop.judgeCopy(replica)
    await primary.serve()
    await this.#loop.judge()
    await this.pair.inSync()
    for (const node of [primary, replica]) await this.#fio(node, seed, ['--rw=randread'])
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
    const seed = this.#random.below(1000)
    const fio = this.#fio(primary, seed, ['--rw=randwrite', '--fsync=100', '--do_verify=1'])
    // Both settle before anything is rejected: the next thing that happens is a start.
    const ended = await Promise.allSettled([this.#loop.load(strike), fio])
    proxy.calm()
    await this.#gone
    if (fault === 'kill the replica') await replica.serve()
    for (const one of ended) if (one.status === 'rejected') throw one.reason
  }

  /** Writes or reads every block of `vol1`, each with its checksum; a wrong one makes fio fail. */
  async #fio(server: LockstepServer, seed: number, flags: readonly string[]): Promise<void> {
    this.#fioRuns++
    const common = ['--name=round', '--ioengine=nbd', `--uri=${server.uri('vol1')}`]
    const shape = [`--size=${fioBytes}`, '--bs=4k', '--iodepth=16', `--randseed=${seed}`]
    const verify = ['--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0']
    const said = join(this.#directory, 'fio.txt')
    await output('fio', [...common, ...shape, ...verify, ...flags, `--output=${said}`], {
      timeoutMs: fioTimeoutMs,
      cwd: this.#directory,
    })
  }
}
