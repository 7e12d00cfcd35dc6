// What clients ask of the two nodes: requests to the primary, chosen from the seed, and reads from the secondary while it follows. Keeps what is under way.
import { RequestError } from '../../../nbd/errors.js'
import type { Action, Client, Outcome } from '../client.js'
import { LawBroken } from '../laws.js'
import type { SeededRandom } from '../random.js'
import type { ActionSource } from '../random-actions.js'
import { describeSector } from '../tags.js'
import type { PairEngine } from './pair-subject.js'
import type { RecordingOracle, Timeline } from './timeline.js'

const wordBytes = 8
/** Of one read, so many words are looked at. */
const wordsPerRead = 12
/** Behind a flush at most so many writes follow at once, to some of so many places that were written last. */
const rushMax = 4
const placesMax = 12
/** What nobody answers when the second node ends. */
export const secondaryRead = 'read from the second node'

export class PairTraffic {
  readonly #random: SeededRandom
  readonly #actions: ActionSource
  readonly #oracle: RecordingOracle
  readonly #timeline: Timeline
  readonly #count: (what: string) => void
  readonly #fuaShare: number
  /** Its own: plain schedules draw nothing for this. */
  readonly #fuaRandom: SeededRandom | undefined
  readonly #rushShare: number
  readonly #rushRandom: SeededRandom | undefined
  readonly #inFlightMax: number
  /** Where writes went, oldest first. */
  readonly #places: Place[] = []
  /** Names that stores had, so that a new one with an old name is seen. */
  readonly #usedNames = new Set<string>()
  /** With what each is, for messages. */
  readonly #underWay = new Map<Promise<unknown>, string>()
  /** Since the oracle was last told what is certain. */
  writesSinceBase = 0
  failure: { readonly error: unknown } | undefined

  constructor(options: {
    readonly random: SeededRandom
    readonly actions: ActionSource
    readonly oracle: RecordingOracle
    readonly timeline: Timeline
    readonly count: (what: string) => void
    /** Of writes, so many more are durable before they are answered. */
    readonly fuaShare: number
    /** Of flushes, so many have writes right behind them. */
    readonly rushShare: number
    readonly inFlightMax: number
  }) {
    this.#fuaShare = options.fuaShare
    this.#fuaRandom = options.fuaShare > 0 ? options.random.fork('fua') : undefined
    this.#rushShare = options.rushShare
    this.#rushRandom = options.rushShare > 0 ? options.random.fork('rush') : undefined
    this.#inFlightMax = options.inFlightMax
    this.#random = options.random
    this.#actions = options.actions
    this.#oracle = options.oracle
    this.#timeline = options.timeline
    this.#count = options.count
  }

  /** One request; `operate` is called when it is the operator's turn. */
  issue(client: Client, operate: () => void): void {
    const stores = client.reachable().filter((name) => client.sizeOf(name) > 0)
    const kind = this.#random.below(100)
    if (kind < 3) operate()
    else if (stores.length === 0 || kind < 15) {
      // One that fails would change what those behind it are about.
      if (!client.mayFail || !client.isOperating) this.#issueOperation(client)
    } else this.#issueData(client, this.#random.pick(stores), kind)
  }

  get underWayCount(): number {
    return this.#underWay.size
  }

