// The one error that is about the command line itself: what can be seen to be wrong in the words that were typed, without asking any daemon.
import { type ErrorCode, LockstepError } from '../../core/errors.js'

/** The command line cannot be understood: exit code 2, whatever `code` is. `action` is what to type. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  readonly action: string
  readonly code: ErrorCode

  constructor(message: string, action: string, code: ErrorCode = 'INVALID_ARGUMENT') {
    super(message)
    this.action = action
    this.code = code
  }
}

/** What `check` answers. What it refuses is wrong in the words themselves: a UsageError with the same code. `prefix` says where it was found. */
export function ofWords<T>(check: () => T, prefix = ''): T {
  try {
    return check()
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error
    throw new UsageError(`${prefix}${error.message}`, error.action, error.code)
  }
}
