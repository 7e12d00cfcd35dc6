// What a command is, as data: the parser, the help, the completion files and the documents are all made from it.
import type { ControlClient } from '../../control/client.js'
import type { ExitCode } from '../../core/errors.js'
import type { Output } from './output.js'
import { UsageError } from './usage-error.js'

/** What a shell offers for a word. */
export type Completion = 'directory' | 'file' | 'none' | readonly string[]

export type Positional = {
  readonly name: string
  readonly description: string
  readonly isOptional?: boolean
  /** Takes all the words that follow. */
  readonly isRepeated?: boolean
  readonly completion?: Completion
}

export type Option = {
  readonly type: 'flag' | 'text' | 'list'
  readonly description: string
  /** What stands for the value in help. */
  readonly placeholder?: string
  /** One letter. */
  readonly short?: string
  readonly group?: string
  readonly completion?: Completion
}

export type Command = {
  /** As typed: `volume create`. */
  readonly name: string
  /** One line. */
  readonly summary: string
  readonly positionals?: readonly Positional[]
  readonly options?: Readonly<Record<string, Option>>
  /** A line to type, and what it does: at least one. */
  readonly examples: readonly (readonly [string, string])[]
  /** Signals are the command's own business; otherwise Ctrl-C ends it at once with exit code 130. */
  readonly handlesSignals?: boolean
  run(context: Context): Promise<ExitCode>
}

export type Context = {
  readonly arguments: Arguments
  readonly output: Output
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Where the daemon's data is; throws UsageError when it was not said. */
  directory(): string
  /** What to type after Ctrl-C from now on: what was begun goes on, or nobody knows whether it was done. */
  ifInterrupted(action: string): void
  /** A connection to the daemon, closed when the command ends. */
  client(): Promise<ControlClient>
}

/** Options that every command has. */
export const globalOptions: Readonly<Record<string, Option>> = {
  dir: {
    type: 'text',
    placeholder: 'DIR',
    description: "the daemon's data directory (or LOCKSTEP_DIR)",
    completion: 'directory',
  },
  json: { type: 'flag', description: 'prints one JSON document, failures included' },
  help: { type: 'flag', short: 'h', description: 'shows this help' },
}

export const yesOption: Readonly<Record<string, Option>> = {
  yes: { type: 'flag', short: 'y', description: 'does not ask; what is lost is lost' },
}

/** The words of one command line, by name, as the types that the table gives them. */
export class Arguments {
  readonly #values: Readonly<Record<string, unknown>>
  readonly #usage: string

  /** `usage` is what to type, for who left a word out. */
  constructor(values: Readonly<Record<string, unknown>>, usage = 'lockstep --help') {
    this.#values = values
    this.#usage = usage
  }

  /** The raw values: for settings, which check themselves. */
  get all(): Readonly<Record<string, unknown>> {
    return this.#values
  }

  isSet(name: string): boolean {
    return this.#values[name] === true
  }

  maybeText(name: string): string | undefined {
    const value = this.#values[name]
    if (Array.isArray(value)) throw new UsageError(`--${name} is given twice`, 'give it once')
    return typeof value === 'string' ? value : undefined
  }

  text(name: string): string {
    const value = this.maybeText(name)
    if (value === undefined) throw new UsageError(`${name.toUpperCase()} is missing`, this.#usage)
    if (value === '') throw new UsageError(`${name.toUpperCase()} is an empty word`, this.#usage)
    return value
  }

  texts(name: string): readonly string[] {
    const value = this.#values[name]
    if (value === undefined) return []
    return (Array.isArray(value) ? value : [value]).map(String)
  }
}
