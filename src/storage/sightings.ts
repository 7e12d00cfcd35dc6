// What a secondary has seen of its primary's journal (core/node-runs.ts), on its way into its own: by it an old copy of the primary's disk is known later.
//
// Invariant: a sighting is durable no later than the position of an entry behind it: it goes with the next batch, or with one of its own.
import { LockstepError } from '../core/errors.js'
import type { Sighting } from '../core/node-runs.js'
import type { Committer } from './committer.js'
import type { GroupState } from './group-state.js'
import { batchExtraBytesMax } from './journal.js'

/** The record of what a primary has shown. */
const sightingBytesMax = 256

export class Sightings {
  readonly #state: GroupState
  readonly #committer: Committer
  readonly #makeRoom: () => Promise<void>
  /** Told by the primary, and not in the journal yet. */
  #untold: Sighting | undefined

  constructor(options: {
    readonly state: GroupState
    readonly committer: Committer
    /** Resolves when a checkpoint has emptied the journal, as far as it could be written, and everything is durable. */
    readonly makeRoom: () => Promise<void>
  }) {
    this.#state = options.state
    this.#committer = options.committer
    this.#makeRoom = options.makeRoom
  }

  get latest(): Sighting | undefined {
    return this.#untold ?? this.#state.primarySeen
  }

  saw(sighting: Sighting): void {
    this.#untold = sighting
  }

  /** In the step that takes the records of a batch. In a full journal the older one stays: the position behind it stays as well. */
  beforeTaken(): void {
    const sighting = this.#untold
    if (sighting === undefined || !this.#committer.hasRoomInFlight(sightingBytesMax, 0)) return
    this.#told(sighting)
    this.#committer.records.event({ kind: 'seen', sighting })
  }

  /** Resolves when the latest is durable. Costs no sync of the data. Rejects with NO_SPACE. */
  async keep(): Promise<void> {
    const sighting = this.#untold
    if (sighting === undefined) return
    if (!this.#committer.hasRoomInFlight(sightingBytesMax + batchExtraBytesMax, 0)) {
      await this.#makeRoom()
      if (this.#untold !== undefined) throw noRoom()
      return
    }
    this.#told(sighting)
    this.#committer.activations.event({ kind: 'seen', sighting })
    await this.#committer.activate()
  }

  #told(sighting: Sighting): void {
    this.#untold = undefined
    this.#state.primarySeen = sighting
  }
}

function noRoom(): LockstepError {
  return new LockstepError(
    'NO_SPACE',
    'the journal of the secondary has no room for what its primary has shown to have',
    'make room in the file system of its data directory; it connects again by itself',
  )
}
