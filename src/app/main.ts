#!/usr/bin/env node
// The program's first lines: gives the command line to the code that runs it, and the exit code to the system. The only reader of argv.
import { ExitCode } from '../core/errors.js'
import { runCommandLine } from './cli/run.js'

// A reader that has seen enough (`| head`) is no failure. A full disk under a file is one, and nothing of the command's: that was done before it was told.
process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => {
  if (code === 'EPIPE') process.exit(ExitCode.DONE)
  const action = 'make room where it goes to; whether it was done says: lockstep status'
  process.stderr.write(`lockstep: the answer cannot be written (${code})\n  try: ${action}\n`)
  process.exit(ExitCode.FAILED)
})
// Who cannot be told anything still gets the exit code.
process.stderr.on('error', () => {})

process.exitCode = await runCommandLine({
  words: process.argv.slice(2),
  environment: process.env,
  terminal: process,
  exit: (code) => process.exit(code),
})
