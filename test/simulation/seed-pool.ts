// Runs one job for many seeds, one after the other, in several threads at once. A thread that says nothing for too long is in a loop: it is ended, and
// its seed reported like one that breaks a law.
//
// Invariant: what is found does not depend on the number of threads: it is told in the order of the seeds, up to and with the first that breaks a law.
// This file is both sides: the caller, and the threads' program.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { type Finding, type Job, runJob } from './jobs.js'

export type SeededJob = Extract<Job, { kind: 'lives' | 'pairs' }>
export type SeedFinding = Finding<'lives' | 'pairs'>

export type SeedPoolOptions = {
  readonly job: {
    readonly kind: SeededJob['kind']
    readonly subject: SeededJob['subject']
    readonly mutants?: readonly string[]
    readonly actionCount: number
    /** Of pairs. */
    readonly isPlain?: boolean
  }
  readonly first: number
  readonly count: number
  readonly threadCount: number
  /** Real time for one seed: a thousand times what it takes on an idle machine. */
  readonly deadlineMs?: number
  /** In the order of the seeds. False: no more of them. */
  readonly onFound: (seed: number, found: SeedFinding) => boolean
}

const deadlineMsDefault = 60_000

/** Resolves when all seeds have run, or somebody said that it is enough. */
export async function runSeeds(options: SeedPoolOptions): Promise<void> {
  const pool = new SeedPool(options)
  await pool.run()
}

class SeedPool {
  readonly #options: SeedPoolOptions
  readonly #found = new Map<number, SeedFinding>()
  #next: number
  #toTell: number
  #isOver = false

  constructor(options: SeedPoolOptions) {
    this.#options = options
    this.#next = options.first
    this.#toTell = options.first
  }

  async run(): Promise<void> {
    const { threadCount, count } = this.#options
    const lanes = Array.from({ length: Math.min(threadCount, count) }, () => this.#lane())
    await Promise.all(lanes)
  }

  /** One thread after the other: the next one begins when one had to be ended. */
  async #lane(): Promise<void> {
    const { job, first, count, deadlineMs = deadlineMsDefault } = this.#options
    let thread: Thread | undefined
    while (!this.#isOver && this.#next < first + count) {
      const seed = this.#next++
      thread ??= new Thread()
      const found = await thread.run({ ...job, seed, count: 1 } as SeededJob, deadlineMs)
      if (!thread.isUsable) {
        await thread.end()
        thread = undefined
      }
      this.#tell(seed, found)
    }
    await thread?.end()
  }

  #tell(seed: number, finding: SeedFinding): void {
    this.#found.set(seed, finding)
    for (
      let found = this.#found.get(this.#toTell);
      found !== undefined && !this.#isOver;
      found = this.#found.get(this.#toTell)
    ) {
      this.#found.delete(this.#toTell)
      this.#isOver = !this.#options.onFound(this.#toTell, found)
      this.#toTell++
    }
  }
}

class Thread {
  readonly #worker = new Worker(new URL(import.meta.url), { workerData: { isSeedThread: true } })
  #settle: (found: SeedFinding) => void = () => {}
  #seed = 0
  isUsable = true

  constructor() {
    this.#worker.on('message', (found: SeedFinding) => this.#settle(found))
    this.#worker.on('error', (error) => this.#giveUp(`ended its thread: ${error.stack}`))
    this.#worker.on('exit', (code) => this.#giveUp(`ended its thread with ${code}`))
  }

  async run(job: SeededJob, deadlineMs: number): Promise<SeedFinding> {
    this.#seed = job.seed
    const found = new Promise<SeedFinding>((resolve) => {
      this.#settle = resolve
    })
    const seconds = deadlineMs / 1000
    const timer = setTimeout(() => this.#giveUp(`does not end within ${seconds} s`), deadlineMs)
    this.#worker.postMessage(job)
    try {
      return await found
    } finally {
      clearTimeout(timer)
    }
  }

  async end(): Promise<void> {
    await this.#worker.terminate()
  }

  #giveUp(why: string): void {
    this.isUsable = false
    this.#settle({ broken: `seed ${this.#seed} ${why}` })
  }
}

if (!isMainThread && (workerData as { isSeedThread?: boolean } | null)?.isSeedThread === true) {
  const port = parentPort
  port?.on('message', (job: SeededJob) => {
    void runJob(job).then((found) => port.postMessage(found))
  })
}
