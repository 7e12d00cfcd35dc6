// The three fates of an error in a session: a RequestError is replied and the session goes on, a ProtocolError (nbd/bytes) ends the
// connection, anything else is a bug or unknown and becomes EIO on the wire.

/** proto.md, "Error values". The wire knows these and no others. */
export const Errno = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const
export type ErrnoName = keyof typeof Errno
/** proto.md, "Error values": ENOSPC for writes and zeroes beyond the end, EINVAL for everything else. */
export type ErrnoBeyondEnd = 'EINVAL' | 'ENOSPC'

/** A request that fails while the connection stays good. `message` goes to the client in a structured reply. */
export class RequestError extends Error {
  override readonly name = 'RequestError'
  readonly errno: ErrnoName

  constructor(errno: ErrnoName, message: string) {
    super(message)
    this.errno = errno
  }
}

/** proto.md, "Error values": the wire knows eight. */
export function toRequestError(error: unknown): RequestError {
  if (error instanceof RequestError) return error
  const code = (error as { code?: unknown } | null)?.code
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return new RequestError('ENOSPC', 'no space left')
    case 'EROFS':
    case 'EPERM':
      return new RequestError('EPERM', 'not permitted')
    default:
      return new RequestError('EIO', 'the server failed; its log says why')
  }
}