  /** Resolves when everything that is under way now has ended. */
  async ended(): Promise<void> {
    await Promise.all(this.#underWay.keys())
  }

  /** The primary is gone: nobody will answer. */
  forget(): void {
    this.#underWay.clear()
  }

  /** The secondary is gone. */
  forgetReads(): void {
    for (const [work, what] of this.#underWay)
      if (what === secondaryRead) this.#underWay.delete(work)
  }

  describe(): string {
    return [...this.#underWay.values()].join(', ')
  }

  watch(what: string, work: Promise<unknown>): void {
    const watched = work.then(
      () => void this.#underWay.delete(watched),
      (error: unknown) => {
        this.#underWay.delete(watched)
        this.failure ??= { error }
      },
    )
    this.#underWay.set(watched, what)
  }

  /** Reads some store of the second node: whatever is under way, it finds what was written there once, or zeroes. */
  readSecondary(engine: PairEngine, random: SeededRandom): void {
    const names = engine.exports.list().flatMap(({ name }) => (isOwn(name) ? [] : [name]))
    if (names.length === 0) return
    const name = random.pick(names)
    const found = engine.exports.find(name)
    if (!found || found.sizeBytes === 0) return
    const { offset, lengthBytes } = this.#actions.rangeFrom(random, found.sizeBytes)
    const range = { offset, lengthBytes }
    this.watch(secondaryRead, this.#readSecondary(found, range, random.fork('words')))
  }

  async #readSecondary(
    found: NonNullable<ReturnType<PairEngine['exports']['find']>>,
    range: { readonly offset: number; readonly lengthBytes: number },
    random: SeededRandom,
  ): Promise<void> {
    const target = Buffer.alloc(range.lengthBytes, 0xee)
    try {
      await found.read({ offset: range.offset, target })
    } catch (error) {
      // The store may be gone or shorter by now, the disk may fail.
      if (!(error instanceof RequestError)) throw error
      return
    }
    this.#count(secondaryRead)
    const first = Math.ceil(range.offset / wordBytes)
    const end = Math.floor((range.offset + range.lengthBytes) / wordBytes)
    for (let look = 0; look < wordsPerRead && first < end; look++) {
      const offset = (first + random.below(end - first)) * wordBytes
      const at = offset - range.offset
      const word = target.subarray(at, at + wordBytes)
      if (this.#timeline.explains(offset, word)) continue
      const what = describeSector(word, offset)
      throw new LawBroken(`a read of ${found.name} on the second node found at ${offset} ${what}`)
    }
  }

  #issueData(client: Client, store: string, kind: number): void {
    if (kind < 27) {
      this.watch('flush', client.act({ kind: 'flush', store }))
      if (this.#rushRandom?.chance(this.#rushShare)) this.#rush(client, this.#rushRandom)
    } else if (kind < 40) {
      const { offset, lengthBytes } = this.#actions.range(client.sizeOf(store))
      this.watch('read', client.read(store, offset, lengthBytes))
    } else {
      this.writesSinceBase++
      const action = this.#moreDurable(this.#actions.data(store, client.sizeOf(store)))
      if ('offset' in action && (action.offset % 512 !== 0 || action.lengthBytes % 512 !== 0))
        this.#count('write of parts of sectors')
      if (this.#rushRandom) this.#remember(action)
      this.watch(action.kind, this.#counted(client.act(action)))
    }
  }

  /** Where a chunk was written before it needs no place of its own any more: a write there is on the medium as soon as it is done. */
  #rush(client: Client, random: SeededRandom): void {
    const stores = client.reachable()
    const places = this.#places.filter(
      ({ store, offset, lengthBytes }) =>
        stores.includes(store) && offset + lengthBytes <= client.sizeOf(store),
    )
    for (let count = 1 + random.below(rushMax); count > 0 && places.length > 0; count--) {
      if (this.#underWay.size >= this.#inFlightMax) return
      this.writesSinceBase++
      const action = { kind: 'write', ...random.pick(places) } as const
      this.#count('write right behind a flush')
      this.watch(action.kind, this.#counted(client.act(action)))
    }
  }

  #remember(action: Action): void {
    if (action.kind !== 'write') return
    const { store, offset, lengthBytes } = action
    this.#places.push({ store, offset, lengthBytes })
    if (this.#places.length > placesMax) this.#places.shift()
  }

  #moreDurable(action: Action): Action {
    const isMore = this.#fuaRandom?.chance(this.#fuaShare) ?? false
    if (!isMore || (action.kind !== 'write' && action.kind !== 'zero')) return action
    return { ...action, fua: true }
  }

  async #counted(work: Promise<Outcome>): Promise<void> {
    const outcome = await work
    if (outcome !== 'done') this.#count(`request failed ${outcome.failed}`)
  }

  #issueOperation(client: Client): void {
    const request = this.#actions.request(this.#oracle.catalog)
    const what = this.#describe(request)
    const done = client.act({ kind: 'perform', request }).then((outcome) => {
      this.#count(outcome === 'done' ? request.kind : `refused ${outcome.failed}`)
      if (outcome === 'done' && what !== undefined) this.#count(what)
    })
    this.watch(request.kind, done)
  }

  /** What is rare about it. */
  #describe(request: Parameters<RecordingOracle['operation']>[0]): string | undefined {
    if (request.kind === 'snapshot.create') {
      const isOfSnapshot = request.stores !== 'all' && request.stores[0]?.includes('@')
      return isOfSnapshot ? 'snapshot of a snapshot' : undefined
    }
    if (request.kind !== 'volume.create') return undefined
    const isUsed = this.#usedNames.has(request.name)
    this.#usedNames.add(request.name)
    return isUsed ? 'volume made again' : undefined
  }
}

type Place = { readonly store: string; readonly offset: number; readonly lengthBytes: number }

/** Stores that the second node keeps for itself. */
export function isOwn(name: string): boolean {
  return name.includes('@local.') || name.includes('@before-resync')
}
