// All commands, in the order in which help shows them.
import type { Command } from './command.js'
import { copyCommands } from './copy.js'
import { nodeCommands } from './node.js'
import { snapshotCommands } from './snapshot.js'
import { statusCommands } from './status.js'
import { volumeCommands } from './volume.js'

export const commands: readonly Command[] = [
  ...volumeCommands,
  ...snapshotCommands,
  ...copyCommands,
  ...statusCommands,
  ...nodeCommands,
]

/** First words that stand for several commands. */
export const groups: Readonly<Record<string, string>> = {
  volume: 'creates, lists, deletes, renames and resizes volumes',
  snapshot: 'creates, lists, deletes, renames, restores and refreshes snapshots',
}
