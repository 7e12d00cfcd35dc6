// The commands on the other node: list, connect, disconnect, set.
import { ExitCode } from '../../core/errors.js'
import type { Explanation, PeerStatus } from '../../engine/api.js'
import type { Command, Context } from './command.js'
import { explanationText, peerListText } from './peer-text.js'
import { ask, askStatus } from './query.js'
import { UsageError } from './usage-error.js'

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
    summary: 'ends the link until peer connect; changes are kept in mind for the peer',
    examples: [['lockstep peer disconnect', 'writes go on without the peer']],
    async run(context) {
      const result = (await ask(context, 'peer.disconnect')) as Peers
      const text = 'disconnected; lockstep peer connect brings the peer up to date again'
      context.output.result(result, text)
      return ExitCode.DONE
    },
  },
  {
    name: 'peer set',
    summary: 'gives the peer another address or mode, until the daemon starts again',
    positionals: [{ name: 'uri', description: 'where the other node listens', isOptional: true }],
    options: {
      mode: {
        type: 'text',
        placeholder: 'MODE',
        description: 'sync, semi-sync or async: from the next write on',
        completion: modes,
      },
    },
    examples: [
      ['lockstep peer set nbd://192.0.2.7:10809', ''],
      ['lockstep peer set --mode async', 'writes are answered without waiting for the peer'],
    ],
    run: setPeer,
  },
]

type Peers = { readonly peers: readonly PeerStatus[] }

async function connectPeer(context: Context): Promise<ExitCode> {
  const explain = context.arguments.isSet('explain')
  const explanation = (await ask(context, 'peer.connect', { explain })) as Explanation
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
    'lockstep peer set nbd://HOST:PORT, or lockstep peer set --mode sync|semi-sync|async'
  const mode = modes.find((known) => known === word)
  if (word !== undefined && mode === undefined) {
    throw new UsageError(`there is no mode "${word}"`, usage)
  }
  if (uri === undefined && mode === undefined) {
    throw new UsageError('peer set needs an address or a mode', usage)
  }
  const changes = { ...(uri === undefined ? {} : { uri }), ...(mode === undefined ? {} : { mode }) }
  const result = (await ask(context, 'peer.set', changes)) as Peers
  const said = [
    uri === undefined ? '' : `the peer is ${uri}`,
    mode === undefined ? '' : `the mode is ${mode}`,
  ]
  const text = `${said.filter((part) => part !== '').join(', ')}; to keep it, write it into lockstep.toml`
  context.output.result(result, text)
  return ExitCode.DONE
}
