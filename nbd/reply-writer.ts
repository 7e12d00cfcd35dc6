// Where replies are laid out and how they leave. Small replies of one turn lie next to each other in an arena and go to the socket in
// one write; a reply that is not ready keeps its slot and is sent later. One write is with the socket at a time.
//
// An arena's bytes may be used again when no slot and no slice of it is held: `holds` counts both. Slices leave in the order they were
// closed. Between `reserve` and `commit` or `detach` nothing else may be laid out; that is one synchronous step of the session.

import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import type { SendNow } from './bytes/send-now.js'
import type { Limits } from './limits.js'
import type { SharedMemory } from './memory.js'

class Arena {
  readonly bytes: Buffer
  filledBytes = 0
  holds = 0

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }
}

/** A piece of an arena that is kept until `send` or `drop`. */
export type Slot = { readonly arena: Arena; readonly start: number; readonly end: number }

type Slice = { readonly arena: Arena; start: number; readonly end: number }

export class ReplyWriter {
  readonly #stream: Duplex
  readonly #memory: SharedMemory
  readonly #limits: Limits
  readonly #onProgress: () => void
  readonly #sendNow: SendNow | undefined
  #arena: Arena | undefined
  /** Where the replies begin that were committed and not closed into a slice. */
  #runStart = 0
  #slices: Slice[] = []
  #unsentBytes = 0
  /** Slices that the socket holds: written, not yet taken over by the system. */
  #written: Slice[] = []
  #writeCount = 0
  #callbackCount = 0
  #progressCount = 0
  #isClosed = false

  constructor(options: {
    readonly stream: Duplex
    readonly memory: SharedMemory
    readonly limits: Limits
    /** The socket took something after it had not for a while. */
    readonly onProgress: () => void
    readonly sendNow?: SendNow | undefined
  }) {
    this.#stream = options.stream
    this.#memory = options.memory
    this.#limits = options.limits
    this.#onProgress = options.onProgress
    this.#sendNow = options.sendNow
  }

  /** Bytes of finished replies that the system has not taken. */
  get unsentBytes(): number {
    return this.#unsentBytes
  }

  /** True while the socket's buffer is full. */
  get isBlocked(): boolean {
    return this.#written.length > 0
  }

  /** Changes whenever the system takes something. */
  get progressCount(): number {
    return this.#progressCount
  }

