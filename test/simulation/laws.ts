// How a checker says that a law is broken, and how it notices what nobody awaits.

/** The message has all it takes to see it again. */
export class LawBroken extends Error {
  override readonly name = 'LawBroken'
}

/** Runs `work`; a promise that was rejected meanwhile with nobody listening breaks a law too: in the daemon it would end the process. */
export async function withRejectionsCaught<T>(work: () => Promise<T>): Promise<T> {
  const found: unknown[] = []
  const listener = (reason: unknown) => {
    found.push(reason)
  }
  process.on('unhandledRejection', listener)
  try {
    const result = await work()
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
    if (found.length > 0)
      throw new LawBroken(`unhandled: ${describe(found[0])}`, { cause: found[0] })
    return result
  } finally {
    process.off('unhandledRejection', listener)
  }
}

export function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error)
}
