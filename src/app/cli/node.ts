// The commands on a node itself: init, serve, config, doctor, completion. What they need is loaded when they run.
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { DoctorCheck, SettingReport } from '../../control/api.js'
import { checkSocketPath, controlSocketName } from '../../control/socket-path.js'
import { ExitCode, LockstepError } from '../../core/errors.js'
import { type Setting, settingKeys, settings } from '../settings.js'
import type { Command, Completion, Context, Option } from './command.js'
import { doctorText, settingsText } from './format.js'
import { ask } from './query.js'
import { ofWords, UsageError } from './usage-error.js'
import { readSize } from './values.js'

const shells = ['bash', 'zsh', 'fish'] as const

const directoryPositional = {
  name: 'directory',
  description: 'where the node keeps its data',
  isOptional: true,
  completion: 'directory',
} as const

const configOption = {
  config: {
    type: 'text',
    placeholder: 'FILE',
    description: 'instead of DIR/lockstep.toml',
    completion: 'file',
  },
} as const satisfies Readonly<Record<string, Option>>

/** The options of `serve`, from the table of settings. */
function settingOptions(): Readonly<Record<string, Option>> {
  const placeholders = { list: 'URI', integer: 'N', size: 'SIZE', seconds: 'S', choice: 'WORD' }
  return Object.fromEntries(
    settingKeys.map((key): [string, Option] => {
      const setting: Setting = settings[key]
      const initial = Array.isArray(setting.default) ? setting.default.join(' ') : setting.default
      const description =
        initial === '' ? setting.description : `${setting.description} (${initial})`
      if (setting.type === 'flag') {
        return [key, { type: 'flag', group: setting.group, description: setting.description }]
      }
      const type = setting.type === 'list' ? 'list' : 'text'
      const placeholder = setting.type === 'text' ? setting.placeholder : placeholders[setting.type]
      const completion = completionOf(setting)
      return [key, { type, group: setting.group, placeholder, description, completion }]
    }),
  )
}

function completionOf(setting: Setting): Completion {
  if (setting.type === 'choice') return setting.choices
  return setting.type === 'text' && setting.placeholder === 'FILE' ? 'file' : 'none'
}

export const nodeCommands: readonly Command[] = [
  {
    name: 'init',
    summary: 'makes a new, empty node in a directory',
    positionals: [directoryPositional],
    options: {
      secondary: {
        type: 'flag',
        description: 'a replica: blank until a primary connects, whose group it then follows',
      },
      node: {
        type: 'text',
        placeholder: 'NAME',
        description: "the node's name (this machine's name)",
        completion: 'none',
      },
      'chunk-size': {
        type: 'text',
        placeholder: 'SIZE',
        description: 'unit of space and of sharing, 4K to 1M (64K)',
        completion: 'none',
      },
      data: {
        type: 'text',
        placeholder: 'FILE-OR-DEVICE',
        description: 'where the data goes (DIR/data)',
        completion: 'file',
      },
      'journal-size': {
        type: 'text',
        placeholder: 'SIZE',
        description: 'of each of the two journal files (64M)',
        completion: 'none',
      },
      yes: { type: 'flag', short: 'y', description: 'overwrites a data file that is not empty' },
    },
    examples: [
      ['lockstep init ./data', 'a node with a sparse data file'],
      ['lockstep init ./data --data /dev/sdb', 'the data on a device of its own'],
      ['lockstep init ./replica --secondary', 'then: lockstep serve ./data --peer nbd://HOST:PORT'],
    ],
    run: init,
  },
  {
    name: 'serve',
    summary: 'runs the daemon in the foreground',
    positionals: [directoryPositional],
    options: { ...configOption, ...settingOptions() },
    examples: [
      ['lockstep serve ./data', 'on nbd://127.0.0.1:10809'],
      ['lockstep serve ./data --listen "nbd+unix:///?socket=/run/lockstep.sock"', ''],
      ['lockstep serve ./data --peer nbd://127.0.0.1:10810', 'with a replica that listens there'],
    ],
    handlesSignals: true,
    async run(context) {
      const directory = directoryOf(context)
      const { serve } = await import('../daemon.js')
      const file = context.arguments.maybeText('config')
      return serve({
        directory,
        flags: context.arguments.all,
        environment: context.environment,
        output: context.output,
        ...(file === undefined ? {} : { file }),
      })
    },
  },
  {
    name: 'config',
    summary: 'shows the settings in force and where each is from',
    options: configOption,
    examples: [['lockstep config --dir ./data', 'of the daemon, or of the next one to be started']],
    run: showConfig,
  },
  {
    name: 'doctor',
    summary: 'looks for what is wrong, or slower than it could be',
    examples: [['lockstep doctor --dir ./data', 'exit code 1 when something is wrong']],
    run: showDoctor,
  },
  {
    name: 'completion',
    summary: 'prints the completion file of a shell',
    positionals: [{ name: 'shell', description: shells.join(', '), completion: shells }],
    examples: [
      ['lockstep completion bash > /etc/bash_completion.d/lockstep', ''],
      ['lockstep completion fish > ~/.config/fish/completions/lockstep.fish', ''],
    ],
    run: printCompletion,
  },
]

