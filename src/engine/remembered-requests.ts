// Answers to requests with an id: who asks again, because the first answer was lost on its way, gets that one, and the operation is not done twice.
//
// Invariant: an id stands for one request. Asked for anything else it is refused, and nothing is done: an answer to another request would pass for success.
import { createHash } from 'node:crypto'
import { LockstepError } from '../core/errors.js'
import type { OperationResult } from './api.js'

/** A client retries its newest requests. */
const rememberedMax = 1000

type Remembered = { readonly digest: string; readonly result: Promise<OperationResult> }

export class RememberedRequests {
  /** By id, the oldest first. */
  readonly #known = new Map<string, Remembered>()

  /** Runs it, or answers what the same request under this id was answered. */
  once(
    requestId: string | undefined,
    request: object,
    run: () => Promise<OperationResult>,
  ): Promise<OperationResult> {
    if (requestId === undefined) return run()
    const digest = createHash('sha256').update(JSON.stringify(request)).digest('base64')
    const known = this.#known.get(requestId)
    if (known !== undefined)
      return known.digest === digest ? known.result : Promise.reject(usedAlready(requestId))
    const result = run()
    this.#known.set(requestId, { digest, result })
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= rememberedMax) break
      this.#known.delete(oldest)
    }
    return result
  }
}

function usedAlready(requestId: string): LockstepError {
  return new LockstepError(
    'INVALID_ARGUMENT',
    `the request id ${JSON.stringify(requestId)} was used for another request; nothing was done`,
    'give each request an id of its own, and the same one only when you ask again',
  )
}
