// The commands on the other node: list, connect, disconnect, set, forget.
import { controlLimits } from '../../control/limits.js'
import { ExitCode } from '../../core/errors.js'
import { formatBytes } from '../../core/units.js'
import type { Explanation, ForgottenPeer, PeerStatus } from '../../engine/api.js'
import { type Command, type Context, yesOption } from './command.js'
import { afterConfirmation, confirm } from './confirm.js'
import { patiently } from './patience.js'
import { explanationText, peerListText } from './peer-text.js'
import { ask, askStatus } from './query.js'
import { ofWords, UsageError } from './usage-error.js'
import { readRate } from './values.js'

const modes = ['sync', 'semi-sync', 'async'] as const

export const peerCommands: readonly Command[] = [
  {
    name: 'peer list',
    summary: 'shows the other node, the link to it, and what it lacks',
    examples: [['lockstep peer list', 'why the link is as it is, and how far a resync is']],
    async run(context) {
      const { peers, role } = await askStatus(context)
      context.output.result({ peers }, peerListText(peers, role))
      return ExitCode.DONE
    },
  },
  {
    name: 'peer connect',
    summary: 'connects now, and says what the two nodes decided',
    options: {
      explain: {
        type: 'flag',
        description: 'only says what would be done: rule, direction, operations and bytes',
      },
    },
    examples: [['lockstep peer connect --explain', 'moves nothing']],
    run: connectPeer,
  },
  {
    name: 'peer disconnect',
    summary: 'ends the link until peer connect, or the next start of the daemon',
    examples: [
      ['lockstep peer disconnect', 'writes go on without the peer; what it lacks is kept in mind'],
    ],
    async run(context) {
      const result = (await ask(context, 'peer.disconnect')) as Peers
      const text =
        'disconnected until lockstep peer connect, or the next start: then the peer is brought up to date'
      context.output.result(result, text)
      return ExitCode.DONE
    },
  },
  {
    name: 'peer set',
    summary: 'gives the peer another address, mode or resync rate, kept at further starts',
    positionals: [{ name: 'uri', description: 'where the other node listens', isOptional: true }],
    options: {
      mode: {
        type: 'text',
        placeholder: 'MODE',
        description: 'sync, semi-sync or async: from the next write on',
        completion: modes,
      },
      'max-rate': {
        type: 'text',
        placeholder: 'RATE',
        description: 'bytes a second that a resync may use, such as 50M; 0: as many as there are',
      },
    },
    examples: [
      ['lockstep peer set nbd://192.0.2.7:10809', ''],
      ['lockstep peer set --mode async', 'writes are answered without waiting for the peer'],
      ['lockstep peer set --max-rate 50M', 'a resync leaves the rest of the line to others'],
    ],
    run: setPeer,
  },
  {
    name: 'peer forget',
    summary: 'lets go of a node that does not come back, and of what is known that it lacks',
    options: yesOption,
    examples: [
      ['lockstep peer forget', 'then a blank node can take its place: lockstep peer connect'],
    ],
    run: forgetPeer,
  },
]

async function forgetPeer(context: Context): Promise<ExitCode> {
  const { peers, role } = await askStatus(context)
  const [peer] = peers
  const known = `${formatBytes(peer?.lacksBytes ?? 0)} and ${peer?.opLogEntries ?? 0} operations`
  // Not by its name: the node that was met last may be another one. A secondary is refused, and loses nothing.
  if (role === 'primary')
    await confirm(context, {
      lost: `what is known that the replica lacks (${known}) will be lost: when it returns it needs everything again`,
      name: 'forget',
    })
  const answer = ask(context, 'peer.forget')
  const forgotten = (await (role === 'primary'
    ? afterConfirmation(answer)
    : answer)) as ForgottenPeer
  const text = `forgot ${forgotten.node ?? 'the peer'}; the link stays closed until lockstep peer connect, or the next start`
  context.output.result(forgotten, text)
  return ExitCode.DONE
}

type Peers = { readonly peers: readonly PeerStatus[] }

async function connectPeer(context: Context): Promise<ExitCode> {
  const explain = context.arguments.isSet('explain')
  const answer = ask(context, 'peer.connect', { explain })
  const explanation = (await patiently(context, answer, {
    otherwise: 'the peer is asked',
  })) as Explanation
  context.output.result(explanation, explanationText(explanation))
  switch (explanation.kind) {
    case 'split-brain':
      return ExitCode.SPLIT_BRAIN
    case 'refuse':
      return ExitCode.REFUSED_FOR_SAFETY
    default:
      return ExitCode.DONE
  }
}

async function setPeer(context: Context): Promise<ExitCode> {
  const uri = context.arguments.maybeText('uri')
  const word = context.arguments.maybeText('mode')
  const usage =
    'lockstep peer set nbd://HOST:PORT, lockstep peer set --mode sync|semi-sync|async, or lockstep peer set --max-rate RATE'
  const mode = modes.find((known) => known === word)
  if (word !== undefined && mode === undefined) {
    throw new UsageError(`there is no mode "${word}"`, usage)
  }
  const rate = context.arguments.maybeText('max-rate')
  if (uri === undefined && mode === undefined && rate === undefined) {
    throw new UsageError('peer set needs an address, a mode or a rate', usage)
  }
  const maxRate = rate === undefined ? undefined : readRate(rate, controlLimits.rateBytesMax)
  if (uri !== undefined) await checkUri(uri)
  const changes = {
    ...(uri === undefined ? {} : { uri }),
    ...(mode === undefined ? {} : { mode }),
    ...(maxRate === undefined ? {} : { maxRate }),
  }
  const result = (await ask(context, 'peer.set', changes)) as Peers
  const said = [
    uri === undefined ? '' : `the peer is ${uri}`,
    mode === undefined ? '' : `the mode is ${mode}`,
    maxRate === undefined ? '' : `a resync uses ${rateText(maxRate)}`,
  ]
  const text = `${said.filter((part) => part !== '').join(', ')}; kept until peer set or the configuration says otherwise`
  context.output.result(result, text)
  return ExitCode.DONE
}

async function checkUri(uri: string): Promise<void> {
  const { parsePeerUri } = await import('../listen.js')
  ofWords(() => parsePeerUri(uri))
}

function rateText(maxRate: number): string {
  return maxRate === 0 ? 'as much as there is' : `at most ${formatBytes(maxRate)} a second`
}
