// A larger send buffer for Unix sockets. By default one holds about 200 KiB: a reply of 1 MiB then takes five turns of both sides, each
// waiting for the other. TCP sockets are left alone, their buffers grow by themselves. Needs the optional FFI package; without it, or
// where the system allows less, large reads are slower and nothing else changes.
import { createRequire } from 'node:module'
import type { Socket } from 'node:net'

/** Holds a whole reply of the usual largest size. The kernel doubles it for its own bookkeeping, and takes memory only for what is in it. */
const sendBufferBytes = 1024 * 1024

/** asm-generic/socket.h */
const solSocket = 1
const soSendBuffer = 7

type SetSocketOption = (
  fd: number,
  level: number,
  option: number,
  value: Buffer,
  lengthBytes: number,
) => number

let setSocketOption: SetSocketOption | undefined
let isLoaded = false

/** Does what it can, and says nothing when that is nothing. */
export function enlargeSendBuffer(socket: Socket): void {
  const isUnix = socket.remoteFamily === undefined
  // The descriptor is Node's own affair; where it is not to be had there is nothing to enlarge.
  const { fd } =
    (socket as unknown as { readonly _handle?: { readonly fd?: number } })._handle ?? {}
  if (!isUnix || fd === undefined || fd < 0) return
  const value = Buffer.alloc(4)
  value.writeInt32LE(sendBufferBytes)
  load()?.(fd, solSocket, soSendBuffer, value, value.length)
}

function load(): SetSocketOption | undefined {
  if (isLoaded) return setSocketOption
  isLoaded = true
  if (process.platform !== 'linux') return undefined
  try {
    const koffi = createRequire(import.meta.url)('koffi')
    const parameters = ['int', 'int', 'int', 'void *', 'uint']
    setSocketOption = koffi.load(null).func('setsockopt', 'int', parameters) as SetSocketOption
  } catch {
    setSocketOption = undefined
  }
  return setSocketOption
}
