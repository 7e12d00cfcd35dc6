// What a mark may ask for: its names and its message, checked without a look at any node.
import { LockstepError } from './errors.js'
import { limits } from './limits.js'
import type { MarkRequest } from './operation.js'
import { checkNamePart, markPrefix } from './store-name.js'

/** `request`, with its snapshot without the prefix that the replica puts before it anyway. Throws INVALID_NAME or INVALID_ARGUMENT. */
export function checkMarkRequest({ name, message, hook, snapshot }: MarkRequest): MarkRequest {
  if (message !== undefined && Buffer.byteLength(message) > limits.markMessageBytesMax)
    throw new LockstepError(
      'INVALID_ARGUMENT',
      `a message has at most ${limits.markMessageBytesMax} bytes`,
      'write it to a store, and mark its position',
    )
  if (message?.includes('\0'))
    throw new LockstepError(
      'INVALID_ARGUMENT',
      'a message cannot contain the character NUL',
      'a hook gets it as an environment variable: leave it out',
    )
  return {
    name: checkNamePart(name),
    ...(message === undefined ? {} : { message }),
    ...(hook === undefined ? {} : { hook: checkNamePart(hook) }),
    ...(snapshot === undefined ? {} : { snapshot: checkNamePart(withoutPrefix(snapshot)) }),
  }
}

/** Who has seen `vol0@local.nightly` may ask for `local.nightly`, and means that one. */
function withoutPrefix(snapshot: string): string {
  return snapshot.startsWith(markPrefix)
    ? withoutPrefix(snapshot.slice(markPrefix.length))
    : snapshot
}
