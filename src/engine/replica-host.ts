// What a secondary's side of a connection needs of its node.

import type { SendNow } from '../../nbd/bytes/send-now.js'
import type { Clock } from '../core/clock.js'
import type { Log } from '../core/log.js'
import type { Operation } from '../core/operation.js'
import type { Sequence } from '../core/units.js'
import type { Hello } from '../replication/hello.js'
import type { LinkState } from '../replication/link-state.js'
import type { Pool } from '../storage/pool.js'
import type { FrozenStores } from './frozen.js'
import type { MarkHandler } from './marks.js'
import type { Sequencer } from './sequencer.js'

export type ReplicaHost = {
  readonly pool: Pool
  readonly sequencer: Sequencer
  readonly clock: Clock
  readonly log: Log
  readonly deadlineMs?: number
  readonly sendNow?: SendNow | undefined
  readonly onEntries?: (isCrowd: boolean) => void
  readonly hello: () => Hello
  readonly frozen: FrozenStores
  readonly marks: MarkHandler
  /** Without room for what it has before a resync, a resync stops. */
  readonly isBeforeResyncRequired: boolean
  /** There was no room, and it was not required. */
  readonly onGivenUp: (reason: string) => void
  /** An operation took effect: catalog and events follow. `stores` are the full names of those that it was about. */
  readonly performed: (operation: Operation, sequence: Sequence, stores: readonly string[]) => void
  /** Somebody connected whom the greeting does not let in, while a primary is served. */
  readonly onStranger: (reason: string) => void
  readonly onChange: (link: LinkState, reason: string) => void
  readonly mutants: ReadonlySet<string>
}
