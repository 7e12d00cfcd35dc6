// What a client may find in each block after a crash: the naive judge of kill -9 loops. It knows when each write was sent and
// answered and which flushes came back, and from that alone says which values a block may hold.
//
// A write is superseded, and must not be found again, once a later one (sent after the former's answer) is known to be durable.
import assert from 'node:assert/strict'

/** Tags of writes: 0 is zeroes, anything else a number that one write alone has. */
export type Tag = number

export type WriteEvent = {
  readonly sentAt: number
  answeredAt: number
  isDurable: boolean
  readonly tagOf: (block: number) => Tag
}

/** What a snapshot (or a read) that takes effect between its sending and its answer may hold. */
export class Capture {
  readonly #candidates: WriteEvent[][]

  constructor(candidates: WriteEvent[][]) {
    this.#candidates = candidates
  }

  add(block: number, event: WriteEvent): void {
    this.#candidates[block]?.push(event)
  }

  allows(block: number, tag: Tag): boolean {
    return (this.#candidates[block] ?? []).some((event) => event.tagOf(block) === tag)
  }

  /** The blocks whose value was never there at that time. */
  wrongBlocks(tags: readonly Tag[]): readonly number[] {
    return tags.flatMap((tag, block) => (this.allows(block, tag) ? [] : [block]))
  }
}

export class BlockHistory {
  readonly blockCount: number
  #now = 0
  readonly #blocks: WriteEvent[][]
  /** Answered, not yet known to be durable, with the blocks they touch. */
  #unflushed: { readonly event: WriteEvent; readonly block: number; readonly count: number }[] = []
  readonly #captures = new Set<Capture>()

  constructor(blockCount: number) {
    this.blockCount = blockCount
    const zeroes: WriteEvent = { sentAt: 0, answeredAt: 0, isDurable: true, tagOf: () => 0 }
    this.#blocks = Array.from({ length: blockCount }, () => [zeroes])
  }

  /** A write, trim or restore of `count` blocks is about to be sent. */
  send(block: number, count: number, tagOf: (block: number) => Tag): WriteEvent {
    assert(block >= 0 && block + count <= this.blockCount)
    const event = { sentAt: ++this.#now, answeredAt: Infinity, isDurable: false, tagOf }
    for (let index = block; index < block + count; index++) {
      this.#blocks[index]?.push(event)
      for (const capture of this.#captures) capture.add(index, event)
    }
    return event
  }

  /** Its answer came. `isDurable` for FUA and for operations. */
  answered(event: WriteEvent, block: number, count: number, isDurable: boolean): void {
    event.answeredAt = ++this.#now
    if (isDurable) this.#settle(event, block, count)
    else this.#unflushed.push({ event, block, count })
  }

  /** A flush is about to be sent: the answer goes to `flushed`. */
  sendFlush(): number {
    return ++this.#now
  }

  /** A flush came back: everything answered before it was sent is durable. */
  flushed(sentAt: number): void {
    const waiting = this.#unflushed
    this.#unflushed = waiting.filter(({ event }) => event.answeredAt > sentAt)
    for (const { event, block, count } of waiting)
      if (event.answeredAt < sentAt) this.#settle(event, block, count)
  }

  /** A snapshot is about to be sent; `endCapture` when its answer came, or never. */
  beginCapture(): Capture {
    const visible = this.#blocks.map((events) =>
      events.filter(
        (event) =>
          !events.some((later) => event.answeredAt < later.sentAt && later.answeredAt < Infinity),
      ),
    )
    const capture = new Capture(visible)
    this.#captures.add(capture)
    return capture
  }

  endCapture(capture: Capture): void {
    this.#captures.delete(capture)
  }

  /** The blocks that hold what they must not hold after a crash. With `operation` (a restore that was sent and not answered) both outcomes
   *  are tried, and it must have happened to every block or to none. */
  wrongBlocks(tags: readonly Tag[], operation?: WriteEvent): readonly number[] {
    assert.equal(tags.length, this.blockCount)
    const without = this.#wrong(tags, (event) => event !== operation)
    if (operation === undefined || without.length === 0) return without
    return this.#wrong(tags, (event) => event.answeredAt > operation.sentAt)
  }

  /** After a crash and a check: what was read is now the history. */
  restart(tags: readonly Tag[]): void {
    this.#unflushed = []
    this.#captures.clear()
    for (const [block, tag] of tags.entries()) {
      const known: WriteEvent = { sentAt: 0, answeredAt: 0, isDurable: true, tagOf: () => tag }
      this.#blocks[block] = [known]
    }
  }

  #wrong(tags: readonly Tag[], counts: (event: WriteEvent) => boolean): readonly number[] {
    return tags.flatMap((tag, block) => {
      const events = this.#blocks[block] ?? []
      return events.some((event) => counts(event) && event.tagOf(block) === tag) ? [] : [block]
    })
  }

  #settle(event: WriteEvent, block: number, count: number): void {
    event.isDurable = true
    for (let index = block; index < block + count; index++) {
      const events = this.#blocks[index] ?? []
      this.#blocks[index] = events.filter((earlier) => earlier.answeredAt >= event.sentAt)
    }
  }
}
