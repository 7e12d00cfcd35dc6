// Failures of one sort in the log: the first of each kind with all that is known of it, later ones as their number. A disk that goes, or is full, fails whatever is
// tried again and again, and the same stack a thousand times tells no more than once.
import type { Log } from './log.js'

export class FailureLog {
  readonly #log: Log
  readonly #words: { readonly first: string; readonly again: string }
  readonly #counts = new Map<string, number>()

  /** `words` are what the log says of the first failure of a kind, and of later ones. */
  constructor(log: Log, words: { readonly first: string; readonly again: string }) {
    this.#log = log
    this.#words = words
  }

  failed(error: unknown, bindings: object): void {
    const kind = kindOf(error)
    const count = (this.#counts.get(kind) ?? 0) + 1
    this.#counts.set(kind, count)
    if (count === 1) this.#log.warn({ err: error, ...bindings }, this.#words.first)
    else if (isPowerOfTen(count)) this.#log.warn({ kind, count, ...bindings }, this.#words.again)
  }

  /** It is over: a failure from now on is a first one again. */
  worked(): void {
    this.#counts.clear()
  }
}

/** An errno or a code of ours, of which there are few; else what kind of error it is. */
function kindOf(error: unknown): string {
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown }
  return typeof code === 'string' ? code : String(name)
}

const isPowerOfTen = (count: number): boolean => /^10*$/.test(String(count))
