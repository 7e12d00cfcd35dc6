// The commands that look and change nothing: status, dirty, events.
import { setTimeout as delay } from 'node:timers/promises'
import type { DaemonStatus } from '../../control/api.js'
import { ExitCode, LockstepError } from '../../core/errors.js'
import { checkStoreName } from '../../core/store-name.js'
import type { DirtyReport, EngineEvent } from '../../engine/api.js'
import type { Command, Context } from './command.js'
import { complaintsOf, dirtyText, eventLine, statusText, unhealthyText } from './format.js'
import { ask, askStatus } from './query.js'
import { ofWords } from './usage-error.js'

const watchEveryMs = 1_000
/** The picture is as wide as the terminal, but not wider than this. */
const cellCountMax = 120

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
    summary: 'shows what the peer may lack, or what changed since a snapshot, and where',
    positionals: [{ name: 'store', description: 'one store; else every volume', isOptional: true }],
    examples: [['lockstep dirty vol0', 'with a picture from the first byte to the last']],
    async run(context) {
      const store = context.arguments.maybeText('store')
      if (store !== undefined) ofWords(() => checkStoreName(store))
      const cells = Math.max(16, Math.min(cellCountMax, context.output.columns - 4))
      const params = store === undefined ? { cells } : { store, cells }
      const result = (await ask(context, 'dirty', params)) as { stores: readonly DirtyReport[] }
      const { peers, role } = await askStatus(context)
      // What a secondary lacks only its primary knows.
      const known = role === 'primary' ? peers : []
      context.output.result(result, dirtyText(result.stores, known))
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
  const show = (event: EngineEvent) => output.result(event, eventLine(event), { isQuoted: true })
  client.onNotification((method, params) => {
    if (method === 'event') show(params as EngineEvent)
  })
  const answer = await ask(context, 'events', { follow })
  const { events } = answer as { events: readonly EngineEvent[] }
  if (!follow) {
    output.result({ events }, events.map(eventLine).join('\n'), { isQuoted: true })
    return ExitCode.DONE
  }
  events.forEach(show)
  await client.closed
  throw new LockstepError('UNREACHABLE', 'the daemon closed the connection', 'lockstep status')
}
