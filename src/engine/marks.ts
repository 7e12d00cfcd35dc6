// In-band markers, on the secondary: at its position in the stream a mark keeps every volume as a snapshot of this node's own, and then runs a hook beside the
// stream; what became of it returns to whoever sent it.
//
// Invariants: all snapshots of a mark are taken at its position, or none is; a hook runs only behind the snapshot that it was to see, one at a time, and the
// stream never waits for it.

import { LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import type { Log } from '../core/log.js'
import type { Operation, SnapshotSpec } from '../core/operation.js'
import { shownText } from '../core/shown-text.js'
import { markPrefix } from '../core/store-name.js'
import type { Position, Sequence, StoreId } from '../core/units.js'
import { isLocalId } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import type { HookOutcome, MarkProblem, MarkResult, RunHook } from './api.js'
import { findStore, volumesOf } from './names.js'

type Mark = Extract<Operation, { kind: 'mark' }>
type Send = (sequence: Sequence, result: MarkResult) => void

/** What a mark will take in its step, or why it will not. */
export type MarkPlan = {
  readonly snapshots: readonly { readonly sourceId: StoreId; readonly name: string }[]
  readonly problem?: MarkProblem
}

export type MarkHandlerOptions = {
  readonly pool: Pool
  readonly log: Log
  readonly runHook?: RunHook | undefined
  /** For the log of events. */
  readonly onDone: (sequence: Sequence, message: string) => void
}

export class MarkHandler {
  readonly #options: MarkHandlerOptions
  /** The hook that runs, and those that wait for it. */
  #running: Promise<unknown> = Promise.resolve()
  #waitingCount = 0
  /** Results while nobody is connected who would take them, oldest first. */
  readonly #untold = new Map<Sequence, MarkResult>()
  #send: Send | undefined

  constructor(options: MarkHandlerOptions) {
    this.#options = options
  }

  /** A primary is connected that takes results: first those that wait. Call the answer when it is gone. */
  connected(send: Send): () => void {
    this.#send = send
    for (const [sequence, result] of this.#untold) send(sequence, result)
    this.#untold.clear()
    return () => {
      if (this.#send === send) this.#send = undefined
    }
  }

  /** Before the step of the mark, when everything before it took effect: finds names and room. */
  async plan(mark: Mark): Promise<MarkPlan> {
    if (mark.snapshot === undefined && mark.hook === undefined) return { snapshots: [] }
    const { pool } = this.#options
    const { state } = pool
    if (!state.isWhole)
      return refused(
        'a resync is unfinished: the replica does not hold what the primary has at this position',
        'lockstep wait --for in-sync, then lockstep mark once more',
      )
    if (mark.snapshot === undefined) return { snapshots: [] }
    const part = `${markPrefix}${mark.snapshot}`
    const snapshots = volumesOf(state).map(({ id, name }) => ({
      sourceId: id,
      name: `${name}@${part}`,
    }))
    const taken = snapshots.find(({ name }) => findStore(state, name) !== undefined)
    if (taken !== undefined)
      return refused(
        `no snapshot was taken: there is a ${taken.name} already`,
        `choose another name, or on the replica: lockstep snapshot delete ${taken.name}`,
      )
    const localCount = [...state.stores.keys()].filter(isLocalId).length
    if (localCount + snapshots.length > limits.localStoreCountMax)
      return refused(
        `no snapshot was taken: a node keeps at most ${limits.localStoreCountMax} snapshots of its own`,
        'delete old ones on the replica: lockstep snapshot list',
      )
    try {
      // Only the journal's room: sharing needs no other.
      await pool.prepare({ kind: 'create-snapshots', snapshots: specsOf({ snapshots }, 0) })
      return { snapshots }
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error
      return refused(`no snapshot was taken: ${error.message}`, `on the replica: ${error.action}`)
    }
  }

  /** In the step that performs the mark: keeps every volume as it is here. */
  take(plan: MarkPlan): void {
    const { pool } = this.#options
    const snapshots = specsOf(plan, pool.nextLocalId)
    if (snapshots.length > 0) pool.performLocal({ kind: 'create-snapshots', snapshots })
  }

  /** The mark is durable here: its hook is due. */
  finish(mark: Mark, position: Position, plan: MarkPlan): void {
    const snapshots = plan.snapshots.map(({ name }) => name)
    const result: MarkResult = {
      name: mark.name,
      snapshots: snapshots.slice(0, limits.markSnapshotsToldMax),
      snapshotCount: snapshots.length,
      problems: plan.problem === undefined ? [] : [plan.problem],
    }
    if (mark.hook === undefined) this.#tell(mark, position.sequence, result)
    else this.#runLater(mark, position, result)
  }

  /** This node was away at the mark's position: it is told of it afterwards. */
  missed(mark: Mark, sequence: Sequence): void {
    if (mark.hook === undefined && mark.snapshot === undefined) {
      this.#tell(mark, sequence, resultOf(mark, []))
      return
    }
    const message = 'the replica was away at this position: no snapshot was taken, and no hook run'
    this.#tell(mark, sequence, resultOf(mark, [{ message, action: 'lockstep mark, once more' }]))
  }

  #runLater(mark: Mark, position: Position, result: MarkResult): void {
    const obstacle = this.#obstacle(result)
    if (obstacle !== undefined) {
      const message = `hook ${mark.hook} did not run: ${obstacle.message}`
      const problems = [...result.problems, { ...obstacle, message }]
      this.#tell(mark, position.sequence, { ...result, problems })
      return
    }
    this.#waitingCount++
    this.#running = this.#running.then(async () => {
      this.#waitingCount--
      this.#tell(mark, position.sequence, await this.#run(mark, position, result))
    })
  }

  #obstacle(result: MarkResult): MarkProblem | undefined {
    if (result.problems.length > 0)
      return {
        message: 'it would not see what the mark was to keep',
        action: 'lockstep mark, once more',
      }
    if (this.#waitingCount < limits.hooksWaitingMax) return undefined
    return {
      message: `${this.#waitingCount} hooks wait for the one that runs`,
      action: 'mark less often, or make the hook quicker',
    }
  }

  /** Never rejects, but for what is a bug. */
  async #run(mark: Mark, position: Position, result: MarkResult): Promise<MarkResult> {
    const { name, message, hook = '', snapshot } = mark
    const { runHook, log } = this.#options
    const failed = (error: string, action: string): MarkResult => ({
      ...result,
      problems: [...result.problems, { message: error, action }],
    })
    if (runHook === undefined)
      return failed(`hook ${hook} did not run: this replica runs none`, 'lockstep doctor, there')
    try {
      const outcome = await runHook({
        hook,
        name,
        position,
        ...(message === undefined ? {} : { message }),
        ...(snapshot === undefined ? {} : { snapshot: `${markPrefix}${snapshot}` }),
      })
      return { ...result, hook: outcome }
    } catch (error) {
      if (error instanceof LockstepError) return failed(error.message, error.action)
      log.error({ err: error, hook }, 'a hook could not be run')
      return failed(`hook ${hook} could not be run`, 'see the log of the replica')
    }
  }

  #tell({ message }: Mark, sequence: Sequence, result: MarkResult): void {
    this.#options.onDone(sequence, describeMark(result, message))
    if (this.#send !== undefined) {
      this.#send(sequence, result)
      return
    }
    this.#untold.set(sequence, result)
    for (const oldest of this.#untold.keys()) {
      if (this.#untold.size <= limits.keptMarkResultsMax) break
      this.#untold.delete(oldest)
    }
  }
}

