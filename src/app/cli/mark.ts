// mark: a marker in the stream, at which the replica may keep snapshots and run a hook; and what became of it.
import { randomUUID } from 'node:crypto'
import { controlLimits } from '../../control/limits.js'
import { ExitCode } from '../../core/errors.js'
import { checkMarkRequest } from '../../core/mark-request.js'
import type { MarkResult, OperationResult } from '../../engine/api.js'
import type { Command, Context } from './command.js'
import { patiently } from './patience.js'
import { ofWords, UsageError } from './usage-error.js'
import { readSeconds } from './values.js'

const waitSecondsDefault = 120
/** Of what a hook said: the end of it. */
const toldLinesMax = 20
/** For the answer to come, beyond what it waits for. */
const answerTimeoutMs = 30_000

export const markCommands: readonly Command[] = [
  {
    name: 'mark',
    summary: 'marks this position; the replica may keep snapshots there and run a hook',
    positionals: [{ name: 'name', description: 'what the mark is called' }],
    options: {
      message: {
        type: 'text',
        placeholder: 'TEXT',
        description: 'for people, and for the hook',
        completion: 'none',
      },
      snapshot: {
        type: 'text',
        placeholder: 'SNAP',
        description: 'the replica keeps every volume as it is here, as VOLUME@local.SNAP',
        completion: 'none',
      },
      hook: {
        type: 'text',
        placeholder: 'HOOK',
        description: 'a program that the replica has in its list, run behind the snapshot',
        completion: 'none',
      },
      wait: {
        type: 'flag',
        description: 'waits for what the replica did (exit code 3 when some of it was not done)',
      },
      timeout: {
        type: 'text',
        placeholder: 'S',
        description: `how long to wait, in seconds (${waitSecondsDefault})`,
        completion: 'none',
      },
    },
    examples: [
      ['lockstep mark nightly --snapshot nightly', 'kept on the replica as VOLUME@local.nightly'],
      ['lockstep mark nightly --snapshot nightly --hook backup --wait', 'and what the hook said'],
    ],
    run: mark,
  },
]

type Answer = OperationResult & { readonly result?: MarkResult }

async function mark(context: Context): Promise<ExitCode> {
  const { arguments: words, output } = context
  const name = words.text('name')
  const wait = words.isSet('wait')
  const timeout = words.maybeText('timeout')
  if (timeout !== undefined && !wait)
    throw new UsageError('--timeout needs --wait', `lockstep mark ${name} --wait --timeout 60`)
  const secondsMax = controlLimits.waitTimeoutMsMax / 1000
  const seconds = readSeconds(timeout ?? String(waitSecondsDefault), 'the timeout', secondsMax)
  const given = (['message', 'hook', 'snapshot'] as const).flatMap((option) => {
    const value = words.maybeText(option)
    return value === undefined ? [] : [[option, value] as const]
  })
  const request = ofWords(() => checkMarkRequest({ name, ...Object.fromEntries(given) }))
  const timeoutMs = Math.ceil(seconds * 1000)
  const params = {
    ...request,
    ...(wait ? { wait, timeoutMs } : {}),
    requestId: randomUUID(),
  }
  const client = await context.client()
  const options = { timeoutMs: timeoutMs + answerTimeoutMs }
  context.ifInterrupted('lockstep events, to see whether it was made')
  const asked = client.request('mark', params, options)
  const waitsFor = wait ? 'the peer has not told its result yet' : 'a disk has not answered yet'
  const answer = (await patiently(context, asked, {
    otherwise: waitsFor,
    needsLink: wait,
  })) as Answer
  output.result(answer, markText(name, answer))
  const isPartly = (answer.result?.problems.length ?? 0) > 0 || hasFailed(answer.result)
  return isPartly ? ExitCode.PARTLY_DONE : ExitCode.DONE
}

function hasFailed(result: MarkResult | undefined): boolean {
  return result?.hook !== undefined && (result.hook.isTimedOut || result.hook.exitCode !== 0)
}

export function markText(name: string, { position, result }: Answer): string {
  const lines = [`marked ${name} at sequence ${position.sequence}`]
  if (result === undefined) return lines.join('\n')
  const { snapshots, snapshotCount, hook, problems } = result
  if (snapshotCount > 0) {
    const more = snapshotCount > snapshots.length ? `, … (${snapshotCount} in all)` : ''
    lines.push(`  the replica keeps ${snapshots.join(', ')}${more}`)
  }
  if (hook !== undefined) lines.push(`  hook ${hook.name} ${hookText(hook)}`, ...said(hook.output))
  for (const { message, action } of problems) {
    lines.push(`  problem: ${message}`)
    if (action !== '') lines.push(`      try: ${action}`)
  }
  return lines.map(plain).join('\n')
}

function hookText({ exitCode, signal, isTimedOut }: NonNullable<MarkResult['hook']>): string {
  if (isTimedOut) return 'took too long and was ended'
  if (signal !== undefined) return `was ended by ${signal}`
  return exitCode === 0 ? 'succeeded' : `failed with exit code ${exitCode ?? 'unknown'}`
}

function said(text: string): readonly string[] {
  const trimmed = text.trimEnd()
  if (trimmed === '') return []
  const lines = trimmed.split('\n')
  const told = lines.slice(-toldLinesMax).map((line) => `    | ${line}`)
  return lines.length > toldLinesMax ? ['    | … (--json has more)', ...told] : told
}

/** It comes from another machine: nothing of it may move the cursor of this one. */
function plain(line: string): string {
  return line.replaceAll(/\p{Cc}/gu, (character) => (character === '\t' ? '  ' : '\ufffd'))
}
