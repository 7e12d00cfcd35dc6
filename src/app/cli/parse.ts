// The command line read by yargs from the table of commands: which command, with which words. Says nothing and runs nothing.
import yargs, { type Argv } from 'yargs'
import { nearest } from '../nearest.js'
import { Arguments, type Command, globalOptions, type Option, type Positional } from './command.js'
import { commands, groups } from './commands.js'
import { UsageError } from './usage-error.js'

export type Parsed =
  | { readonly kind: 'command'; readonly command: Command; readonly arguments: Arguments }
  /** Help or the version, which was asked for. */
  | { readonly kind: 'text'; readonly text: string }

type Choose = (command: Command, values: Readonly<Record<string, unknown>>) => void

const columnsMax = 100
/** What help shows who has nothing yet. */
const firstSteps: Command['examples'] = [
  ['lockstep init ./data', 'a node with a sparse data file'],
  ['lockstep serve ./data', 'on nbd://127.0.0.1:10809, in the foreground'],
  ['lockstep volume create vol0 10G --dir ./data', 'a volume, for any NBD client'],
]
/** Stands before a word that yargs would take for something else. */
const mask = '\u0001'
/** Standard input, of which yargs makes an empty word; and numbers below zero, which are no options: what takes them says why it does not. */
const maskedPattern = /^-($|[\d.])/

/** The words as yargs may see them. Behind `--` nothing is an option; without the `--` yargs counts what is there among the positional words. */
function masked(words: readonly string[]): readonly string[] {
  const end = words.includes('--') ? words.indexOf('--') : words.length
  const behind = words.slice(end + 1)
  const isMasked = (word: string) => maskedPattern.test(word)
  return [
    ...words.slice(0, end).map((word) => (isMasked(word) ? `${mask}${word}` : word)),
    ...behind.map((word) => (word.startsWith('-') ? `${mask}${word}` : word)),
  ]
}

function restored(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(restored)
  return typeof value === 'string' && value.startsWith(mask) ? value.slice(mask.length) : value
}

/** Throws UsageError. */
export function parseCommandLine(
  words: readonly string[],
  options: { readonly version: string; readonly columns: number },
): Parsed {
  const chosen: { command: Command; values: Readonly<Record<string, unknown>> }[] = []
  const failures: string[] = []
  let text = ''
  const parser = yargs()
    .scriptName('lockstep')
    .locale('en')
    .usage('$0 COMMAND\n\nAn NBD server with snapshots and a replica.')
    .parserConfiguration({
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'dot-notation': false,
      'camel-case-expansion': false,
      'boolean-negation': false,
      'greedy-arrays': false,
    })
    .strict()
    .exitProcess(false)
    .wrap(Math.min(columnsMax, options.columns))
    .version('version', 'shows the version', options.version)
    .help('help', 'shows this help')
    .alias('help', 'h')
    .epilogue('lockstep COMMAND --help shows its options and an example.')
    .epilogue(`\n${examplesText(firstSteps)}`)
    .demandCommand(1, 'no command')
    .fail((message, error) => {
      failures.push(message ?? error?.message ?? '')
    })
  addOptions(parser, globalOptions)
  addCommands(parser, (command, values) => chosen.push({ command, values }))
  void parser.parse(masked(words), {}, (_error, _values, output) => {
    text = output
  })
  const [failure] = failures
  if (failure !== undefined) throw usageError(failure.replaceAll(mask, ''), words)
  checkFlags(words)
  // yargs' own default of words that are repeated, which nobody need know.
  if (text !== '') return { kind: 'text', text: text.replaceAll(' [default: []]', '') }
  const [found] = chosen
  if (found === undefined) throw usageError('no command', words)
  const values = Object.entries(found.values).map(([name, value]) => [name, restored(value)])
  const read = new Arguments(Object.fromEntries(values), usageOf(found.command))
  return { kind: 'command', command: found.command, arguments: read }
}

function addCommands(parser: Argv, choose: Choose): void {
  for (const [group, summary] of Object.entries(groups)) {
    const inner = commands.filter((command) => command.name.startsWith(`${group} `))
    parser.command(group, summary, (under) => {
      for (const command of inner) addCommand(under, command, choose)
      under.demandCommand(1, 'no command')
      under.epilogue(examplesText(inner.flatMap(({ examples }) => examples.slice(0, 1))))
    })
  }
  for (const command of commands) {
    if (!command.name.includes(' ')) addCommand(parser, command, choose)
  }
}

