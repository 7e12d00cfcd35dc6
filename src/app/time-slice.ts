// A long time slice for the event loop's thread. A loop that stays awake for the next request (nbd/poller) has nothing to do that could not wait, but the scheduler
// takes it for a program at work: whoever is woken up on its processor, a client with its reply for instance, waits until the loop's slice ends. The thread whose slice is
// long is the one that gives way to those whose slices are short; the share of the processor that each gets stays as it is.
//
// Invariant: nothing but the slice changes, and only of a thread of the ordinary policy. What that thread starts later (hooks, the kernel's workers) has the same slice,
// and gives way as well. Where the kernel or the container does not allow it, nothing happens.
import { loadForeign } from '../storage/native.js'

/** The longest that Linux takes (6.12 and later; kernels before it ignore the request). */
const sliceNs = 100_000_000n

/** sched_setattr and sched_getattr of each architecture's system call table. */
const syscalls: Readonly<Record<string, { readonly set: number; readonly get: number }>> = {
  x64: { set: 314, get: 315 },
  arm64: { set: 274, get: 275 },
  riscv64: { set: 274, get: 275 },
}

/** struct sched_attr of linux/sched/types.h in its first version: bytes, and where its parts are. */
const attributes = { lengthBytes: 48, policyAt: 4, runtimeAt: 24 } as const
const policyOther = 0

/** Asks for the slice. Answers the one that the thread has now, in nanoseconds; undefined where it cannot be asked for. */
export function takeLongTimeSlice(architecture: string = process.arch): number | undefined {
  const foreign = loadForeign()
  const numbers = syscalls[architecture]
  if (foreign === undefined || numbers === undefined) return undefined
  const libc = foreign.load(null)
  const set = libc.func('syscall', 'long', ['long', 'int', 'void *', 'uint'])
  const get = libc.func('syscall', 'long', ['long', 'int', 'void *', 'uint', 'uint'])
  const block = Buffer.alloc(attributes.lengthBytes)
  const view = new DataView(block.buffer, block.byteOffset, block.length)
  const isLittleEndian = true
  const read = (): boolean =>
    get(numbers.get, 0, block, block.length, 0) >= 0 &&
    view.getUint32(attributes.policyAt, isLittleEndian) === policyOther
  if (!read()) return undefined
  view.setBigUint64(attributes.runtimeAt, sliceNs, isLittleEndian)
  if (set(numbers.set, 0, block, 0) < 0 || !read()) return undefined
  return Number(view.getBigUint64(attributes.runtimeAt, isLittleEndian))
}
