// Options of sockets that Node does not set. A larger send buffer for Unix sockets: by default one holds about 200 KiB, and a reply or
// an entry of 1 MiB then takes five turns of both sides, each waiting for the other (TCP's buffers grow by themselves). And no pacing on the loopback.
//
// Needs the optional FFI package; without it, or where the system does not allow it, large reads are slower and nothing else changes.
import { createRequire } from 'node:module'
import type { Server, Socket } from 'node:net'
import { isLoopback } from './listen.js'

/** Holds a whole reply or entry of the usual largest size. The kernel doubles it for its own bookkeeping, and takes memory only for what is in it. */
const sendBufferBytes = 1024 * 1024

/** asm-generic/socket.h, netinet/in.h, netinet/tcp.h */
const solSocket = 1
const soSendBuffer = 7
const ipProtoTcp = 6
const tcpCongestion = 13

/** The one that every kernel has, and every user may choose. */
const loopbackCongestion = 'reno'

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
  const fd = descriptorOf(socket)
  const isUnix = socket.remoteFamily === undefined
  if (!isUnix || fd === undefined) return
  const value = Buffer.alloc(4)
  value.writeInt32LE(sendBufferBytes)
  load()?.(fd, solSocket, soSendBuffer, value, value.length)
}

/**
 * Connections that a loopback listener accepts from now on have no congestion control that spreads packets over time by timers (bbr,
 * where a system has it for its real networks): there is no network, and the timers took half of the rate. Does what it can.
 */
export function calmLoopback(listener: Server): void {
  const address = listener.address()
  const fd = descriptorOf(listener)
  if (address === null || typeof address === 'string' || fd === undefined) return
  if (isLoopback(address.address)) calm(fd)
}

/** The same for a connection to another node on this machine, which is open. */
export function calmConnection(socket: Socket): void {
  const fd = descriptorOf(socket)
  if (fd !== undefined && isLoopback(socket.remoteAddress ?? '')) calm(fd)
}

function calm(fd: number): void {
  const value = Buffer.from(loopbackCongestion)
  load()?.(fd, ipProtoTcp, tcpCongestion, value, value.length)
}

/** Node's own affair; where it is not to be had nothing is set. */
function descriptorOf(owner: Socket | Server): number | undefined {
  const { _handle: handle } = owner as unknown as { readonly _handle?: { readonly fd?: number } }
  const fd = handle?.fd
  return fd === undefined || fd < 0 ? undefined : fd
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
