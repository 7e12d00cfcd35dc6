// Makes changes durable: the data file synced, then the records of the map changes in one journal batch. One commit is under way at a time; everyone who
// asks meanwhile shares the next one. Activations (extents that become active before they are written, on a secondary what its primary was seen to have) are batches
// without a sync of the data: nothing but such records is in them, and a commit takes along those that wait.
//
// Invariants: a record reaches the journal only after a sync of the data file that began when the data was written (law 7); releases go to the
// reclaimer only after the batch that has their records is durable; after one failed sync or journal write nothing is committed any more.
import assert, { AssertionError } from 'node:assert/strict'
import type { Clock, Timer } from '../core/clock.js'
import type { DiskFile } from '../core/disk.js'
import { LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import type { Log } from '../core/log.js'
import { batchExtraBytesMax, type Journal } from './journal.js'
import type { Reclaimer } from './reclaimer.js'
import { RecordBuffer } from './records.js'

/** Switchable bugs: the proofs must find each of them. */
export type CommitMutants = {
  readonly skipDataSync: boolean
  readonly retryFailedSync: boolean
  readonly releaseEarly: boolean
}

export type CommitterOptions = {
  readonly data: DiskFile
  readonly journal: Journal
  readonly reclaimer: Reclaimer
  readonly clock: Clock
  readonly log: Log
  readonly mutants: CommitMutants
  /** The newest sequence with every entry up to it applied. */
  readonly appliedSequence: () => number
  /** A commit writes a batch for the position alone when it is this far ahead of the journal's. On a secondary 1: what it answers as durable must be there after a crash. */
  readonly positionStep: () => number
  /** Called in the step that takes the records of a batch: `batchNumber` is the last batch with changes up to here. Freezes the state if a checkpoint is
   *  due; the answer is called when it is known whether the batch is durable, which is when the checkpoint may be written, or must not be. */
  readonly onTaken: (batchNumber: number) => ((isDurable: boolean) => void) | undefined
  /** Called in the same step before the records are taken: the last chance to add some. */
  readonly beforeTaken?: () => void
  readonly onFailure: (error: LockstepError) => void
  /** Bytes of records that entries in flight may need yet: nobody else gets this room. */
  readonly reservedBytes?: () => number
}

export class Committer {
  readonly #options: CommitterOptions
  readonly records = new RecordBuffer()
  /** Of extents that become active. Journaled without a sync of the data, and so before records that came earlier. */
  readonly activations = new RecordBuffer()
  /** Counts data writes that are done; a sync covers those up to the count at its start. */
  #dataWrites = 0
  #dataSynced = 0
  #inBatchBytes = 0
  /** The last piece of work under way or queued. */
  #last: Promise<void> | undefined
  #queued: Promise<void> | undefined
  #queuedActivation: Promise<void> | undefined
  #timer: Timer | undefined
  #failure: LockstepError | undefined
  #busySinceMs: number | undefined
  #activatedBatch = 0
  #durableSequence: number
  /** The position in the newest batch. */
  #journaledSequence: number

  constructor(options: CommitterOptions & { readonly durableSequence: number }) {
    this.#options = options
    this.#durableSequence = options.durableSequence
    this.#journaledSequence = options.durableSequence
  }

  get failure(): LockstepError | undefined {
    return this.#failure
  }

  get durableSequence(): number {
    return this.#durableSequence
  }

  /** Since when the piece of work under way has waited for the disk; undefined when there is none. */
  get busySinceMs(): number | undefined {
    return this.#busySinceMs
  }

  /** The newest durable batch with activations in it; 0 before the first of this run. */
  get activatedBatch(): number {
    return this.#activatedBatch
  }

  /** True when there is nothing that a commit would do. */
  get isClean(): boolean {
    return this.#last === undefined && !this.#hasWork
  }

  /** Everything that is applied is durable already, the position with it. False when a commit has something to do, which that of a position far ahead is too. */
  isDurable(): boolean {
    if (!this.isClean || this.#failure !== undefined) return false
    const sequence = this.#options.appliedSequence()
    if (sequence - this.#journaledSequence >= this.#options.positionStep()) return false
    this.#durableSequence = sequence
    return true
  }

  /** A data write is done. */
  dataWritten(): void {
    this.#dataWrites++
  }

  /** Records or releases were added. */
  changed(): void {
    if (this.records.lengthBytes > limits.pendingMapChangesHigh * 16) this.commitSoon()
    if (this.#timer === undefined) this.#startTimer()
  }

  /** True when records of `lengthBytes` more still fit in the journal, with `reserveBytes` left beside what entries in flight may need. */
  hasRoom(lengthBytes: number, reserveBytes: number): boolean {
    if (this.#waitingBytes + lengthBytes > limits.pendingMapChangesMax * 16) return false
    return this.hasRoomInFlight(lengthBytes, reserveBytes + (this.#options.reservedBytes?.() ?? 0))
  }

  /** The same for those who hold the reserved bytes. */
  hasRoomInFlight(lengthBytes: number, reserveBytes: number): boolean {
    return this.#waitingBytes + lengthBytes + reserveBytes <= this.#options.journal.payloadBytesMax
  }

  /** Resolves when everything done before the call is durable. Rejects with FAILED_STOP, for good, once a sync has failed. */
  commit(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    this.#queued ??= this.#enqueue(() => {
      this.#queued = undefined
      return this.#run()
    })
    return this.#queued
  }

  /** Begins a commit that nobody waits for. */
  commitSoon(): void {
    this.commit().catch(ignoreRefusal)
  }

  /** Resolves when the `activations` added before the call are durable. Rejects as `commit`. */
  activate(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    if (this.#queued !== undefined) return this.#queued
    this.#queuedActivation ??= this.#enqueue(() => {
      this.#queuedActivation = undefined
      return this.#runActivation()
    })
    return this.#queuedActivation
  }

  /** Stops the timer. The caller has committed. */
  close(): void {
    this.#timer?.cancel()
  }

  get #hasWork(): boolean {
    return (
      this.#dataWrites !== this.#dataSynced ||
      this.records.lengthBytes > 0 ||
      this.#options.reclaimer.hasUncommitted
    )
  }

  /** What records wait for the journal, and a batch on its way: that takes its head and whole blocks of the room that is there now. */
  get #waitingBytes(): number {
    const inBatchBytes = this.#inBatchBytes === 0 ? 0 : this.#inBatchBytes + batchExtraBytesMax
    // Activations may become a batch of their own.
    const activationBytes = this.activations.lengthBytes
    const extraBytes = activationBytes === 0 ? 0 : activationBytes + batchExtraBytesMax
    return this.records.lengthBytes + inBatchBytes + extraBytes
  }

  /** Runs `work` when everything queued before is done. */
  #enqueue(work: () => Promise<void>): Promise<void> {
    const start = async (): Promise<void> => {
      this.#busySinceMs = this.#options.clock.nowMs()
      try {
        await work()
      } finally {
        this.#busySinceMs = undefined
        if (this.#last === queued) this.#last = undefined
      }
    }
    const queued = (this.#last ?? Promise.resolve()).then(start, start)
    this.#last = queued
    return queued
  }

  #startTimer(): void {
    this.#timer = this.#options.clock.setTimer(limits.commitIntervalMs, () => {
      this.#timer = undefined
      if (this.#hasWork && this.#failure === undefined) this.commit().catch(ignoreRefusal)
    })
  }

  async #run(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    const { data, journal, reclaimer, mutants } = this.#options
    // One synchronous step: what is taken here is what a checkpoint of this batch holds.
    this.#options.beforeTaken?.()
    const sequence = this.#options.appliedSequence()
    const dataWrites = this.#dataWrites
    const hasActivations = this.activations.lengthBytes > 0
    const payload = this.#takeAll()
    const releases = reclaimer.take()
    this.#inBatchBytes = payload.length
    const isFarAhead = sequence - this.#journaledSequence >= this.#options.positionStep()
    const isAppended = payload.length > 0 || (isFarAhead && journal.payloadBytesMax > 0)
    const endFreeze = this.#options.onTaken(journal.lastNumber + (isAppended ? 1 : 0))
    if (mutants.releaseEarly) reclaimer.durable(releases)
    try {
      if (dataWrites !== this.#dataSynced && !mutants.skipDataSync) await data.sync()
      if (isAppended) await journal.append(payload, sequence)
    } catch (error) {
      if (!mutants.retryFailedSync) {
        endFreeze?.(false)
        throw error instanceof AssertionError ? error : this.#fail(error)
      }
      await data.sync()
    } finally {
      this.#inBatchBytes = 0
    }
    assert(sequence >= this.#durableSequence)
    this.#dataSynced = dataWrites
    if (hasActivations) this.#activatedBatch = journal.lastNumber
    if (isAppended) this.#journaledSequence = sequence
    // Without room for a position that is due, it stays where it is until a checkpoint has made some.
    if (isAppended || !isFarAhead) this.#durableSequence = sequence
    if (!mutants.releaseEarly) reclaimer.durable(releases)
    endFreeze?.(true)
  }

  /** Activations last: one may follow the end of the same extent. */
  #takeAll(): Buffer {
    const records = this.records.take()
    if (this.activations.lengthBytes === 0) return records
    return Buffer.concat([records, this.activations.take()])
  }

  /** A batch of activations alone. The position stays: nothing else became durable. */
  async #runActivation(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    const { journal } = this.#options
    if (this.activations.lengthBytes === 0) return
    // Checkpoints begin with commits: without this one, activations alone could fill the journal.
    if (journal.wantsCheckpoint) return this.#run()
    const payload = this.activations.take()
    this.#inBatchBytes = payload.length
    try {
      await journal.append(payload, this.#journaledSequence)
      this.#activatedBatch = journal.lastNumber
    } catch (error) {
      throw error instanceof AssertionError ? error : this.#fail(error)
    } finally {
      this.#inBatchBytes = 0
    }
  }

  #fail(cause: unknown): LockstepError {
    const reason = cause instanceof Error ? cause.message : String(cause)
    this.#failure = new LockstepError(
      'FAILED_STOP',
      `data could not be made durable (${reason}); nothing written since the last successful flush is safe`,
      'check the medium and the kernel log, then restart the daemon: it recovers to the last flushed state',
    )
    this.#options.log.error({ err: cause }, 'commit failed: flushes are refused until restart')
    this.#options.onFailure(this.#failure)
    return this.#failure
  }
}

/** The failure of a commit that nobody waits for: it is remembered, and told to whoever asks for the next one. A bug must end the process. */
function ignoreRefusal(error: unknown): void {
  if (!(error instanceof LockstepError)) throw error
}
