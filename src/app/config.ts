// The settings in force: flags, then LOCKSTEP_* variables, then lockstep.toml, then defaults; each with where it is from. A key that is
// not known or a value that is not right is an error that names the place, never a default taken silently.
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { SettingReport } from '../control/api.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { formatBytes, parseSize } from '../core/units.js'
import { NotAFile } from '../storage/node-disk-kind.js'
import { type Hooks, readHooks } from './hooks.js'
import {
  type Configured,
  type KeptPeer,
  keptKeys,
  keptPeerName,
  readKeptPeer,
  stillKept,
} from './kept-peer.js'
import { parseListenUri, parsePeerUri } from './listen.js'
import { nearest } from './nearest.js'
import { readPlainFile } from './plain-file.js'
import {
  type Config,
  otherVariables,
  type Setting,
  type SettingKey,
  type SettingValue,
  settingKeys,
  settings,
  variableOf,
  variablePrefix,
} from './settings.js'

export type ResolvedConfig = {
  readonly values: Config
  readonly reports: readonly SettingReport[]
  /** Sentences for the log: variables that look like ours and are none. */
  readonly warnings: readonly string[]
  /** Programs that marks may run, by name. */
  readonly hooks: Hooks
  /** What `peer set` said, as far as it holds; and what would hold without it. */
  readonly keptPeer: KeptPeer
  /** Some of what `peer set` said holds no more: the file has to be written anew. */
  readonly isPeerOverruled: boolean
  readonly configured: Configured
}

export type ConfigSources = {
  readonly directory: string
  /** From the command line, by key; undefined where nothing was given. */
  readonly flags: Readonly<Record<string, unknown>>
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Another file than DIR/lockstep.toml: must exist. */
  readonly file?: string
}

/** Where the report says that a value is from. */
export const peerSetOrigin = 'lockstep peer set'
/** The one key of the file that is a table. */
const hooksKey = 'hooks'

/** What a value means is checked where it is given, not only when it is used. */
const readers: { readonly [K in SettingKey]?: (text: string) => unknown } = {
  listen: parseListenUri,
  peer: (uri) => uri === '' || parsePeerUri(uri),
}

type Given = { readonly value: SettingValue; readonly origin: string }

/** Throws LockstepError INVALID_CONFIG. */
export async function resolveConfig(sources: ConfigSources): Promise<ResolvedConfig> {
  const { LOCKSTEP_CONFIG: fileVariable } = sources.environment
  const file = sources.file ?? fileVariable
  const path = file ?? join(sources.directory, 'lockstep.toml')
  const inFile = await readConfigFile(path, { mustExist: file !== undefined })
  const given = new Map(
    settingKeys.map((key) => {
      // All of them are read: a mistake is told also where another place overrules it today.
      const [first] = [
        fromFlag(key, sources.flags[key]),
        fromVariable(key, sources.environment),
        fromFile(key, inFile, path),
      ].filter((one) => one !== undefined)
      return [key, first ?? { value: settings[key].default, origin: 'default' }]
    }),
  )
  const configured = Object.fromEntries(
    keptKeys.map((key) => {
      const { value = '', origin = 'default' } = given.get(key) ?? {}
      return [key, { value: String(value), origin }]
    }),
  ) as Configured
  const said = await readKeptPeer(sources.directory)
  const keptPeer = stillKept(said, configured)
  for (const key of keptKeys) {
    const kept = keptPeer[key]
    if (kept !== undefined) given.set(key, keptValue(key, kept.value, sources.directory))
  }
  const hooks = readHooks(inFile[hooksKey] ?? {}, path)
  const values = Object.fromEntries([...given].map(([key, { value }]) => [key, value])) as Config
  const reports = [
    ...[...given].map(([key, one]) => ({ key, ...one })),
    ...Object.entries(hooks).map(([name, value]) => ({
      key: `${hooksKey}.${name}`,
      value,
      origin: path,
    })),
  ]
  const overruled = keptKeys
    .filter((key) => said[key] !== undefined && keptPeer[key] === undefined)
    .map((key) => `${key} is ${configured[key].value} again: it was set after lockstep peer set`)
  const warnings = [...unknownVariables(sources.environment), ...overruled]
  const isPeerOverruled = overruled.length > 0
  return { values, reports, warnings, hooks, keptPeer, isPeerOverruled, configured }
}

/** Checked as if it were in the file: it may have been written by another version. */
function keptValue(key: SettingKey, value: string, directory: string): Given {
  const path = join(directory, keptPeerName)
  const from = { origin: path, place: `${path}: ${key}` }
  return { value: readValue(key, value, from), origin: peerSetOrigin }
}

function fromFlag(key: SettingKey, given: unknown): Given | undefined {
  if (given === undefined || (Array.isArray(given) && given.length === 0)) return undefined
  const origin = `--${key}`
  return { value: readValue(key, given, { origin, place: origin }), origin }
}

function fromVariable(
  key: SettingKey,
  environment: ConfigSources['environment'],
): Given | undefined {
  const origin = variableOf(key)
  const text = environment[origin]
  if (text === undefined || text === '') return undefined
  const setting: Setting = settings[key]
  const given = setting.type === 'list' ? text.split(/[\s,]+/).filter((part) => part !== '') : text
  return { value: readValue(key, given, { origin, place: `the variable ${origin}` }), origin }
}

