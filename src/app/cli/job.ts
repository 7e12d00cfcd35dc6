// The commands on long work that goes on by itself: what is under way, waiting for its end, and cancelling it.
import type { JobReport } from '../../control/jobs.js'
import { ExitCode, errorCodes, LockstepError } from '../../core/errors.js'
import type { VerifyReport } from '../../engine/api.js'
import type { Command, Context } from './command.js'
import { ask } from './query.js'
import { percent, table } from './table.js'
import { UsageError } from './usage-error.js'
import { readSeconds } from './values.js'
import { type Side, verifyExitCode, verifyText } from './verify.js'

/** What one request may wait; then it is asked again. */
const requestTimeoutMsMax = 60 * 60 * 1000
/** For the answer to come, beyond what it waits for. */
const answerTimeoutMs = 10_000
/** Long work stops at its next step. */
const cancelTimeoutMs = 60_000

const jobPositional = { name: 'job', description: 'its number, from job list' } as const

export const jobCommands: readonly Command[] = [
  {
    name: 'job list',
    summary: 'lists long work: what is under way, and how the last of it ended',
    examples: [['lockstep job list', 'after lockstep verify --no-wait']],
    async run(context) {
      const result = (await ask(context, 'job.list')) as { jobs: readonly JobReport[] }
      context.output.result(result, jobTable(result.jobs))
      return ExitCode.DONE
    },
  },
  {
    name: 'job wait',
    summary: 'waits for the end of long work, and tells its result',
    positionals: [jobPositional],
    options: {
      timeout: {
        type: 'text',
        placeholder: 'S',
        description: 'seconds; else as long as it takes',
        completion: 'none',
      },
    },
    examples: [['lockstep job wait 1', 'ends as the command that began it would have']],
    run: waitForJob,
  },
  {
    name: 'job cancel',
    summary: 'stops long work at its next step; what it has done so far stays done',
    positionals: [jobPositional],
    examples: [['lockstep job cancel 1', 'its state in job list is cancelled then']],
    run: cancelJob,
  },
]

function jobOf(context: Context): string {
  const job = context.arguments.text('job')
  if (/^\d{1,15}$/.test(job)) return job
  throw new UsageError(`"${job}" is not the number of a job`, 'lockstep job list')
}

async function waitForJob(context: Context): Promise<ExitCode> {
  const job = jobOf(context)
  const text = context.arguments.maybeText('timeout')
  const timeoutMs =
    text === undefined ? Number.POSITIVE_INFINITY : readSeconds(text, 'the timeout') * 1000
  const report = await endOf(context, job, performance.now() + timeoutMs)
  const { error } = report
  if (error !== undefined) {
    const code = errorCodes.find((known) => known === error.code) ?? 'IO_ERROR'
    throw new LockstepError(code, error.message, error.action)
  }
  const { stores, repair } = report.result as {
    readonly stores: readonly VerifyReport[]
    readonly repair?: Side
  }
  context.output.result(report, verifyText(stores, repair))
  return verifyExitCode(stores, repair)
}

/** In pieces: nobody knows how long it takes. */
async function endOf(context: Context, job: string, deadlineMs: number): Promise<JobReport> {
  const client = await context.client()
  context.ifInterrupted(`it goes on: lockstep job wait ${job}, or lockstep job cancel ${job}`)
  for (;;) {
    const leftMs = Math.max(0, Math.ceil(deadlineMs - performance.now()))
    const timeoutMs = Math.min(leftMs, requestTimeoutMsMax)
    const options = { timeoutMs: timeoutMs + answerTimeoutMs }
    try {
      return (await client.request('job.wait', { job, timeoutMs }, options)) as JobReport
    } catch (error) {
      const isLate = error instanceof LockstepError && error.code === 'TIMED_OUT'
      if (!isLate || timeoutMs === leftMs) throw error
    }
  }
}

async function cancelJob(context: Context): Promise<ExitCode> {
  const job = jobOf(context)
  const client = await context.client()
  const params = { job, timeoutMs: cancelTimeoutMs }
  const options = { timeoutMs: cancelTimeoutMs + answerTimeoutMs }
  const report = (await client.request('job.cancel', params, options)) as JobReport
  const isCancelled = report.state === 'cancelled'
  const text = isCancelled
    ? `job ${job}: ${report.error?.message}`
    : `job ${job} had ended by itself: ${report.state}`
  context.output.result(report, text)
  return ExitCode.DONE
}

function jobTable(jobs: readonly JobReport[]): string {
  if (jobs.length === 0) return 'no jobs since the daemon was started'
  const rows = jobs.map((job) => [job.job, job.method, stateText(job), job.startedAt])
  return table([['JOB', 'WHAT', 'STATE', 'STARTED'], ...rows], [0])
}

function stateText({ state, progress, error }: JobReport): string {
  if (state === 'failed') return `failed: ${error?.message ?? ''}`
  if (state === 'cancelled') return error?.message ?? state
  if (state === 'done' || progress === undefined) return state
  const { store, doneBytes, totalBytes } = progress as Record<string, unknown>
  return `running, ${String(store)} ${percent(Number(doneBytes), Number(totalBytes))}`
}
