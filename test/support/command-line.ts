// The command line inside the test's own process: as quick as a function call, for tests of many lines. What the process itself adds (exit
// codes, signals, terminals) is tested with the real program.
import { PassThrough, Readable } from 'node:stream'
import type { Terminal } from '../../src/app/cli/output.js'
import { runCommandLine } from '../../src/app/cli/run.js'
import type { Finished } from './process.js'

/** What one line prints and its exit code, without a terminal and with nothing but `environment` set. */
export async function runLine(
  words: readonly string[],
  options: {
    readonly environment?: Readonly<Record<string, string>>
    readonly input?: string
  } = {},
): Promise<Finished> {
  const stdout = new Collector()
  const stderr = new Collector()
  const stdin = Readable.from([Buffer.from(options.input ?? '')])
  const terminal = { stdout, stderr, stdin } as unknown as Terminal
  const status = await runCommandLine({
    words,
    environment: options.environment ?? {},
    terminal,
    exit: () => {},
  })
  return { status, signal: null, stdout: stdout.text, stderr: stderr.text }
}

class Collector extends PassThrough {
  text = ''

  constructor() {
    super()
    this.on('data', (chunk: Buffer) => {
      this.text += chunk.toString()
    })
  }
}

/** The line says why it refuses, in text and in JSON, with its exit code. Answers what is wrong with it, or nothing. */
export async function refusalComplaints(
  ask: (args: readonly string[]) => Promise<Finished>,
  args: readonly string[],
  expected: Refusal,
): Promise<readonly string[]> {
  const complaints: string[] = []
  const check = (isRight: boolean, what: string, found: unknown) => {
    if (!isRight) complaints.push(`${args.join(' ')}: ${what}, but: ${found}`)
  }
  const text = await ask(args)
  check(text.status === expected.status, `exit code ${expected.status}`, text.status)
  check(text.stdout === '', 'nothing on stdout', text.stdout)
  const [first = '', second = ''] = text.stderr.trimEnd().split('\n').slice(-2)
  check(expected.message.test(first), `says ${expected.message}`, text.stderr)
  check(first.startsWith('lockstep: '), 'begins with the program', first)
  check(expected.action.test(second), `offers ${expected.action}`, text.stderr)
  check(second.startsWith('  try: '), 'offers an action', second)
  const json = await ask(['--json', ...args])
  check(json.status === expected.status, `exit code ${expected.status} with --json`, json.status)
  const { error } = JSON.parse(json.stdout) as {
    error: { code: string; message: string; action: string }
  }
  check(error.code === expected.code, `code ${expected.code}`, error.code)
  check(expected.message.test(error.message), `message ${expected.message}`, error.message)
  check(expected.action.test(error.action), `action ${expected.action}`, error.action)
  return complaints
}

export type Refusal = {
  readonly status: number
  readonly code: string
  readonly message: RegExp
  readonly action: RegExp
}
