// What the checkers ask of an engine: the real one and the naive one are checked by the same code.
import type { Clock, Random } from '../../src/core/clock.js'
import type { Disk } from '../../src/core/disk.js'
import type { Log } from '../../src/core/log.js'
import type { EngineApi } from '../../src/engine/api.js'

export type SubjectEngine = EngineApi & {
  /** Throws an AssertionError when a structural law is broken. */
  checkInvariants(): void
  /** Writes a checkpoint now. */
  checkpoint?(): Promise<void>
}

export type Subject = {
  readonly name: string
  init(
    disk: Disk,
    options: {
      readonly node: string
      readonly chunkBytes?: number
      readonly dataName?: string
      readonly journalBytes?: number
      readonly overwrite?: boolean
      readonly random: Random
      readonly clock: Clock
    },
  ): Promise<void>
  open(options: {
    readonly disk: Disk
    readonly clock: Clock
    readonly random: Random
    readonly log: Log
    /** Bugs to switch on. */
    readonly mutants?: ReadonlySet<string>
  }): Promise<SubjectEngine>
}
