// The one error that is about the command line itself.

/** The command line cannot be understood: exit code 2. `action` is what to type. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  readonly action: string

  constructor(message: string, action: string) {
    super(message)
    this.action = action
  }
}
