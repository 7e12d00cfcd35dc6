// One command line from its words to its exit code: parse, run, say what failed. The only place that turns errors into exit codes.
import { join, resolve } from 'node:path'
import { ControlClient } from '../../control/client.js'
import { checkSocketPath, controlSocketName } from '../../control/socket-path.js'
import { ExitCode, LockstepError } from '../../core/errors.js'
import { absenceOf } from '../node-directory.js'
import { readVersion } from '../version.js'
import type { Context } from './command.js'
import { withDirectory } from './exact-command.js'
import { Output, type Terminal } from './output.js'
import { type Parsed, parseCommandLine } from './parse.js'
import { ofWords, UsageError } from './usage-error.js'

/** A daemon that is alive accepts at once. */
const connectTimeoutMs = 5_000

export type Surroundings = {
  readonly words: readonly string[]
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly terminal: Terminal
  /** Ends the process: used by Ctrl-C only. */
  readonly exit: (code: number) => void
}

export async function runCommandLine(surroundings: Surroundings): Promise<ExitCode> {
  const { words, environment, terminal } = surroundings
  const end = words.indexOf('--')
  const options = end === -1 ? words : words.slice(0, end)
  const isJson = options.some((word) => word === '--json' || word === '--json=true')
  const directory = directoryIn(options)
  const exact = (text: string) => (directory === undefined ? text : withDirectory(text, directory))
  const output = new Output({ isJson, terminal, environment, exact })
  let parsed: Parsed
  try {
    parsed = parseCommandLine(words, { version: readVersion(), columns: output.columns })
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    return output.failure(error)
  }
  if (parsed.kind === 'text') {
    terminal.stdout.write(`${parsed.text.trimEnd()}\n`)
    return ExitCode.DONE
  }
  const clients: ControlClient[] = []
  let next = ''
  const ifInterrupted = (action: string): void => {
    next = action
  }
  const context = contextOf(parsed, { output, environment, clients, ifInterrupted })
  const interrupt = () =>
    surroundings.exit(output.failure(new LockstepError('INTERRUPTED', 'interrupted', next)))
  if (parsed.command.handlesSignals !== true) process.on('SIGINT', interrupt)
  try {
    return await parsed.command.run(context)
  } catch (error) {
    return output.failure(error)
  } finally {
    process.off('SIGINT', interrupt)
    for (const client of clients) client.close()
  }
}

/** What stands behind `--dir`, when that is there once. */
function directoryIn(words: readonly string[]): string | undefined {
  const said = words.flatMap((word, index) => {
    if (word.startsWith('--dir=')) return [word.slice('--dir='.length)]
    return word === '--dir' ? words.slice(index + 1, index + 2) : []
  })
  return said.length === 1 && said[0] !== '' ? said[0] : undefined
}

function contextOf(
  parsed: Extract<Parsed, { kind: 'command' }>,
  options: {
    readonly output: Output
    readonly environment: Readonly<Record<string, string | undefined>>
    readonly clients: ControlClient[]
    readonly ifInterrupted: Context['ifInterrupted']
  },
): Context {
  const directory = () => {
    const { LOCKSTEP_DIR: fromEnvironment } = options.environment
    const said = parsed.arguments.maybeText('dir') ?? fromEnvironment
    if (said === undefined || said === '') {
      const action = `lockstep ${parsed.command.name} --dir DIR, or export LOCKSTEP_DIR=DIR`
      throw new UsageError('which node? its data directory was not given', action)
    }
    return resolve(said)
  }
  let open: ControlClient | undefined
  const client = async () => {
    if (open?.isOpen === true) return open
    const path = join(directory(), controlSocketName)
    ofWords(() => checkSocketPath(path))
    open = await ControlClient.open(path, { timeoutMs: connectTimeoutMs }).catch(
      async (error: unknown) => {
        throw await explainedAbsence(error, directory())
      },
    )
    options.clients.push(open)
    return open
  }
  const { output, environment, ifInterrupted } = options
  return { arguments: parsed.arguments, output, environment, directory, ifInterrupted, client }
}

/** Where there is no node, none can be started either. */
async function explainedAbsence(error: unknown, directory: string): Promise<unknown> {
  if (!(error instanceof LockstepError) || error.code !== 'UNREACHABLE') return error
  const absence = await absenceOf(directory)
  if (absence === undefined) return error
  const { message, action } = absence
  return new LockstepError('UNREACHABLE', `no daemon answers: ${message}`, action)
}