function addCommand(parser: Argv, command: Command, choose: Choose): void {
  const { summary } = command
  const word = command.name.split(' ').at(-1)
  const usage = [word, ...(command.positionals ?? []).map(placeholder)].join(' ')
  parser.command(
    usage,
    summary,
    (under) => {
      for (const positional of command.positionals ?? []) {
        under.positional(positional.name, {
          type: 'string',
          describe: positional.description,
          ...(positional.isRepeated === true ? { array: true } : {}),
        })
      }
      addOptions(under, command.options ?? {})
      under.epilogue(examplesText(command.examples))
    },
    (values) => choose(command, values),
  )
}

/** Each line by itself, so that it can be copied: yargs would put what it does beside it, and break both. */
function examplesText(examples: Command['examples']): string {
  const lines = examples.flatMap(([line, effect]) => [
    `  ${line}`,
    ...(effect === '' ? [] : [`      ${effect}`]),
  ])
  return ['Examples:', ...lines].join('\n')
}

function addOptions(parser: Argv, options: Readonly<Record<string, Option>>): void {
  for (const [name, option] of Object.entries(options)) {
    if (name === 'help') continue // yargs has its own.
    parser.option(name, {
      type: option.type === 'flag' ? 'boolean' : 'string',
      describe: option.description,
      ...(option.type === 'flag' ? {} : { requiresArg: true }),
      ...(option.type === 'list' ? { array: true } : {}),
      ...(option.short === undefined ? {} : { alias: option.short }),
      ...(option.group === undefined ? {} : { group: `${option.group}:` }),
    })
  }
}

/** As yargs reads it, and as people do. */
function placeholder(positional: Positional): string {
  const name = positional.isRepeated === true ? `${positional.name}..` : positional.name
  return positional.isOptional === true ? `[${name}]` : `<${name}>`
}

/** What to type, for people: `volume create NAME SIZE`. */
export function usageOf(command: Command): string {
  const words = (command.positionals ?? []).map((positional) => {
    const name = `${positional.name.toUpperCase()}${positional.isRepeated === true ? '...' : ''}`
    return positional.isOptional === true ? `[${name}]` : name
  })
  return ['lockstep', command.name, ...words].join(' ')
}

/** yargs' complaint in our words, with what was probably meant. */
function usageError(complaint: string, words: readonly string[]): UsageError {
  const typed = plainWords(words)
  const command = commandOf(typed)
  const help = command === undefined ? 'lockstep --help' : `lockstep ${command.name} --help`
  const value = /^Not enough arguments following: (.+)$/.exec(complaint)?.[1]
  if (value !== undefined) return new UsageError(`--${value} needs a value`, help)
  const unknown = /^Unknown arguments?: ([^,]+)/.exec(complaint)?.[1]
  const isOfUnknown = command === undefined && typed.length > 0 && isCommandFirst(words)
  if (unknown !== undefined && isOption(unknown, words) && !isOfUnknown)
    return unknownOption(unknown, command)
  const isOfMissing = complaint.startsWith('Not enough') || complaint === 'no command'
  const strange = isOfMissing && !isOfUnknown ? strangeOption(words, command) : undefined
  if (strange !== undefined) return unknownOption(strange, command)
  if (command !== undefined) {
    const surplus = /^Unknown (?:arguments?|commands?): (.+)$/.exec(complaint)?.[1]
    const usage = usageOf(command)
    if (surplus !== undefined) return new UsageError(`"${surplus}" is too much`, usage)
    if (complaint.startsWith('Not enough')) {
      return new UsageError(missingText(command, complaint), usage)
    }
    return new UsageError(complaint, help)
  }
  return unknownCommand(typed)
}

/** Which words are missing: those behind the ones that yargs counted. */
function missingText(command: Command, complaint: string): string {
  const count = Number(/got (\d+)/.exec(complaint)?.[1] ?? 0)
  const required = (command.positionals ?? []).filter(({ isOptional }) => isOptional !== true)
  const names = required.slice(count).map(({ name }) => name.toUpperCase())
  return `${names.join(' and ')} ${names.length === 1 ? 'is' : 'are'} missing`
}

