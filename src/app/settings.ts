// The table of settings: everything that can be set, once. Flags of `serve`, LOCKSTEP_* variables, keys of lockstep.toml, help, `config`
// and the documents all follow from it. Imports nothing heavy: every command reads it.
import { KiB, MiB } from '../core/units.js'

/** How a value is written and checked. A size is bytes or `64K`; a list in a variable is separated by spaces or commas. */
export type Setting =
  | (Described & { readonly type: 'list'; readonly default: readonly string[] })
  | (Described & { readonly type: 'flag'; readonly default: boolean })
  /** One word; empty means none. */
  | (Described & { readonly type: 'text'; readonly default: string; readonly placeholder: string })
  | (Described & {
      readonly type: 'choice'
      readonly choices: readonly string[]
      readonly default: string
    })
  | (Described & {
      readonly type: 'integer' | 'size' | 'seconds'
      readonly min: number
      readonly max: number
      readonly default: number
    })

type Described = {
  readonly description: string
  readonly group: 'Service' | 'Replication' | 'Limits'
}

export const settings = {
  listen: {
    type: 'list',
    default: ['nbd://127.0.0.1:10809'],
    group: 'Service',
    description: 'where clients connect: nbd://HOST:PORT or nbd+unix:///?socket=PATH; repeatable',
  },
  'log-level': {
    type: 'choice',
    choices: ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'],
    default: 'info',
    group: 'Service',
    description: 'the least important messages to be logged',
  },
  insecure: {
    type: 'flag',
    default: false,
    group: 'Service',
    description: 'allows a listener that other machines reach without TLS',
  },
  threads: {
    type: 'integer',
    min: 4,
    max: 512,
    default: 32,
    group: 'Service',
    description: 'threads for disk reads and writes that have to wait for the disk',
  },
  'poll-us': {
    type: 'integer',
    min: 0,
    max: 1000,
    default: 100,
    group: 'Service',
    description:
      'microseconds that the server stays awake for the next request where that pays off; 0: never',
  },
  peer: {
    type: 'text',
    default: '',
    placeholder: 'URI',
    group: 'Replication',
    description: 'where the other node listens; the primary connects to it',
  },
  mode: {
    type: 'choice',
    choices: ['sync', 'semi-sync', 'async'],
    default: 'sync',
    group: 'Replication',
    description: 'a write is answered when the peer has applied it, has received it, or at once',
  },
  congestion: {
    type: 'choice',
    choices: ['fold', 'stall'],
    default: 'fold',
    group: 'Replication',
    description:
      'what a full outbox does: fold, into a map of what the peer lacks; or stall, so that writers wait',
  },
  'outbox-bytes': {
    type: 'size',
    min: 64 * MiB,
    max: 16 * 1024 * MiB,
    default: 256 * MiB,
    group: 'Replication',
    description: 'changes kept in memory for a peer that is slow, or away for a moment',
  },
  'peer-deadline': {
    type: 'seconds',
    min: 2,
    max: 600,
    default: 5,
    group: 'Replication',
    description: 'seconds without a sign of life after which the peer is taken for gone',
  },
  'max-rate': {
    type: 'size',
    min: 0,
    max: 1024 * 1024 * MiB,
    default: 0,
    group: 'Replication',
    description: 'bytes a second that a resync may use; 0: as many as there are',
  },
  'before-resync': {
    type: 'choice',
    choices: ['required', 'if-room'],
    default: 'required',
    group: 'Replication',
    description:
      'on a replica without room for what it had before a resync: required, the resync stops; if-room, that is given up',
  },
  'hook-timeout': {
    type: 'seconds',
    min: 1,
    max: 86400,
    default: 60,
    group: 'Replication',
    description: 'seconds after which the hook of a mark is ended',
  },
  'peer-secret-file': {
    type: 'text',
    default: '',
    placeholder: 'FILE',
    group: 'Replication',
    description: 'a file with the secret that both nodes prove to know, for nodes on two machines',
  },
  connections: {
    type: 'integer',
    min: 1,
    max: 16384,
    default: 256,
    group: 'Limits',
    description: 'NBD connections in all',
  },
  'connections-per-export': {
    type: 'integer',
    min: 1,
    max: 16384,
    default: 64,
    group: 'Limits',
    description: 'NBD connections to one store',
  },
  handshakes: {
    type: 'integer',
    min: 1,
    max: 16384,
    default: 16,
    group: 'Limits',
    description: 'connections that have not chosen a store yet',
  },
  'handshake-timeout': {
    type: 'seconds',
    min: 1,
    max: 600,
    default: 10,
    group: 'Limits',
    description:
      'seconds from the first byte to the choice of a store; one more for each that was listed',
  },
  options: {
    type: 'integer',
    min: 8,
    max: 1024,
    default: 32,
    group: 'Limits',
    description: 'options that one handshake may send, and four more for each store that it lists',
  },
  'option-bytes': {
    type: 'size',
    min: 8 * KiB,
    max: 1 * MiB,
    default: 64 * KiB,
    group: 'Limits',
    description: 'length of one option',
  },
  'payload-bytes': {
    type: 'size',
    min: 1 * MiB,
    max: 32 * MiB,
    default: 32 * MiB,
    group: 'Limits',
    description: 'data of one request; clients are told',
  },
  'requests-in-flight': {
    type: 'integer',
    min: 1,
    max: 4096,
    default: 128,
    group: 'Limits',
    description: 'requests of one connection under way at once',
  },
  'bytes-in-flight': {
    type: 'size',
    min: 32 * MiB,
    max: 4096 * MiB,
    default: 64 * MiB,
    group: 'Limits',
    description: 'data of these requests',
  },
  'unread-timeout': {
    type: 'seconds',
    min: 1,
    max: 3600,
    default: 60,
    group: 'Limits',
    description: 'seconds after which a client that takes no reply is closed',
  },
  'unread-bytes': {
    type: 'size',
    min: 33 * MiB,
    max: 4096 * MiB,
    default: 64 * MiB,
    group: 'Limits',
    description: 'replies that a client has not taken, above which it is closed',
  },
  'memory-bytes': {
    type: 'size',
    min: 64 * MiB,
    max: 64 * 1024 * MiB,
    default: 160 * MiB,
    group: 'Limits',
    description: 'data of all connections under way; above, requests wait',
  },
  'control-connections': {
    type: 'integer',
    min: 1,
    max: 1024,
    default: 16,
    group: 'Limits',
    description: 'connections to the control socket',
  },
  'control-line-bytes': {
    type: 'size',
    min: 4 * KiB,
    max: 64 * MiB,
    default: 1 * MiB,
    group: 'Limits',
    description: 'length of one line on the control socket',
  },
} as const satisfies Readonly<Record<string, Setting>>

export type SettingKey = keyof typeof settings
type ValueOf<S> = S extends { type: 'list' }
  ? readonly string[]
  : S extends { type: 'flag' }
    ? boolean
    : S extends { type: 'text' | 'choice' }
      ? string
      : number
export type Config = { readonly [K in SettingKey]: ValueOf<(typeof settings)[K]> }
export type SettingValue = Config[SettingKey]

export const settingKeys = Object.keys(settings) as readonly SettingKey[]

export const variablePrefix = 'LOCKSTEP_'

export function variableOf(key: SettingKey): string {
  return `${variablePrefix}${key.toUpperCase().replaceAll('-', '_')}`
}

/** Variables that are not settings of the daemon, but ours: the last two are of scripts/backup. */
export const otherVariables: readonly string[] = [
  'LOCKSTEP_DIR',
  'LOCKSTEP_CONFIG',
  'LOCKSTEP_NBD',
  'LOCKSTEP_MAIN',
]
