// All commands, in the order in which help shows them.
import type { Command } from './command.js'
import { copyCommands } from './copy.js'
import { jobCommands } from './job.js'
import { markCommands } from './mark.js'
import { nodeCommands } from './node.js'
import { peerCommands } from './peer.js'
import { snapshotCommands } from './snapshot.js'
import { statusCommands } from './status.js'
import { verifyCommands } from './verify.js'
import { volumeCommands } from './volume.js'
import { waitCommands } from './wait.js'

export const commands: readonly Command[] = [
  ...volumeCommands,
  ...snapshotCommands,
  ...copyCommands,
  ...markCommands,
  ...statusCommands,
  ...waitCommands,
  ...peerCommands,
  ...verifyCommands,
  ...jobCommands,
  ...nodeCommands,
]

/** First words that stand for several commands. */
export const groups: Readonly<Record<string, string>> = {
  volume: 'creates, lists, deletes, renames and resizes volumes',
  snapshot: 'creates, lists, deletes, renames, restores and refreshes snapshots',
  peer: 'shows, connects, disconnects, sets and forgets the other node',
  job: 'lists long work that goes on by itself, waits for it and stops it',
}
