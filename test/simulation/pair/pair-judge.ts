// The laws of two nodes, asked of what their media hold at one moment, and of the two when they say that they are equal.
import assert from 'node:assert/strict'
import { LawBroken } from '../laws.js'
import type { StoreImage } from '../oracle.js'
import type { SeededRandom } from '../random.js'
import { checkDifference } from './difference.js'
import type { PairNode } from './pair-node.js'
import type { Inspection, PairSubject } from './pair-subject.js'
import { isOwn } from './pair-traffic.js'
import type { Timeline } from './timeline.js'

/** Two nodes that share alike use the same space: so much of it, and so many chunks more. */
const usedShareMax = 0.05
const usedChunksMax = 2

export class PairJudge {
  readonly #subject: PairSubject
  readonly #timeline: Timeline
  readonly #random: SeededRandom
  readonly #count: (what: string) => void
  /** The second node has once been a copy: from then on law 5 protects it. */
  #hasBeenWhole = false

  constructor(options: {
    readonly subject: PairSubject
    readonly timeline: Timeline
    readonly random: SeededRandom
    readonly count: (what: string) => void
  }) {
    this.#subject = options.subject
    this.#timeline = options.timeline
    this.#random = options.random
    this.#count = options.count
  }

  /** Laws 2, 4, 5 and 7 of what is on the media if both nodes stopped now. */
  async checkMedia(a: PairNode, b: PairNode, random = this.#random): Promise<void> {
    const media = [a.mediumNow(random), b.mediumNow(random)] as const
    const primary = await this.#subject.inspect(media[0])
    const secondary = await this.#subject.inspect(media[1])
    this.checkInspected(primary, secondary)
  }

  /** Law 2 alone, of a medium that lost something: what differs is known on the other one. */
  async checkKnown(a: PairNode, b: PairNode): Promise<void> {
    const primary = await this.#subject.inspect(a.mediumNow(this.#random))
    checkDifference(primary, await this.#subject.inspect(b.mediumNow(this.#random)))
  }

  /** What is found on the node's medium when it is opened alone. */
  inspect(node: PairNode): Promise<Inspection> {
    return this.#subject.inspect(node.mediumNow(this.#random))
  }

  /** The same laws of what was found on two media. */
  checkInspected(primary: Inspection, secondary: Inspection): void {
    this.#checkSecondary(secondary)
    if (!this.#subject.tracksDifferences) return
    this.#count(`media ${checkDifference(primary, secondary)}`)
  }

  /** Law 4 or 5 of what is on its medium; `kept`: it is in a resync, and has what was before. */
  async checkSecondary(b: PairNode): Promise<'whole' | 'new' | 'kept'> {
    return this.#checkSecondary(await this.#subject.inspect(b.mediumNow(this.#random)))
  }

  /** Law 4 or 5 where the newest that was written there is kept, and what it should stand behind is not. */
  async checkOrder(b: PairNode, random: SeededRandom): Promise<void> {
    const medium = b.mediumNow(random, (capture) => capture.newestChoice(random))
    this.#checkSecondary(await this.#subject.inspect(medium))
  }

  #checkSecondary(found: Inspection): 'whole' | 'new' | 'kept' {
    if (found.isWhole) {
      this.#hasBeenWhole = true
      this.#count('second medium whole')
      const problem = this.#timeline.judge(found.stores)
      if (problem !== undefined)
        throw new LawBroken(`law 4: the second node holds no legal image:\n${problem}`)
      return 'whole'
    }
    if (!this.#hasBeenWhole) return 'new'
    this.#count('second medium in a resync')
    if (!found.beforeResync) throw new LawBroken('law 5: not whole, and nothing from before')
    const problem = this.#timeline.judge(found.beforeResync)
    if (problem !== undefined)
      throw new LawBroken(`law 5: what was kept from before the resync is wrong:\n${problem}`)
    return 'kept'
  }

  /** Both live, both at one position: equal in everything. */
  async checkEqual(a: PairNode, b: PairNode): Promise<readonly StoreImage[]> {
    assert(a.running)
    assert(b.running)
    const images = await a.running.readStores()
    const copies = await b.running.readStores()
    sameImages(
      images,
      copies.filter(({ name }) => !isOwn(name)),
    )
    assert(a.engine)
    assert(b.engine)
    b.engine.checkInvariants()
    const facts = [a.engine, b.engine].map((engine) =>
      engine
        .status()
        .stores.filter(({ name }) => !isOwn(name))
        .map(({ name, sizeBytes, snapshotOf, position }) => ({
          name,
          sizeBytes,
          snapshotOf,
          position,
        }))
        .sort((one, other) => (one.name < other.name ? -1 : 1)),
    )
    assert.deepEqual(facts[1], facts[0], 'names, sizes and positions on both nodes')
    return images
  }

  /** What is zeroes may be a hole on one of them only: digests say that it is equal. */
  checkSpace(a: PairNode, b: PairNode, images: readonly StoreImage[]): void {
    const [first, second] = [a, b].map(({ engine }) => {
      assert(engine)
      return engine.status()
    })
    assert(first)
    assert(second)
    const [used, copied] = [first.pool.usedBytes, second.pool.usedBytes]
    const zeroChunks = images.reduce(
      (sum, { bytes }) => sum + zeroChunksOf(bytes, first.chunkBytes),
      0,
    )
    const limit = usedShareMax * used + (usedChunksMax + zeroChunks) * first.chunkBytes
    if (Math.abs(used - copied) > limit)
      throw new LawBroken(`space: ${used} bytes on the first node, ${copied} on the second`)
  }

  /** Both were closed in order, in sync. */
  async checkClosed(a: PairNode, b: PairNode): Promise<void> {
    const primary = await this.#subject.inspect(a.mediumNow(this.#random))
    const secondary = await this.#subject.inspect(b.mediumNow(this.#random))
    if (!secondary.isWhole) throw new LawBroken('in sync, closed, and not whole')
    sameImages(primary.stores, secondary.stores)
    if (!this.#subject.tracksDifferences) return
    const difference = checkDifference(primary, secondary)
    if (difference !== 'equal')
      throw new LawBroken(`in sync and closed, the media are ${difference}`)
  }
}

function zeroChunksOf(bytes: Buffer, chunkBytes: number): number {
  let count = 0
  for (let offset = 0; offset < bytes.length; offset += chunkBytes) {
    if (bytes.subarray(offset, offset + chunkBytes).every((byte) => byte === 0)) count++
  }
  return count
}

function sameImages(first: readonly StoreImage[], second: readonly StoreImage[]): void {
  const names = (images: readonly StoreImage[]) => images.map(({ name }) => name).sort()
  assert.deepEqual(names(second), names(first), 'stores of both nodes')
  for (const { name, bytes } of first) {
    const other = second.find((image) => image.name === name)
    if (other?.bytes.equals(bytes)) continue
    const at = other ? bytes.findIndex((byte, index) => byte !== other.bytes[index]) : 0
    throw new LawBroken(`both nodes in sync, and ${name} differs at ${at}`)
  }
}
