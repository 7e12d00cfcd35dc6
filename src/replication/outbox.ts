// Entries that the peer has not made durable, in sequence order, as the bytes of their frames. Every entry of the stream passes
// through here, with a link and without, and leaves at the front, in order, in one of two ways: the peer has it, or the peer lacks it.
//
// An entry is *ready* when it may go on the wire (its extents are active, its bytes are there, its record is durable) and *settled* when
// its change took effect here or failed here. It leaves when it is both and all before it have left: as had when the peer's durable
// position covers it; as lacked when it was folded, or reserved while nothing is collected. Only collected entries have bytes here. Many that are lacked leave some in a turn: those
// that have not left are still here, for all that is recorded and told of them.
import assert from 'node:assert/strict'
import type { PartKeeper } from '../../nbd/bytes/part-keeper.js'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { Clock } from '../core/clock.js'
import type { Entry } from '../core/entry.js'
import { blockBytes, type Sequence } from '../core/units.js'
import { ByteLog } from './byte-log.js'
import { bitmapBytesOf, entryPayload, layEntryHead } from './frame-encoder.js'
import { headBytes } from './frame-head.js'
import { linkLimits } from './limits.js'
import { type Outcome, outcomeOf, payloadBytesOf, Slot } from './slot.js'
import { SlotQueue } from './slot-queue.js'

export type { Outcome, Slot }

export interface OutboxEvents {
  /** The peer has the entry on stable storage. `entry` has no bytes any more (empty `parts`, empty `digests`), and is another one after the call: copy what is needed longer. */
  had(entry: Entry, outcome: Outcome): void
  /** The peer may lack the entry. `entry` as above. */
  lacked(entry: Entry, outcome: Outcome): void
  /** `take` has something again, after it had come to an end. */
  sendable(): void
  /** The bound is exceeded by the entry being reserved. Called once until there is room again. May call `fold`; `reserve` then answers a slot that is folded. */
  overflow(): void
}

/** Bytes of whole frames, in order. They stay as they are until the entries have left as had, or for ever. */
export type Batch = {
  readonly parts: readonly Buffer[]
  readonly lengthBytes: number
  readonly frameCount: number
  readonly lastSequence: Sequence
}

/** No sequence: while nothing is kept. */
const never = Number.POSITIVE_INFINITY
const lackedPerEntry = 4

export class Outbox {
  readonly #events: OutboxEvents
  readonly #clock: Clock
  readonly #bytesMax: number
  readonly #slots = new SlotQueue<Slot>()
  /** Those that have left, for the entries to come: what lives until its entry has left is old by then, and to collect it took a twentieth of the processor time of a burst (decision 13). */
  readonly #spare: Slot[] = []
  readonly #log = new ByteLog()
  #last: number
  #usedBytes = 0
  #changedBytes = 0
  /** The first sequence that `collect` promised to keep for the peer; what is before it leaves as lacked. */
  #keptFrom = never
  /** Whose payload stays where the client's bytes came in. */
  readonly #keeping = new Set<Slot>()
  /** The next sequence that `take` answers. */
  #cursor = 0
  #durable = 0
  /** The newest sequence that was taken for any connection. */
  #everSent = 0
  #isStarved = false
  #isLeaving = false
  #isLeavingLater = false
  readonly #lackedPerTurnMax: number
  #isTrimDue = false
  #wasFull = false
  #room: Promise<void> | undefined
  #resolveRoom: () => void = () => {}

  constructor(options: {
    readonly events: OutboxEvents
    readonly clock: Clock
    /** The sequence before the first that is reserved. Begins not collecting. */
    readonly lastSequence: Sequence
    readonly bytesMax?: number
    /** Fewer than usual: for tests. */
    readonly lackedPerTurnMax?: number
  }) {
    this.#events = options.events
    this.#clock = options.clock
    this.#last = options.lastSequence
    this.#bytesMax = options.bytesMax ?? linkLimits.outboxBytesMax
    this.#lackedPerTurnMax = options.lackedPerTurnMax ?? linkLimits.lackedPerTurnMax
  }

  /** Between `collect` and `fold`: entries are kept for the peer. Otherwise they leave as lacked. */
  get isCollecting(): boolean {
    return this.#keptFrom !== never
  }

  /** More entries leave as lacked in a later turn: nothing holds them but their number. */
  get isLeavingLater(): boolean {
    return this.#isLeavingLater
  }