/** One sentence, for the log of events. `message` as it came with the mark. */
export function describeMark(
  { name, snapshotCount, hook, problems }: MarkResult,
  message?: string,
): string {
  const parts = [`mark ${name}${message === undefined ? '' : `: ${shownText(message)}`}`]
  if (snapshotCount > 0) parts.push(`${snapshotCount} snapshot${snapshotCount === 1 ? '' : 's'}`)
  if (hook !== undefined) parts.push(`hook ${hook.name} ${describeHook(hook)}`)
  return [...parts, ...problems.map((problem) => problem.message)].join('; ')
}

/** How a hook ended, behind its name. */
export function describeHook({ exitCode, signal, isTimedOut }: HookOutcome): string {
  if (isTimedOut) return 'took too long and was ended'
  return signal === undefined ? `ended with ${exitCode ?? 'nothing'}` : `was ended by ${signal}`
}

function refused(message: string, action: string): MarkPlan {
  return { snapshots: [], problem: { message, action } }
}

function resultOf(mark: Mark, problems: readonly MarkProblem[]): MarkResult {
  return { name: mark.name, snapshots: [], snapshotCount: 0, problems }
}

function specsOf({ snapshots }: MarkPlan, firstId: number): readonly SnapshotSpec[] {
  return snapshots.map((one, index) => ({ ...one, storeId: (firstId + index) as StoreId }))
}
