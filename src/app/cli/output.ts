// What a command says: results on stdout, everything else on stderr; one JSON document instead of text when --json is given.
// A command says its result once; whatever fails later must not print a second document.
import { AssertionError } from 'node:assert'
import { type ErrorCode, ExitCode, LockstepError } from '../../core/errors.js'
import { UsageError } from './usage-error.js'

export type Terminal = {
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
  readonly stdin: NodeJS.ReadStream
}

const styles = { bold: '1', dim: '2', red: '31', green: '32', yellow: '33' } as const
export type Style = keyof typeof styles

/** What `paint` puts around a text. */
const paints = new Set(['0', ...Object.values(styles)].map((style) => `\u001b[${style}m`))

export class Output {
  readonly isJson: boolean
  readonly terminal: Terminal
  readonly #hasColor: boolean
  readonly #exact: (text: string) => string
  #hasResult = false
  #isDrawn = false

  constructor(options: {
    readonly isJson: boolean
    readonly terminal: Terminal
    readonly environment: Readonly<Record<string, string | undefined>>
    /** Makes the commands in a text such that they can be typed as they stand. */
    readonly exact?: (text: string) => string
  }) {
    this.isJson = options.isJson
    this.terminal = options.terminal
    this.#exact = options.exact ?? ((text) => text)
    const { NO_COLOR: noColor, TERM: term } = options.environment
    const isPlain = (noColor !== undefined && noColor !== '') || term === 'dumb'
    this.#hasColor = options.terminal.stdout.isTTY === true && !isPlain
  }

  get columns(): number {
    return this.terminal.stdout.columns ?? 80
  }

  /** Somebody sits there who can be asked. */
  get isInteractive(): boolean {
    return this.terminal.stdin.isTTY === true && this.terminal.stderr.isTTY === true
  }

  /** The result: `value` as JSON, or `text` for people. `isQuoted`: the text is what others wrote, and stays as it is. */
  result(value: unknown, text: string, options: { readonly isQuoted?: boolean } = {}): void {
    this.#hasResult = true
    const said = options.isQuoted === true ? text : this.#exact(text)
    if (this.isJson) this.terminal.stdout.write(`${JSON.stringify(value)}\n`)
    else if (said !== '') this.terminal.stdout.write(`${harmless(said)}\n`)
  }

  /** For people only, beside the result. */
  note(text: string): void {
    if (!this.isJson) this.terminal.stderr.write(`${harmless(this.#exact(text))}\n`)
  }

  /** A line on stderr can be written over. */
  get canRedraw(): boolean {
    return !this.isJson && this.terminal.stderr.isTTY === true
  }

  /** Writes over the line that was drawn last; nothing is left of it after ''. */
  redraw(text: string): void {
    this.#isDrawn = text !== ''
    this.terminal.stderr.write(`\r${text.slice(0, this.columns - 1)}\u001b[K`)
  }

  paint(style: Style, text: string): string {
    return this.#hasColor ? `\u001b[${styles[style]}m${text}\u001b[0m` : text
  }

  /** Says why the command failed and what to type next; answers its exit code. */
  failure(error: unknown): ExitCode {
    const { code, exitCode, ...said } = describeFailure(error)
    const message = this.#exact(said.message)
    const action = this.#exact(said.action)
    if (this.#isDrawn) this.redraw('')
    if (this.isJson && !this.#hasResult) {
      this.#hasResult = true
      this.terminal.stdout.write(`${JSON.stringify({ error: { code, message, action } })}\n`)
      return exitCode
    }
    this.terminal.stderr.write(`lockstep: ${harmless(message)}\n`)
    if (action !== '') this.terminal.stderr.write(`  try: ${harmless(action)}\n`)
    return exitCode
  }
}

/** Names, messages and reasons may come from other machines: nothing of them may move the cursor or change the terminal. Lines and colours pass. */
function harmless(text: string): string {
  return text.replaceAll(/\p{Cc}(?:\[\d{1,2}m)?/gu, (found) => {
    const isHarmless = found.startsWith('\n') || found.startsWith('\t') || paints.has(found)
    return isHarmless ? found : `\ufffd${found.slice(1)}`
  })
}

type Failure = {
  readonly code: string
  readonly message: string
  readonly action: string
  readonly exitCode: ExitCode
}

export function describeFailure(error: unknown): Failure {
  if (error instanceof UsageError) {
    const { code, message, action } = error
    return { code, message, action, exitCode: ExitCode.USAGE }
  }
  if (error instanceof LockstepError) {
    const { code, message, action } = error
    return { code, message, action, exitCode: exitCodeOf(code) }
  }
  const message = error instanceof Error ? error.message : String(error)
  if (error instanceof AssertionError) {
    const action = 'report this: the program met a bug in itself'
    return { code: 'IO_ERROR', message: `internal error: ${message}`, action, exitCode: 70 }
  }
  const action = 'lockstep doctor'
  return { code: 'IO_ERROR', message, action, exitCode: ExitCode.FAILED }
}

export function exitCodeOf(code: ErrorCode): ExitCode {
  switch (code) {
    case 'INVALID_CONFIG':
      return ExitCode.USAGE
    case 'UNREACHABLE':
      return ExitCode.UNREACHABLE
    case 'NEEDS_CONFIRMATION':
    case 'NOT_WHOLE':
      return ExitCode.REFUSED_FOR_SAFETY
    case 'SPLIT_BRAIN':
      return ExitCode.SPLIT_BRAIN
    case 'TIMED_OUT':
      return ExitCode.TIMED_OUT
    case 'INTERRUPTED':
      return ExitCode.INTERRUPTED
    default:
      return ExitCode.FAILED
  }
}
