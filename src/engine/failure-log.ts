// Failures of the disk in the log: the first of each kind with all that is known of it, later ones as their number. A disk that goes fails every request, and the
// same stack a thousand times tells no more than once. Each request's own line, without a stack, is the business of whoever answers it.
import type { Log } from '../core/log.js'

export class FailureLog {
  readonly #log: Log
  readonly #counts = new Map<string, number>()

  constructor(log: Log) {
    this.#log = log
  }

  failed(error: unknown, store: string): void {
    const kind = kindOf(error)
    const count = (this.#counts.get(kind) ?? 0) + 1
    this.#counts.set(kind, count)
    if (count === 1) this.#log.warn({ err: error, store }, 'request failed')
    else if (isPowerOfTen(count)) this.#log.warn({ kind, count, store }, 'requests go on failing')
  }
}

/** An errno or a code of ours, of which there are few; else what kind of error it is. */
function kindOf(error: unknown): string {
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown }
  return typeof code === 'string' ? code : String(name)
}

const isPowerOfTen = (count: number): boolean => /^10*$/.test(String(count))
