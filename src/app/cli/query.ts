// What commands ask the daemon before they answer or change anything.

import type { DaemonStatus } from '../../control/api.js'
import { LockstepError } from '../../core/errors.js'
import type { StoreStatus } from '../../engine/api.js'
import type { Context } from './command.js'

const queryTimeoutMs = 30_000

export async function ask(context: Context, method: string, params: object = {}): Promise<unknown> {
  const client = await context.client()
  return client.request(method, params, { timeoutMs: queryTimeoutMs })
}

export async function askStatus(context: Context): Promise<DaemonStatus> {
  return (await ask(context, 'status')) as DaemonStatus
}

/** The store of that name. Rejects with NO_SUCH_STORE. */
export async function askStore(context: Context, name: string): Promise<StoreStatus> {
  const { stores } = await askStatus(context)
  const found = stores.find((store) => store.name === name)
  if (found === undefined) {
    throw new LockstepError('NO_SUCH_STORE', `there is no store "${name}"`, 'lockstep status')
  }
  return found
}