/** The positional word, or what every command takes. */
function directoryOf(context: Context): string {
  const word = context.arguments.maybeText('directory')
  if (word === undefined) return context.directory()
  // Of `serve "$DATA"` without DATA nobody means the node that LOCKSTEP_DIR names.
  if (word === '') throw new UsageError('the directory is an empty word', 'name the directory')
  return resolve(word)
}

async function init(context: Context): Promise<ExitCode> {
  const directory = directoryOf(context)
  // A node that could not be served.
  ofWords(() => checkSocketPath(join(directory, controlSocketName)))
  const { initDirectory } = await import('../init.js')
  const size = (name: string) => {
    const text = context.arguments.maybeText(name)
    return text === undefined ? undefined : readSize(text, `--${name}`)
  }
  const chunkBytes = size('chunk-size')
  const journalBytes = size('journal-size')
  const node = context.arguments.maybeText('node')
  const data = context.arguments.maybeText('data')
  const request = {
    directory,
    overwrite: context.arguments.isSet('yes'),
    isSecondary: context.arguments.isSet('secondary'),
    ...(node === undefined ? {} : { node }),
    ...(chunkBytes === undefined ? {} : { chunkBytes }),
    ...(journalBytes === undefined ? {} : { journalBytes }),
    ...(data === undefined ? {} : { data: resolve(data) }),
  }
  const made = await initDirectory(request).catch((error: unknown) => {
    // Names and sizes are refused for what they are, whatever the directory is.
    const isOfWords = error instanceof LockstepError && /^INVALID_(NAME|SIZE)$/.test(error.code)
    throw isOfWords ? new UsageError(error.message, error.action, error.code) : error
  })
  const next = `start it with: lockstep serve ${directory}`
  const kind = made.role === 'secondary' ? 'replica' : 'node'
  context.output.result(made, `made the ${kind} ${made.node} in ${directory}\n${next}`)
  return ExitCode.DONE
}

async function showConfig(context: Context): Promise<ExitCode> {
  const directory = context.directory()
  const running = await ask(context, 'config').catch((error: unknown) => {
    if (error instanceof LockstepError && error.code === 'UNREACHABLE') return undefined
    throw error
  })
  if (running !== undefined && context.arguments.maybeText('config') === undefined) {
    const { settings: reports } = running as { settings: readonly SettingReport[] }
    const text = `the daemon of ${directory} runs with\n\n${settingsText(reports)}`
    context.output.result({ isRunning: true, settings: reports }, text)
    return ExitCode.DONE
  }
  const { resolveConfig } = await import('../config.js')
  const file = context.arguments.maybeText('config')
  const sources = { directory, flags: {}, environment: context.environment }
  const { reports, warnings } = await resolveConfig(
    file === undefined ? sources : { ...sources, file },
  )
  for (const warning of warnings) context.output.note(warning)
  const text = `a daemon of ${directory} would run with\n\n${settingsText(reports)}`
  context.output.result({ isRunning: false, settings: reports }, text)
  return ExitCode.DONE
}

async function showDoctor(context: Context): Promise<ExitCode> {
  const { examine } = await import('../doctor.js')
  const directory = context.directory()
  const ofDaemon = async () => {
    const answer = await ask(context, 'doctor')
    return (answer as { checks: readonly DoctorCheck[] }).checks
  }
  const checks = await examine({ directory, environment: context.environment, ofDaemon })
  const { output } = context
  output.result({ checks }, doctorText(checks, output.paint.bind(output)))
  return checks.some((check) => check.result === 'wrong') ? ExitCode.FAILED : ExitCode.DONE
}

async function printCompletion(context: Context): Promise<ExitCode> {
  const word = context.arguments.text('shell')
  const shell = shells.find((known) => known === word)
  if (shell === undefined) {
    const action = `lockstep completion ${shells.join('|')}`
    throw new UsageError(`there is no completion for ${word}`, action)
  }
  const file = fileURLToPath(new URL(`../../../../completion/lockstep.${shell}`, import.meta.url))
  const text = await readFile(file, 'utf8')
  context.output.result({ shell, text }, text.trimEnd(), { isQuoted: true })
  return ExitCode.DONE
}
