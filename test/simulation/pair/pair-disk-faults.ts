// What goes wrong with one node's disk: calls that fail once or for a while, and a medium without room. The checker's own reads are not disturbed.
import type { SeededRandom } from '../random.js'
import type { Call, CallKind, Fault } from '../sim-call.js'
import type { SimMedium } from '../sim-medium.js'

type Failure = {
  readonly name: string
  readonly calls: readonly CallKind[]
  readonly fault: Fault
  /** So many calls of these kinds go well before, and so many fail. */
  skip: number
  left: number
}

const pageBytes = 4096

const failures: readonly Omit<Failure, 'skip' | 'left'>[] = [
  { name: 'read error', calls: ['readNow', 'read'], fault: { errno: 'EIO' } },
  { name: 'read error', calls: ['readNow', 'read'], fault: { errno: 'EIO' } },
  { name: 'write error', calls: ['writeNow', 'write'], fault: { errno: 'EIO' } },
  { name: 'write error', calls: ['writeNow', 'write'], fault: { errno: 'EIO' } },
  { name: 'short write', calls: ['writeNow', 'write'], fault: 'short' },
  { name: 'failed sync', calls: ['sync'], fault: { errno: 'EIO' } },
  { name: 'failed punch', calls: ['punch'], fault: { errno: 'EIO' } },
  { name: 'failed rename', calls: ['rename', 'remove', 'syncDirectory'], fault: { errno: 'EIO' } },
]

export class PairDiskFaults {
  readonly #random: SeededRandom
  readonly #count: (what: string) => void
  #failure: Failure | undefined
  #capacityBytes = Number.POSITIVE_INFINITY
  #isPaused = false
  #hasStruck = false
  /** Something failed in this schedule. */
  hasEverStruck = false

  constructor(random: SeededRandom, count: (what: string) => void) {
    this.#random = random
    this.#count = count
  }

  /** Something failed in this life: answers may be errors. */
  get hasStruck(): boolean {
    return this.#hasStruck
  }

  newLife(): void {
    this.#hasStruck = this.#capacityBytes < Number.POSITIVE_INFINITY
  }

  #strike(what: string): void {
    this.#hasStruck = true
    this.hasEverStruck = true
    this.#count(what)
  }

  /** Makes calls fail, soon: one, or some, or all until `calm`. */
  plan(): void {
    const random = this.#random
    this.#failure = {
      ...random.pick(failures),
      skip: random.below(random.pick([1, 4, 30])),
      left: random.pick([1, 1, 3, 20]),
    }
  }

  /** There is room for some more pages, or again for everything. */
  toggleFull(medium: SimMedium): void {
    if (this.#capacityBytes < Number.POSITIVE_INFINITY) {
      this.#capacityBytes = Number.POSITIVE_INFINITY
      return
    }
    this.#strike('disk full')
    this.#capacityBytes = (medium.allocatedPages + this.#random.below(12)) * pageBytes
  }

  calm(): void {
    this.#failure = undefined
    this.#capacityBytes = Number.POSITIVE_INFINITY
  }

  /** For the disk: the bytes that it has room for. */
  readonly capacityBytes = (): number =>
    this.#isPaused ? Number.POSITIVE_INFINITY : this.#capacityBytes

  /** For the disk: whether a call fails. */
  readonly fault = (call: Call): Fault | undefined => {
    const failure = this.#failure
    if (this.#isPaused || failure === undefined || !failure.calls.includes(call.kind)) return
    if (failure.skip-- > 0) return
    if (failure.left-- <= 0) {
      this.#failure = undefined
      return
    }
    this.#strike(failure.name)
    return failure.fault
  }

  /** Nothing fails while `work` is done: the checker looks. */
  async paused<T>(work: () => Promise<T>): Promise<T> {
    this.#isPaused = true
    try {
      return await work()
    } finally {
      this.#isPaused = false
    }
  }
}
