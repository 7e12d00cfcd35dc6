// wait: until the daemon answers, or until the two nodes are where they should be. A daemon that is not there yet is waited for too.
import { setTimeout as delay } from 'node:timers/promises'
import { type ErrorCode, ExitCode, LockstepError } from '../../core/errors.js'
import type { Command, Context } from './command.js'
import { patiently } from './patience.js'
import { askStatus } from './query.js'
import { UsageError } from './usage-error.js'
import { readSeconds } from './values.js'

const waitEveryMs = 200
const waitSecondsDefault = 60
/** What one request may wait; then it is asked again. */
const requestTimeoutMsMax = 60 * 60 * 1000
/** For the answer to come, beyond what it waits for. */
const answerTimeoutMs = 10_000

/** No daemon yet, or no place on its control socket: a moment later there may be. */
const passing: ReadonlySet<ErrorCode> = new Set(['UNREACHABLE', 'LIMIT_REACHED'])

const conditions = ['ready', 'in-sync', 'promotable'] as const
type Condition = (typeof conditions)[number]

export const waitCommands: readonly Command[] = [
  {
    name: 'wait',
    summary: 'waits until the node is in a state',
    options: {
      for: {
        type: 'text',
        placeholder: 'STATE',
        description: `${conditions.join(', ')}`,
        completion: conditions,
      },
      timeout: {
        type: 'text',
        placeholder: 'S',
        description: `seconds (${waitSecondsDefault})`,
        completion: 'none',
      },
    },
    examples: [
      ['lockstep wait --for ready --timeout 30', 'after starting the daemon in a script'],
      ['lockstep wait --for in-sync', 'until the replica has everything'],
    ],
    run: waitFor,
  },
]

async function waitFor(context: Context): Promise<ExitCode> {
  const word = context.arguments.maybeText('for')
  const condition = conditions.find((known) => known === word)
  if (condition === undefined) {
    const said = word === undefined ? 'wait needs --for' : `wait cannot wait for "${word}"`
    throw new UsageError(said, `lockstep wait --for ${conditions.join('|')}`)
  }
  const timeoutText = context.arguments.maybeText('timeout') ?? String(waitSecondsDefault)
  const seconds = readSeconds(timeoutText, 'the timeout')
  const deadlineMs = performance.now() + seconds * 1000
  for (;;) {
    const leftMs = Math.max(0, deadlineMs - performance.now())
    const lack = await lackOf(context, condition, Math.ceil(leftMs))
    if (lack === undefined) {
      context.output.result({ condition, isReached: true }, `${condition}`)
      return ExitCode.DONE
    }
    if (performance.now() >= deadlineMs) {
      const message = `not ${condition} within ${seconds} s: ${lack.reason}`
      throw new LockstepError('TIMED_OUT', message, lack.action)
    }
    await delay(waitEveryMs)
  }
}

/** What is missing, in a few words, and what to do. */
type Lack = { readonly reason: string; readonly action: string }

/** Undefined when `condition` holds. */
async function lackOf(
  context: Context,
  condition: Condition,
  leftMs: number,
): Promise<Lack | undefined> {
  try {
    const { failure } = await askStatus(context)
    if (failure !== undefined) return { reason: failure.message, action: failure.action }
    if (condition === 'ready') return undefined
    return await lackOfPeers(context, condition, leftMs)
  } catch (error) {
    if (error instanceof LockstepError && passing.has(error.code))
      return { reason: error.message, action: 'lockstep status' }
    throw error
  }
}

/** The daemon waits, and says in its own words why it was in vain. */
async function lackOfPeers(
  context: Context,
  condition: Condition,
  leftMs: number,
): Promise<Lack | undefined> {
  const timeoutMs = Math.min(leftMs, requestTimeoutMsMax)
  const client = await context.client()
  try {
    const params = { condition, timeoutMs }
    const options = { timeoutMs: timeoutMs + answerTimeoutMs }
    await patiently(context, client.request('wait', params, options), { needsLink: true })
    return undefined
  } catch (error) {
    if (!(error instanceof LockstepError) || error.code !== 'TIMED_OUT') throw error
    // How long that was is what was left of the time: nobody asked for that.
    const reason = error.message.replace(/^not \S+ within [\d.]+ s: /, '')
    return { reason, action: error.action }
  }
}