  /** Shows what has not left of the sequences from `first` on and before `end`, oldest first, to look at only. `isKept`: it was sent, or will be, and did not fail here. */
  look(first: number, end: number, visit: (entry: Entry, isKept: boolean) => void): void {
    for (let sequence = Math.max(first, this.oldestSequence); sequence < end; sequence++) {
      const slot = this.#slots.at(sequence)
      if (slot === undefined) return
      visit(slot.entry, this.#isKept(slot) && !slot.isFailed)
    }
  }

  /** Entries that have not left. */
  get entryCount(): number {
    return this.#slots.length
  }

  /** The oldest sequence that has not left; the next one to be reserved when all have. */
  get oldestSequence(): number {
    return this.#slots.first?.sequence ?? this.#last + 1
  }

  /** What the entries change, in whole blocks, each for itself: together they may change less. */
  get changedBytes(): number {
    return this.#changedBytes
  }

  /** Bytes kept for the peer, and an overhead for each entry. */
  get usedBytes(): number {
    return this.#usedBytes
  }

  get isFull(): boolean {
    return this.isCollecting && this.#usedBytes > this.#bytesMax
  }

  /** Three quarters: the sooner the peer gets it now, the better for what comes. */
  get isFilling(): boolean {
    return this.isCollecting && this.#usedBytes > (this.#bytesMax / 4) * 3
  }

  /** True when an entry is still here that the peer will not be sent: blocks may become dirty when it leaves. */
  get holdsLacked(): boolean {
    const { first } = this.#slots
    return first !== undefined && !this.#isKept(first)
  }

  /** The newest sequence that was reserved. */
  get lastSequence(): Sequence {
    return this.#last as Sequence
  }

  /** The oldest sequence that is kept for the peer; the next one to be reserved when none is. Undefined while not collecting. */
  get firstSequence(): Sequence | undefined {
    if (!this.isCollecting) return undefined
    const front = this.#slots.first?.sequence ?? this.#last + 1
    return Math.max(this.#keptFrom, front) as Sequence
  }

  /** The newest sequence that was taken for the present connection, or the peer's position from which it began. While not collecting, the newest of all: operations may have been sent again. */
  get sentSequence(): Sequence {
    return (this.isCollecting ? this.#cursor - 1 : this.#last) as Sequence
  }

  /** When the oldest kept entry was reserved, on the clock's monotonic time. */
  get oldestAtMs(): number | undefined {
    const first = this.firstSequence
    return first === undefined ? undefined : this.#slots.at(first)?.atMs
  }

  /**
   * Takes the place of the next sequence (there are no gaps), in the synchronous step that orders it. When collecting, the bytes of a write stay where they
   * are if `keeper` keeps them; others are copied into memory of its own. A write or compare that comes without bytes gets them by `fill`.
   */
  reserve(entry: Entry, keeper?: PartKeeper): Slot {
    assert.equal(entry.sequence, this.#last + 1)
    const atMs = this.#clock.nowMs()
    const slot = this.#spare.pop()?.begin(entry, atMs) ?? new Slot(entry, atMs)
    this.#last = entry.sequence
    this.#slots.push(slot)
    if (this.#isKept(slot)) this.#keep(slot, entry, keeper)
    this.#usedBytes += slot.usedBytes
    this.#changedBytes += changedBytesOf(entry)
    if (this.isFull && !this.#wasFull) {
      this.#wasFull = true
      this.#events.overflow()
    }
    return slot
  }

  /** The bytes of a resync write, or the digests of a compare, that were read since. */
  fill(slot: Slot, parts: readonly Buffer[]): void {
    assert(!slot.isFilled)
    assert(!slot.isReady)
    assert(slot.entry.kind === 'write' || slot.entry.kind === 'compare')
    slot.isFilled = true
    if (this.#isKept(slot)) this.#lay(slot, slot.entry, parts)
  }

  /** It may go on the wire. Entries that change no bytes of a store (all but write and zero) are settled by this. */
  ready(slot: Slot): void {
    assert(!slot.isReady)
    assert(slot.isFilled)
    slot.isReady = true
    if (slot.entry.kind !== 'write' && slot.entry.kind !== 'zero') slot.isSettled = true
    this.#feed(slot)
    this.#leave()
  }

  /** A write or zeroing took effect here, or failed here after it may have been sent. */
  settle(slot: Slot, options: { readonly isFailed: boolean }): void {
    assert(!slot.isSettled)
    assert(slot.entry.kind === 'write' || slot.entry.kind === 'zero')
    slot.isSettled = true
    slot.isFailed = options.isFailed
    this.#leave()
  }

  /** It was refused before it was ready: a nothing takes its place. */
  cancel(slot: Slot): void {
    assert(!slot.isReady)
    assert(!slot.isSettled)
    const { sequence } = slot
    this.#changedBytes -= changedBytesOf(slot.entry)
    slot.entry = { kind: 'nothing', sequence }
    this.#letGo(slot)
    if (this.#isKept(slot)) {
      // The room that its bytes would have had stays unused until it has left.
      this.#lay(slot, slot.entry, [])
    }
    slot.isFilled = true
    slot.isReady = true
    slot.isSettled = true
    this.#feed(slot)
    this.#leave()
  }

  /** Bytes of the next ready entries, at least one entry and else at most `lengthBytesMax`; undefined when the next one is not ready. */
  take(lengthBytesMax: number): Batch | undefined {
    if (!this.isCollecting) return undefined
    const parts: Buffer[] = []
    let lengthBytes = 0
    let frameCount = 0
    let from = 0
    let end = 0
    for (let slot = this.#slots.at(this.#cursor); ; slot = this.#slots.at(this.#cursor)) {
      if (!slot?.isReady) {
        this.#isStarved = true
        break
      }
      if (frameCount > 0 && lengthBytes + slot.frameBytes > lengthBytesMax) break
      if (slot.place !== end) {
        if (end > from) this.#log.view(from, end, parts)
        from = slot.place
      }
      end = slot.place + slot.logBytes
      if (slot.keeper !== undefined) {
        this.#log.view(from, end, parts)
        from = end
        for (const part of slot.parts) parts.push(part)
      }
      lengthBytes += slot.frameBytes
      frameCount++
      this.#cursor++
    }
    if (frameCount === 0) return undefined
    if (end > from) this.#log.view(from, end, parts)
    this.#everSent = Math.max(this.#everSent, this.#cursor - 1)
    return { parts, lengthBytes, frameCount, lastSequence: this.sentSequence }
  }

  /** The peer's outcome of a compare. Throws ProtocolError when there is none at this sequence, or its length is another. */
  compared(sequence: Sequence, lengthBytes: number, differing: Uint8Array): void {
    if (sequence > this.sentSequence)
      throw new ProtocolError(`an outcome for ${sequence}, which was not sent`)
    const slot = this.#slots.at(sequence)
    // It has left already, when the outbox was folded.
    if (slot === undefined) return
    if (slot.entry.kind !== 'compare' || slot.entry.lengthBytes !== lengthBytes)
      throw new ProtocolError(`an outcome for ${sequence}, which is no such compare`)
    assert.equal(differing.length, bitmapBytesOf(lengthBytes))
    slot.differing = differing
  }

  /** Everything up to here is on the peer's stable storage. Throws ProtocolError for what was never sent. */
  acknowledge(durable: Sequence): void {
    if (!this.isCollecting) return
    if (durable > this.sentSequence)
      throw new ProtocolError(`the peer has ${durable}, but ${this.sentSequence} was sent last`)
    this.#durable = Math.max(this.#durable, durable)
    this.#leave()
  }

  /** From the next reserved entry on, entries are kept. All operations must have left. Answers the first sequence that will be kept. */
  collect(): Sequence {
    assert(!this.isCollecting)
    for (const slot of this.#slots) assert(slot.entry.kind !== 'operation')
    this.#keptFrom = this.#last + 1
    this.#cursor = this.#keptFrom
    this.#durable = this.#last
    this.#everSent = this.#last
    this.#isStarved = true
    return this.#keptFrom as Sequence
  }

  /** A new connection, whose peer has everything up to `durable`: what follows is taken again. Asserts that it is kept; throws ProtocolError for what was never sent. */
  rewind(durable: Sequence): void {
    const first = this.firstSequence
    assert(first !== undefined)
    assert(durable >= first - 1)
    if (durable > this.#everSent)
      throw new ProtocolError(`the peer has ${durable}, but ${this.#everSent} was sent last`)
    // The old connection's stream may hold views of what is here.
    this.seal()
    this.#cursor = durable + 1
    this.#isStarved = true
    this.acknowledge(durable)
  }

  /** Somebody may look at what was taken for longer than it is here: that memory is not used again. */
  seal(): void {
    this.#log.seal()
    for (const { keeper, parts } of this.#keeping) keeper?.seal(parts)
  }

  /** Everything leaves as lacked, in order, as far as it is ready and settled: some at once, the others in later turns. What follows too, until `collect`. */
  fold(): void {
    this.#keptFrom = never
    // A connection that is about to end may hold views of it.
    this.seal()
    for (const slot of this.#keeping) this.#letGo(slot)
    this.#usedBytes = this.#slots.length * linkLimits.entryOverheadBytes
    this.#log.forget()
    this.#leave()
    this.#makeRoom()
  }

  /** Nobody else has to have a turn: what leaves in later turns leaves in this step. */
  leaveAll(): void {
    this.#leave(Number.POSITIVE_INFINITY)
  }

  #isKept({ sequence }: Slot): boolean {
    return sequence >= this.#keptFrom
  }

  /** Resolves when it is not full any more, or folded; undefined when that is so now. */
  whenRoom(): Promise<void> | undefined {
    if (!this.isFull) return undefined
    this.#room ??= new Promise((resolve) => {
      this.#resolveRoom = resolve
    })
    return this.#room
  }

  /** Room in the log, and the bytes if they are there. */
  #keep(slot: Slot, entry: Entry, keeper: PartKeeper | undefined): void {
    const payload = entryPayload(entry)
    const frameBytes = headBytes + payloadBytesOf(entry, payload)
    if (slot.isFilled && entry.kind === 'write' && keeper?.keep(payload) === true) {
      slot.keeper = keeper
      slot.parts = payload
      this.#keeping.add(slot)
    }
    slot.logBytes = slot.keeper === undefined ? frameBytes : headBytes
    slot.place = this.#log.append(slot.logBytes)
    slot.end = slot.place + slot.logBytes
    slot.frameBytes = frameBytes
    slot.usedBytes += frameBytes
    if (slot.isFilled) this.#lay(slot, entry, payload)
  }

  #lay(slot: Slot, entry: Entry, payload: readonly Buffer[]): void {
    const head = layEntryHead(entry, payload)
    this.#log.write(slot.place, head)
    if (entry.kind === 'nothing') {
      slot.frameBytes = headBytes
      slot.logBytes = headBytes
    }
    if (slot.keeper !== undefined) return
    let end = slot.place + headBytes
    for (const part of payload) {
      this.#log.write(end, part)
      end += part.length
    }
    assert.equal(end, slot.place + slot.logBytes)
  }

  /** Tells the sender when what it waits for is ready. */
  #feed(slot: Slot): void {
    if (!this.#isStarved || !this.#isKept(slot) || slot.sequence !== this.#cursor) return
    this.#isStarved = false
    this.#events.sendable()
  }

  /** While many leave in later turns, each entry that is settled lets a few others go before it: more come never faster than they leave. */
  #leave(lackedMax = this.#isLeavingLater ? lackedPerEntry : this.#lackedPerTurnMax): void {
    // What an event does in here is seen by the loop that is under way.
    if (this.#isLeaving) return
    this.#isLeaving = true
    let lackedCount = 0
    for (let slot = this.#slots.first; slot !== undefined; slot = this.#slots.first) {
      if (!slot.isReady || !slot.isSettled) break
      const isKept = this.#isKept(slot)
      if (isKept && slot.sequence > this.#durable) break
      if (!isKept && lackedCount++ >= lackedMax) {
        this.#leaveLater()
        break
      }
      this.#slots.shift()
      this.#changedBytes -= changedBytesOf(slot.entry)
      if (isKept) {
        this.#usedBytes -= slot.usedBytes
        this.#log.release(slot.end)
        this.#letGo(slot)
        this.#events.had(slot.entry, outcomeOf(slot))
      } else {
        this.#usedBytes -= linkLimits.entryOverheadBytes
        this.#events.lacked(slot.entry, outcomeOf(slot))
      }
      // Ready and settled: nobody has anything more to say of it.
      if (this.#spare.length < linkLimits.spareSlotCountMax) this.#spare.push(slot)
    }
    this.#isLeaving = false
    if (!this.isFull) this.#makeRoom()
    if (this.#log.isAmple || this.#spare.length > linkLimits.idleSlotCountMax) this.#trimLater()
  }

  #leaveLater(): void {
    if (this.#isLeavingLater) return
    this.#isLeavingLater = true
    this.#clock.defer(() => {
      this.#isLeavingLater = false
      this.#leave()
    })
  }

  /** Its bytes are needed no more. They cannot be sent either: what holds them has left, or is cancelled before it was sent. */
  #letGo(slot: Slot): void {
    const { keeper, parts } = slot
    if (keeper === undefined) return
    slot.keeper = undefined
    slot.parts = none
    this.#keeping.delete(slot)
    keeper.letGo(parts)
  }

  #trimLater(): void {
    if (this.#isTrimDue) return
    this.#isTrimDue = true
    this.#clock.setTimer(linkLimits.burstMs, () => {
      this.#isTrimDue = false
      this.#log.trim()
      this.#spare.length = Math.min(this.#spare.length, linkLimits.idleSlotCountMax)
    })
  }

  #makeRoom(): void {
    this.#wasFull = this.isFull
    const resolve = this.#resolveRoom
    this.#room = undefined
    this.#resolveRoom = () => {}
    resolve()
  }
}

function changedBytesOf(entry: Entry): number {
  if (entry.kind !== 'write' && entry.kind !== 'zero') return 0
  const end = Math.ceil((entry.offset + entry.lengthBytes) / blockBytes)
  return (end - Math.floor(entry.offset / blockBytes)) * blockBytes
}

const none: readonly Buffer[] = []
