// What a secondary has received and not applied yet: how much it may be, and waiting until it is less.
//
// Invariant: beyond the limits nothing more is read from the connection, so that a primary that is faster than this node's disk costs bounded memory.
import { MiB } from '../core/units.js'
import type { LinkMemory } from './link-memory.js'

const bytesMax = 64 * MiB
const countMax = 4096
/** Memory that entries under way keep from being read into again: a small one may keep a piece of 128 KiB. */
const heldBytesMax = 2 * bytesMax

export class ReplicaLoad {
  readonly #memory: LinkMemory
  #bytes = 0
  #count = 0
  #roomWaiter: (() => void) | undefined
  readonly #idleWaiters: (() => void)[] = []

  constructor(memory: LinkMemory) {
    this.#memory = memory
  }

  began(lengthBytes: number): void {
    this.#bytes += lengthBytes
    this.#count++
  }

  ended(lengthBytes: number): void {
    this.#bytes -= lengthBytes
    this.#count--
    const waiter = this.#roomWaiter
    if (waiter !== undefined && (this.#hasRoom || this.#count === 0)) {
      this.#roomWaiter = undefined
      waiter()
    }
    if (this.#count > 0) return
    for (const idle of this.#idleWaiters.splice(0)) idle()
  }

  /** Undefined when more may be received at once. One at a time may wait, and only for what is under way. */
  whenRoom(): Promise<void> | undefined {
    if (this.#hasRoom || this.#count === 0) return undefined
    return new Promise((resolve) => {
      this.#roomWaiter = resolve
    })
  }

  /** Resolves when everything that began has ended. */
  async whenIdle(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => this.#idleWaiters.push(resolve))
  }

  get #hasRoom(): boolean {
    return this.#bytes < bytesMax && this.#count < countMax && this.#memory.heldBytes < heldBytesMax
  }
}
