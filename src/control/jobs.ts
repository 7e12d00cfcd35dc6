// Long work that goes on when whoever began it has gone: a number to ask for it by, how far it is, and how it ended.
//
// Invariant: a job ends once, with a result or an error; the newest are remembered, and those that run always.
import { AssertionError } from 'node:assert'
import { LockstepError } from '../core/errors.js'

/** Ended jobs that can be asked for. */
const rememberedMax = 100
/** At once: each of them reads whole stores. */
const runningMax = 16

export type JobReport = {
  readonly job: string
  /** What was asked for, as on the control socket. */
  readonly method: string
  readonly state: 'running' | 'done' | 'failed' | 'cancelled'
  /** Wall time for people, ISO 8601. */
  readonly startedAt: string
  /** The last that it told of itself. */
  readonly progress?: object
  readonly result?: object
  readonly error?: { readonly code: string; readonly message: string; readonly action: string }
}

type Job = {
  report: JobReport
  readonly abort: AbortController
  readonly ended: Promise<object>
}

export class Jobs {
  readonly #jobs = new Map<string, Job>()
  #last = 0

  /** Begins work: `run` is called soon, and ends soon with CANCELLED when the signal is aborted. Throws LIMIT_REACHED. */
  start(
    method: string,
    run: (progress: (progress: object) => void, signal: AbortSignal) => Promise<object>,
  ): { readonly job: string; readonly ended: Promise<object> } {
    const runningCount = [...this.#jobs.values()].filter(isRunning).length
    if (runningCount >= runningMax)
      throw new LockstepError(
        'LIMIT_REACHED',
        `${runningCount} jobs are under way`,
        'wait until one has ended: lockstep job list',
      )
    const name = String(++this.#last)
    const startedAt = new Date().toISOString()
    const report: JobReport = { job: name, method, state: 'running', startedAt }
    const tell = (progress: object): void => {
      job.report = { ...job.report, progress }
    }
    // In a turn of its own: it may tell of itself at once, and then the job has to be there.
    const abort = new AbortController()
    const ended = Promise.resolve()
      .then(() => run(tell, abort.signal))
      .then(
        (result) => {
          job.report = { ...job.report, state: 'done', result }
          return result
        },
        (error: unknown) => {
          if (error instanceof AssertionError) throw error
          const reason = described(error)
          const state = reason.code === 'CANCELLED' ? 'cancelled' : 'failed'
          job.report = { ...job.report, state, error: reason }
          throw error
        },
      )
    // Nobody may be waiting. Only a bug goes further: it ends the process.
    ended.catch((error: unknown) => {
      if (error instanceof AssertionError) throw error
    })
    const job: Job = { report, abort, ended }
    this.#jobs.set(name, job)
    this.#forgetOldest()
    return { job: name, ended }
  }

  list(): readonly JobReport[] {
    return [...this.#jobs.values()].map(({ report }) => report)
  }

  /** The one of `method` that is under way, if there is one: its number. */
  running(method: string): string | undefined {
    const found = [...this.#jobs.values()].find(
      (job) => isRunning(job) && job.report.method === method,
    )
    return found?.report.job
  }

  /** Asks a job to stop; resolves when it has ended, which may be by itself. Rejects as `wait` does. */
  cancel(name: string, timeoutMs: number): Promise<JobReport> {
    this.#jobs.get(name)?.abort.abort()
    return this.wait(name, timeoutMs)
  }

  /** Resolves when it has ended, however. Rejects with INVALID_ARGUMENT when there is none, or TIMED_OUT. */
  async wait(name: string, timeoutMs: number): Promise<JobReport> {
    const job = this.#jobs.get(name)
    if (job === undefined)
      throw new LockstepError(
        'INVALID_ARGUMENT',
        `there is no job "${name.slice(0, 64)}", or not any more`,
        'lockstep job list',
      )
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), timeoutMs)
    })
    const first = await Promise.race([job.ended.then(ignore, ignore), late])
    clearTimeout(timer)
    if (first !== 'late') return job.report
    throw new LockstepError(
      'TIMED_OUT',
      `job ${name} has not ended within ${timeoutMs / 1000} s`,
      `it goes on: lockstep job wait ${name}`,
    )
  }

  #forgetOldest(): void {
    let endedCount = [...this.#jobs.values()].filter((job) => !isRunning(job)).length
    for (const [name, job] of this.#jobs) {
      if (endedCount <= rememberedMax) return
      if (isRunning(job)) continue
      this.#jobs.delete(name)
      endedCount--
    }
  }
}

function ignore(): void {}

function isRunning({ report }: Job): boolean {
  return report.state === 'running'
}

function described(error: unknown): NonNullable<JobReport['error']> {
  if (error instanceof LockstepError) {
    const { code, message, action } = error
    return { code, message, action }
  }
  const message = error instanceof Error ? error.message : String(error)
  return { code: 'IO_ERROR', message, action: "read the daemon's log" }
}
