// What a virtual machine does with a processor that has nothing to do. Given back to the host at once, it costs 20 µs and more to be had again: with one request at
// a time, as much as the request itself. A guest that waits a moment before (the kernel's haltpoll governor) is twice as fast then.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

export type IdleProcessors =
  /** No virtual machine that could wait, as far as can be seen. */
  | { readonly kind: 'none' }
  | { readonly kind: 'waits'; readonly pollNs: number }
  | { readonly kind: 'gives-back'; readonly setting: string }

const governorPath = 'devices/system/cpu/cpuidle/current_governor'
const pollPath = 'module/haltpoll/parameters/guest_halt_poll_ns'

/** `root`: where sysfs is. */
export async function idleProcessors(root = '/sys'): Promise<IdleProcessors> {
  const read = (path: string): Promise<string | undefined> =>
    readFile(join(root, path), 'utf8').then(
      (text) => text.trim(),
      () => undefined,
    )
  const [governor, poll] = await Promise.all([read(governorPath), read(pollPath)])
  if (governor !== 'haltpoll' || poll === undefined || !/^\d+$/.test(poll)) return { kind: 'none' }
  const pollNs = Number(poll)
  return pollNs > 0
    ? { kind: 'waits', pollNs }
    : { kind: 'gives-back', setting: join(root, pollPath) }
}
