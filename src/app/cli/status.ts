// The commands that look and change nothing: status, dirty, events, wait.
import { setTimeout as delay } from 'node:timers/promises'
import type { DaemonStatus } from '../../control/api.js'
import { ExitCode, LockstepError } from '../../core/errors.js'
import type { DirtyReport, EngineEvent } from '../../engine/api.js'
import type { Command, Context } from './command.js'
import { complaintsOf, dirtyText, eventLine, statusText, unhealthyText } from './format.js'
import { ask, askStatus } from './query.js'
import { UsageError } from './usage-error.js'
import { readSeconds } from './values.js'

const watchEveryMs = 1_000
const waitEveryMs = 200
const waitSecondsDefault = 60
/** The picture is as wide as the terminal, but not wider than this. */
const cellCountMax = 120

const conditions = ['ready', 'in-sync', 'promotable'] as const
type Condition = (typeof conditions)[number]

export const statusCommands: readonly Command[] = [
  {
    name: 'status',
    summary: 'shows the state of the node, its stores and its pool',
    options: {
      unhealthy: { type: 'flag', short: 'x', description: 'only what is unhealthy (exit code 6)' },
      watch: { type: 'flag', description: 'again every second, until Ctrl-C' },
    },
    examples: [['lockstep status -x', 'one line when all is well']],
    run: showStatus,
  },
  {
    name: 'dirty',
    summary: 'shows how much of a store changed since its newest snapshot, and where',
    positionals: [{ name: 'store', description: 'one store; else every volume', isOptional: true }],
    examples: [['lockstep dirty vol0', 'with a picture from the first byte to the last']],
    async run(context) {
      const store = context.arguments.maybeText('store')
      const cells = Math.max(16, Math.min(cellCountMax, context.output.columns - 4))
      const params = store === undefined ? { cells } : { store, cells }
      const result = (await ask(context, 'dirty', params)) as { stores: readonly DirtyReport[] }
      context.output.result(result, dirtyText(result.stores))
      return ExitCode.DONE
    },
  },
  {
    name: 'events',
    summary: 'shows what happened lately',
    options: { follow: { type: 'flag', short: 'f', description: 'goes on until Ctrl-C' } },
    examples: [['lockstep events --follow --json', 'a JSON document a line']],
    run: showEvents,
  },
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
    examples: [['lockstep wait --for ready --timeout 30', 'after starting the daemon in a script']],
    run: waitFor,
  },
]

async function showStatus(context: Context): Promise<ExitCode> {
  const { output } = context
  const isOnlyUnhealthy = context.arguments.isSet('unhealthy')
  const paint = output.paint.bind(output)
  const show = (status: DaemonStatus): ExitCode => {
    const text = isOnlyUnhealthy ? unhealthyText(status, paint) : statusText(status, paint)
    output.result(status, text)
    const isDegraded = isOnlyUnhealthy && complaintsOf(status).length > 0
    return isDegraded ? ExitCode.DEGRADED : ExitCode.DONE
  }
  if (!context.arguments.isSet('watch')) return show(await askStatus(context))
  for (;;) {
    const status = await askStatus(context)
    if (output.terminal.stdout.isTTY && !output.isJson) {
      output.terminal.stdout.write('\u001b[H\u001b[2J')
    }
    show(status)
    await delay(watchEveryMs)
  }
}

async function showEvents(context: Context): Promise<ExitCode> {
  const { output } = context
  const follow = context.arguments.isSet('follow')
  const client = await context.client()
  const show = (event: EngineEvent) => output.result(event, eventLine(event))
  client.onNotification((method, params) => {
    if (method === 'event') show(params as EngineEvent)
  })
  const answer = await ask(context, 'events', { follow })
  const { events } = answer as { events: readonly EngineEvent[] }
  if (!follow) {
    output.result({ events }, events.map(eventLine).join('\n'))
    return ExitCode.DONE
  }
  events.forEach(show)
  await client.closed
  throw new LockstepError('UNREACHABLE', 'the daemon closed the connection', 'lockstep status')
}

async function waitFor(context: Context): Promise<ExitCode> {
  const word = context.arguments.maybeText('for')
  const condition = conditions.find((known) => known === word)
  if (condition === undefined) {
    const said = word === undefined ? 'wait needs --for' : `wait cannot wait for "${word}"`
    throw new UsageError(said, `lockstep wait --for ${conditions.join('|')}`)
  }
  const timeoutText = context.arguments.maybeText('timeout') ?? String(waitSecondsDefault)
  const seconds = readSeconds(timeoutText, 'the timeout')
  const deadline = performance.now() + seconds * 1000
  for (;;) {
    const lack = await lackOf(context, condition)
    if (lack === undefined) {
      context.output.result({ condition, isReached: true }, `${condition}`)
      return ExitCode.DONE
    }
    if (performance.now() >= deadline) {
      const message = `not ${condition} within ${seconds} s: ${lack}`
      throw new LockstepError('TIMED_OUT', message, 'lockstep status')
    }
    await delay(waitEveryMs)
  }
}

/** What is missing for `condition`, in a few words; undefined when it holds. */
async function lackOf(context: Context, condition: Condition): Promise<string | undefined> {
  let status: DaemonStatus
  try {
    status = await askStatus(context)
  } catch (error) {
    if (error instanceof LockstepError && error.code === 'UNREACHABLE') return error.message
    throw error
  }
  if (status.failure !== undefined) return status.failure.message
  if (condition === 'ready') return undefined
  throw new LockstepError(
    'INVALID_ARGUMENT',
    `${status.node} has no peer, so it cannot become ${condition}`,
    'lockstep wait --for ready',
  )
}