  /** The buffer that `reserve` last placed into. */
  get bytes(): Buffer {
    assert(this.#arena !== undefined)
    return this.#arena.bytes
  }

  /** Where in `bytes` the next `lengthBytes` (at most an arena) may be laid out. */
  reserve(lengthBytes: number): number {
    const arena = this.#arena
    if (arena && arena.filledBytes + lengthBytes <= arena.bytes.length) return arena.filledBytes
    if (arena) {
      this.flush()
      if (this.#arena) this.#abandonArena(this.#arena)
    }
    const bytes = this.#memory.pool.take(this.#limits.arenaBytes)
    assert(lengthBytes <= bytes.length)
    this.#memory.budget.takeAnyway(bytes.length)
    this.#arena = new Arena(bytes)
    this.#runStart = 0
    return 0
  }

  /** What was laid out in the reserved place is part of the replies. */
  commit(lengthBytes: number): void {
    assert(this.#arena !== undefined)
    this.#arena.filledBytes += lengthBytes
    this.#unsentBytes += lengthBytes
    assert(this.#arena.filledBytes <= this.#arena.bytes.length)
  }

  /** Keeps the reserved place for a reply that is not ready. */
  detach(lengthBytes: number): Slot {
    this.#closeRun()
    const arena = this.#arena
    assert(arena !== undefined)
    const start = arena.filledBytes
    arena.filledBytes += lengthBytes
    assert(arena.filledBytes <= arena.bytes.length)
    arena.holds++
    this.#runStart = arena.filledBytes
    return { arena, start, end: arena.filledBytes }
  }

  /** A buffer of its own for a large reply, paid for already: `lengthBytes` is what the budget granted. */
  slotOf(bytes: Buffer, lengthBytes: number): Slot {
    const arena = new Arena(bytes)
    arena.filledBytes = lengthBytes
    arena.holds = 1
    return { arena, start: 0, end: lengthBytes }
  }

  /** The reply in `slot` is ready, `lengthBytes` of it from its start. */
  send(slot: Slot, lengthBytes: number): void {
    assert(slot.start + lengthBytes <= slot.end)
    if (this.#isClosed) {
      this.drop(slot)
      return
    }
    this.#closeRun()
    this.#slices.push({ arena: slot.arena, start: slot.start, end: slot.start + lengthBytes })
    this.#unsentBytes += lengthBytes
  }

  /** Nothing of `slot` will be sent. */
  drop(slot: Slot): void {
    this.#unhold(slot.arena)
  }

  /** Gives everything that is ready to the socket, as far as the socket takes it. */
  flush(): void {
    if (this.#isClosed) return
    this.#closeRun()
    while (this.#slices.length > 0 && this.#written.length === 0) this.#writeSome()
    this.#reuseArena()
  }

  /** The connection is gone: nothing more is sent. Slots that are still out come back through `send` or `drop`. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    const slices = [...this.#written, ...this.#slices]
    this.#written = []
    this.#slices = []
    this.#unsentBytes = 0
    for (const slice of slices) this.#unhold(slice.arena)
    const arena = this.#arena
    if (arena) this.#abandonArena(arena)
  }

  #writeSome(): void {
    const slices = this.#slices
    const writing: Slice[] = []
    let lengthBytes = 0
    while (slices.length > 0 && lengthBytes < this.#limits.socketWriteBytesMax) {
      const slice = slices[0]
      assert(slice !== undefined)
      const end = Math.min(slice.end, slice.start + this.#limits.socketWriteBytesMax - lengthBytes)
      lengthBytes += end - slice.start
      if (end < slice.end) {
        slice.arena.holds++
        writing.push({ arena: slice.arena, start: slice.start, end })
        slice.start = end
        break
      }
      writing.push(slice)
      slices.shift()
    }
    this.#written = writing
    if (this.#gaveNow(writing, lengthBytes)) {
      this.#releaseWritten()
      return
    }
    this.#writeCount++
    this.#give(writing)
    if (this.#isClosed) return
    // The system took everything at once: no need to wait for the callback, which comes later in the same turn.
    if (this.#stream.writableLength === 0) this.#releaseWritten()
  }

  /** True when the system took all of it. Of what it did not take the slices say where it begins. */
  #gaveNow(slices: readonly Slice[], lengthBytes: number): boolean {
    const sendNow = this.#sendNow
    if (sendNow === undefined || this.#stream.writableLength > 0) return false
    let takenBytes = sendNow(this.#stream, slices.map(bytesOf))
    assert(takenBytes <= lengthBytes)
    if (takenBytes === lengthBytes) return true
    this.#unsentBytes -= takenBytes
    for (const slice of slices) {
      const count = Math.min(takenBytes, slice.end - slice.start)
      slice.start += count
      takenBytes -= count
    }
    return false
  }

  #give(slices: readonly Slice[]): void {
    const stream = this.#stream
    const isOne = slices.length === 1
    if (!isOne) stream.cork()
    const last = slices.length - 1
    for (const [index, slice] of slices.entries()) {
      const bytes = bytesOf(slice)
      if (index === last) stream.write(bytes, this.#onWritten)
      else stream.write(bytes)
    }
    if (!isOne) stream.uncork()
  }

  // Callbacks come in the order of the writes, one each; only that of the last write can be awaited. After an error 'close' follows.
  readonly #onWritten = (): void => {
    this.#callbackCount++
    if (this.#isClosed || this.#written.length === 0) return
    if (this.#callbackCount < this.#writeCount) return
    this.#releaseWritten()
    this.flush()
    this.#onProgress()
  }

  #releaseWritten(): void {
    const written = this.#written
    this.#written = []
    this.#progressCount++
    for (const slice of written) {
      this.#unsentBytes -= slice.end - slice.start
      this.#unhold(slice.arena)
    }
    assert(this.#unsentBytes >= 0)
  }

  #closeRun(): void {
    const arena = this.#arena
    if (!arena || arena.filledBytes === this.#runStart) return
    arena.holds++
    this.#slices.push({ arena, start: this.#runStart, end: arena.filledBytes })
    this.#runStart = arena.filledBytes
  }

  /** When all of it was sent, the present arena goes back: an idle connection holds none. */
  #reuseArena(): void {
    const arena = this.#arena
    if (arena && arena.holds === 0 && arena.filledBytes === this.#runStart) {
      this.#arena = undefined
      this.#free(arena)
    }
  }

  #abandonArena(arena: Arena): void {
    this.#arena = undefined
    if (arena.holds === 0) this.#free(arena)
  }

  #unhold(arena: Arena): void {
    arena.holds--
    assert(arena.holds >= 0)
    if (arena.holds === 0 && arena !== this.#arena) this.#free(arena)
  }

  #free(arena: Arena): void {
    this.#memory.budget.giveBack(arena.bytes.length)
    this.#memory.pool.give(arena.bytes)
  }
}

const bytesOf = ({ arena, start, end }: Slice): Buffer => arena.bytes.subarray(start, end)
