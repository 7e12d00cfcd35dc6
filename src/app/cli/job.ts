// The commands on long work that goes on by itself: what is under way, and waiting for its end.
import type { JobReport } from '../../control/jobs.js'
import { ExitCode, errorCodes, LockstepError } from '../../core/errors.js'
import type { VerifyReport } from '../../engine/api.js'
import type { Command, Context } from './command.js'
import { ask } from './query.js'
import { percent, table } from './table.js'
import { readSeconds } from './values.js'
import { type Side, verifyExitCode, verifyText } from './verify.js'

const waitSecondsDefault = 24 * 60 * 60
/** For the answer to come, beyond what it waits for. */
const answerTimeoutMs = 10_000

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
    positionals: [{ name: 'job', description: 'its number, from job list' }],
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
]

async function waitForJob(context: Context): Promise<ExitCode> {
  const job = context.arguments.text('job')
  const text = context.arguments.maybeText('timeout') ?? String(waitSecondsDefault)
  const timeoutMs = Math.ceil(readSeconds(text, 'the timeout') * 1000)
  const client = await context.client()
  const options = { timeoutMs: timeoutMs + answerTimeoutMs }
  const report = (await client.request('job.wait', { job, timeoutMs }, options)) as JobReport
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

function jobTable(jobs: readonly JobReport[]): string {
  if (jobs.length === 0) return 'no jobs since the daemon was started'
  const rows = jobs.map((job) => [job.job, job.method, stateText(job), job.startedAt])
  return table([['JOB', 'WHAT', 'STATE', 'STARTED'], ...rows], [0])
}

function stateText({ state, progress, error }: JobReport): string {
  if (state === 'failed') return `failed: ${error?.message ?? ''}`
  if (state === 'done' || progress === undefined) return state
  const { store, doneBytes, totalBytes } = progress as Record<string, unknown>
  return `running, ${String(store)} ${percent(Number(doneBytes), Number(totalBytes))}`
}
