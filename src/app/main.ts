#!/usr/bin/env node
// The program's first lines: gives the command line to the code that runs it, and the exit code to the system. The only reader of argv.
import { runCommandLine } from './cli/run.js'

// A reader that has seen enough (`| head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

process.exitCode = await runCommandLine({
  words: process.argv.slice(2),
  environment: process.env,
  terminal: process,
  exit: (code) => process.exit(code),
})
