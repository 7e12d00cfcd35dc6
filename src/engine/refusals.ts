// What a request may not do any more when its turn comes, as the errno that the wire knows.
import { type ErrnoBeyondEnd, RequestError } from '../../nbd/errors.js'
import type { Store } from '../storage/group-state.js'

/** The session has checked this when the request came; a store may be deleted or become smaller before the request is performed. */
export function checkRange(
  store: Store,
  range: { readonly offset: number; readonly lengthBytes: number },
  errno: ErrnoBeyondEnd,
): void {
  if (store.isDeleted) throw new RequestError('EIO', 'the store was deleted')
  if (range.offset + range.lengthBytes > store.sizeBytes)
    throw new RequestError(errno, `the store has ${store.sizeBytes} bytes now`)
}

/** A node that follows another one changes nothing by itself. */
export function notPrimary(): RequestError {
  return new RequestError('EPERM', 'this node is a secondary: write to its primary')
}
