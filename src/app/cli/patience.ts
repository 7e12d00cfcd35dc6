// Commands whose answer depends on the other node, or on a disk: when it does not come at once they say what they wait for. Only people are told,
// once, and only while they wait.
import { LockstepError } from '../../core/errors.js'
import type { PeerStatus } from '../../engine/api.js'
import type { Context } from './command.js'
import { ask } from './query.js'

/** Longer than this a command seems to hang. */
const silenceMs = 500

/** `answer`. While it does not come, a note says how the link is; with a link that streams, or without one, `otherwise` if there is one. */
export async function patiently<T>(
  context: Context,
  answer: Promise<T>,
  otherwise?: string,
): Promise<T> {
  const waiting = { isOver: false }
  const timer = setTimeout(() => void tell(context, waiting, otherwise), silenceMs)
  try {
    return await answer
  } finally {
    waiting.isOver = true
    clearTimeout(timer)
  }
}

async function tell(
  context: Context,
  waiting: { readonly isOver: boolean },
  otherwise: string | undefined,
): Promise<void> {
  try {
    const { peers } = (await ask(context, 'peer.list')) as { peers: readonly PeerStatus[] }
    if (waiting.isOver) return
    const behind = peers.find(({ link }) => link !== 'streaming')
    const reason = behind?.reason ?? otherwise
    if (reason !== undefined) context.output.note(`waiting: ${reason}`)
  } catch (error) {
    // Whatever keeps the daemon from saying so is told by the answer that is waited for.
    if (!(error instanceof LockstepError)) throw error
  }
}
