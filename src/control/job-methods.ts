// The methods of long work: what begins it, and what asks for it by its number.
import { LockstepError } from '../core/errors.js'
import type { Daemon } from './api.js'
import { controlLimits } from './limits.js'
import { type Call, type Method, method } from './method.js'
import { flag, integer, oneOf, optional, text } from './schema.js'

const optionalFlag = optional(flag)
const optionalStore = optional(text({ bytesMax: controlLimits.nameBytesMax }))
const optionalSide = optional<'self' | 'peer'>(oneOf(['self', 'peer']))
const optionalTimeout = optional(integer({ min: 0, max: controlLimits.waitTimeoutMsMax }))
const jobName = text({ bytesMax: controlLimits.requestIdBytesMax })

type VerifyParams = {
  readonly store?: string
  readonly repair?: boolean
  readonly from?: 'self' | 'peer'
  readonly wait?: boolean
}

/** Answers when it has ended, with notifications on the way; with "wait": false at once. It goes on when the connection ends. */
async function verify(params: VerifyParams, { daemon, notify }: Call): Promise<object> {
  const { store, repair, from, wait } = params
  checkNotVerifying(daemon)
  // What is refused was no work: nobody finds it among the jobs.
  daemon.engine.checkVerify(store)
  const { job, ended } = daemon.jobs.start('verify', async (tell, signal) => ({
    ...(repair === true ? { repair: from ?? 'self' } : {}),
    stores: await daemon.engine.verify({
      ...(store === undefined ? {} : { store }),
      repair: repair === true,
      ...(from === undefined ? {} : { from }),
      signal,
      onProgress: (progress) => {
        tell(progress)
        if (wait !== false) notify('progress', { job, method: 'verify', ...progress })
      },
    }),
  }))
  return wait === false ? { job } : { job, ...(await ended) }
}

/** One at a time; who comes second hears which one that is. Throws BUSY. */
export function checkNotVerifying({ jobs }: Pick<Daemon, 'jobs'>): void {
  const job = jobs.running('verify')
  if (job === undefined) return
  throw new LockstepError(
    'BUSY',
    `a verify is under way, as job ${job}`,
    `lockstep job wait ${job}, or lockstep job cancel ${job}`,
  )
}

export const jobMethods: readonly Method[] = [
  method({
    name: 'verify',
    summary:
      'Compares a store, or all, with the one of the peer; "repair" copies what differs, to the peer or "from" it.',
    example: { store: 'vol0' },
    fields: {
      store: optionalStore,
      repair: optionalFlag,
      from: optionalSide,
      wait: optionalFlag,
    },
    run: verify,
  }),
  method({
    name: 'job.list',
    summary: 'Long work: what is under way, and how the last of it ended.',
    fields: {},
    run: (_, { daemon }) => ({ jobs: daemon.jobs.list() }),
  }),
  method({
    name: 'job.wait',
    summary: 'Answers when a job has ended, with its result; a minute by default.',
    example: { job: '1', timeoutMs: 60000 },
    fields: { job: jobName, timeoutMs: optionalTimeout },
    run: ({ job, timeoutMs }, { daemon }) =>
      daemon.jobs.wait(job, timeoutMs ?? controlLimits.waitTimeoutMsDefault),
  }),
  method({
    name: 'job.cancel',
    summary: 'Stops a job at its next step, and answers when it has ended.',
    example: { job: '1' },
    fields: { job: jobName, timeoutMs: optionalTimeout },
    run: ({ job, timeoutMs }, { daemon }) =>
      daemon.jobs.cancel(job, timeoutMs ?? controlLimits.waitTimeoutMsDefault),
  }),
]
