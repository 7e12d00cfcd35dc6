// What a secondary says of a refusal by its primary. Most refusals both nodes come to by themselves, each in its own words; what only the primary knows is put here into
// words that are right on the secondary.
//
// Invariant: "this node" is the one that shows the sentence, and a command that is to be typed elsewhere says where.
import { decide, movesData } from './greeting.js'
import { actions, onThe } from './greeting-actions.js'
import type { Decision, Hello } from './hello.js'

/** `told` moves no data. */
export function refusalHere(
  told: Decision,
  mine: Hello,
  primary: Hello,
): { readonly reason: string; readonly action: string } {
  // Whatever else there is between the two, it need not be mended.
  if (told.rule === 'other-node')
    return {
      reason: `the primary ${primary.node} replicates to another node than this one, and keeps in mind what that one lacks`,
      action: onThe('primary', actions.forgetThere),
    }
  const own = decide(mine, primary)
  if (!movesData(own)) return { reason: own.reason, action: own.action ?? 'lockstep status' }
  switch (told.rule) {
    case 'old-secondary':
      return {
        reason: `this node is at ${mine.sequence}, and has told the primary ${primary.node} that more than that is durable here: its disk is an old copy`,
        action: actions.blankHere,
      }
    default:
      return {
        reason: `the primary ${primary.node} refuses: ${told.reason}`,
        action: onThe('primary', told.action ?? 'lockstep status'),
      }
  }
}