function unknownOption(name: string, command: Command | undefined): UsageError {
  const known = [...Object.keys(globalOptions), ...Object.keys(command?.options ?? {})]
  const meant = nearest(name, known)
  const base = command === undefined ? 'lockstep' : `lockstep ${command.name}`
  const dashes = name.length === 1 ? '-' : '--'
  const action = meant === undefined ? `${base} --help` : `${base} --${meant}`
  return new UsageError(`there is no option ${dashes}${name}`, action)
}

function unknownCommand(typed: readonly string[]): UsageError {
  const [first, second] = typed
  if (first === undefined) return new UsageError('no command was given', 'lockstep --help')
  if (Object.hasOwn(groups, first)) {
    const inner = commands.filter((command) => command.name.startsWith(`${first} `))
    const names = inner.map((command) => command.name.slice(first.length + 1))
    if (second === undefined) {
      return new UsageError(`${first} needs one of ${names.join(', ')}`, `lockstep ${first} --help`)
    }
    const meant = nearest(second, names)
    const action = `lockstep ${first} ${meant ?? '--help'}`
    return new UsageError(`there is no command "${first} ${second}"`, action)
  }
  const names = [...Object.keys(groups), ...commands.map((command) => command.name)]
  const inGroups = commands.filter(({ name }) => name.endsWith(` ${first}`))
  const meant = inGroups.length === 1 ? inGroups[0]?.name : nearest(first, names)
  const action = meant === undefined ? 'lockstep --help' : `lockstep ${meant}`
  return new UsageError(`there is no command "${first}"`, action)
}

/** yargs takes any value of a flag but `true` for false, without a word. Throws UsageError. */
function checkFlags(words: readonly string[]): void {
  const command = commandOf(plainWords(words))
  const options = Object.entries<Option>({ ...globalOptions, ...command?.options })
  for (const word of beforeEnd(words)) {
    const [, long, value = ''] = /^--([a-z][a-z-]*)=(.*)$/is.exec(word) ?? []
    // Of letters together the last one has what follows them.
    const [, letter, rest = ''] = /^-[a-z]*([a-z])([^a-z].*)$/is.exec(word) ?? []
    const found = options.find(
      ([name, { type, short }]) =>
        type === 'flag' && (name === long || (letter !== undefined && short === letter)),
    )
    const given = long === undefined ? rest.replace(/^=/, '') : value
    if (found === undefined || given === 'true' || given === 'false') continue
    const [name] = found
    const base = command === undefined ? 'lockstep' : `lockstep ${command.name}`
    throw new UsageError(`--${name} takes no value, and "${given}" was given`, `${base} --${name}`)
  }
}

/** The words that may be options. */
function beforeEnd(words: readonly string[]): readonly string[] {
  const end = words.indexOf('--')
  return end === -1 ? words : words.slice(0, end)
}

/** The first word that looks like an option and is none: yargs complains of the words that it then misses. */
function strangeOption(words: readonly string[], command: Command | undefined): string | undefined {
  const options = Object.entries<Option>({ ...globalOptions, ...command?.options })
  const known = new Set(options.flatMap(([name, { short = name }]) => [name, short]))
  return beforeEnd(words)
    .map((word) => /^(?:--([a-z][a-z-]*)|-([a-z]))/i.exec(word))
    .map((found) => found?.[1] ?? found?.[2])
    .find((name) => name !== undefined && !known.has(name) && !known.has(name.replace(/^no-/, '')))
}

function isOption(name: string, words: readonly string[]): boolean {
  const dashes = name.length === 1 ? '-' : '--'
  return (
    words.some((word) => word === `${dashes}${name}` || word.startsWith(`${dashes}${name}=`)) ||
    (name.length === 1 && words.some((word) => /^-\w/.test(word) && word.includes(name)))
  )
}

/** The words that are neither options nor the value of --dir. */
function plainWords(words: readonly string[]): readonly string[] {
  return words.filter((word, index) => !word.startsWith('-') && words[index - 1] !== '--dir')
}

/** What stands first, behind options that every command has, is a word. */
function isCommandFirst(words: readonly string[]): boolean {
  const first = words.find((word, index) => !isGlobal(word) && words[index - 1] !== '--dir')
  return first !== undefined && !first.startsWith('-')
}

function isGlobal(word: string): boolean {
  const [, name = ''] = /^--([a-z-]+)/.exec(word) ?? []
  return Object.hasOwn(globalOptions, name)
}

function commandOf(typed: readonly string[]): Command | undefined {
  const [first = '', second = ''] = typed
  return commands.find(({ name }) => name === first || name === `${first} ${second}`)
}
