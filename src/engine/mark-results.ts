// What the peer did at marks, on the node that sent them: who waits for the result of which, and the results that nobody has asked for yet.
//
// Invariant: what comes was made by another node; only what is known is taken from it, and as much of it as there may be.
import type { Clock } from '../core/clock.js'
import { LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import { formatBytes, type Sequence } from '../core/units.js'
import type { HookOutcome, MarkProblem, MarkResult } from './api.js'

const problemsMax = 8

const forgotten: MarkProblem = {
  message:
    'the replica was started again before it told what it did at the mark: whether its hook ran to the end is not known',
  action:
    'see on the replica what the hook has left, and lockstep snapshot list; then lockstep mark once more',
}

export type FollowingPeer = {
  readonly runId: string | undefined
  readonly sequence: Sequence
  readonly isNew: boolean
}

type Waiter = {
  readonly sequence: Sequence
  settle(result: MarkResult): void
  fail(error: LockstepError): void
}

export class MarkResults {
  readonly #clock: Clock
  readonly #onResult: (sequence: Sequence, result: MarkResult) => void
  /** A result may come before it is asked for, and be asked for again. Oldest first. */
  readonly #kept = new Map<Sequence, MarkResult>()
  /** The newest, by their sequence: what they are called, and how many bytes the peer lacked there while it followed. */
  readonly #marks = new Map<Sequence, { readonly name: string; readonly dirtyBytes: number }>()
  readonly #waiters = new Set<Waiter>()
  /** The run of the peer that will tell its results. */
  #peerRun: string | undefined
  /** What the peer did at marks up to here, and has not told, nobody will tell any more. */
  #forgottenSequence = 0

  constructor(clock: Clock, onResult: (sequence: Sequence, result: MarkResult) => void = () => {}) {
    this.#clock = clock
    this.#onResult = onResult
  }

  /** A result came over the link. */
  came(sequence: Sequence, body: object): void {
    // What was told first stands: repeated, it would push what happened here out of the list of events.
    if (this.#kept.has(sequence)) return
    const result = markResultOf(body)
    keepNewest(this.#kept, sequence, result)
    this.#onResult(sequence, result)
    for (const waiter of [...this.#waiters]) if (waiter.sequence === sequence) waiter.settle(result)
  }

  /** The mark was ordered. While bytes are dirty a peer that is whole otherwise keeps a snapshot that differs there. */
  ordered(sequence: Sequence, mark: { readonly name: string; readonly dirtyBytes: number }): void {
    keepNewest(this.#marks, sequence, mark)
  }

  /**
   * The peer goes on behind `sequence`, in this run of its own: marks behind it are still to come there. Results are kept in memory there, so another run than the last time
   * knows none of those before; nor does a peer that begins anew.
   */
  follows({ runId, sequence, isNew }: FollowingPeer): void {
    const hasForgotten = isNew || (this.#peerRun !== undefined && this.#peerRun !== runId)
    this.#peerRun = runId
    if (!hasForgotten) return
    this.#forgottenSequence = Math.max(this.#forgottenSequence, sequence)
    for (const waiter of [...this.#waiters])
      if (waiter.sequence <= sequence) waiter.settle(this.#forgotten(waiter.sequence))
  }

  /** Rejects with TIMED_OUT. */
  async wait(sequence: Sequence, timeoutMs: number): Promise<MarkResult> {
    const result = await this.#wait(sequence, timeoutMs)
    const dirtyBytes = this.#marks.get(sequence)?.dirtyBytes ?? 0
    if (dirtyBytes === 0 || result.snapshotCount === 0) return result
    return { ...result, problems: [...result.problems, notTheSame(dirtyBytes)] }
  }

  /** Whoever waits now waits in vain, and hears why: a clause. */
  stopWaiting({ code, message, action }: LockstepError): void {
    for (const waiter of [...this.#waiters]) {
      const made = `the mark is in the stream at sequence ${waiter.sequence}, and its result is not known`
      waiter.fail(new LockstepError(code, `${made}: ${message}`, action))
    }
  }

  /** No outcome: what is known is that the mark was made, and that nobody tells more. */
  #forgotten(sequence: Sequence): MarkResult {
    const name = this.#marks.get(sequence)?.name ?? ''
    return { name, snapshots: [], snapshotCount: 0, problems: [forgotten] }
  }

  #wait(sequence: Sequence, timeoutMs: number): Promise<MarkResult> {
    const kept = this.#kept.get(sequence)
    if (kept !== undefined) return Promise.resolve(kept)
    if (sequence <= this.#forgottenSequence) return Promise.resolve(this.#forgotten(sequence))
    return new Promise((resolve, reject) => {
      const end = (): void => {
        timer.cancel()
        this.#waiters.delete(waiter)
      }
      const waiter: Waiter = {
        sequence,
        settle: (result) => {
          end()
          resolve(result)
        },
        fail: (error) => {
          end()
          reject(error)
        },
      }
      const timer = this.#clock.setTimer(timeoutMs, () => waiter.fail(notTold(sequence, timeoutMs)))
      this.#waiters.add(waiter)
    })
  }
}

function keepNewest<T>(kept: Map<Sequence, T>, sequence: Sequence, value: T): void {
  kept.set(sequence, value)
  for (const oldest of kept.keys()) {
    if (kept.size <= limits.keptMarkResultsMax) break
    kept.delete(oldest)
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
    ? snapshots.slice(0, limits.markSnapshotsToldMax).map(textOf)
    : []
  const outcome = hookOf(hook)
  return {
    name: textOf(name),
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
    name: textOf(name),
    ...(typeof exitCode === 'number' ? { exitCode } : {}),
    ...(typeof signal === 'string' ? { signal } : {}),
    isTimedOut: isTimedOut === true,
    output: typeof output === 'string' ? output : '',
  }
}

function problemOf(value: unknown): MarkProblem {
  const { message, action } = (value ?? {}) as Record<string, unknown>
  return { message: textOf(message), action: typeof action === 'string' ? action : '' }
}

/** Not String of everything: a list that is deep enough, or an object with a `toString` of its own, would throw. */
function textOf(value: unknown): string {
  return typeof value === 'object' && value !== null ? 'unknown' : String(value)
}