function fromFile(
  key: SettingKey,
  inFile: Readonly<Record<string, unknown>>,
  path: string,
): Given | undefined {
  if (!Object.hasOwn(inFile, key)) return undefined
  const place = `${path}: ${key}`
  return { value: readValue(key, inFile[key], { origin: path, place }), origin: path }
}

async function readConfigFile(
  path: string,
  options: { readonly mustExist: boolean },
): Promise<Readonly<Record<string, unknown>>> {
  let text: string
  try {
    // What was asked for by name may be a pipe: the shell's <(…).
    text = await (options.mustExist ? readFile(path, 'utf8') : readPlainFile(path))
  } catch (error) {
    if (error instanceof NotAFile)
      throw invalid(error.message, `put a file there, or move ${path} away`)
    const errno = errnoNameOf(error)
    if ((errno === 'ENOENT' || errno === 'ENOTDIR') && !options.mustExist) return {}
    if (errno === 'EACCES' && !options.mustExist)
      throw new LockstepError(
        'IO_ERROR',
        `no permission to read ${path}`,
        `run the command as the owner of ${dirname(path)}`,
      )
    throw invalid(`${path} cannot be read: ${errno}`, `check the file: ls -l ${path}`)
  }
  const { parse, TomlError } = await import('smol-toml')
  try {
    const table = parse(text)
    for (const key of Object.keys(table)) checkKey(key, path)
    return table
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const reason = error.message.split('\n', 1)[0] ?? ''
    throw invalid(`${path}, line ${error.line}: ${reason}`, `correct the line in ${path}`)
  }
}

function checkKey(key: string, path: string): void {
  const keys = [...settingKeys, hooksKey]
  if (keys.includes(key)) return
  const meant = nearest(key, keys)
  const action =
    meant === undefined
      ? `remove it from ${path}; lockstep serve --help lists the known keys, as flags`
      : `write ${meant} in ${path}, or remove the line`
  throw invalid(`${path} has the unknown key "${key}"`, action)
}

type Place = { readonly origin: string; readonly place: string }

function readValue(key: SettingKey, given: unknown, from: Place): SettingValue {
  const value = readForm(settings[key], given, from)
  try {
    for (const text of [value].flat()) readers[key]?.(String(text))
    return value
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error
    throw invalid(`${from.place}: ${error.message}`, error.action)
  }
}

function readForm(setting: Setting, given: unknown, from: Place): SettingValue {
  const wrong = (expected: string) =>
    invalid(
      `${from.place} must be ${expected}, not ${JSON.stringify(given)}`,
      `correct ${from.origin}; the default is ${formatSetting(setting, setting.default)}`,
    )
  switch (setting.type) {
    case 'flag': {
      const words = new Map<unknown, boolean>([
        [true, true],
        [false, false],
        ['true', true],
        ['1', true],
        ['yes', true],
        ['false', false],
        ['0', false],
        ['no', false],
      ])
      const value = words.get(given)
      if (value === undefined) throw wrong('true or false')
      return value
    }
    case 'list': {
      const list = typeof given === 'string' ? [given] : given
      if (!Array.isArray(list) || !list.every((item) => typeof item === 'string')) {
        throw wrong('a list of strings')
      }
      if (list.length === 0) throw wrong('a list of at least one')
      return list
    }
    case 'text': {
      if (typeof given !== 'string') throw wrong('one word')
      return given.trim()
    }
    case 'choice': {
      const found = setting.choices.find((choice) => choice === given)
      if (found === undefined) throw wrong(`one of ${setting.choices.join(', ')}`)
      return found
    }
    default: {
      const value = readNumber(setting.type, given)
      const bounds = `from ${formatSetting(setting, setting.min)} to ${formatSetting(setting, setting.max)}`
      if (value === undefined || value < setting.min || value > setting.max) {
        const kind = setting.type === 'size' ? 'a size such as 64M' : 'a whole number'
        throw wrong(`${kind}, ${bounds}`)
      }
      return value
    }
  }
}

function readNumber(type: 'integer' | 'size' | 'seconds', given: unknown): number | undefined {
  if (typeof given === 'number') return Number.isSafeInteger(given) ? given : undefined
  if (typeof given !== 'string') return undefined
  if (type === 'size') return parseSize(given)
  return /^\d{1,15}$/.test(given.trim()) ? Number(given) : undefined
}

/** A value as people read it. */
export function formatSetting(setting: Setting, value: SettingReport['value']): string {
  if (setting.type === 'size' && typeof value === 'number') return formatBytes(value)
  if (setting.type === 'seconds') return `${value} s`
  if (setting.type === 'text' && value === '') return 'none'
  return Array.isArray(value) ? value.join(' ') : String(value)
}

function unknownVariables(environment: ConfigSources['environment']): readonly string[] {
  const known = [...settingKeys.map(variableOf), ...otherVariables]
  const unknown = Object.keys(environment).filter(
    (name) => name.startsWith(variablePrefix) && !known.includes(name),
  )
  const rest = (name: string) => name.slice(variablePrefix.length)
  return unknown.map((name) => {
    // Without what all of them begin with: it would make every short name look alike.
    const meant = nearest(rest(name), known.map(rest))
    const advice =
      meant === undefined
        ? 'unset it; lockstep serve --help lists the settings, as flags'
        : `use ${variablePrefix}${meant}, or unset it`
    return `the variable ${name} is not known and does nothing: ${advice}`
  })
}

function invalid(message: string, action: string): LockstepError {
  return new LockstepError('INVALID_CONFIG', message, action)
}
