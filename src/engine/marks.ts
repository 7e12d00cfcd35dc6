// In-band markers: at its position in the stream a mark takes a snapshot of the replica's own and runs a hook there; the result returns to whoever sent it.
import type { Clock } from '../core/clock.js'
import { LockstepError } from '../core/errors.js'
import type { Log } from '../core/log.js'
import type { Operation, SnapshotSpec } from '../core/operation.js'
import type { Generation, Sequence, StoreId } from '../core/units.js'
import { isLocalId } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import type { MarkResult, RunHook } from './api.js'

/** Snapshots that marks leave on the secondary: `vol0@local.NAME`. */
export const localSnapshotPrefix = 'local.'
/** Answers that nobody asked for are kept for a moment: a result may overtake the question. */
const keptResultsMax = 100

type Mark = Extract<Operation, { kind: 'mark' }>

/** The replica's side. */
export class MarkHandler {
  readonly #pool: Pool
  readonly #runHook: RunHook | undefined

  constructor(pool: Pool, runHook: RunHook | undefined) {
    this.#pool = pool
    this.#runHook = runHook
  }

  /** In the step that performs the mark: keeps every volume as it is here. Answers what was taken. */
  snapshot(mark: Mark): readonly string[] {
    if (mark.snapshot === undefined) return []
    const { stores } = this.#pool.state
    const names = new Set([...stores.values()].map((store) => store.name))
    const specs: SnapshotSpec[] = []
    for (const store of stores.values()) {
      if (isLocalId(store.id) || store.volumeId !== undefined) continue
      const name = `${store.name}@${localSnapshotPrefix}${mark.snapshot}`
      if (names.has(name)) continue
      const storeId = (this.#pool.nextLocalId + specs.length) as StoreId
      specs.push({ storeId, sourceId: store.id, name })
    }
    if (specs.length > 0) this.#pool.performLocal({ kind: 'create-snapshots', snapshots: specs })
    return specs.map((spec) => spec.name)
  }

  /** What follows the step; never rejects. */
  async finish(
    mark: Mark,
    at: {
      readonly generation: Generation
      readonly sequence: Sequence
      readonly taken: readonly string[]
    },
  ): Promise<MarkResult> {
    const { generation, sequence, taken } = at
    const result = { name: mark.name, snapshots: taken }
    if (mark.hook === undefined) return result
    if (this.#runHook === undefined)
      return { ...result, problem: 'this node allows no hooks: see hooks in its lockstep.toml' }
    try {
      const { message } = mark
      const hook = await this.#runHook({
        hook: mark.hook,
        name: mark.name,
        generation,
        sequence,
        ...(message === undefined ? {} : { message }),
      })
      return { ...result, hook }
    } catch (error) {
      return { ...result, problem: error instanceof Error ? error.message : String(error) }
    }
  }
}

/** The sender's side: who waits for the result of which mark. */
export class MarkResults {
  readonly #clock: Clock
  readonly #log: Log
  readonly #kept = new Map<number, MarkResult>()
  readonly #waiters = new Map<number, (result: MarkResult) => void>()

  constructor(clock: Clock, log: Log) {
    this.#clock = clock
    this.#log = log
  }

  /** A result came. Its shape was made by the other node: only what is known is taken. */
  came(sequence: Sequence, body: object): void {
    const result = markResultOf(body)
    this.#log.info({ sequence, ...result }, 'a mark was performed by the peer')
    const waiter = this.#waiters.get(sequence)
    this.#waiters.delete(sequence)
    waiter?.(result)
    if (waiter === undefined) this.#kept.set(sequence, result)
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= keptResultsMax) break
      this.#kept.delete(oldest)
    }
  }

  /** Rejects with TIMED_OUT. */
  wait(sequence: Sequence, timeoutMs: number): Promise<MarkResult> {
    const kept = this.#kept.get(sequence)
    this.#kept.delete(sequence)
    if (kept !== undefined) return Promise.resolve(kept)
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimer(timeoutMs, () => {
        this.#waiters.delete(sequence)
        reject(
          new LockstepError(
            'TIMED_OUT',
            `the peer has not told the result of the mark within ${timeoutMs / 1000} s`,
            'the mark is in the stream and takes effect all the same: lockstep status',
          ),
        )
      })
      this.#waiters.set(sequence, (result) => {
        timer.cancel()
        resolve(result)
      })
    })
  }
}

function markResultOf(body: object): MarkResult {
  const { name, snapshots, hook, problem } = body as Record<string, unknown>
  const { exitCode, output } = (typeof hook === 'object' && hook !== null ? hook : {}) as Record<
    string,
    unknown
  >
  return {
    name: String(name),
    snapshots: Array.isArray(snapshots) ? snapshots.map(String) : [],
    ...(typeof exitCode === 'number' ? { hook: { exitCode, output: String(output ?? '') } } : {}),
    ...(typeof problem === 'string' ? { problem } : {}),
  }
}
