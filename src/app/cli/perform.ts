// One operation from the command line: sent to the daemon under an id of its own, its result told.
import { randomUUID } from 'node:crypto'
import { ExitCode } from '../../core/errors.js'
import type { OperationRequest } from '../../core/operation.js'
import { checkOperationWords, type SingleRequest } from '../../core/operation-words.js'
import type { OperationResult } from '../../engine/api.js'
import type { Context } from './command.js'
import { afterConfirmation } from './confirm.js'
import { patiently } from './patience.js'
import { ofWords } from './usage-error.js'

/** Operations take milliseconds; one that waits this long waits for a disk that is stuck. */
const performTimeoutMs = 120_000
const waitsFor = 'a disk has not answered yet, or the peer has not'

/** `request` itself, when its words can be right: said before anybody is asked for anything. Throws UsageError. */
export function operation<R extends SingleRequest>(request: R): R {
  return ofWords(() => checkOperationWords(request))
}

export async function perform(
  context: Context,
  request: OperationRequest,
  telling: {
    /** What to say of it. */
    readonly done: string | ((result: OperationResult) => string)
    /** It was said what will be lost. */
    readonly isConfirmed?: boolean
  },
): Promise<ExitCode> {
  const client = await context.client()
  const { kind, ...words } = request
  const params = { ...words, requestId: randomUUID() }
  context.ifInterrupted('lockstep status, to see whether it was done')
  const answer = client.request(kind, params, { timeoutMs: performTimeoutMs })
  const awaited = patiently(context, answer, { otherwise: waitsFor })
  const settled = telling.isConfirmed === true ? afterConfirmation(awaited) : awaited
  const result = (await settled) as OperationResult
  const done = typeof telling.done === 'string' ? telling.done : telling.done(result)
  context.output.result(result, `${done} at sequence ${result.position.sequence}`)
  return ExitCode.DONE
}
