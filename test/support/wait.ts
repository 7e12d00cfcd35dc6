// Waiting for what another process will do: asked again and again until it is so, never longer than a deadline.
import { setTimeout as delay } from 'node:timers/promises'

const waitTimeoutMs = 30_000
const askEveryMs = 20

/** Resolves with the first answer that is neither false nor undefined. Rejects, naming `what`, after `timeoutMs`. */
export async function waitFor<T>(
  what: string,
  ask: () => Promise<T | false | undefined> | T | false | undefined,
  timeoutMs = waitTimeoutMs,
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const answer = await ask()
    if (answer !== false && answer !== undefined) return answer
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await delay(askEveryMs)
  }
}
