// A client that tells the oracle what it asks for and what it is answered, in the very step in which it asks: the order of its
// calls is the order of the group.
import assert, { AssertionError } from 'node:assert/strict'
import { RequestError } from '../../nbd/errors.js'
import type { Export } from '../../nbd/export.js'
import { LockstepError } from '../../src/core/errors.js'
import type { OperationRequest } from '../../src/core/operation.js'
import { SpoilingKeeper } from '../support/spoiling-keeper.js'
import type { OperationEntry, Oracle, WriteEntry } from './oracle.js'
import type { SeededRandom } from './random.js'
import type { ReadHistory } from './read-history.js'
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
  | { readonly kind: 'checkpoint' }

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
  readonly #exports = new Map<number, Export>()
  #operationCount = 0
  #keptCount = 0
  /** Not drawn from the schedule's randomness: two of three writes may stay where they are. */
  readonly #keeper = new SpoilingKeeper(() => ++this.#keptCount % 3 > 0)
  /** Whether the disk fails on purpose: without faults every failure is a wrong answer. */
  mayFail = false
  /** Whether a write that got ENOSPC must have changed nothing: a disk that is full keeps that, a fault that says ENOSPC at random does not. */
  isFullClean = true
  /** Checks reads while other requests are under way. */
  history: ReadHistory | undefined

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
      case 'checkpoint':
        return this.#checkpoint()
    }
  }

  get isOperating(): boolean {
    return this.#operationCount > 0
  }

  /** Whether the store is there and long enough: what the session asks before it calls an export. */
  isPossible(action: Action): boolean {
    if (action.kind === 'perform' || action.kind === 'checkpoint') return true
    const store = this.#oracle.catalog.find(action.store)
    if (!store || action.kind === 'flush') return store !== undefined
    return action.offset + action.lengthBytes <= store.sizeBytes
  }

  /** Names of the stores that can be asked now: they exist here and behind every operation under way. */
  reachable(): readonly string[] {
    this.#refresh()
    const { stores } = this.#oracle.catalog
    return [...stores.values()]
      .filter((store) => this.#exports.has(store.id))
      .map((store) => this.#oracle.catalog.fullName(store))
  }

  /** Bytes of a reachable store that exist now and behind every operation under way. */
  sizeOf(name: string): number {
    const { id, found } = this.#target(name)
    return Math.min(found.sizeBytes, this.#oracle.catalog.stores.get(id)?.sizeBytes ?? 0)
  }

  /** Writes to a store that an operation under way deletes or makes too short: it must fail and change nothing. Undefined when there is none. */
  writeLate(): Promise<Outcome> | undefined {
    for (const [id, found] of this.#exports) {
      const end = found.sizeBytes
      if (end <= (this.#oracle.catalog.stores.get(id)?.sizeBytes ?? 0)) continue
      const parts = [Buffer.alloc(512, 0xdd)]
      return this.#settled(
        () => found.write({ offset: end - 512, lengthBytes: 512, parts, fua: false }),
        {
          done: () => {
            throw new WrongAnswer(`store ${id}: a write behind its end at ${end - 512} was done`)
          },
          failed: () => {},
        },
        true,
      )
    }
    return undefined
  }

  /** Reads and, with a history, checks what was read. */
  async read(name: string, offset: number, lengthBytes: number): Promise<Outcome> {
    const { id, found } = this.#target(name)
    const target = Buffer.alloc(lengthBytes, 0xee)
    const mark = this.history?.beginRead(id)
    return this.#settled(
      () => found.read({ offset, target }),
      {
        done: () => {
          const store = this.#oracle.catalog.stores.get(id)
          if (!mark || !store) return
          const certain = target.subarray(0, Math.max(0, store.sizeBytes - offset))
          const problem = this.history?.endRead(mark, offset, certain)
          if (problem) throw new WrongAnswer(`${problem} (${name})`)
        },
        failed: (errno) => {
          const isGone = !this.#oracle.catalog.stores.has(id)
          if (!isGone && !this.mayFail) throw new WrongAnswer(`a read of ${name} failed: ${errno}`)
        },
      },
      true,
    )
  }

  #write(action: Extract<Action, { kind: 'write' | 'zero' }>): Promise<Outcome> {
    const { offset, lengthBytes, fua = false } = action
    const { id, found } = this.#target(action.store)
    const zero = action.kind === 'zero'
    const entry = this.#oracle.write({ storeId: id, offset, lengthBytes, fua, zero })
    const change = this.history?.write(id, offset, entry.data ?? Buffer.alloc(lengthBytes))
    const ask = () =>
      zero
        ? found.zero({ offset, lengthBytes, fua, mayUnmap: !action.keep, fastOnly: false })
        : this.#writeTo(found, { offset, lengthBytes, parts: this.#parts(entry), fua })
    return this.#settled(ask, {
      done: () => {
        change?.done()
        this.#oracle.settleWrite(entry, 'acknowledged')
      },
      failed: (errno) => {
        const isClean = errno === 'ENOSPC' && this.isFullClean
        this.#oracle.settleWrite(entry, isClean ? 'refused' : 'failed')
      },
    })
  }

  /** The memory of the payload is used again when the write is over, and nobody keeps it. */
  #writeTo(found: Export, request: Parameters<Export['write']>[0]): Promise<void> | undefined {
    const spoil = (): void => this.#keeper.settled(request.parts)
    const done = found.write({ ...request, keeper: this.#keeper })
    if (done === undefined) spoil()
    else done.then(spoil, spoil)
    return done
  }

  #flush(name: string): Promise<Outcome> {
    const { id, found } = this.#target(name)
    const mark = this.#oracle.flush(id)
    return this.#settled(() => found.flush(), {
      done: () => this.#oracle.acknowledgeFlush(mark),
      failed: () => {},
    })
  }

  async #perform(request: OperationRequest): Promise<Outcome> {
    this.#refresh()
    this.#operationCount++
    const wasStopped = this.#engine.status().failure !== undefined
    const entry = this.#oracle.operation(request)
    const { catalog } = this.#oracle
    const change = this.history?.operation(
      entry.effects,
      (id) => catalog.stores.get(id)?.sizeBytes ?? 0,
    )
    try {
      return await this.#settled(() => this.#engine.perform(request).then(() => {}), {
        done: () => {
          if (entry.expected !== 'performed') {
            throw new WrongAnswer(`performed, not refused: ${JSON.stringify(request)}`)
          }
          change?.done()
          this.#oracle.settleOperation(entry, 'acknowledged')
        },
        failed: (code) => this.#settleRefused(entry, code, wasStopped),
      })
    } finally {
      this.#operationCount--
    }
  }

  /** Changes nothing that a client can see. */
  #checkpoint(): Promise<Outcome> {
    return this.#settled(() => this.#engine.checkpoint?.(), { done: () => {}, failed: () => {} })
  }

  #target(name: string): { readonly id: number; readonly found: Export } {
    this.#refresh()
    const store = this.#oracle.catalog.find(name)
    assert(store)
    const found = this.#exports.get(store.id)
    if (!found) throw new WrongAnswer(`${name} is not exported`)
    return { id: store.id, found }
  }

  /** Names mean the same to the engine and to the oracle only while no operation is under way. */
  #refresh(): void {
    if (this.#operationCount > 0) return
    this.#exports.clear()
    const { catalog } = this.#oracle
    for (const store of catalog.stores.values()) {
      const found = this.#engine.exports.find(catalog.fullName(store))
      if (found) this.#exports.set(store.id, found)
    }
  }

  /** Whether the engine has the names and sizes that the oracle has. */
  #shows(): boolean {
    const { catalog } = this.#oracle
    const names = this.#engine.exports.list().map(({ name }) => name)
    return (
      names.length === catalog.stores.size &&
      names.every(
        (name) => this.#engine.exports.find(name)?.sizeBytes === catalog.find(name)?.sizeBytes,
      )
    )
  }

  #settleRefused(entry: OperationEntry, code: string, wasStopped: boolean): void {
    const isFault = code === 'IO_ERROR' || code === 'FAILED_STOP'
    const isExpected =
      isFault || code === 'NO_SPACE' ? this.mayFail : entry.expected !== 'performed'
    if (!isExpected) {
      throw new WrongAnswer(`refused with ${code}: ${JSON.stringify(entry.request)}`)
    }
    const isUnclear = isFault && !wasStopped
    this.#oracle.settleOperation(
      entry,
      isUnclear ? 'failed' : 'refused',
      isUnclear && this.#shows(),
    )
  }

  async #settled(
    ask: () => Promise<void> | undefined,
    on: { done(): void; failed(code: string): void },
    mayFail = this.mayFail,
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
      if (isRequest && !mayFail) throw new WrongAnswer(`failed: ${code} ${error.message}`)
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
