// One operation from the command line: sent to the daemon under an id of its own, its result told.
import { randomUUID } from 'node:crypto'
import { ExitCode } from '../../core/errors.js'
import type { OperationResult } from '../../engine/api.js'
import type { Context } from './command.js'
import { afterConfirmation } from './confirm.js'
import { patiently } from './patience.js'

/** Operations take milliseconds; one that waits this long waits for a disk that is stuck. */
const performTimeoutMs = 120_000
const waitsFor = 'a disk has not answered yet, or the peer has not'

export async function perform(
  context: Context,
  request: {
    readonly method: string
    readonly params: object
    /** What to say of it. */
    readonly done: string | ((result: OperationResult) => string)
    /** It was said what will be lost. */
    readonly isConfirmed?: boolean
  },
): Promise<ExitCode> {
  const client = await context.client()
  const params = { ...request.params, requestId: randomUUID() }
  const options = { timeoutMs: performTimeoutMs }
  const answer = client.request(request.method, params, options)
  const awaited = patiently(context, answer, waitsFor)
  const settled = request.isConfirmed === true ? afterConfirmation(awaited) : awaited
  const result = (await settled) as OperationResult
  const done = typeof request.done === 'string' ? request.done : request.done(result)
  context.output.result(result, `${done} at sequence ${result.position.sequence}`)
  return ExitCode.DONE
}
