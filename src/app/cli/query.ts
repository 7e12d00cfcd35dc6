// What commands ask the daemon before they answer or change anything.

import type { DaemonStatus } from '../../control/api.js'
import { notPrimary } from '../../core/errors.js'
import { isNoVolume, noSuchStore } from '../../core/no-such-store.js'
import { type ByteRange, formatBytes } from '../../core/units.js'
import type { StoreStatus } from '../../engine/api.js'
import type { Context } from './command.js'

const queryTimeoutMs = 30_000
/** A question is answered in milliseconds. */
const silenceMs = 2000

export async function ask(context: Context, method: string, params: object = {}): Promise<unknown> {
  const client = await context.client()
  const timer = setTimeout(
    () => context.output.note('waiting: the daemon has not answered yet'),
    silenceMs,
  )
  try {
    return await client.request(method, params, { timeoutMs: queryTimeoutMs })
  } finally {
    clearTimeout(timer)
  }
}

export async function askStatus(context: Context): Promise<DaemonStatus> {
  return (await ask(context, 'status')) as DaemonStatus
}

/** The status of a primary: nobody is asked whether data may be lost by what is refused then. Rejects with NOT_PRIMARY. */
export async function askPrimary(context: Context): Promise<DaemonStatus> {
  const status = await askStatus(context)
  if (status.role === 'secondary') throw notPrimary()
  return status
}

/** The volume of that name: nobody is asked whether the data of a snapshot may be lost, which is then refused. Rejects with NO_SUCH_STORE or NOT_PRIMARY. */
export async function askVolume(context: Context, name: string): Promise<StoreStatus> {
  const { stores } = await askPrimary(context)
  const store = storeOf(stores, name)
  if (store.snapshotOf === undefined) return store
  throw isNoVolume(name)
}

export function storeOf(stores: readonly StoreStatus[], name: string): StoreStatus {
  const found = stores.find((store) => store.name === name)
  if (found === undefined) throw noSuchStore(name, stores)
  return found
}

/** For a copy of everything: the target takes the size of its source as well. Empty when that is no news. */
export function newSizeText(target: string, sizeBytes: number, becomesBytes: number): string {
  if (becomesBytes === sizeBytes) return ''
  const verb = becomesBytes < sizeBytes ? 'is cut to' : 'grows to'
  return `; ${target} ${verb} ${formatBytes(becomesBytes)}`
}

/** The range of a store, or all of it with its size. */
export function partText(store: string, range: ByteRange | undefined, sizeBytes: number): string {
  if (range === undefined) return `all of ${store} (${formatBytes(sizeBytes)})`
  return `${range.lengthBytes} bytes of ${store} from byte ${range.offset} on`
}
