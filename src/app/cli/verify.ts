// verify: whether both nodes hold the same bytes, compared at one position while writes go on; and the repair of what differs.
import { ExitCode } from '../../core/errors.js'
import { cannotCompare, noPeer } from '../../core/peer-errors.js'
import { checkStoreName } from '../../core/store-name.js'
import { formatBytes } from '../../core/units.js'
import type { VerifyProgress, VerifyReport } from '../../engine/api.js'
import { type Command, type Context, yesOption } from './command.js'
import { afterConfirmation, confirm } from './confirm.js'
import { patiently } from './patience.js'
import { ProgressTeller } from './progress.js'
import { askPrimary, storeOf } from './query.js'
import { percent } from './table.js'
import { ofWords, UsageError } from './usage-error.js'

/** The largest store at the speed of a slow disk; the daemon ends it when the link is lost. */
const verifyTimeoutMs = 24 * 60 * 60 * 1000
/** Ranges told to people; --json has all that the daemon names. */
const toldRangesMax = 10
const toldSharersMax = 5

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
  if (store !== undefined) ofWords(() => checkStoreName(store))
  const repair = context.arguments.isSet('repair')
  const from = repairSource(context, repair)
  if (repair) await confirmRepair(context, store, from)
  const isAwaited = !context.arguments.isSet('no-wait')
  const params = {
    repair,
    ...(store === undefined ? {} : { store }),
    ...(repair ? { from } : {}),
    ...(isAwaited ? {} : { wait: false }),
  }
  const answer = await request(context, params, repair)
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

/** What can be refused is refused before anybody is asked. */
async function confirmRepair(
  context: Context,
  store: string | undefined,
  from: Side,
): Promise<void> {
  const { stores, peers } = await askPrimary(context)
  if (store !== undefined) storeOf(stores, store)
  const [peer] = peers
  if (peer === undefined) throw noPeer()
  if (peer.link === 'offline' || peer.link === 'refused') throw cannotCompare(peer)
  const what = store ?? 'any store'
  const [loser, winner] = from === 'peer' ? ['this node', 'the peer'] : ['the peer', 'this node']
  await confirm(context, {
    lost: `what ${loser} holds of ${what} where it differs will be lost: it becomes what ${winner} holds`,
    name: store ?? 'repair',
  })
}

type Answer = { readonly job: string; readonly stores: readonly VerifyReport[] }

async function request(context: Context, params: object, isConfirmed: boolean): Promise<Answer> {
  const client = await context.client()
  const teller = new ProgressTeller(context.output)
  let isBegun = false
  client.onNotification((method, progress) => {
    if (method !== 'progress') return
    const { job } = progress as { readonly job: string }
    if (!isBegun)
      context.ifInterrupted(`it goes on: lockstep job wait ${job}, or lockstep job cancel ${job}`)
    isBegun = true
    teller.tell(progress as VerifyProgress)
  })
  context.ifInterrupted('it goes on: lockstep job list')
  try {
    const asked = client.request('verify', params, { timeoutMs: verifyTimeoutMs })
    const answer = patiently(context, asked)
    return (await (isConfirmed ? afterConfirmation(answer, () => isBegun) : answer)) as Answer
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
  return stores
    .map((report, index) => {
      const same = stores.slice(0, index).find((before) => isSameDifference(before, report))
      return same === undefined ? reportText(report, repaired) : sameText(report, same, repaired)
    })
    .join('\n')
}

/** The chunks that differ are those of another store, which was told already. */
function isSameDifference(before: VerifyReport, report: VerifyReport): boolean {
  if (report.differingBytes === 0 || before.sharedWith?.includes(report.store) !== true)
    return false
  return JSON.stringify(before.ranges) === JSON.stringify(report.ranges)
}

function sameText(report: VerifyReport, same: VerifyReport, repaired: Side | undefined): string {
  const { store, differingBytes, comparedBytes, skippedBytes = 0 } = report
  const part = `${formatBytes(differingBytes)} of ${formatBytes(comparedBytes)}`
  // What was done about it is told with the first store, unless here it was less.
  const repair = skippedBytes === 0 ? '' : repairText(report, repaired)
  return `${store}: ${part} may differ, at the same places as in ${same.store}, with which it shares chunks${repair}`
}

function reportText(report: VerifyReport, repaired: Side | undefined): string {
  const { store, comparedBytes, differingBytes, ranges } = report
  if (differingBytes === 0)
    return `${store}: the same on both nodes (${formatBytes(comparedBytes)})`
  const head = `${store}: ${formatBytes(differingBytes)} of ${formatBytes(comparedBytes)} (${percent(differingBytes, comparedBytes)}) may differ${sharedText(report)}${repairText(report, repaired)}`
  const told = ranges
    .slice(0, toldRangesMax)
    .map(({ offset, lengthBytes }) => `  ${lengthBytes} bytes from byte ${offset} on`)
  const more = ranges.length > toldRangesMax ? ['  and more: --json names them'] : []
  return [head, ...told, ...more].join('\n')
}

function sharedText({ sharedWith = [] }: VerifyReport): string {
  if (sharedWith.length === 0) return ''
  const more = sharedWith.length > toldSharersMax ? ' and more' : ''
  return ` (shared with ${sharedWith.slice(0, toldSharersMax).join(', ')}${more})`
}

function repairText({ skippedBytes = 0 }: VerifyReport, repaired: Side | undefined): string {
  if (repaired === undefined) return ''
  if (repaired === 'self') return '; the peer gets what this node has: lockstep wait --for in-sync'
  if (skippedBytes === 0) return '; this node has what the peer has now'
  return `; this node has what the peer has, except ${formatBytes(skippedBytes)} that were written to meanwhile: run it again`
}
