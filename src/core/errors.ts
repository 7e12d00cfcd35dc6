// What can be refused, and how each refusal leaves the program: a code for scripts, a sentence for people, an action to type next.

/** Codes of refused commands: fixed, other people's scripts read them (`data.code` on the control socket). */
export const errorCodes = [
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
  'SPLIT_BRAIN',
  'NOT_WHOLE',
  'NODES_DIFFER',
  'PEER_UNREACHABLE',
  'FAILED_STOP',
  'CORRUPT',
  'WRONG_VERSION',
  'NOT_INITIALISED',
  'ALREADY_INITIALISED',
  'INVALID_CONFIG',
  'IO_ERROR',
  'UNREACHABLE',
  'NEEDS_CONFIRMATION',
  'TIMED_OUT',
  'INTERRUPTED',
  'CANCELLED',
] as const
export type ErrorCode = (typeof errorCodes)[number]

/** Exit codes of the command line: fixed. */
export const ExitCode = {
  DONE: 0,
  FAILED: 1,
  USAGE: 2,
  PARTLY_DONE: 3,
  UNREACHABLE: 4,
  REFUSED_FOR_SAFETY: 5,
  DEGRADED: 6,
  SPLIT_BRAIN: 7,
  TIMED_OUT: 8,
  ASSERTION: 70,
  INTERRUPTED: 130,
} as const
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode]

/** A refusal: nothing was changed. `action` is what to do next, as a command where there is one. */
export class LockstepError extends Error {
  override readonly name = 'LockstepError'
  readonly code: ErrorCode
  readonly action: string

  constructor(code: ErrorCode, message: string, action: string) {
    super(message)
    this.code = code
    this.action = action
  }
}

/** A secondary is asked for what only its primary does. */
export function notPrimary(): LockstepError {
  return new LockstepError(
    'NOT_PRIMARY',
    'this node is a secondary: its stores change by the stream of its primary only',
    'run the command on the primary: lockstep status names it',
  )
}

/** The errno that a failed disk call had (`ENOSPC`, `EIO`, …); `EIO` when the cause has none. */
export function errnoNameOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : 'EIO'
}

/** For the default branch of a switch over a union: a new member fails to compile here. */
export function unreachable(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`)
}
