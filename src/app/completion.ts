// Shell completion as static files, made from the table of commands: a TAB costs the shell a function call and starts no program.
// The names of stores are not completed: only the daemon knows them.
import {
  type Command,
  type Completion,
  globalOptions,
  type Option,
  type Positional,
} from './cli/command.js'
import { commands, groups } from './cli/commands.js'

export const shells = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof shells)[number]

const header = (shell: Shell): string =>
  `# Completion of lockstep for ${shell}. Made from the table of commands by scripts/completion: do not edit.`

/** The whole file for one shell. */
export function completionFile(shell: Shell): string {
  switch (shell) {
    case 'bash':
      return bashFile()
    case 'zsh':
      return zshFile()
    case 'fish':
      return fishFile()
  }
}

type Named = readonly [string, Option]

const optionsOf = (command: Command): readonly Named[] => [
  ...globals,
  ...Object.entries(command.options ?? {}),
]
const spellings = ([name, { short }]: Named): readonly string[] =>
  short === undefined ? [`--${name}`] : [`--${name}`, `-${short}`]
/** What may stand before a command, and anywhere behind it. */
const globals: readonly Named[] = Object.entries(globalOptions)
const globalWords = globals.flatMap(spellings).join(' ')
const takesValue = ([, option]: Named): boolean => option.type !== 'flag'
const subcommands = (group: string): readonly Command[] =>
  commands.filter(({ name }) => name.startsWith(`${group} `))
const lastWord = (command: Command): string => command.name.split(' ').at(-1) ?? ''
const topWords = [
  ...Object.keys(groups),
  ...commands.map(({ name }) => name).filter((name) => !name.includes(' ')),
]

/** The lines of bash that offer what may stand here; empty when nothing is known. */
function bashOffer(completion: Completion | undefined): string {
  const files = (kind: string) => `compopt -o filenames; COMPREPLY=($(compgen ${kind} -- "$cur"))`
  if (completion === 'directory') return files('-d')
  if (completion === 'file') return files('-f')
  if (completion === undefined || completion === 'none') return ''
  return `COMPREPLY=($(compgen -W "${completion.join(' ')}" -- "$cur"))`
}

function bashFile(): string {
  const all = [globalOptions, ...commands.map((command) => command.options ?? {})]
  const valued = new Map(all.flatMap((options) => Object.entries(options)).filter(takesValue))
  const offers = new Map<string, string[]>()
  for (const [name, { completion }] of valued) {
    const offer = bashOffer(completion)
    offers.set(offer, [...(offers.get(offer) ?? []), `--${name}`])
  }
  const values = [...offers].map(
    ([offer, names]) => `    ${names.join('|')}) ${offer === '' ? '' : `${offer}; `}return ;;`,
  )
  const valuedPattern = [...valued.keys()].map((name) => `--${name}`).join('|')
  const options = commands.map((command) => {
    const words = optionsOf(command).flatMap(spellings)
    return `    "${command.name}") options="${words.join(' ')}" ;;`
  })
  const positionals = commands.flatMap((command) =>
    (command.positionals ?? []).flatMap((positional, index) => {
      const offer = bashOffer(positional.completion)
      const place = positional.isRepeated === true ? '*' : index
      return offer === '' ? [] : [`    "${command.name}:${place}") ${offer} ;;`]
    }),
  )
  const inner = Object.keys(groups).map(
    (group) =>
      `    ${group}) COMPREPLY=($(compgen -W "${subcommands(group).map(lastWord).join(' ')} ${globalWords}" -- "$cur")); return ;;`,
  )
  return `${header('bash')}
_lockstep() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}"
  local command="" count=0 options="" word index
  COMPREPLY=()
  # Bash takes --dir=DIR for three words.
  if [[ "$cur" == "=" ]]; then cur=""; elif [[ "$prev" == "=" ]]; then prev="\${COMP_WORDS[COMP_CWORD-2]}"; fi
  case "$prev" in
${values.join('\n')}
  esac
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="\${COMP_WORDS[index]}"
    case "$word" in
      ${valuedPattern}) [[ "\${COMP_WORDS[index+1]}" == "=" ]] || index=$((index + 1)); continue ;;
      "=") index=$((index + 1)); continue ;;
      -*) continue ;;
    esac
    case "$command" in
      "") command="$word" ;;
      ${Object.keys(groups).join('|')}) command="$command $word" ;;
      *) count=$((count + 1)) ;;
    esac
  done
  case "$command" in
    "") COMPREPLY=($(compgen -W "${[...topWords, globalWords, '--version'].join(' ')}" -- "$cur")); return ;;
${inner.join('\n')}
${options.join('\n')}
  esac
  if [[ "$cur" == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
    return
  fi
  case "$command:$count" in
${positionals.join('\n')}
  esac
}
complete -F _lockstep lockstep
`
}

/** In single quotes, with what zsh's _arguments reads itself escaped. */
function zshQuote(text: string): string {
  return text
    .replaceAll('\\', '\\\\')
    .replaceAll("'", "'\\''")
    .replaceAll('[', '\\[')
    .replaceAll(']', '\\]')
    .replaceAll(':', '\\:')
}

function zshValue(completion: Completion | undefined): string {
  if (completion === 'directory') return '_files -/'
  if (completion === 'file') return '_files'
  if (completion === undefined || completion === 'none') return ' '
  return `(${completion.join(' ')})`
}

function zshOption([name, option]: Named): readonly string[] {
  const about = zshQuote(option.description)
  const value = takesValue([name, option])
    ? `:${zshQuote((option.placeholder ?? 'value').toLowerCase())}:${zshValue(option.completion)}`
    : ''
  const star = option.type === 'list' ? '*' : ''
  return spellings([name, option]).map((word) => `'${star}${word}[${about}]${value}'`)
}

