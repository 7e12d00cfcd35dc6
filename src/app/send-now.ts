// Replies to a plain socket by one system call of our own (writev). A stream's write does the same after making half a dozen
// objects, which costs as much as a small request. Needs the optional FFI package; without it the stream is written to.
//
// Invariant: a socket is written to only while Node has its descriptor open and nothing of its own to send to it.
import { createRequire } from 'node:module'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { SendNow } from '../../nbd/index.js'

/** Parts in one call: the kernel takes up to 1024. */
const partCountMax = 1024

type Handle = { readonly fd?: number; readonly writeQueueSize?: number }
type Koffi = {
  load(path: null): {
    func(name: string, result: string, parameters: readonly string[]): Write
  }
  address(value: object): bigint
}
type Write = (fd: number, vectors: BigUint64Array, count: number) => number

/** The option for an NBD server; nothing where it cannot be done. */
export function sendingNow(): { readonly sendNow?: SendNow } {
  if (process.platform !== 'linux') return {}
  try {
    const koffi = createRequire(import.meta.url)('koffi') as Koffi
    const writev = koffi.load(null).func('writev', 'long', ['int', 'void *', 'int'])
    return { sendNow: sender(koffi, writev) }
  } catch {
    return {}
  }
}

function sender(koffi: Koffi, writev: Write): SendNow {
  // struct iovec: address and length. Calls are synchronous, so one array of them is enough.
  const vectors = new BigUint64Array(2 * partCountMax)
  return (stream, parts) => {
    const fd = descriptorOf(stream)
    if (fd === undefined) return 0
    let count = 0
    for (const part of parts) {
      if (count === partCountMax) break
      vectors[2 * count] = koffi.address(part)
      vectors[2 * count + 1] = BigInt(part.length)
      count++
    }
    // Errors are met again, and reported, by the stream.
    return Math.max(0, writev(fd, vectors, count))
  }
}

/** The socket's descriptor when it may be written to directly. */
function descriptorOf(stream: Duplex): number | undefined {
  // A TLS socket's bytes are not what goes over the wire.
  if (Object.getPrototypeOf(stream) !== Socket.prototype) return undefined
  const handle = (stream as unknown as { readonly _handle?: Handle | null })._handle
  const fd = handle?.fd
  if (fd === undefined || fd < 0) return undefined
  return handle?.writeQueueSize === 0 && stream.writable ? fd : undefined
}
