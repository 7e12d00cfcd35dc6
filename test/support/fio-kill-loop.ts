// kill -9 under fio: one job is over and flushed when the others, which write and flush, lose their server at a moment that the seed chose. After the next start
// fio verifies all of the first, and of each other what it had been told is flushed.
//
// Every block is a pattern of its round and its offset: a block of an earlier round is noticed.
import assert from 'node:assert/strict'
import type { DaemonStatus } from '../../src/control/api.js'
import { fioBlockBytes as blockBytes, type FioEnded, type FioJob, fio } from './fio.js'
import { SeededRandom } from './random.js'
import { LockstepServer, type Owner } from './server.js'

const MiB = 1024 * 1024
const settledBytes = 4 * MiB
const settledBlocks = settledBytes / blockBytes
const settledDepth = 16
const writerCount = 2
/** More than a writer comes to before the kill: no block is written twice in a round, so that what was flushed is what must be there. */
const writerBytes = 8 * MiB
const writesPerFlush = 16
/** Of the group's sequence, by the size of chunks: each first write to a chunk moves it on, and the writers make some more than this many. */
const progressMax = { '4K': 2400, '64K': 240 }
const progressTimeoutMs = 60_000
const controlTimeoutMs = 30_000

export type FioKillLoopReport = {
  rounds: number
  /** All writers were cut off. */
  killsUnderLoad: number
  /** Verified after the start: of jobs that were over, and of jobs that the kill cut off. */
  settledBlocks: number
  flushedBlocks: number
}

export class FioKillLoop {
  readonly server: LockstepServer
  readonly report: FioKillLoopReport = {
    rounds: 0,
    killsUnderLoad: 0,
    settledBlocks: 0,
    flushedBlocks: 0,
  }
  readonly #random: SeededRandom
  readonly #chunkSize: '4K' | '64K'
  /** What must be there: the first so many blocks of each job, in its own order. */
  #expected: readonly { readonly job: FioJob; readonly blockCount: number }[] = []
  #isKilled = false

  private constructor(server: LockstepServer, seed: number) {
    this.server = server
    this.#random = new SeededRandom(seed)
    this.#chunkSize = chunkSizeOf(seed)
  }

  static async open(
    owner: Owner,
    options: { readonly directory: string; readonly seed: number },
  ): Promise<FioKillLoop> {
    const server = await LockstepServer.start(owner, {
      directory: options.directory,
      initArgs: ['--chunk-size', chunkSizeOf(options.seed)],
      volumes: { vol0: settledBytes + writerCount * writerBytes },
    })
    return new FioKillLoop(server, options.seed)
  }

  /** Load, kill, start, verify. Rejects when a block is lost that fio had been told is flushed. */
  async round(): Promise<void> {
    await this.#shareAll()
    this.#isKilled = false
    const job = this.#newJob(0, settledBytes, settledDepth)
    const settled = await this.#fio(job, ['--do_verify=0', '--end_fsync=1'])
    assert(settled.isOk, `the job that nothing disturbs failed:\n${settled.said}`)
    const flushed = await this.#writeUntilKilled()
    this.#expected = [{ job, blockCount: settledBlocks }, ...flushed]
    await this.server.serve()
    if (this.#random.below(4) === 0) {
      // Killed again before anybody asked for anything.
      await this.server.kill9().gone
      await this.server.serve()
    }
    await this.verify()
    this.report.rounds++
    this.report.settledBlocks += settledBlocks
    for (const { blockCount } of flushed) this.report.flushedBlocks += blockCount
  }

  /** Reads what the last round left. Rejects when a block is wrong. */
  async verify(): Promise<void> {
    const verified = this.#expected.map(async ({ job, blockCount }) => {
      const ended = await this.#fio(job, ['--verify_only', `--io_size=${blockCount * blockBytes}`])
      assert(ended.isOk, `wrong blocks among ${blockCount} at ${job.offset}:\n${ended.said}`)
      assert.equal(ended.blocksRead, blockCount, 'fio read every block')
    })
    await Promise.all(verified)
  }

  /** The volume as it was before the last round. */
  async restore(): Promise<void> {
    await this.#ask('snapshot.restore', { store: 'vol0@before' })
  }

  /** With a snapshot of everything, each first write to a chunk must change the map: a lost flush then shows the bytes of the round before. */
  async #shareAll(): Promise<void> {
    if (this.report.rounds > 0) await this.#ask('snapshot.refresh', { store: 'vol0@before' })
    else await this.#ask('snapshot.create', { stores: ['vol0'], name: 'before' })
  }

  async #ask(method: string, params: object): Promise<void> {
    const control = await this.server.control()
    await control.request(method, params, { timeoutMs: controlTimeoutMs })
    control.close()
  }

  #newJob(offset: number, sizeBytes: number, depth: number): FioJob {
    const seed = 1 + this.#random.below(2 ** 31)
    const uri = this.server.uri('vol0')
    return { uri, offset, sizeBytes, depth, seed, runNumber: this.report.rounds + 1 }
  }

  /** Answers what fio had been told is flushed. */
  async #writeUntilKilled(): Promise<{ job: FioJob; blockCount: number }[]> {
    let running = writerCount
    const writers = Array.from({ length: writerCount }, async (_, index) => {
      // One request at a time, as flushedCount needs it.
      const job = this.#newJob(settledBytes + index * writerBytes, writerBytes, 1)
      const ended = await this.#fio(job, ['--do_verify=0', `--fsync=${writesPerFlush}`])
      assert(ended.isOk || this.#isKilled, `a writer failed before the kill:\n${ended.said}`)
      running--
      return { job, blockCount: flushedCount(ended), isCut: !ended.isOk }
    })
    const [ended] = await Promise.all([Promise.all(writers), this.#killAt(() => running === 0)])
    if (ended.every(({ isCut }) => isCut)) this.report.killsUnderLoad++
    // To fio, no size at all means the whole.
    return ended.filter(({ blockCount }) => blockCount > 0)
  }

  /** kill -9 as soon as the group has come as far as the seed says, or `isOver`. */
  async #killAt(isOver: () => boolean): Promise<void> {
    const control = await this.server.control()
    const sequence = async (): Promise<number> => {
      const status = await control.request('status', {}, { timeoutMs: controlTimeoutMs })
      return Number((status as DaemonStatus).sequence)
    }
    const chosen = (await sequence()) + 1 + this.#random.below(progressMax[this.#chunkSize])
    const deadline = performance.now() + progressTimeoutMs
    while ((await sequence()) < chosen && !isOver())
      assert(performance.now() < deadline, 'the writers come no further')
    this.#isKilled = true
    await this.server.kill9().gone
    control.close()
  }

  #fio(job: FioJob, flags: readonly string[]): Promise<FioEnded> {
    return fio(job, { cwd: this.server.directory, flags })
  }
}

function chunkSizeOf(seed: number): '4K' | '64K' {
  return seed % 2 === 0 ? '4K' : '64K'
}

/** The writes that a flush had covered for sure. fio counts a flush that the kill cut off as one that was done; but a write that succeeded was sent when
 *  the flush before it had been answered. */
function flushedCount({ flushes, blocksWritten }: FioEnded): number {
  const flushCount = Math.floor(Math.max(blocksWritten - 1, 0) / writesPerFlush)
  assert(flushes >= flushCount, 'fio flushes after so many writes')
  return flushCount * writesPerFlush
}