function zshPositional(positional: Positional, index: number): string {
  const position = positional.isRepeated === true ? '*' : String(index + 1)
  const colons = positional.isOptional === true ? '::' : ':'
  return `'${position}${colons}${zshQuote(positional.description)}:${zshValue(positional.completion)}'`
}

function zshFile(): string {
  const describe = (word: string, summary: string) => `'${zshQuote(word)}:${zshQuote(summary)}'`
  const isSingle = ({ name }: Command) => !name.includes(' ')
  const cases = (chosen: readonly Command[]) =>
    chosen.map((command) => {
      const specs = [
        ...optionsOf(command).flatMap(zshOption),
        ...(command.positionals ?? []).map(zshPositional),
      ]
      return `    ${lastWord(command)})\n      _arguments -s \\\n        ${specs.join(' \\\n        ')} ;;`
    })
  const inner = Object.keys(groups).map((group) => {
    const words = subcommands(group).map((command) => describe(lastWord(command), command.summary))
    return `_lockstep_${group}() {
  local -a subcommands=(
    ${words.join('\n    ')}
  )
  _lockstep_skip_globals || return
  if (( CURRENT == 2 )); then _describe command subcommands; _lockstep_globals; return; fi
  shift words; (( CURRENT-- ))
  case "$words[1]" in
${cases(subcommands(group)).join('\n')}
  esac
}`
  })
  const top = [
    ...Object.entries(groups).map(([group, summary]) => describe(group, summary)),
    ...commands.filter(isSingle).map((command) => describe(command.name, command.summary)),
  ]
  return `#compdef lockstep
${header('zsh')}
_lockstep_globals() {
  _arguments ${globals.flatMap(zshOption).join(' ')}
}
# Takes the options before the next command word out of the words. False when the value of one is being typed: it is offered then.
_lockstep_skip_globals() {
  while (( CURRENT > 2 )) && [[ "$words[2]" == -* ]]; do
    local count=1
    [[ "$words[2]" == --dir ]] && count=2
    (( CURRENT > count + 1 )) || { _files -/; return 1; }
    words=("$words[1]" "\${(@)words[2+count,-1]}"); (( CURRENT -= count ))
  done
  return 0
}
${inner.join('\n')}
_lockstep() {
  local -a subcommands=(
    ${top.join('\n    ')}
  )
  _lockstep_skip_globals || return
  if (( CURRENT == 2 )); then _describe command subcommands; _lockstep_globals; return; fi
  shift words; (( CURRENT-- ))
  case "$words[1]" in
${Object.keys(groups)
  .map((group) => `    ${group}) _lockstep_${group} ;;`)
  .join('\n')}
${cases(commands.filter(isSingle)).join('\n')}
  esac
}
if [[ "$funcstack[1]" == _lockstep ]]; then _lockstep "$@"; else compdef _lockstep lockstep; fi
`
}

const fishQuote = (text: string): string =>
  `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`

function fishValue(completion: Completion | undefined): string {
  if (completion === 'directory') return `-a '(__fish_complete_directories)'`
  if (completion === 'file') return '-F'
  if (completion === undefined || completion === 'none') return ''
  return `-a ${fishQuote(completion.join(' '))}`
}

function fishOption(condition: string, [name, option]: Named): string {
  const parts = [`complete -c lockstep -n ${fishQuote(condition)}`, `-l ${name}`]
  if (option.short !== undefined) parts.push(`-s ${option.short}`)
  if (takesValue([name, option])) {
    parts.push(option.completion === 'file' ? '-r' : '-x', fishValue(option.completion))
  }
  parts.push(`-d ${fishQuote(option.description)}`)
  return parts.filter((part) => part !== '').join(' ')
}

/** True when exactly these command words were typed: `wait` is not the second word of `job wait`. */
function fishCondition(command: Command): string {
  const [first, second] = command.name.split(' ')
  const seen = `__fish_seen_subcommand_from ${first}`
  if (second !== undefined) return `${seen}; and __fish_seen_subcommand_from ${second}`
  const around = Object.keys(groups).filter((group) =>
    subcommands(group).some((inner) => lastWord(inner) === first),
  )
  if (around.length === 0) return seen
  return `${seen}; and not __fish_seen_subcommand_from ${around.join(' ')}`
}

function fishFile(): string {
  const lines = [header('fish'), 'complete -c lockstep -f']
  const none = `not __fish_seen_subcommand_from ${topWords.join(' ')}`
  const offer = (condition: string, word: string, summary: string) =>
    `complete -c lockstep -n ${fishQuote(condition)} -a ${word} -d ${fishQuote(summary)}`
  for (const [group, summary] of Object.entries(groups)) {
    lines.push(offer(none, group, summary))
    const words = subcommands(group).map(lastWord)
    const condition = `__fish_seen_subcommand_from ${group}; and not __fish_seen_subcommand_from ${words.join(' ')}`
    for (const command of subcommands(group)) {
      lines.push(offer(condition, lastWord(command), command.summary))
    }
  }
  for (const command of commands) {
    if (!command.name.includes(' ')) lines.push(offer(none, command.name, command.summary))
  }
  for (const option of globals) lines.push(fishOption('true', option))
  for (const command of commands) {
    const condition = fishCondition(command)
    for (const option of Object.entries(command.options ?? {})) {
      lines.push(fishOption(condition, option))
    }
    for (const { completion } of command.positionals ?? []) {
      const value = fishValue(completion)
      if (value !== '') lines.push(`complete -c lockstep -n ${fishQuote(condition)} ${value}`)
    }
  }
  return `${lines.join('\n')}\n`
}
