// verify: whether both nodes hold the same bytes, compared at one position while writes go on; and the repair of what differs.
import { ExitCode } from '../../core/errors.js'
import { formatBytes } from '../../core/units.js'
import type { VerifyProgress, VerifyReport } from '../../engine/api.js'
import { type Command, type Context, yesOption } from './command.js'
import { confirm } from './confirm.js'
import { patiently } from './patience.js'
import { ProgressTeller } from './progress.js'
import { percent } from './table.js'
import { UsageError } from './usage-error.js'

/** The largest store at the speed of a slow disk; the daemon ends it when the link is lost. */
const verifyTimeoutMs = 24 * 60 * 60 * 1000
/** Ranges told to people; --json has all that the daemon names. */
const toldRangesMax = 10

const sides = ['self', 'peer'] as const
export type Side = (typeof sides)[number]

export const verifyCommands: readonly Command[] = [
  {
    name: 'verify',
    summary: 'compares stores with those of the peer, while writes go on',
    positionals: [{ name: 'store', description: 'one store; else all', isOptional: true }],
    options: {
      repair: {
        type: 'flag',
        description: 'what differs is copied, to the peer unless --from says otherwise',
      },
      from: {
        type: 'text',
        placeholder: 'NODE',
        description: 'whose bytes are right: self (this node) or peer; only with --repair',
        completion: sides,
      },
      'no-wait': {
        type: 'flag',
        description: 'returns at once; lockstep job wait tells the result',
      },
      ...yesOption,
    },
    examples: [
      ['lockstep verify vol0', 'exit code 6 when the nodes differ'],
      ['lockstep verify --repair --yes', 'the peer gets what differs'],
      ['lockstep verify vol0 --repair --from peer', 'this node gets what differs'],
    ],
    run: verify,
  },
]

async function verify(context: Context): Promise<ExitCode> {
  const store = context.arguments.maybeText('store')
  const repair = context.arguments.isSet('repair')
  const from = repairSource(context, repair)
  if (repair) {
    const what = store ?? 'any store'
    const [loser, winner] = from === 'peer' ? ['this node', 'the peer'] : ['the peer', 'this node']
    await confirm(context, {
      lost: `what ${loser} holds of ${what} where it differs will be lost: it becomes what ${winner} holds`,
      name: store ?? 'repair',
    })
  }
  const isAwaited = !context.arguments.isSet('no-wait')
  const params = {
    repair,
    ...(store === undefined ? {} : { store }),
    ...(repair ? { from } : {}),
    ...(isAwaited ? {} : { wait: false }),
  }
  const answer = await request(context, params)
  if (!isAwaited) {
    const text = `verifying as job ${answer.job}; its result: lockstep job wait ${answer.job}`
    context.output.result({ job: answer.job }, text)
    return ExitCode.DONE
  }
  const { stores } = answer
  const repaired = repair ? from : undefined
  context.output.result({ stores }, verifyText(stores, repaired))
  return verifyExitCode(stores, repaired)
}

type Answer = { readonly job: string; readonly stores: readonly VerifyReport[] }

async function request(context: Context, params: object): Promise<Answer> {
  const client = await context.client()
  const teller = new ProgressTeller(context.output)
  client.onNotification((method, progress) => {
    if (method === 'progress') teller.tell(progress as VerifyProgress)
  })
  try {
    const answer = client.request('verify', params, { timeoutMs: verifyTimeoutMs })
    return (await patiently(context, answer)) as Answer
  } finally {
    teller.end()
  }
}

export function verifyExitCode(
  stores: readonly VerifyReport[],
  repaired: Side | undefined,
): ExitCode {
  if (stores.some((one) => (one.skippedBytes ?? 0) > 0)) return ExitCode.PARTLY_DONE
  const isDifferent = stores.some((one) => one.differingBytes > 0)
  return isDifferent && repaired === undefined ? ExitCode.DEGRADED : ExitCode.DONE
}

function repairSource(context: Context, repair: boolean): Side {
  const word = context.arguments.maybeText('from')
  if (word === undefined) return 'self'
  const usage = `lockstep verify --repair --from ${sides.join('|')}`
  if (!repair) throw new UsageError('--from needs --repair', usage)
  const side = sides.find((known) => known === word)
  if (side === undefined) throw new UsageError(`--from is self or peer, not "${word}"`, usage)
  return side
}

export function verifyText(stores: readonly VerifyReport[], repaired: Side | undefined): string {
  if (stores.length === 0) return 'no stores'
  return stores.map((report) => reportText(report, repaired)).join('\n')
}

function reportText(report: VerifyReport, repaired: Side | undefined): string {
  const { store, comparedBytes, differingBytes, ranges } = report
  if (differingBytes === 0)
    return `${store}: the same on both nodes (${formatBytes(comparedBytes)})`
  const head = `${store}: ${formatBytes(differingBytes)} of ${formatBytes(comparedBytes)} (${percent(differingBytes, comparedBytes)}) may differ${repairText(report, repaired)}`
  const told = ranges
    .slice(0, toldRangesMax)
    .map(({ offset, lengthBytes }) => `  bytes ${offset} to ${offset + lengthBytes}`)
  const more = ranges.length > toldRangesMax ? ['  and more: --json names them'] : []
  return [head, ...told, ...more].join('\n')
}

function repairText({ skippedBytes = 0 }: VerifyReport, repaired: Side | undefined): string {
  if (repaired === undefined) return ''
  if (repaired === 'self') return '; the peer gets what this node has: lockstep wait --for in-sync'
  if (skippedBytes === 0) return '; this node has what the peer has now'
  return `; this node has what the peer has, except ${formatBytes(skippedBytes)} that were written to meanwhile: run it again`
}
