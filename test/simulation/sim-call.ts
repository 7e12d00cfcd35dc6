// A call of the simulated disk: what is counted and shown, how it can fail, and the switches of the disk.
import type { SeededRandom } from './random.js'
import type { Life, Scheduler } from './sim-clock.js'
import type { SimMedium } from './sim-medium.js'

export const callKinds = [
  'open',
  'size',
  'readNow',
  'read',
  'writeNow',
  'write',
  'sync',
  'punch',
  'truncate',
  'close',
  'rename',
  'remove',
  'list',
  'syncDirectory',
] as const
export type CallKind = (typeof callKinds)[number]

export type Call = {
  /** The first call of a disk is 0. */
  readonly index: number
  readonly kind: CallKind
  readonly name: string
  readonly offset: number
  readonly lengthBytes: number
}

/** `short`: a write that ends early, if it can. `errno`: the call fails; a failed sync loses part of what it should have made durable. */
export type Fault = { readonly errno: string } | 'short'

export type SimDiskOptions = {
  readonly medium?: SimMedium
  readonly life: Life
  readonly scheduler: Scheduler
  /** `immediate`: calls complete when called. `scheduled`: the scheduler chooses when. */
  readonly completion?: 'immediate' | 'scheduled'
  readonly canPunch?: boolean
  /** How readNow and writeNow answer: done, `wouldBlock`, or by chance either (a read also in part). */
  readonly now?: 'always' | 'never' | 'random'
  /** Where a short write may end, and the part of a read that is there at once: at multiples of this in the file; 1 by default. With sectors what a medium writes in one piece is never half new, whatever fails next. */
  readonly shortUnitBytes?: number
  readonly random: SeededRandom
  /** Bytes of medium, or who knows them now; writes that need more get ENOSPC. */
  readonly capacityBytes?: number | (() => number)
  /** A file that has this length, for ever. */
  readonly device?: { readonly name: string; readonly sizeBytes: number }
  /** Called before each call. May end the life: the call then does nothing and never settles. */
  readonly beforeCall?: (call: Call) => void
  readonly fault?: (call: Call) => Fault | undefined
  /** The call is completed when this resolves. */
  readonly hold?: (asked: Asked) => Promise<void> | undefined
}

export function failOn(fault: Fault | undefined): void {
  if (fault && fault !== 'short') throw errnoError(fault.errno)
}

/** An error as Node's fs throws it. */
export function errnoError(errno: string): Error {
  return Object.assign(new Error(`${errno}: simulated`), { code: errno })
}

/** What is asked of a disk. */
export type Asked = {
  readonly kind: CallKind
  readonly name: string
  readonly offset?: number
  readonly lengthBytes?: number
}
