// What the peer did at marks, on the node that sent them: who waits for the result of which, and the results that nobody has asked for yet.
//
// Invariant: what comes was made by another node; only what is known is taken from it, and as much of it as there may be.
import type { Clock } from '../core/clock.js'
import { LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import { formatBytes, type Sequence } from '../core/units.js'
import type { HookOutcome, MarkProblem, MarkResult } from './api.js'

const problemsMax = 8

export class MarkResults {
  readonly #clock: Clock
  readonly #onResult: (sequence: Sequence, result: MarkResult) => void
  /** A result may come before it is asked for, and be asked for again. Oldest first. */
  readonly #kept = new Map<Sequence, MarkResult>()
  /** Bytes that the peer lacked at a mark while it followed, by the mark's sequence. */
  readonly #lacked = new Map<Sequence, number>()
  readonly #waiters = new Set<{ readonly sequence: Sequence; settle(result: MarkResult): void }>()

  constructor(clock: Clock, onResult: (sequence: Sequence, result: MarkResult) => void = () => {}) {
    this.#clock = clock
    this.#onResult = onResult
  }

  /** A result came over the link. */
  came(sequence: Sequence, body: object): void {
    const result = markResultOf(body)
    this.#kept.set(sequence, result)
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= limits.keptMarkResultsMax) break
      this.#kept.delete(oldest)
    }
    this.#onResult(sequence, result)
    for (const waiter of [...this.#waiters]) if (waiter.sequence === sequence) waiter.settle(result)
  }

  /** The mark was ordered while so many bytes were dirty: a peer that is whole otherwise keeps a snapshot that differs there. */
  ordered(sequence: Sequence, dirtyBytes: number): void {
    if (dirtyBytes === 0) return
    this.#lacked.set(sequence, dirtyBytes)
    for (const oldest of this.#lacked.keys()) {
      if (this.#lacked.size <= limits.keptMarkResultsMax) break
      this.#lacked.delete(oldest)
    }
  }

  /** Rejects with TIMED_OUT. */
  async wait(sequence: Sequence, timeoutMs: number): Promise<MarkResult> {
    const result = await this.#wait(sequence, timeoutMs)
    const dirtyBytes = this.#lacked.get(sequence)
    if (dirtyBytes === undefined || result.snapshotCount === 0) return result
    return { ...result, problems: [...result.problems, notTheSame(dirtyBytes)] }
  }

  #wait(sequence: Sequence, timeoutMs: number): Promise<MarkResult> {
    const kept = this.#kept.get(sequence)
    if (kept !== undefined) return Promise.resolve(kept)
    return new Promise((resolve, reject) => {
      const waiter = {
        sequence,
        settle: (result: MarkResult): void => {
          timer.cancel()
          this.#waiters.delete(waiter)
          resolve(result)
        },
      }
      const timer = this.#clock.setTimer(timeoutMs, () => {
        this.#waiters.delete(waiter)
        reject(notTold(sequence, timeoutMs))
      })
      this.#waiters.add(waiter)
    })
  }
}

function notTheSame(dirtyBytes: number): MarkProblem {
  return {
    message: `up to ${formatBytes(dirtyBytes)} of the snapshots may differ from this node: they were being copied again`,
    action: 'lockstep wait --for in-sync, then lockstep mark once more',
  }
}

function notTold(sequence: Sequence, timeoutMs: number): LockstepError {
  return new LockstepError(
    'TIMED_OUT',
    `the mark is in the stream at sequence ${sequence}, and the peer has not told its result within ${timeoutMs / 1000} s`,
    'lockstep status shows how far the peer is; lockstep events shows the result when it comes',
  )
}

function markResultOf(body: object): MarkResult {
  const { name, snapshots, snapshotCount, hook, problems } = body as Record<string, unknown>
  const told = Array.isArray(snapshots)
    ? snapshots.slice(0, limits.markSnapshotsToldMax).map(String)
    : []
  const outcome = hookOf(hook)
  return {
    name: String(name),
    snapshots: told,
    snapshotCount: typeof snapshotCount === 'number' ? snapshotCount : told.length,
    ...(outcome === undefined ? {} : { hook: outcome }),
    problems: Array.isArray(problems) ? problems.slice(0, problemsMax).map(problemOf) : [],
  }
}

function hookOf(value: unknown): HookOutcome | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { name, exitCode, signal, isTimedOut, output } = value as Record<string, unknown>
  return {
    name: String(name),
    ...(typeof exitCode === 'number' ? { exitCode } : {}),
    ...(typeof signal === 'string' ? { signal } : {}),
    isTimedOut: isTimedOut === true,
    output: typeof output === 'string' ? output : '',
  }
}

function problemOf(value: unknown): MarkProblem {
  const { message, action } = (value ?? {}) as Record<string, unknown>
  return { message: String(message), action: typeof action === 'string' ? action : '' }
}
