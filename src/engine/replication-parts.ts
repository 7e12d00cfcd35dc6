// What replication needs of the engine around it.
import type { Clock, Random } from '../core/clock.js'
import type { Log } from '../core/log.js'
import type { Pool } from '../storage/pool.js'
import type { ReplicationOptions } from './api.js'
import type { EventLog } from './event-log.js'
import type { DataEntry, Sequencer } from './sequencer.js'

export type ReplicationParts = {
  readonly pool: Pool
  readonly sequencer: Sequencer
  readonly events: EventLog
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly mutants?: ReadonlySet<string>
  readonly replication?: ReplicationOptions
  /** Applies a data entry to the pool. */
  readonly apply: (entry: DataEntry) => Promise<void> | undefined
}
