// A client that tells the oracle what it asks for and what it is answered, in the very step in which it asks: the order of its
// calls is the order of the group.
import assert, { AssertionError } from 'node:assert/strict'
import { RequestError } from '../../nbd/errors.js'
import { LockstepError } from '../../src/core/errors.js'
import type { OperationRequest } from '../../src/core/operation.js'
import type { OperationEntry, Oracle, WriteEntry } from './oracle.js'
import type { SeededRandom } from './random.js'
import type { SubjectEngine } from './subject.js'

/** What a client can ask for. Stores by name. */
export type Action =
  | {
      readonly kind: 'write' | 'zero'
      readonly store: string
      readonly offset: number
      readonly lengthBytes: number
      readonly fua?: boolean
      /** Zero only: space stays allocated. */
      readonly keep?: boolean
    }
  | { readonly kind: 'flush'; readonly store: string }
  | { readonly kind: 'perform'; readonly request: OperationRequest }

/** How an action ended. `failed` carries the errno or the code. */
export type Outcome = 'done' | { readonly failed: string }

/** The answer was one that the model cannot explain. */
export class WrongAnswer extends Error {
  override readonly name = 'WrongAnswer'
}

export class Client {
  readonly #engine: SubjectEngine
  readonly #oracle: Oracle
  readonly #random: SeededRandom
  /** Whether the disk fails on purpose: without faults every failure is a wrong answer. */
  mayFail = false

  constructor(engine: SubjectEngine, oracle: Oracle, random: SeededRandom) {
    this.#engine = engine
    this.#oracle = oracle
    this.#random = random
  }

  /** Asks at once, without an await before the engine and the oracle know. */
  act(action: Action): Promise<Outcome> {
    switch (action.kind) {
      case 'write':
      case 'zero':
        return this.#write(action)
      case 'flush':
        return this.#flush(action.store)
      case 'perform':
        return this.#perform(action.request)
    }
  }

  /** Whether the store is there and long enough: what the session asks before it calls an export. */
  isPossible(action: Action): boolean {
    if (action.kind === 'perform') return true
    const store = this.#oracle.catalog.find(action.store)
    if (!store || action.kind === 'flush') return store !== undefined
    return action.offset + action.lengthBytes <= store.sizeBytes
  }

  #write(action: Extract<Action, { kind: 'write' | 'zero' }>): Promise<Outcome> {
    const { offset, lengthBytes, fua = false } = action
    const found = this.#engine.exports.find(action.store)
    const store = this.#oracle.catalog.find(action.store)
    if (!found) throw new WrongAnswer(`${action.store} is not exported`)
    assert(store)
    const zero = action.kind === 'zero'
    const entry = this.#oracle.write({ store, offset, lengthBytes, fua, zero })
    const ask = () =>
      zero
        ? found.zero({ offset, lengthBytes, fua, mayUnmap: !action.keep, fastOnly: false })
        : found.write({ offset, lengthBytes, parts: this.#parts(entry), fua })
    return this.#settled(ask, {
      done: () => this.#oracle.settleWrite(entry, 'acknowledged'),
      failed: (errno) => this.#oracle.settleWrite(entry, errno === 'ENOSPC' ? 'refused' : 'failed'),
    })
  }

  #flush(name: string): Promise<Outcome> {
    const found = this.#engine.exports.find(name)
    const store = this.#oracle.catalog.find(name)
    if (!found) throw new WrongAnswer(`${name} is not exported`)
    assert(store)
    const mark = this.#oracle.flush(store)
    return this.#settled(() => found.flush(), {
      done: () => this.#oracle.acknowledgeFlush(mark),
      failed: () => {},
    })
  }

  #perform(request: OperationRequest): Promise<Outcome> {
    const entry = this.#oracle.operation(request)
    return this.#settled(
      async () => {
        await this.#engine.perform(request)
      },
      {
        done: () => {
          if (entry.expected !== 'performed') {
            throw new WrongAnswer(`performed, not refused: ${JSON.stringify(request)}`)
          }
          this.#oracle.settleOperation(entry, 'acknowledged')
        },
        failed: (code) => this.#settleRefused(entry, code),
      },
    )
  }

  #settleRefused(entry: OperationEntry, code: string): void {
    const isFault = code === 'IO_ERROR' || code === 'FAILED_STOP'
    const isExpected =
      isFault || code === 'NO_SPACE' ? this.mayFail : entry.expected !== 'performed'
    if (!isExpected) {
      throw new WrongAnswer(`refused with ${code}: ${JSON.stringify(entry.request)}`)
    }
    this.#oracle.settleOperation(entry, isFault ? 'failed' : 'refused')
  }

  async #settled(
    ask: () => Promise<void> | undefined,
    on: { done(): void; failed(code: string): void },
  ): Promise<Outcome> {
    let code: string
    try {
      await ask()
      on.done()
      return 'done'
    } catch (error) {
      if (error instanceof AssertionError || error instanceof WrongAnswer) throw error
      code = codeOf(error)
      const isRequest = error instanceof RequestError
      if (isRequest && !this.mayFail) throw new WrongAnswer(`failed: ${code} ${error.message}`)
    }
    on.failed(code)
    return { failed: code }
  }

  /** The data in one to three pieces, in buffers that are the engine's alone. */
  #parts(entry: WriteEntry): readonly Buffer[] {
    assert(entry.data)
    const parts: Buffer[] = []
    let rest = Buffer.from(entry.data)
    while (rest.length > 1 && parts.length < 2 && this.#random.chance(0.3)) {
      const cut = 1 + this.#random.below(rest.length - 1)
      parts.push(rest.subarray(0, cut))
      rest = rest.subarray(cut)
    }
    return [...parts, rest]
  }
}

function codeOf(error: unknown): string {
  if (error instanceof RequestError) return error.errno
  if (error instanceof LockstepError) return error.code
  throw new WrongAnswer(`neither RequestError nor LockstepError: ${String(error)}`, {
    cause: error,
  })
}
