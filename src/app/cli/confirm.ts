// Asks before data is destroyed. First it says what is lost; then it goes on only by --yes, or when a person types the name.
import { createInterface } from 'node:readline'
import { type ErrorCode, LockstepError } from '../../core/errors.js'
import type { OperationRequest } from '../../core/operation.js'
import type { Context } from './command.js'
import { ask } from './query.js'

/** Resolves when it may be done. Rejects with NEEDS_CONFIRMATION without a terminal or when another name was typed, INTERRUPTED, and with what would be refused anyhow: nobody is asked then. */
export async function confirm(
  context: Context,
  options: { readonly lost: string; readonly name: string; readonly request?: OperationRequest },
): Promise<void> {
  const { output } = context
  if (options.request !== undefined)
    await afterConfirmation(ask(context, 'check', { operation: options.request }))
  if (context.arguments.isSet('yes')) {
    output.note(options.lost)
    return
  }
  if (!output.isInteractive || output.isJson) {
    throw new LockstepError(
      'NEEDS_CONFIRMATION',
      `${options.lost}; this needs a confirmation`,
      'run the same command with --yes',
    )
  }
  output.note(output.paint('yellow', options.lost))
  const answer = await askPerson(context, `Type ${options.name} to go on: `)
  if (answer !== options.name) {
    throw new LockstepError(
      'NEEDS_CONFIRMATION',
      'not confirmed; nothing was changed',
      'type the name exactly, or use --yes',
    )
  }
}

/** Refusals of an operation that come before anything is done. Of the others (a deadline, a lost connection, a disk that fails) the outcome is not certain. */
const codesBeforeChange: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'NO_SUCH_STORE',
  'NAME_TAKEN',
  'INVALID_NAME',
  'INVALID_SIZE',
  'INVALID_ARGUMENT',
  'OUT_OF_RANGE',
  'NOT_PRIMARY',
  'NO_SPACE',
  'LIMIT_REACHED',
  'CONFLICT',
  'BUSY',
  'IN_USE',
  'HAS_SNAPSHOTS',
])

/** `answer` of the daemon behind a confirmation: a refusal takes back what was said to be lost. Not when something may be done: `isBegun`, for work of several steps. */
export async function afterConfirmation<T>(
  answer: Promise<T>,
  isBegun: () => boolean = () => false,
): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (!(error instanceof LockstepError) || !codesBeforeChange.has(error.code)) throw error
    if (isBegun()) throw error
    throw new LockstepError(error.code, `${error.message}; nothing was changed`, error.action)
  }
}

function askPerson(context: Context, question: string): Promise<string> {
  const { stdin, stderr } = context.output.terminal
  const prompt = createInterface({ input: stdin, output: stderr })
  return new Promise((resolve, reject) => {
    // Ctrl-C and Ctrl-D. The question has no end of its line then.
    const interrupted = () => {
      stderr.write('\n')
      reject(new LockstepError('INTERRUPTED', 'interrupted; nothing was changed', ''))
    }
    prompt.once('SIGINT', () => prompt.close())
    prompt.once('close', interrupted)
    prompt.question(question, (answer) => {
      prompt.off('close', interrupted)
      resolve(answer.trim())
      prompt.close()
    })
  })
}
