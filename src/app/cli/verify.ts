// verify: whether both nodes hold the same bytes, compared at one position while writes go on; and the repair of what differs.
import { ExitCode } from '../../core/errors.js'
import { formatBytes } from '../../core/units.js'
import type { VerifyProgress, VerifyReport } from '../../engine/api.js'
import { type Command, type Context, yesOption } from './command.js'
import { confirm } from './confirm.js'
import { percent } from './table.js'

/** The largest store at the speed of a slow disk; the daemon ends it when the link is lost. */
const verifyTimeoutMs = 24 * 60 * 60 * 1000
/** Ranges told to people; --json has all that the daemon names. */
const toldRangesMax = 10
const stepPercent = 10

export const verifyCommands: readonly Command[] = [
  {
    name: 'verify',
    summary: 'compares stores with those of the peer, while writes go on',
    positionals: [{ name: 'store', description: 'one store; else all', isOptional: true }],
    options: {
      repair: {
        type: 'flag',
        description: 'what differs is copied from this node to the peer',
      },
      ...yesOption,
    },
    examples: [
      ['lockstep verify vol0', 'exit code 6 when the nodes differ'],
      ['lockstep verify --repair --yes', 'the peer gets what differs'],
    ],
    run: verify,
  },
]

async function verify(context: Context): Promise<ExitCode> {
  const store = context.arguments.maybeText('store')
  const repair = context.arguments.isSet('repair')
  if (repair) {
    const what = store ?? 'any store'
    await confirm(context, {
      lost: `what the peer holds of ${what} where it differs will be lost: it becomes what this node holds`,
      name: store ?? 'repair',
    })
  }
  const client = await context.client()
  const tell = progressTeller(context)
  client.onNotification((method, params) => {
    if (method === 'progress') tell(params as VerifyProgress)
  })
  const params = store === undefined ? { repair } : { store, repair }
  const answer = await client.request('verify', params, { timeoutMs: verifyTimeoutMs })
  const { stores } = answer as { stores: readonly VerifyReport[] }
  context.output.result({ stores }, verifyText(stores, repair))
  return stores.some((one) => one.differingBytes > 0) && !repair ? ExitCode.DEGRADED : ExitCode.DONE
}

/** A bar in place on a terminal, a line for each tenth elsewhere. */
function progressTeller(context: Context): (progress: VerifyProgress) => void {
  const { output } = context
  let last = ''
  return ({ store, doneBytes, totalBytes }) => {
    const part = totalBytes === 0 ? 100 : Math.floor((doneBytes / totalBytes) * 100)
    const step = Math.floor(part / stepPercent) * stepPercent
    const line = `${store}: compared ${step} % of ${formatBytes(totalBytes)}`
    if (line === last) return
    last = line
    output.note(line)
  }
}

function verifyText(stores: readonly VerifyReport[], isRepaired: boolean): string {
  if (stores.length === 0) return 'no stores'
  return stores.map((report) => reportText(report, isRepaired)).join('\n')
}

function reportText(report: VerifyReport, isRepaired: boolean): string {
  const { store, comparedBytes, differingBytes, ranges } = report
  if (differingBytes === 0)
    return `${store}: the same on both nodes (${formatBytes(comparedBytes)})`
  const end = isRepaired ? '; the peer gets what this node has: lockstep wait --for in-sync' : ''
  const head = `${store}: ${formatBytes(differingBytes)} of ${formatBytes(comparedBytes)} (${percent(differingBytes, comparedBytes)}) may differ${end}`
  const told = ranges
    .slice(0, toldRangesMax)
    .map(({ offset, lengthBytes }) => `  bytes ${offset} to ${offset + lengthBytes}`)
  const more = ranges.length > toldRangesMax ? ['  and more: --json names them'] : []
  return [head, ...told, ...more].join('\n')
}
